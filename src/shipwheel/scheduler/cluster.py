"""What the scheduler knows of the cluster: its nodes, and what the pods on them take."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipwheel.api.meta import Obj, key_of
from shipwheel.api.quantity import parse
from shipwheel.kinds.podresources import pod_requests

Amounts = dict[str, int]
"""Milli-units of cpu, units of everything else."""
Port = tuple[str, str, int]
"""(protocol, host address, port)"""

TERMINAL = ("Succeeded", "Failed")


def amounts(quantities: dict[str, str] | None) -> Amounts:
    """Quantities as the numbers that are compared."""
    found: Amounts = {}
    for resource, text in (quantities or {}).items():
        quantity = parse(text)
        found[resource] = quantity.milli_value() if resource == "cpu" else quantity.value()
    return found


def requests_of(pod: Obj) -> Amounts:
    return {
        resource: quantity.milli_value() if resource == "cpu" else quantity.value()
        for resource, quantity in pod_requests(pod).items()
    }


def host_ports(pod: Obj) -> list[Port]:
    """The ports of the node that a pod takes."""
    spec = pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return [
        (port.get("protocol", "TCP"), port.get("hostIP") or "0.0.0.0", port["hostPort"])
        for container in [*(spec.get("containers") or ()), *sidecars]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


@dataclass(slots=True)
class Node:
    """A node and the pods that are bound to it, or about to be."""

    obj: Obj
    allocatable: Amounts
    requested: Amounts = field(default_factory=dict)
    pods: dict[str, Obj] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.obj["metadata"]["name"]

    def add(self, pod: Obj) -> None:
        key = key_of(pod)
        if key in self.pods:
            self.remove(key)
        self.pods[key] = pod
        for resource, amount in requests_of(pod).items():
            self.requested[resource] = self.requested.get(resource, 0) + amount
        self.ports.extend(host_ports(pod))

    def remove(self, key: str) -> None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return
        for resource, amount in requests_of(pod).items():
            self.requested[resource] -= amount
        for port in host_ports(pod):
            self.ports.remove(port)


class Cluster:
    """All nodes by name. A pod that was decided upon counts from that moment (it is assumed)."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._orphans: dict[str, dict[str, Obj]] = {}
        self._where: dict[str, str] = {}

    def set_node(self, obj: Obj) -> None:
        name = obj["metadata"]["name"]
        allocatable = amounts((obj.get("status") or {}).get("allocatable"))
        known = self.nodes.get(name)
        if known is not None:
            known.obj, known.allocatable = obj, allocatable
            return
        node = self.nodes[name] = Node(obj, allocatable)
        for pod in self._orphans.pop(name, {}).values():
            node.add(pod)

    def remove_node(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is not None and node.pods:
            self._orphans[name] = node.pods

    def set_pod(self, pod: Obj) -> None:
        """Count a pod where it is bound; one that has ended counts no more."""
        key, name = key_of(pod), pod["spec"].get("nodeName", "")
        self.remove_pod(key)
        if not name or (pod.get("status") or {}).get("phase") in TERMINAL:
            return
        self._where[key] = name
        node = self.nodes.get(name)
        if node is not None:
            node.add(pod)
        else:
            self._orphans.setdefault(name, {})[key] = pod

    def remove_pod(self, key: str) -> None:
        name = self._where.pop(key, None)
        if name is None:
            return
        node = self.nodes.get(name)
        if node is not None:
            node.remove(key)
        else:
            self._orphans.get(name, {}).pop(key, None)
