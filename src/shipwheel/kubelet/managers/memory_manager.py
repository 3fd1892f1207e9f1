"""Memory and huge pages of certain NUMA nodes for Guaranteed pods (static policy, KEP-1769).

What is kept are the blocks that containers have; how full each node is follows from them (`fold`). A node is used
either alone or always together with the same others: mixing the two would let one container take what was promised
to another.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.base import Active, Refused, in_order, is_passing, wants_pod_level
from shipwheel.kubelet.managers.checkpoint import Pointer
from shipwheel.kubelet.managers.cpu_manager import StateError
from shipwheel.kubelet.managers.hints import Hint, Hints, Mask, masks, narrower
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.topology import NumaNode
from shipwheel.kubelet.resources import add, qos_class, requests_of

STATE_FILE = "memory_manager_state"
Reserved = Mapping[int, Mapping[str, int]]
"""Bytes kept for the system, by NUMA node and resource."""
Wanted = Mapping[str, int]
"""Bytes by resource: `memory`, `hugepages-2Mi`."""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of one resource on these nodes together."""

    nodes: tuple[int, ...]
    kind: str
    size: int


@dataclass(slots=True)
class Table:
    total: int
    reserved_by_system: int
    free: int
    taken: int = 0

    @property
    def allocatable(self) -> int:
        return self.free + self.taken


@dataclass(slots=True)
class NodeState:
    tables: dict[str, Table]
    cells: tuple[int, ...]
    """The node, and those it is used together with."""
    assignments: int = 0


State = dict[int, NodeState]


def wanted_by(container: Obj) -> Wanted:
    return {name: amount.value() for name, amount in requests_of(container).items() if _is_memory(name)}


def _is_memory(name: str) -> bool:
    return name == "memory" or name.startswith("hugepages-")


def wanted_by_pod(pod: Obj) -> Wanted:
    """The most that the pod has at any time, of what its containers ask for."""
    running: dict[str, quantity.Quantity] = {}
    for container in podspec.containers(pod):
        running = add(running, requests_of(container))
    sidecars: dict[str, quantity.Quantity] = {}
    peak: dict[str, int] = {}
    for container in podspec.init_containers(pod):
        own = add(sidecars, requests_of(container))
        for name, amount in own.items():
            peak[name] = max(peak.get(name, 0), amount.value())
        if podspec.is_sidecar(container):
            sidecars = own
    total = {name: amount.value() for name, amount in add(running, sidecars).items() if name in running}
    return {name: max(amount, peak.get(name, 0)) for name, amount in total.items() if _is_memory(name)}


def reserved_memory(
    nodes: Sequence[NumaNode], declared: Sequence[Obj], reservation: Mapping[str, quantity.Quantity]
) -> Reserved:
    """`reservedMemory` of the configuration, checked against what the node reserves in all. StateError."""
    found: dict[int, dict[str, int]] = {each.id: {} for each in nodes}
    totals: dict[str, quantity.Quantity] = {}
    for each in declared:
        node = each.get("numaNode", 0)
        if node not in found:
            raise StateError(
                f"the reserved memory configuration references a NUMA node {node} that does not exist on this machine"
            )
        for name, text in (each.get("limits") or {}).items():
            amount = quantity.parse(text)
            found[node][name] = amount.value()
            totals[name] = totals.get(name, quantity.ZERO) + amount
    for name in {*totals, *(name for name in reservation if _is_memory(name))}:
        kept, asked = reservation.get(name, quantity.ZERO), totals.get(name, quantity.ZERO)
        if kept.value() != asked.value():
            raise StateError(
                f'the total amount "{asked}" of type "{name}" is not equal to the value "{kept}" determined by Node '
                "Allocatable feature"
            )
    if not sum(each.get("memory", 0) for each in found.values()):
        raise StateError("[memorymanager] you should specify the system reserved memory")
    return found


def empty_state(nodes: Iterable[NumaNode], reserved: Reserved) -> State:
    made = {}
    for node in nodes:
        kept = reserved.get(node.id, {})
        sizes = {**node.hugepages, "memory": node.memory}
        tables = {}
        for name, size in sizes.items():
            huge = sum(node.hugepages.values()) if name == "memory" else 0
            tables[name] = Table(size, kept.get(name, 0), max(0, size - kept.get(name, 0) - huge))
        made[node.id] = NodeState(tables, (node.id,))
    return made


