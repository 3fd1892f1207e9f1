"""What objects count for in a ResourceQuota: its arithmetic, for admission and for the controller that recounts.

A quota names resources; each belongs to one kind of object (`services.nodeports` to services). `usage` says how
much of which an object takes, `covers` whether a quota's scopes are about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.quantity import Quantity, parse
from shipwheel.kinds.core.qos import qos_class
from shipwheel.kinds.core.resources import is_native
from shipwheel.kinds.podresources import pod_limits, pod_requests

Amounts = dict[str, Quantity]

PODS = GroupResource("", "pods")
SERVICES = GroupResource("", "services")
CLAIMS = GroupResource("", "persistentvolumeclaims")
RESOURCE_CLAIMS = GroupResource("resource.k8s.io", "resourceclaims")

_STORAGE_CLASS = ".storageclass.storage.k8s.io/"
_DEVICE_CLASS = ".deviceclass.resource.k8s.io/devices"
_COUNTED_ALONE = frozenset(("configmaps", "secrets", "resourcequotas", "replicationcontrollers"))
_COMPUTE = frozenset(
    (
        "pods", "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    )
)  # fmt: skip
_IMPLICIT_EXTENDED = "deviceclass.resource.kubernetes.io/"
_ALL_DEVICES = 32
"""The most devices that a claim for all of them can be given."""


def resource_of(name: str) -> GroupResource | None:
    """The kind of object whose use a quota's resource limits; None when nothing is counted for it."""
    if name.startswith("count/"):
        resource, _, group = name.removeprefix("count/").partition(".")
        return GroupResource(group, resource)
    if name in _COUNTED_ALONE:
        return GroupResource("", name)
    if name in ("services", "services.loadbalancers", "services.nodeports"):
        return SERVICES
    if name in ("persistentvolumeclaims", "requests.storage") or _STORAGE_CLASS in name:
        return CLAIMS
    if name.endswith(_DEVICE_CLASS):
        return RESOURCE_CLAIMS
    huge = name.startswith(("hugepages-", "requests.hugepages-"))
    extended = name.startswith("requests.") and _is_extended(name.removeprefix("requests."))
    return PODS if name in _COMPUTE or huge or extended else None


def _is_extended(name: str) -> bool:
    """An extended resource, or a device class in the form of one (KEP-5004)."""
    return not is_native(name) or name.startswith(_IMPLICIT_EXTENDED)


def usage(resource: GroupResource, obj: Obj, now: datetime) -> Amounts:
    """What an object takes, by all the names that a quota may have for it."""
    count = Quantity.of(1)
    amounts: Amounts = {f"count/{resource}": count}
    if resource == PODS:
        amounts |= _of_pod(obj, now)
    elif resource == SERVICES:
        amounts |= _of_service(obj)
    elif resource == CLAIMS:
        amounts |= _of_claim(obj)
    elif resource == RESOURCE_CLAIMS:
        amounts |= _of_resource_claim(obj)
    elif resource.resource in _COUNTED_ALONE and not resource.group:
        amounts[resource.resource] = count
    return amounts


def counts_as_running(pod: Obj, now: datetime) -> bool:
    """A pod that has ended, or should have long ago, takes no compute resources."""
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    meta = pod["metadata"]
    if meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds") is not None:
        end = parse_time(meta["deletionTimestamp"]) + timedelta(seconds=meta["deletionGracePeriodSeconds"])
        return now <= end
    return True


def _of_pod(pod: Obj, now: datetime) -> Amounts:
    if not counts_as_running(pod, now):
        return {}
    amounts = {"pods": Quantity.of(1)}
    for name, amount in pod_requests(pod).items():
        if name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-"):
            amounts[name] = amounts[f"requests.{name}"] = amount
        elif _is_extended(name):
            amounts[f"requests.{name}"] = amount
    for name, amount in pod_limits(pod).items():
        if name in ("cpu", "memory", "ephemeral-storage"):
            amounts[f"limits.{name}"] = amount
    return amounts


def _of_service(service: Obj) -> Amounts:
    spec = service["spec"]
    ports = spec.get("ports") or ()
    balancers, node_ports = 0, 0
    if spec.get("type") == "NodePort":
        node_ports = len(ports)
    elif spec.get("type") == "LoadBalancer":
        balancers = 1
        if spec.get("allocateLoadBalancerNodePorts") is False:
            node_ports = sum(1 for port in ports if port.get("nodePort"))
        else:
            node_ports = len(ports)
    return {
        "services": Quantity.of(1),
        "services.loadbalancers": Quantity.of(balancers),
        "services.nodeports": Quantity.of(node_ports),
    }


