"""How the machine is built: its CPUs by core, cache, socket and NUMA node, and the memory of each NUMA node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shipwheel.kubelet.managers import cpusets
from shipwheel.kubelet.managers.cpusets import CpuSet

Level = Literal["core", "cache", "socket", "numa"]
_UNCORE_INDEX = 3
"""The last level of cache that several cores share."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """`core` is the lowest CPU of those that share a physical core; `cache` the last cache that cores share."""

    id: int
    core: int
    socket: int
    numa: int
    cache: int


@dataclass(frozen=True, slots=True)
class NumaNode:
    """Bytes of memory; `hugepages` are bytes by resource (`hugepages-2Mi`)."""

    id: int
    memory: int
    hugepages: Mapping[str, int] = field(default_factory=dict)
    distances: Sequence[int] = ()
    """To each node, by its number."""


@dataclass(frozen=True, slots=True)
class Topology:
    cpus: Sequence[Cpu]
    nodes: Sequence[NumaNode]

    @property
    def all_cpus(self) -> CpuSet:
        return frozenset(each.id for each in self.cpus)

    def count(self, level: Level) -> int:
        return len({getattr(each, level) for each in self.cpus})

    def sizes(self, level: Level) -> Counter[int]:
        """How many CPUs each of them has."""
        return Counter(getattr(each, level) for each in self.cpus)

    @property
    def cpus_per_core(self) -> int:
        return len(self.cpus) // max(1, self.count("core"))

    def within(self, level: Level, ids: Iterable[int]) -> CpuSet:
        wanted = set(ids)
        return frozenset(each.id for each in self.cpus if getattr(each, level) in wanted)

    def nodes_of(self, cpus: CpuSet) -> frozenset[int]:
        return frozenset(each.numa for each in self.cpus if each.id in cpus)


def read_topology(memory: int, root: Path = Path("/sys/devices/system")) -> Topology:
    """From the kernel's files; `memory` is what a machine has that does not tell of NUMA nodes."""
    nodes = sorted((root / "node").glob("node[0-9]*"), key=lambda each: int(each.name[4:]))
    numa_of = {cpu: int(node.name[4:]) for node in nodes for cpu in _cpus(node / "cpulist")}
    cpus = []
    for place in (root / "cpu").glob("cpu[0-9]*"):
        number = int(place.name[3:])
        if not (place / "topology").is_dir() or _read(place / "online") == "0":
            continue
        socket = max(0, int(_read(place / "topology/physical_package_id") or 0))
        siblings = _cpus(place / "topology/thread_siblings_list") or {number}
        cache = _read(place / f"cache/index{_UNCORE_INDEX}/id")
        cpus.append(Cpu(number, min(siblings), socket, numa_of.get(number, 0), int(cache) if cache else socket))
    return Topology(
        sorted(cpus, key=lambda each: each.id),
        [_node(each, memory) for each in nodes] or [NumaNode(0, memory, distances=(10,))],
    )


def _node(place: Path, memory: int) -> NumaNode:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read(place / "meminfo"))
    huge = {}
    for directory in (place / "hugepages").glob("hugepages-*kB"):
        size = int(directory.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        huge[f"hugepages-{_binary(size)}"] = int(_read(directory / "nr_hugepages") or 0) * size
    distances = tuple(int(each) for each in _read(place / "distance").split())
    return NumaNode(int(place.name[4:]), int(found[1]) * 1024 if found else memory, huge, distances)


def _binary(size: int) -> str:
    for power, suffix in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if size % (1 << power) == 0:
            return f"{size >> power}{suffix}"
    return str(size)


def _cpus(file: Path) -> CpuSet:
    return cpusets.parse(_read(file))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