def fold(empty: State, blocks: Iterable[Block]) -> State:
    """How full the nodes are; StateError when a block is of a node or of memory that there is not."""
    state = copy.deepcopy(empty)
    for block in blocks:
        left = block.size
        for number in block.nodes:
            node = state.get(number)
            if node is None or block.kind not in node.tables:
                raise StateError("[memorymanager] the memory assignment uses memory that does not exist")
            node.assignments += 1
            node.cells = block.nodes
            table = node.tables[block.kind]
            part = min(left, table.free)
            table.free -= part
            table.taken += part
            left -= part
    return state


def offers(state: State, wanted: Wanted, reusable: Mapping[tuple[tuple[int, ...], str], int]) -> list[Hint]:
    """The sets of nodes that have as much free (the same for every resource), those as small as possible preferred.
    `reusable` is what the pod has by its nodes and resource, and may use again."""
    nodes = sorted(state)
    least, fitting = len(nodes), []
    for mask in masks(nodes):
        parts = [state[each] for each in sorted(mask)]
        if any(_sum(parts, name, "allocatable") < size for name, size in wanted.items()):
            continue
        least = min(least, len(mask))
        if _mixes(parts, mask):
            continue
        key = tuple(sorted(mask))
        if all(_sum(parts, name, "free") + reusable.get((key, name), 0) >= size for name, size in wanted.items()):
            fitting.append(mask)
    return [Hint(mask, len(mask) == least) for mask in fitting]


def _sum(parts: Iterable[NodeState], name: str, what: str) -> int:
    return sum(getattr(each.tables[name], what) for each in parts if name in each.tables)


def _mixes(parts: Sequence[NodeState], mask: Mask) -> bool:
    """Whether these nodes are used in another company already."""
    if len(parts) == 1:
        return len(parts[0].cells) > 1
    return any(each.assignments and set(each.cells) != mask for each in parts)


def best_of(hints: Iterable[Hint]) -> Hint | None:
    best: Hint | None = None
    for hint in hints:
        assert hint.nodes is not None
        if (
            best is None
            or (hint.preferred and not best.preferred)
            or (hint.preferred == best.preferred and best.nodes is not None and narrower(hint.nodes, best.nodes))
        ):
            best = hint
    return best


class NoMemoryManager:
    """The policy `None`. The file tells an upstream kubelet so."""

    def __init__(self, directory: Path) -> None:
        _Assigned(directory / STATE_FILE, "None").restore()

    def hints(self, pod: Obj, container: Obj) -> Hints:
        return {}

    def pod_hints(self, pod: Obj) -> Hints:
        return {}

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        return

    def keep(self, active: Active) -> None:
        return

    def blocks(self, uid: str, name: str) -> Sequence[Block]:
        return ()

    @property
    def allocatable(self) -> Sequence[Block]:
        return ()


@dataclass(slots=True)
class _Assigned:
    path: Path
    policy: str
    blocks: dict[str, dict[str, list[Block]]] = field(default_factory=dict)
    """By pod and container."""

    def restore(self) -> Obj:
        """The machine's state as it was written down; StateError when the file is of another policy or damaged."""
        try:
            found = checkpoint.read(self.path)
            if found is None:
                if self.policy == "None":
                    self.save({})
                return {}
            machine, entries = found.get("machineState") or {}, found.get("entries") or {}
            if not found.get("podEntries"):
                checkpoint.verify(found.get("checksum", 0), _checksum(found.get("policyName", ""), machine, entries))
            if found.get("policyName") != self.policy:
                raise checkpoint.Corrupt(
                    f'[memorymanager] configured policy "{self.policy}" differs from state checkpoint policy '
                    f'"{found.get("policyName", "")}"'
                )
            self.blocks = {
                uid: {
                    name: [Block(tuple(each["numaAffinity"]), each["type"], each["size"]) for each in listed]
                    for name, listed in containers.items()
                }
                for uid, containers in entries.items()
            }
            return machine
        except (checkpoint.Corrupt, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"could not restore state from checkpoint: {error}, please drain this node and delete the memory "
                f'manager checkpoint file "{self.path}" before restarting Kubelet'
            ) from error

    def save(self, state: State) -> None:
        machine = {str(number): _node_json(node) for number, node in sorted(state.items())}
        entries = {
            uid: {
                name: [{"numaAffinity": [*each.nodes], "type": each.kind, "size": each.size} for each in listed]
                for name, listed in containers.items()
            }
            for uid, containers in self.blocks.items()
        }
        content: Obj = {"policyName": self.policy, "machineState": machine}
        if entries:
            content["entries"] = entries
        checkpoint.write(self.path, {**content, "checksum": _checksum(self.policy, machine, entries)})

    def all(self) -> Iterable[Block]:
        for containers in self.blocks.values():
            for listed in containers.values():
                yield from listed


