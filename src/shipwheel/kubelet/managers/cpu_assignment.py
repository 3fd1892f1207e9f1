"""Which CPUs a container gets: those that lie closest together, or spread evenly over NUMA nodes. Pure.

Whole sockets and NUMA nodes are taken first, then (if asked for) whole caches, then whole cores, then single CPUs, at
each level from where the fewest are free, so that large pieces stay whole for others.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from shipwheel.kubelet.managers.cpusets import NONE, CpuSet
from shipwheel.kubelet.managers.topology import Cpu, Level, Topology


class TooFew(Exception):
    """There are not as many CPUs; the message is upstream's."""

    def __init__(self, requested: int, available: int) -> None:
        super().__init__(f"not enough cpus available to satisfy request: requested={requested}, available={available}")


def packed(topology: Topology, available: CpuSet, count: int, *, whole_caches: bool = False) -> CpuSet:
    """As close together as possible."""
    if count < 1:
        return NONE
    if count > len(available):
        raise TooFew(count, len(available))
    search = _Search(topology, available, count)
    search.take_whole(*search.upper[:1])
    search.take_whole(*search.upper)
    if whole_caches:
        search.take_caches()
    search.take_whole(*search.upper, "core")
    search.take_singly()
    return frozenset(search.taken)


@dataclass(slots=True)
class _Search:
    topology: Topology
    available: CpuSet
    needed: int
    taken: set[int] = field(default_factory=set)
    upper: tuple[Level, ...] = field(init=False)
    """The levels above the core, the larger first."""
    _left: list[Cpu] = field(init=False)

    def __post_init__(self) -> None:
        topology = self.topology
        sockets_inside = topology.count("socket") >= topology.count("numa")
        self.upper = ("numa", "socket") if sockets_inside else ("socket", "numa")
        self._left = [each for each in topology.cpus if each.id in self.available]

    def groups(self, *levels: Level) -> list[list[Cpu]]:
        """What is left, grouped by the last of the levels, walking down through the others."""
        groups = [self._left]
        for level in levels:
            finer = []
            for group in groups:
                parts: dict[int, list[Cpu]] = {}
                for cpu in group:
                    parts.setdefault(getattr(cpu, level), []).append(cpu)
                finer += [parts[key] for key in sorted(parts, key=lambda key: (len(parts[key]), key))]
            groups = finer
        return groups

    def take(self, cpus: Sequence[Cpu]) -> None:
        self.taken |= {each.id for each in cpus}
        self._left = [each for each in self._left if each.id not in self.taken]
        self.needed -= len(cpus)

    def take_whole(self, *levels: Level) -> None:
        if self.needed < 1:
            return
        sizes = self.topology.sizes(levels[-1])
        for group in self.groups(*levels):
            if len(group) == sizes[getattr(group[0], levels[-1])] and self.needed >= len(group):
                self.take(group)

    def take_caches(self) -> None:
        size = len(self.topology.cpus) // max(1, self.topology.count("cache"))
        order: tuple[Level, ...] = (*self.upper[: self.upper.index("numa") + 1], "cache")
        for group in self.groups(*order):
            if self.needed >= size:
                self.take_whole(*order)
            if self.needed > 0:
                self._take_part_of_cache(group[0].cache)
            if self.needed < 1:
                return

    def _take_part_of_cache(self, cache: int) -> None:
        """Whole cores of one cache, if they are enough for all that is needed."""
        per_core = self.topology.cpus_per_core
        inside = [each for each in self._left if each.cache == cache]
        cores = sorted({each.core for each in inside})[: -(-self.needed // per_core)]
        chosen = sorted((each for each in inside if each.core in cores), key=lambda each: each.id)
        if self.needed % 2 and per_core > 1 and len(chosen) > self.needed:
            chosen.pop()
        if len(chosen) == self.needed:
            self.take(chosen)

    def take_singly(self) -> None:
        ordered = [cpu for core in self.groups(*self.upper, "core") for cpu in sorted(core, key=lambda cpu: cpu.id)]
        self.take(ordered[: max(0, self.needed)])


def distributed(topology: Topology, available: CpuSet, count: int, *, group: int = 1) -> CpuSet:
    """Spread evenly over as few NUMA nodes as can hold them, in groups of so many CPUs."""
    if count < 1 or count % group:
        return packed(topology, available, count)
    if count > len(available):
        raise TooFew(count, len(available))
    search = _Search(topology, available, count)
    levels = search.upper[: search.upper.index("numa") + 1]
    free = {each[0].numa: len(each) for each in search.groups(*levels)}
    groups_per_node = _up(_up(len(topology.cpus), group), topology.count("numa"))
    needed = _up(count, group)
    for size in range(_up(needed, groups_per_node), min(needed, len(free)) + 1):
        best = _best_split(free, size, count, group)
        if best is not None:
            return _take_split(topology, available, best)
    return packed(topology, available, count)


def _up(value: int, part: int) -> int:
    return -(-value // part)


def _best_split(free: dict[int, int], size: int, count: int, group: int) -> list[tuple[int, int]] | None:
    """(NUMA node, CPUs to take) in the order of taking, over `size` nodes, so that what stays free is the most even."""
    best: tuple[float, list[tuple[int, int]]] | None = None
    each = count // size // group * group
    for nodes in itertools.combinations(free, size):
        if sum(free[node] // group for node in nodes) * group < count or any(free[node] < each for node in nodes):
            continue
        after = {node: number - (each if node in nodes else 0) for node, number in free.items()}
        base = [(node, each) for node in nodes]
        remainder = count - each * size
        for extra in _remainders(after, nodes, remainder, group):
            left = dict(after)
            for node, number in extra:
                left[node] -= number
            balance = statistics.pstdev(left.values())
            if best is None or balance < best[0]:
                best = (balance, [*base, *extra])
        if best is not None and best[0] == 0:
            break
    return best[1] if best else None


def _remainders(after: dict[int, int], nodes: Sequence[int], remainder: int, group: int) -> list[list[tuple[int, int]]]:
    """The ways to take what is left over after an even split, a group at a time, in turn from each of some nodes."""
    if remainder == 0:
        return [[]]
    able = [node for node in nodes if after[node] >= group]
    found = []
    for size in range(len(able), 0, -1):
        for subset in itertools.combinations(able, size):
            if sum(after[node] // group for node in subset) * group < remainder:
                continue
            left, wanted, taken = dict(after), remainder, []
            for node in itertools.cycle(subset):
                if wanted <= 0:
                    break
                if left[node] >= group:
                    left[node] -= group
                    wanted -= group
                    taken.append((node, group))
            found.append(taken)
    return found


def _take_split(topology: Topology, available: CpuSet, split: Sequence[tuple[int, int]]) -> CpuSet:
    taken: CpuSet = NONE
    for node, number in split:
        taken |= packed(topology, (available - taken) & topology.within("numa", [node]), number)
    return taken
