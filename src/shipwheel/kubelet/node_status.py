"""A node's status: a pure function of the machine, the configuration and of what was found wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address

from shipwheel import KUBERNETES_VERSION
from shipwheel.api import quantity
from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import ZERO, Quantity
from shipwheel.kinds.core.resources import is_extended
from shipwheel.kubelet.machine import Machine
from shipwheel.kubelet.runtime.base import Image, RuntimeCondition, RuntimeHandler

MAXIMUM_IMAGE_NAMES = 5
DECLARED_FEATURES = (
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)
"""What this node can do that not every node of a cluster can (KEP-5328)."""
_PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
     "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
     "KubeletHasDiskPressure", "kubelet has disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available",
     "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reservations:
    """What pods may not have of the node, by resource."""

    system: Mapping[str, str] = field(default_factory=dict)
    kube: Mapping[str, str] = field(default_factory=dict)
    eviction: Mapping[str, int] = field(default_factory=dict)
    """Bytes that hard eviction keeps free."""

    def of(self, name: str) -> Quantity:
        total = Quantity.of(self.eviction.get(name, 0))
        for listed in (self.system, self.kube):
            if name in listed:
                total = total + quantity.parse(listed[name])
        return total


@dataclass(frozen=True, slots=True)
class NodeFacts:
    machine: Machine
    addresses: Sequence[str]
    hostname: str
    runtime_name: str
    runtime_version: str
    max_pods: int = 110
    port: int = 10250
    reservations: Reservations = field(default_factory=Reservations)
    devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Extended resources of device plugins: (present, usable)."""
    images: Sequence[Image] = ()
    max_images: int = 50
    pressures: frozenset[str] = frozenset()
    """`MemoryPressure`, `DiskPressure`, `PIDPressure`: those that hold."""
    faults: Sequence[str] = ()
    """Why the node is not ready."""
    runtime_handlers: Sequence[RuntimeHandler] = ()
    supplemental_groups_policy: bool = False
    volumes_in_use: Callable[[], Iterable[str]] = tuple
    """Asked for when the status is made: it takes a look at every pod's directory."""


def capacity(facts: NodeFacts) -> dict[str, str]:
    machine = facts.machine
    found = {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory // 1024}Ki",
        "ephemeral-storage": f"{machine.storage // 1024}Ki",
        "pods": str(facts.max_pods),
    }
    found |= {f"hugepages-{size}": _binary(amount) for size, amount in machine.hugepages.items()}
    return found | {name: str(present) for name, (present, _) in facts.devices.items()}


def allocatable(facts: NodeFacts) -> dict[str, str]:
    """Capacity less what is reserved."""
    found = {}
    huge = sum(facts.machine.hugepages.values())
    for name, text in capacity(facts).items():
        left = quantity.parse(text) - facts.reservations.of(name)
        if name == "memory":
            left = left - Quantity.of(huge)
        left = max(left, ZERO)
        if name == "cpu" and left.milli_value() % 1000:
            found[name] = f"{left.milli_value()}m"
        elif name == "ephemeral-storage":
            found[name] = str(left.value())
        elif name == "memory":
            found[name] = _kibibytes(left.value())
        else:
            found[name] = str(left.value()) if left.value() % 1024 or not left else _binary(left.value())
        if name == "pods":
            found[name] = text
    return found | {name: str(usable) for name, (_, usable) in facts.devices.items()}


def _kibibytes(value: int) -> str:
    return f"{value // 1024}Ki" if value % 1024 == 0 else str(value)


def _binary(value: int) -> str:
    return str(Quantity.of(value, "BinarySI"))


def node_status(facts: NodeFacts, previous: Obj, *, now: datetime) -> Obj:
    """The whole status; `previous` is the one that the server has. What there is nothing of is empty, so that it is
    taken out of what was told before."""
    machine = facts.machine
    status: Obj = {
        "capacity": capacity(facts) | _advertised(facts, previous),
        "allocatable": allocatable(facts) | _advertised(facts, previous),
        "conditions": _conditions(facts, previous, now),
        "addresses": addresses(facts),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": f"{facts.runtime_name}://{facts.runtime_version}",
            "kubeletVersion": KUBERNETES_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": machine.operating_system,
            "architecture": machine.architecture,
            **({"swap": {"capacity": machine.swap}} if machine.swap else {}),
        },
        "images": _images(facts),
        "declaredFeatures": list(DECLARED_FEATURES),
        "features": {"supplementalGroupsPolicy": facts.supplemental_groups_policy},
        "runtimeHandlers": [_handler(each) for each in facts.runtime_handlers],
        "volumesInUse": sorted(facts.volumes_in_use()),
    }
    return status


def _advertised(facts: NodeFacts, previous: Obj) -> dict[str, str]:
    """Extended resources that an administrator has written into the node's capacity: all of them can be used."""
    own = capacity(facts)
    given = previous.get("capacity") or {}
    return {name: amount for name, amount in given.items() if name not in own and is_extended(name)}