def _node_json(node: NodeState) -> Obj:
    return {
        "numberOfAssignments": node.assignments,
        "memoryMap": {
            name: {
                "total": table.total,
                "systemReserved": table.reserved_by_system,
                "allocatable": table.allocatable,
                "reserved": table.taken,
                "free": table.free,
            }
            for name, table in node.tables.items()
        },
        "cells": [*node.cells],
    }


def _checksum(policy: str, machine: Obj, entries: Obj) -> int:
    shown = checkpoint.shown

    def table(found: Obj) -> Pointer:
        return Pointer(
            f"{{TotalMemSize:(uint64){found['total']} SystemReserved:(uint64){found['systemReserved']} "
            f"Allocatable:(uint64){found['allocatable']} Reserved:(uint64){found['reserved']} "
            f"Free:(uint64){found['free']}}}"
        )

    def node(found: Obj) -> Pointer:
        tables = {name: table(each) for name, each in found["memoryMap"].items()}
        return Pointer(
            f"{{NumberOfAssignments:(int){found['numberOfAssignments']} "
            f"MemoryMap:(map[v1.ResourceName]*state.MemoryTable){shown(tables)} Cells:([]int){shown(found['cells'])}}}"
        )

    def block(found: Obj) -> str:
        return (
            f"{{NUMAAffinity:([]int){shown(found['numaAffinity'])} Type:(v1.ResourceName){found['type']} "
            f"Size:(uint64){found['size']}}}"
        )

    nodes = {int(number): node(each) for number, each in machine.items()}
    blocks = {
        uid: {name: [block(each) for each in listed] for name, listed in containers.items()}
        for uid, containers in entries.items()
    }
    return checkpoint.checksum(
        f"(*state.MemoryManagerCheckpoint){{PolicyName:(string){policy} MachineState:(state.NUMANodeMap){shown(nodes)} "
        f"Entries:(state.ContainerMemoryAssignments){shown(blocks)} Checksum:(checksum.Checksum)0}}"
    )


