"""Extended resources that devices stand for (KEP-5004): a pod asks for `example.com/gpu: 2`, and a claim is made of it.

Containers that run at the same time have requests of their own; init containers, which run one after the other, use
what the containers that come later will have, and only ask for what is lacking then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shipwheel.api.meta import Obj, name_of, namespace_of, uid_of
from shipwheel.api.quantity import parse
from shipwheel.kinds.core.resources import is_extended
from shipwheel.scheduler.devices.ledger import CLASS_RESOURCE

ANNOTATION = "resource.kubernetes.io/extended-resource-claim"


@dataclass(frozen=True, slots=True)
class ExtendedClaim:
    """The claim that a pod's extended resources come to on some nodes, and which container has which request."""

    claim: Obj
    mappings: Sequence[Obj]


def can_be_devices(resource: str) -> bool:
    """Whether a resource is of the kind that devices may stand for."""
    return resource.startswith(CLASS_RESOURCE) or is_extended(resource)


def is_made_for(claim: Obj, pod: Obj) -> bool:
    """The claim was made of this pod's extended resources."""
    meta = claim["metadata"]
    return (meta.get("annotations") or {}).get(ANNOTATION) == "true" and any(
        each.get("controller") and each.get("uid") == uid_of(pod) for each in meta.get("ownerReferences") or ()
    )


def extended_claim(pod: Obj, resources: Iterable[str], class_of: Callable[[str], Obj | None]) -> ExtendedClaim:
    """The claim for these of a pod's resources, not yet named."""
    requests: list[Obj] = []
    mappings: list[Obj] = []
    for resource in sorted(resources):
        device_class = class_of(resource)
        if device_class is not None:
            _ask(pod["spec"], resource, name_of(device_class), requests, mappings)
    requests.sort(key=lambda each: str(each["name"]))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod), "controller": True}
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": namespace_of(pod),
            "generateName": f"{name_of(pod)}-extended-resources-",
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": requests}},
    }
    return ExtendedClaim(claim, mappings)


def _ask(spec: Obj, resource: str, class_name: str, requests: list[Obj], mappings: list[Obj]) -> None:
    """The requests for one resource, and who has them."""
    init = spec.get("initContainers") or ()
    containers = [*init, *(spec.get("containers") or ())]
    lasting: dict[int, Obj] = {}
    for index, container in enumerate(containers):
        amount = _amount(container, resource)
        if amount and (index >= len(init) or container.get("restartPolicy") == "Always"):
            lasting[index] = _request(index, container, resource, class_name, amount)
            mappings.append(_mapping(container, resource, lasting[index]["name"]))
    most: Obj | None = None
    passing: list[tuple[Obj, list[str], Obj | None]] = []
    for index, container in enumerate(init):
        lacking = _amount(container, resource)
        if not lacking or index in lasting:
            continue
        used = []
        for later, request in lasting.items():
            if later >= index and lacking > 0:
                used.append(request["name"])
                lacking -= request["exactly"]["count"]
        own = _request(index, container, resource, class_name, lacking) if lacking > 0 else None
        if own is not None and (most is None or own["exactly"]["count"] > most["exactly"]["count"]):
            most = own
        passing.append((container, used, own))
    for container, used, own in passing:
        names = [*used, *([most["name"]] if own is not None and most is not None else ())]
        mappings += [_mapping(container, resource, name) for name in names]
    requests += [*([most] if most is not None else ()), *lasting.values()]


def _amount(container: Obj, resource: str) -> int:
    text = ((container.get("resources") or {}).get("requests") or {}).get(resource)
    return parse(text).value() if text else 0


def _request(index: int, container: Obj, resource: str, class_name: str, count: int) -> Obj:
    place = sorted(container["resources"]["requests"]).index(resource)
    exactly = {"deviceClassName": class_name, "allocationMode": "ExactCount", "count": count}
    return {"name": f"container-{index}-request-{place}", "exactly": exactly}


def _mapping(container: Obj, resource: str, request: str) -> Obj:
    return {"containerName": container["name"], "resourceName": resource, "requestName": request}
