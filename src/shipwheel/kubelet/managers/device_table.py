"""Which devices there are, how they are, and who has them. Pure; also how this is written down."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api.meta import Obj
from shipwheel.api.protobuf import decode, encode
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.base import Active
from shipwheel.kubelet.managers.hints import Hint, Mask, masks
from shipwheel.kubelet.managers.tables import device_messages

HEALTHY = "Healthy"
NO_NODE = -1
"""Stands for the NUMA node of a device that has none."""


@dataclass(frozen=True, slots=True)
class PluginDevice:
    id: str
    health: str = HEALTHY
    nodes: tuple[int, ...] = ()
    """NUMA nodes that it is close to."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a container has of one resource: device ids by NUMA node, and what the plugin says is to be done for it
    (a `ContainerAllocateResponse`)."""

    by_node: Mapping[int, Sequence[str]]
    response: Obj

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(each for listed in self.by_node.values() for each in listed)

    @property
    def nodes(self) -> dict[str, tuple[int, ...]]:
        """The NUMA nodes of each device."""
        found: dict[str, tuple[int, ...]] = {}
        for node, listed in sorted(self.by_node.items()):
            for each in listed:
                found[each] = (*found.get(each, ()), *(() if node == NO_NODE else (node,)))
        return found


@dataclass(slots=True)
class DeviceTable:
    known: dict[str, dict[str, PluginDevice]] = field(default_factory=dict)
    """By resource and id. A resource whose plugin has not come back yet has none."""
    given: dict[str, dict[str, dict[str, Given]]] = field(default_factory=dict)
    """By pod, container and resource."""

    def healthy(self, resource: str) -> frozenset[str]:
        return frozenset(each.id for each in self.known.get(resource, {}).values() if each.health == HEALTHY)

    def in_use(self, resource: str) -> frozenset[str]:
        return frozenset(
            each
            for containers in self.given.values()
            for resources in containers.values()
            if resource in resources
            for each in resources[resource].ids
        )

    def is_ours(self, resource: str) -> bool:
        return resource in self.known or any(
            resource in resources for containers in self.given.values() for resources in containers.values()
        )

    def of_container(self, uid: str, name: str) -> Mapping[str, Given]:
        return self.given.get(uid, {}).get(name, {})

    def give(self, uid: str, name: str, resource: str, given: Given) -> None:
        self.given.setdefault(uid, {}).setdefault(name, {})[resource] = given

    def keep(self, active: Active) -> bool:
        """Take back what others than these pods have; whether there was anything."""
        gone = self.given.keys() - active.keys()
        for uid in gone:
            del self.given[uid]
        return bool(gone)

    def by_node(self, resource: str, ids: Iterable[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for each in sorted(ids):
            device = self.known.get(resource, {}).get(each)
            for node in (device.nodes if device else ()) or (NO_NODE,):
                found.setdefault(node, []).append(each)
        return found

    # Topology

    def is_aligned(self, resource: str) -> bool:
        """Whether the plugin tells where its devices are."""
        return any(each.nodes for each in self.known.get(resource, {}).values())

    def hints(
        self, resource: str, available: frozenset[str], reusable: frozenset[str], wanted: int, nodes: Sequence[int]
    ) -> list[Hint]:
        """The sets of NUMA nodes near which there are as many. `reusable` are to be among those taken."""
        devices = self.known.get(resource, {})
        near = {node for each in devices.values() for node in each.nodes}
        considered = sorted(near & set(nodes)) or sorted(nodes)
        least, fitting = len(considered), []
        for mask in masks(considered):
            inside = frozenset(each.id for each in devices.values() if mask & set(each.nodes))
            if len(inside) >= wanted:
                least = min(least, len(mask))
            bound = frozenset(each for each in reusable if each in devices and devices[each].nodes)
            if bound <= inside and len(bound) + len(available & inside) >= wanted:
                fitting.append(mask)
        return [Hint(mask, len(mask) == least) for mask in fitting]

    def by_affinity(
        self, resource: str, available: frozenset[str], nodes: Mask | None
    ) -> tuple[list[str], list[str], list[str]]:
        """(near these nodes, near others, near none), those of nodes with few devices first."""
        if nodes is None or not self.is_aligned(resource):
            return [], [], sorted(available)
        by_node = self.by_node(resource, available)
        order = sorted(by_node, key=lambda each: (each not in nodes, each == NO_NODE, len(by_node[each]), each))
        near: list[str] = []
        elsewhere: list[str] = []
        nowhere: list[str] = []
        seen: set[str] = set()
        for node in order:
            part = near if node in nodes else nowhere if node == NO_NODE else elsewhere
            part += [each for each in by_node[node] if each not in seen]
            seen.update(by_node[node])
        return near, elsewhere, nowhere


# --- On disk


def to_checkpoint(table: DeviceTable) -> Obj:
    message = device_messages()["ContainerAllocateResponse"]
    entries = [
        (uid, name, resource, each, encode(message, each.response))
        for uid, containers in sorted(table.given.items())
        for name, resources in sorted(containers.items())
        for resource, each in sorted(resources.items())
    ]
    registered = {resource: sorted(table.healthy(resource)) for resource in table.known}
    listed = [
        {
            "PodUID": uid,
            "ContainerName": name,
            "ResourceName": resource,
            "DeviceIDs": {str(node): list(ids) for node, ids in each.by_node.items()},
            "AllocResp": base64.b64encode(response).decode(),
        }
        for uid, name, resource, each, response in entries
    ]
    data = {"PodDeviceEntries": listed or None, "RegisteredDevices": registered}
    return {"Data": data, "Checksum": _checksum(data)}


def from_checkpoint(content: Obj) -> DeviceTable:
    """checkpoint.Corrupt when it is not what was written."""
    table = DeviceTable()
    message = device_messages()["ContainerAllocateResponse"]
    try:
        data = content["Data"]
        checkpoint.verify(content["Checksum"], _checksum(data))
        for entry in data.get("PodDeviceEntries") or ():
            by_node = {int(node): list(ids) for node, ids in (entry["DeviceIDs"] or {}).items()}
            response = decode(message, base64.b64decode(entry["AllocResp"] or ""))
            table.give(entry["PodUID"], entry["ContainerName"], entry["ResourceName"], Given(by_node, response))
        table.known = {resource: {} for resource in data.get("RegisteredDevices") or ()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise checkpoint.Corrupt(str(error)) from error
    return table


def _checksum(data: Obj) -> int:
    entries = data.get("PodDeviceEntries")
    shown = None if entries is None else [_entry(each) for each in entries]
    return checkpoint.checksum(
        f"(checkpoint.checkpointData){{PodDeviceEntries:([]checkpoint.PodDevicesEntry){checkpoint.shown(shown)} "
        f"RegisteredDevices:(map[string][]string){checkpoint.shown(data.get('RegisteredDevices'))}}}"
    )


def _entry(entry: Obj) -> str:
    ids = entry["DeviceIDs"]
    by_node = None if ids is None else {int(node): listed for node, listed in ids.items()}
    response = base64.b64decode(entry["AllocResp"]) if entry["AllocResp"] is not None else None
    return (
        f"{{PodUID:(string){entry['PodUID']} ContainerName:(string){entry['ContainerName']} "
        f"ResourceName:(string){entry['ResourceName']} "
        f"DeviceIDs:(checkpoint.DevicesPerNUMA){checkpoint.shown(by_node)} "
        f"AllocResp:([]uint8){checkpoint.shown(response)}}}"
    )