class MemoryManager:
    """The policy `Static`."""

    def __init__(
        self, nodes: Sequence[NumaNode], directory: Path, measures: ManagerMetrics, *, reserved: Reserved
    ) -> None:
        """StateError when the state on disk does not fit."""
        self._measures = measures
        self._empty = empty_state(nodes, reserved)
        self._assigned = _Assigned(directory / STATE_FILE, "Static")
        before = self._assigned.restore()
        state = self._state()
        if before and _sums(before) != _sums({str(number): _node_json(node) for number, node in state.items()}):
            raise StateError("[memorymanager] the expected machine state is different from the real one")
        self._assigned.save(state)

    def _state(self) -> State:
        return fold(self._empty, self._assigned.all())

    # What others ask

    def blocks(self, uid: str, name: str) -> Sequence[Block]:
        return self._assigned.blocks.get(uid, {}).get(name, ())

    @property
    def allocatable(self) -> Sequence[Block]:
        return [
            Block((number,), name, table.allocatable)
            for number, node in self._empty.items()
            for name, table in node.tables.items()
            if table.allocatable
        ]

    # Hints

    def hints(self, pod: Obj, container: Obj) -> Hints:
        if not _takes_part(pod):
            return {}
        return self._hints(pod, wanted_by(container), self.blocks(pod["metadata"]["uid"], container["name"]))

    def pod_hints(self, pod: Obj) -> Hints:
        if not _takes_part(pod):
            return {}
        uid = pod["metadata"]["uid"]
        had = next((found for each in in_order(pod) if (found := self.blocks(uid, each["name"]))), ())
        return self._hints(pod, wanted_by_pod(pod), had)

    def _hints(self, pod: Obj, wanted: Wanted, had: Sequence[Block]) -> Hints:
        if not wanted:
            return {}
        if had:
            if {each.kind: each.size for each in had} != wanted:
                return {}
            return {each.kind: [Hint(frozenset(each.nodes))] for each in had}
        found = offers(self._state(), wanted, self._reusable(pod))
        return dict.fromkeys(wanted, found) if found else {}

    def _reusable(self, pod: Obj) -> dict[tuple[tuple[int, ...], str], int]:
        """What the pod's init containers had."""
        found: dict[tuple[tuple[int, ...], str], int] = {}
        uid = pod["metadata"]["uid"]
        for container in podspec.init_containers(pod):
            if not podspec.is_sidecar(container):
                for block in self.blocks(uid, container["name"]):
                    found[block.nodes, block.kind] = found.get((block.nodes, block.kind), 0) + block.size
        return found

    # Giving and taking back

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        if not _takes_part(pod) or self.blocks(pod["metadata"]["uid"], container["name"]):
            return
        self._measures.memory_requests.inc()
        try:
            self._allocate(pod, container, affinity)
        except Refused:
            self._measures.memory_errors.inc()
            raise

    def _allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        wanted = wanted_by(container)
        if not wanted:
            return
        state = self._state()
        nodes = tuple(sorted(self._choose(pod, state, wanted, affinity)))
        if len(nodes) > 1 and _mixes([state[each] for each in nodes], frozenset(nodes)):
            raise Refused("[memorymanager] preferred hint violates NUMA node allocation")
        blocks = [Block(nodes, name, size) for name, size in sorted(wanted.items())]
        uid = pod["metadata"]["uid"]
        for block in blocks:
            self._reuse(pod, container, block)
        self._assigned.blocks.setdefault(uid, {})[container["name"]] = blocks
        self._assigned.save(self._state())

    def _choose(self, pod: Obj, state: State, wanted: Wanted, affinity: Hint) -> Mask:
        reusable = self._reusable(pod)
        chosen = affinity
        if chosen.nodes is None:
            default = best_of(offers(state, wanted, reusable))
            if default is None:
                raise Refused(
                    "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is "
                    "available"
                )
            if not default.preferred and affinity.preferred:
                raise Refused("[memorymanager] failed to find the default preferred hint")
            chosen = default
        assert chosen.nodes is not None
        if not _holds(state, chosen.nodes, wanted, reusable):
            larger = [each for each in offers(state, wanted, reusable) if each.nodes and chosen.nodes <= each.nodes]
            extended = best_of(larger)
            if extended is None:
                raise Refused("[memorymanager] failed to find NUMA nodes to extend the current topology hint")
            if not extended.preferred and affinity.preferred:
                raise Refused("[memorymanager] failed to find the extended preferred hint")
            chosen = extended
        assert chosen.nodes is not None
        return chosen.nodes

    def _reuse(self, pod: Obj, container: Obj, block: Block) -> None:
        """Give a container what init containers before it had, in place of as much more."""
        uid, left = pod["metadata"]["uid"], block.size
        for earlier in podspec.init_containers(pod):
            if earlier["name"] == container["name"]:
                break
            listed = self._assigned.blocks.get(uid, {}).get(earlier["name"], [])
            if not is_passing(pod, earlier):
                continue
            for position, each in enumerate(listed):
                if each.kind == block.kind and each.nodes == block.nodes:
                    part = min(left, each.size)
                    listed[position] = replace(each, size=each.size - part)
                    left -= part

    def keep(self, active: Active) -> None:
        gone = [
            (uid, name)
            for uid, containers in self._assigned.blocks.items()
            for name in containers
            if name not in active.get(uid, frozenset())
        ]
        for uid, name in gone:
            del self._assigned.blocks[uid][name]
            if not self._assigned.blocks[uid]:
                del self._assigned.blocks[uid]
        if gone:
            self._assigned.save(self._state())


def _takes_part(pod: Obj) -> bool:
    return qos_class(pod) == "Guaranteed" and not wants_pod_level(pod)


def _holds(state: State, nodes: Mask, wanted: Wanted, reusable: Mapping[tuple[tuple[int, ...], str], int]) -> bool:
    parts, key = [state[each] for each in nodes], tuple(sorted(nodes))
    return all(_sum(parts, name, "free") + reusable.get((key, name), 0) >= size for name, size in wanted.items())


def _sums(machine: Obj) -> Counter[tuple[str, str]]:
    """What must be the same after a restart, by resource: which node of a group holds which part may differ."""
    totals: Counter[tuple[str, str]] = Counter()
    for node in machine.values():
        for name, table in node["memoryMap"].items():
            totals.update({(name, what): table[what] for what in ("total", "systemReserved", "reserved", "free")})
    return totals
