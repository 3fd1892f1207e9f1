"""The volume claims of a StatefulSet's pods: their names, and who owns them.

A claim outlives its pod. Whether it goes with the set, or with a pod that is scaled away, is the retention
policy's to say (KEP-1847), which is done with owner references: the garbage collector does the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from shipwheel.api.meta import Obj, name_of, namespace_of, owner_reference, uid_of

GetClaim = Callable[[str], Obj | None]
"""The claim of a name in the set's namespace."""


def claim_name(stateful: Obj, template: Obj, ordinal: int) -> str:
    return f"{name_of(template)}-{name_of(stateful)}-{ordinal}"


def templates_of(stateful: Obj) -> list[Obj]:
    return stateful["spec"].get("volumeClaimTemplates") or []


def claims_for(stateful: Obj, ordinal: int) -> list[Obj]:
    """The claims to make for an ordinal."""
    claims = []
    selector = (stateful["spec"].get("selector") or {}).get("matchLabels") or {}
    for template in templates_of(stateful):
        claim = copy.deepcopy(template)
        metadata = claim["metadata"]
        metadata["name"] = claim_name(stateful, template, ordinal)
        metadata["namespace"] = namespace_of(stateful)
        metadata["labels"] = {**(metadata.get("labels") or {}), **selector}
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        claim.pop("status", None)
        claims.append(claim)
    return claims


def storage_matches(stateful: Obj, pod: Obj, ordinal: int) -> bool:
    """The pod uses the claims of its ordinal."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    return all(
        (volumes.get(name_of(template), {}).get("persistentVolumeClaim") or {}).get("claimName")
        == claim_name(stateful, template, ordinal)
        for template in templates_of(stateful)
    )


def with_storage(stateful: Obj, pod: Obj, ordinal: int) -> Obj:
    """The pod with its claims as volumes, in the place of others of the same names."""
    templates = templates_of(stateful)
    if not templates:
        return pod
    own = {name_of(template) for template in templates}
    volumes = [
        {"name": name_of(template), "persistentVolumeClaim": {"claimName": claim_name(stateful, template, ordinal)}}
        for template in templates
    ]
    volumes += [volume for volume in pod["spec"].get("volumes") or () if volume["name"] not in own]
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def _policy(stateful: Obj) -> tuple[bool, bool]:
    """(claims go when the set is deleted, claims go when it is scaled down)."""
    policy = stateful["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenDeleted") == "Delete", policy.get("whenScaled") == "Delete"


def _refers_to(reference: Obj, owner: Obj) -> bool:
    """By kind and name; perhaps to an earlier one of that name."""
    return (
        reference["apiVersion"] == owner["apiVersion"]
        and reference["kind"] == owner["kind"]
        and reference["name"] == name_of(owner)
    )


def _references(claim: Obj) -> list[Obj]:
    return claim["metadata"].get("ownerReferences") or []


def is_stale(claim: Obj, owner: Obj) -> bool:
    """It belongs to an earlier object of the same name, and will go with that."""
    return any(_refers_to(each, owner) and each["uid"] != uid_of(owner) for each in _references(claim))


def has_other_controller(stateful: Obj, claim: Obj, pod: Obj) -> bool:
    """Somebody else manages the claim, so that the retention policy does not apply."""
    if not any(_policy(stateful)):
        return False
    for each in _references(claim):
        if _refers_to(each, stateful) or _refers_to(each, pod):
            if each["uid"] not in (uid_of(stateful), uid_of(pod)):
                return True
        elif each.get("controller"):
            return True
    return False


def wanted_references(stateful: Obj, claim: Obj, pod: Obj, *, condemned: bool) -> list[Obj]:
    """The owner references that a claim should have. `condemned`: its pod is being scaled away."""
    references = _references(claim)
    if is_stale(claim, stateful) or is_stale(claim, pod):
        return references
    others = [each for each in references if not (_refers_to(each, stateful) or _refers_to(each, pod))]
    if has_other_controller(stateful, claim, pod):
        return others
    when_deleted, when_scaled = _policy(stateful)
    if when_scaled and condemned:
        return _with_controller(references, others, pod)
    if when_deleted:
        return _with_controller(references, others, stateful)
    return others


def _with_controller(present: Iterable[Obj], others: list[Obj], owner: Obj) -> list[Obj]:
    """`others` and the owner's reference: the one that is there, when it is as it should be."""
    for each in present:
        if each["uid"] == uid_of(owner) and each.get("controller"):
            return [reference for reference in present if reference in others or reference is each]
    return [*others, owner_reference(owner)]


def settled(stateful: Obj, claim: Obj, pod: Obj, *, condemned: bool) -> bool:
    return wanted_references(stateful, claim, pod, condemned=condemned) == _references(claim)