def _handler(handler: RuntimeHandler) -> Obj:
    features = {
        "recursiveReadOnlyMounts": handler.recursive_read_only_mounts,
        "userNamespaces": handler.user_namespaces,
    }
    return {"name": handler.name, "features": features} if handler.name else {"features": features}


def addresses(facts: NodeFacts) -> list[Obj]:
    found = [{"type": "InternalIP", "address": each} for each in facts.addresses]
    return [*found, {"type": "Hostname", "address": facts.hostname}]


def _images(facts: NodeFacts) -> list[Obj]:
    """The largest images, each with a few of its names."""
    largest = sorted(facts.images, key=lambda each: (-each.size, each.id))
    if facts.max_images >= 0:
        largest = largest[: facts.max_images]
    listed = []
    for image in largest:
        digests = [each for each in image.repo_digests if "<none>" not in each]
        names = [*digests, *image.repo_tags][:MAXIMUM_IMAGE_NAMES]
        listed.append({"names": names, "sizeBytes": image.size} if image.size else {"names": names})
    return listed


def _conditions(facts: NodeFacts, previous: Obj, now: datetime) -> list[Obj]:
    conditions = []
    for kind, good_reason, good, bad_reason, bad in _PRESSURES:
        pressed = kind in facts.pressures
        conditions.append(_condition(kind, pressed, bad_reason if pressed else good_reason, bad if pressed else good))
    if facts.faults:
        text = facts.faults[0] if len(facts.faults) == 1 else f"[{', '.join(facts.faults)}]"
        conditions.append(_condition("Ready", False, "KubeletNotReady", text))
    else:
        conditions.append(_condition("Ready", True, "KubeletReady", "kubelet is posting ready status"))
    before = {each["type"]: each for each in previous.get("conditions") or ()}
    for each in conditions:
        last = before.get(each["type"])
        kept = last is not None and last.get("status") == each["status"]
        each["lastHeartbeatTime"] = rfc3339(now)
        each["lastTransitionTime"] = last["lastTransitionTime"] if kept and last else rfc3339(now)
    return conditions


def _condition(kind: str, ok: bool, reason: str, message: str) -> Obj:
    return {"type": kind, "status": "True" if ok else "False", "reason": reason, "message": message}


def runtime_faults(conditions: Iterable[RuntimeCondition]) -> tuple[str, str]:
    """(why the runtime is not ready, why its network is not); empty when they are."""
    known = {each.kind: each for each in conditions}
    runtime, network = known.get("RuntimeReady"), known.get("NetworkReady")
    runtime_fault = "" if runtime and runtime.ok else f"container runtime not ready: {_tell(runtime, 'RuntimeReady')}"
    network_fault = (
        "" if network and network.ok else f"container runtime network not ready: {_tell(network, 'NetworkReady')}"
    )
    return runtime_fault, network_fault


def _tell(condition: RuntimeCondition | None, kind: str) -> str:
    if condition is None:
        return "<nil>"
    return f"{kind}=false reason:{condition.reason} message:{condition.message}"


def changed(old: Obj, new: Obj) -> bool:
    """Whether two statuses differ in more than their heartbeats."""
    return _without_heartbeats(old) != _without_heartbeats(new)


def _without_heartbeats(status: Obj) -> Obj:
    conditions = {
        each["type"]: {key: value for key, value in each.items() if key != "lastHeartbeatTime"}
        for each in status.get("conditions") or ()
    }
    kept = {key: value for key, value in status.items() if value not in (None, [], {}, "")}
    return {
        **kept,
        "conditions": {kind: conditions[kind] for kind in conditions if kind != "NetworkUnavailable"},
    }


def initial_node(
    facts: NodeFacts,
    *,
    name: str,
    labels: Mapping[str, str],
    taints: Sequence[Obj],
    provider_id: str = "",
    controller_attach: bool = True,
    now: datetime,
) -> Obj:
    """The object that a node registers itself with."""
    machine = facts.machine
    node: Obj = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**default_labels(machine, facts.hostname), **labels}},
        "spec": {},
    }
    if controller_attach:
        node["metadata"]["annotations"] = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    if taints:
        node["spec"]["taints"] = list(taints)
    if provider_id:
        node["spec"]["providerID"] = provider_id
    node["status"] = {part: value for part, value in node_status(facts, {}, now=now).items() if value}
    return node


def default_labels(machine: Machine, hostname: str) -> dict[str, str]:
    system, architecture = machine.operating_system, machine.architecture
    return {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": system,
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": hostname,
        "kubernetes.io/os": system,
    }


def host_ips(listed: Iterable[str]) -> list[str]:
    """At most one address of each family, in the order given."""
    found: dict[int, str] = {}
    for each in listed:
        found.setdefault(ip_address(each).version, each)
    return list(found.values())