def storage_class_of(claim: Obj) -> str:
    """The class a claim names, by field or by the annotation of old."""
    annotated = (claim["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return annotated or claim["spec"].get("storageClassName") or ""


def _of_claim(claim: Obj) -> Amounts:
    names = ["persistentvolumeclaims"]
    storage_class = storage_class_of(claim)
    if storage_class:
        names.append(f"{storage_class}{_STORAGE_CLASS}persistentvolumeclaims")
    amounts = dict.fromkeys(names, Quantity.of(1))
    storage = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    if storage is not None:
        wanted = _whole(parse(storage))
        allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
        if allocated is not None:
            wanted = max(wanted, _whole(parse(allocated)))
        amounts["requests.storage"] = wanted
        if storage_class:
            amounts[f"{storage_class}{_STORAGE_CLASS}requests.storage"] = wanted
    return amounts


def _whole(amount: Quantity) -> Quantity:
    return amount if amount.nanos % 10**9 == 0 else Quantity.of(amount.value(), amount.format)


def _of_resource_claim(claim: Obj) -> Amounts:
    amounts: Amounts = {}
    for request in ((claim["spec"].get("devices") or {}).get("requests")) or ():
        worst: dict[str, int] = {}
        for each in request.get("firstAvailable") or ([request["exactly"]] if request.get("exactly") else ()):
            name = f"{each['deviceClassName']}{_DEVICE_CLASS}"
            worst[name] = max(worst.get(name, 0), _devices(each))
        for name, devices in worst.items():
            amounts[name] = amounts.get(name, Quantity.of(0)) + Quantity.of(devices)
    return amounts


def _devices(request: Obj) -> int:
    mode = request.get("allocationMode") or "ExactCount"
    if mode == "ExactCount":
        return request.get("count", 1)
    return _ALL_DEVICES if mode == "All" else 0


# Scopes


def scopes_of(quota: Obj) -> list[Obj]:
    """All scopes as selector requirements."""
    spec = quota.get("spec") or {}
    named = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return named + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def covers(quota: Obj, resource: GroupResource, obj: Obj) -> bool:
    """All of the quota's scopes are about the object; a quota without scopes is about everything."""
    return all(in_scope(scope, resource, obj) for scope in scopes_of(quota))


def in_scope(scope: Obj, resource: GroupResource, obj: Obj) -> bool:
    """One scope is about an object. Only pods and volume claims have scopes."""
    name = scope["scopeName"]
    if resource == CLAIMS and name == "VolumeAttributesClass":
        return _selects(scope, _attributes_classes(obj))
    if resource != PODS:
        return False
    if name == "PriorityClass":
        priority_class = obj["spec"].get("priorityClassName")
        return _selects(scope, {priority_class} if priority_class else set())
    test = _POD_SCOPES.get(name)
    return test is not None and test(obj)


def _has_deadline(pod: Obj) -> bool:
    return (pod["spec"].get("activeDeadlineSeconds") or -1) >= 0


def _reaches_other_namespaces(pod: Obj) -> bool:
    affinity = pod["spec"].get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        weighted = terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        required = terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for term in (*required, *(each["podAffinityTerm"] for each in weighted)):
            if term.get("namespaces") or term.get("namespaceSelector") is not None:
                return True
    return False


_POD_SCOPES: Mapping[str, Callable[[Obj], bool]] = {
    "Terminating": _has_deadline,
    "NotTerminating": lambda pod: not _has_deadline(pod),
    "BestEffort": lambda pod: qos_class(pod) == "BestEffort",
    "NotBestEffort": lambda pod: qos_class(pod) != "BestEffort",
    "CrossNamespacePodAffinity": _reaches_other_namespaces,
}


def _attributes_classes(claim: Obj) -> set[str]:
    status = claim.get("status") or {}
    names = (
        claim["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return {name for name in names if name}


def _selects(scope: Obj, present: set[str]) -> bool:
    values = set(scope.get("values") or ())
    match scope["operator"]:
        case "Exists":
            return bool(present)
        case "DoesNotExist":
            return not present
        case "In":
            return bool(present & values)
        case "NotIn":
            return not present & values
    return False


def counts_alike(resource: GroupResource, one: Obj, other: Obj, now: datetime) -> bool:
    """Two states of an object count the same, for the same quotas."""
    if resource == PODS and _has_deadline(one) != _has_deadline(other):
        return False
    if resource == CLAIMS and _attributes_classes(one) != _attributes_classes(other):
        return False
    return usage(resource, one, now) == usage(resource, other, now)


# Counting


def resources_counted(hard: Iterable[str]) -> set[GroupResource]:
    """The kinds of objects that have to be counted for these names."""
    return {resource for name in hard if (resource := resource_of(name)) is not None}


def count(quota: Obj, objects: Callable[[GroupResource], Iterable[Obj]], now: datetime) -> dict[str, Quantity]:
    """What is used of everything that a quota names, by counting all objects of its namespace."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    used = {name: Quantity.of(0) for name in hard if resource_of(name) is not None}
    for resource in resources_counted(hard):
        for obj in objects(resource):
            if covers(quota, resource, obj):
                for name, amount in usage(resource, obj, now).items():
                    if name in used:
                        used[name] = used[name] + amount
    return used
