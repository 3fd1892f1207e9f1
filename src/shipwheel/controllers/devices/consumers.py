"""Which claims a pod uses, and whether it still does: pure functions of the objects."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj, controller_of, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.controllers.pods import is_terminal

POD_CLAIM = "resource.kubernetes.io/pod-claim-name"
FINALIZER = "resource.kubernetes.io/delete-protection"
"""Our scheduler's mark: it allocated the claim, so we may take the allocation back."""

_NAME_MAX = 57


class Unknown(ValueError):
    """A pod's claim has no name yet; the message is upstream's."""


def claim_name(pod: Obj, use: Obj) -> str | None:
    """The name of the claim that an entry of `spec.resourceClaims` means; None: it was found that none is needed.
    Raises Unknown while the claim has not been made from its template."""
    if use.get("resourceClaimName"):
        return str(use["resourceClaimName"])
    if use.get("resourceClaimTemplateName"):
        for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
            if status["name"] == use["name"]:
                return status.get("resourceClaimName")
        raise Unknown(f'pod "{namespace_of(pod)}/{name_of(pod)}": ResourceClaim not created yet')
    raise Unknown(
        f'pod "{namespace_of(pod)}/{name_of(pod)}", spec.resourceClaim "{use["name"]}": '
        "none of the supported fields are set"
    )


def claim_keys(pod: Obj) -> list[str]:
    """The keys of the claims that a pod is known to use (an index of pods)."""
    names: set[str] = set()
    for use in pod["spec"].get("resourceClaims") or ():
        try:
            name = claim_name(pod, use)
        except Unknown:
            continue
        if name:
            names.add(name)
    extended = ((pod.get("status") or {}).get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    if extended:
        names.add(extended)
    return [f"{namespace_of(pod)}/{name}" for name in sorted(names)]


def template_keys(pod: Obj) -> Iterable[str]:
    """The keys of the templates that a pod's claims are made from (an index of pods)."""
    names = (use.get("resourceClaimTemplateName") for use in pod["spec"].get("resourceClaims") or ())
    return {f"{namespace_of(pod)}/{name}" for name in names if name}


def might_run(pod: Obj) -> bool:
    """It may still need its claims."""
    return not is_terminal(pod) and not (is_being_deleted(pod) and not pod["spec"].get("nodeName"))


def is_done(pod: Obj) -> bool:
    """It will not use devices any more: ended, or deleted before it was given a node."""
    return not might_run(pod)


def not_made_for(claim: Obj, pod: Obj) -> str:
    """Why a claim is not the one made for a pod; empty when it is."""
    owner = controller_of(claim)
    if owner is not None and owner["uid"] == uid_of(pod):
        return ""
    return (
        f"ResourceClaim {namespace_of(claim)}/{name_of(claim)} was not created for "
        f"Pod {namespace_of(pod)}/{name_of(pod)} (Pod is not owner)"
    )


def is_reserved_for(claim: Obj, pod: Obj) -> bool:
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    return any(each.get("uid") == uid_of(pod) for each in reserved)


def is_allocated(claim: Obj) -> bool:
    return bool((claim.get("status") or {}).get("allocation"))


def reference_to(pod: Obj) -> Obj:
    return {"resource": "pods", "name": name_of(pod), "uid": uid_of(pod)}


def make_claim(pod: Obj, use: Obj, template: Obj) -> Obj:
    """A claim for a pod from a template; it goes with the pod."""
    meta = template["spec"].get("metadata") or {}
    metadata: Obj = {
        "generateName": _prefix(name_of(pod), use["name"]),
        "annotations": {**(meta.get("annotations") or {}), POD_CLAIM: use["name"]},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod), "controller": True}
        ],
    }
    if meta.get("labels"):
        metadata["labels"] = meta["labels"]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": template["spec"].get("spec") or {},
    }


def _prefix(pod: str, use: str) -> str:
    """`POD-USE-`, both shortened in proportion where that would be too long for a name."""
    whole = f"{pod}-{use}-"
    if len(whole) <= _NAME_MAX:
        return whole
    return f"{pod[: len(pod) * _NAME_MAX // len(whole)]}-{use[: len(use) * _NAME_MAX // len(whole)]}"


def owning_pod(claim: Obj) -> tuple[str, str] | None:
    """Name and uid of the pod that a claim was made for."""
    owner = controller_of(claim)
    if owner is None or owner.get("kind") != "Pod" or owner.get("apiVersion") != "v1":
        return None
    return owner["name"], owner["uid"]
