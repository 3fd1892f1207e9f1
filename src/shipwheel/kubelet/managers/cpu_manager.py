"""CPUs of their own for containers that want whole ones (static policy, KEP-375); the others share what is left.

A Guaranteed pod's container that asks for a whole number of CPUs gets them for itself alone. Everybody else runs on
the shared pool, which is why it changes under running containers: `reconcile` brings them up to date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import ZERO
from shipwheel.kubelet import podspec
from shipwheel.kubelet.managers import checkpoint, cpusets
from shipwheel.kubelet.managers.base import Active, Refused, in_order, is_passing, wants_pod_level
from shipwheel.kubelet.managers.cpu_assignment import TooFew, distributed, packed
from shipwheel.kubelet.managers.cpusets import NONE, CpuSet
from shipwheel.kubelet.managers.hints import Hint, Hints, OptionError, masks, parse_bool
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.topology import Topology
from shipwheel.kubelet.resources import qos_class, requests_of

STATE_FILE = "cpu_manager_state"
FULL_CORES = "full-pcpus-only"
ACROSS_NUMA = "distribute-cpus-across-numa"
STRICT = "strict-cpu-reservation"
UNCORE = "prefer-align-cpus-by-uncorecache"
_ALPHA = ("align-by-socket", "distribute-cpus-across-cores")


class StateError(Exception):
    """What was written down does not fit the machine or the policy; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Options:
    full_cores: bool = False
    across_numa: bool = False
    strict: bool = False
    """Reserved CPUs are no part of the shared pool."""
    uncore: bool = False


def parse_options(given: Mapping[str, str]) -> Options:
    """OptionError."""
    known = {FULL_CORES: "full_cores", ACROSS_NUMA: "across_numa", STRICT: "strict", UNCORE: "uncore"}
    found = {}
    for name, value in given.items():
        if name in _ALPHA:
            raise OptionError(f'CPU Manager Policy Alpha-level Options not enabled, but option "{name}" provided')
        if name not in known:
            raise OptionError(f'unknown CPU Manager Policy option: "{name}"')
        try:
            found[known[name]] = parse_bool(value)
        except ValueError as error:
            raise OptionError(f'bad value for option "{name}": {error}') from error
    options = Options(**found)
    if options.uncore and options.across_numa:
        raise OptionError(f"static policy options {UNCORE} and {ACROSS_NUMA} can not be used at the same time")
    return options


def exclusive_cpus(pod: Obj, container: Obj) -> int:
    """How many CPUs the container is to have for itself."""
    if qos_class(pod) != "Guaranteed" or wants_pod_level(pod):
        return 0
    milli = requests_of(container).get("cpu", ZERO).milli_value()
    return 0 if milli % 1000 else milli // 1000


def pod_exclusive_cpus(pod: Obj) -> int:
    """The most that the pod has at any time: init containers' CPUs go on to those after them."""
    passing = sidecars = 0
    for container in podspec.init_containers(pod):
        wanted = exclusive_cpus(pod, container)
        if podspec.is_sidecar(container):
            sidecars += wanted
        else:
            passing = max(passing, sidecars + wanted)
    return max(passing, sidecars + sum(exclusive_cpus(pod, each) for each in podspec.containers(pod)))


def reserved_set(topology: Topology, count: int, specific: CpuSet, options: Options) -> CpuSet:
    """The CPUs that are kept for the system: those that were named, or so many."""
    if specific:
        reserved = specific
    else:
        reserved = _take(topology, topology.all_cpus, count, options)
    if len(reserved) != count:
        raise StateError(
            f"[cpumanager] unable to reserve the required amount of CPUs (size of {cpusets.shown(reserved)} "
            f"did not equal {count})"
        )
    return reserved


def reserved_count(milli: int) -> int:
    if not milli:
        raise StateError(
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
        )
    return math.ceil(milli / 1000)


def _take(topology: Topology, available: CpuSet, count: int, options: Options) -> CpuSet:
    if options.across_numa:
        group = topology.cpus_per_core if options.full_cores else 1
        return distributed(topology, available, count, group=group)
    return packed(topology, available, count, whole_caches=options.uncore)


class NoCpuManager:
    """The policy `none`: nobody is bound to CPUs. The file tells an upstream kubelet so."""

    def __init__(self, directory: Path) -> None:
        _State(directory / STATE_FILE, "none").restore()

    def hints(self, pod: Obj, container: Obj) -> Hints:
        return {}

    def pod_hints(self, pod: Obj) -> Hints:
        return {}

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        return

    def keep(self, active: Active) -> None:
        return

    def affinity(self, uid: str, name: str) -> CpuSet:
        return NONE

    def exclusive(self, uid: str, name: str) -> CpuSet:
        return NONE

    def has_exclusive(self, uid: str) -> bool:
        return False

    @property
    def allocatable(self) -> CpuSet:
        return NONE


@dataclass(slots=True)
class _State:
    path: Path
    policy: str
    shared: CpuSet = NONE
    assigned: dict[str, dict[str, CpuSet]] = field(default_factory=dict)
    """By pod and container."""

    def restore(self) -> None:
        """StateError when the file is of another policy or damaged."""
        try:
            found = checkpoint.read(self.path)
            if found is None:
                self.save()
                return
            entries = found.get("entries") or {}
            if not found.get("podEntries"):
                policy, default = found.get("policyName", ""), found.get("defaultCpuSet", "")
                checkpoint.verify(found.get("checksum", 0), _checksum(policy, default, entries))
            if found.get("policyName") != self.policy:
                raise checkpoint.Corrupt(
                    f'configured policy "{self.policy}" differs from state checkpoint policy '
                    f'"{found.get("policyName", "")}"'
                )
            self.shared = cpusets.parse(found.get("defaultCpuSet", ""))
            self.assigned = {
                uid: {name: cpusets.parse(text) for name, text in containers.items()}
                for uid, containers in entries.items()
            }
        except (checkpoint.Corrupt, ValueError, AttributeError) as error:
            raise StateError(
                f"could not restore state from checkpoint: {error}, please drain this node and delete the CPU manager "
                f'checkpoint file "{self.path}" before restarting Kubelet'
            ) from error

    def save(self) -> None:
        default = cpusets.shown(self.shared)
        entries = {
            uid: {name: cpusets.shown(cpus) for name, cpus in containers.items()}
            for uid, containers in self.assigned.items()
        }
        content: Obj = {"policyName": self.policy, "defaultCpuSet": default}
        if entries:
            content["entries"] = entries
        checkpoint.write(self.path, {**content, "checksum": _checksum(self.policy, default, entries)})


def _checksum(policy: str, default: str, entries: Mapping[str, Mapping[str, str]]) -> int:
    return checkpoint.checksum(
        f"(*state.CPUManagerCheckpoint){{PolicyName:(string){policy} DefaultCPUSet:(string){default} "
        f"Entries:(map[string]map[string]string){checkpoint.shown(entries)} Checksum:(checksum.Checksum)0}}"
    )


class CpuManager:
    """The policy `static`."""

    def __init__(
        self,
        topology: Topology,
        directory: Path,
        measures: ManagerMetrics,
        *,
        reserved: CpuSet,
        options: Options = Options(),
    ) -> None:
        """StateError when the state on disk does not fit."""
        self._topology = topology
        self._measures = measures
        self._reserved = reserved
        self._options = options
        self._reusable: dict[str, CpuSet] = {}
        """By pod: what its init containers had, for those that follow."""
        self._state = _State(directory / STATE_FILE, "static")
        self._state.restore()
        self._validate()
        self._measure()

    def _validate(self) -> None:
        state, everything = self._state, self._topology.all_cpus
        pool = everything - self._reserved if self._options.strict else everything
        if not state.shared:
            if state.assigned:
                raise StateError("default cpuset cannot be empty")
            state.shared = pool
            state.save()
            return
        reserved, shared = cpusets.shown(self._reserved), cpusets.shown(state.shared)
        if self._options.strict:
            if both := self._reserved & state.shared:
                raise StateError(
                    f'some of strictly reserved cpus: "{cpusets.shown(both)}" are present in defaultCpuSet: "{shared}"'
                )
        elif not self._reserved <= state.shared:
            raise StateError(f'not all reserved cpus: "{reserved}" are present in defaultCpuSet: "{shared}"')
        known = state.shared
        for uid, containers in state.assigned.items():
            for name, cpus in containers.items():
                if cpus & state.shared:
                    raise StateError(
                        f'pod: {uid}, container: {name} cpuset: "{cpusets.shown(cpus)}" overlaps with default cpuset '
                        f'"{shared}"'
                    )
                known |= cpus
        expected = everything - self._reserved if self._options.strict else everything
        if known != expected:
            raise StateError(
                f'current set of available CPUs "{cpusets.shown(expected)}" doesn\'t match with CPUs in state '
                f'"{cpusets.shown(known)}"'
            )

    # What others ask

    @property
    def allocatable(self) -> CpuSet:
        return self._topology.all_cpus - self._reserved

    def exclusive(self, uid: str, name: str) -> CpuSet:
        return self._state.assigned.get(uid, {}).get(name, NONE)

    def has_exclusive(self, uid: str) -> bool:
        return bool(self._state.assigned.get(uid))

    def affinity(self, uid: str, name: str) -> CpuSet:
        """The CPUs that the container may run on."""
        return self.exclusive(uid, name) or self._state.shared

    @property
    def _available(self) -> CpuSet:
        return self._state.shared - self._reserved

    # Hints

    def hints(self, pod: Obj, container: Obj) -> Hints:
        wanted = exclusive_cpus(pod, container)
        if not wanted:
            return {}
        uid = pod["metadata"]["uid"]
        had = self.exclusive(uid, container["name"])
        if had:
            return {"cpu": self._hints(had, NONE, wanted) if len(had) == wanted else []}
        return {"cpu": self._hints(self._available, self._reusable.get(uid, NONE), wanted)}

    def pod_hints(self, pod: Obj) -> Hints:
        wanted = pod_exclusive_cpus(pod)
        if not wanted:
            return {}
        uid = pod["metadata"]["uid"]
        had = NONE
        for container in in_order(pod):
            own = self.exclusive(uid, container["name"])
            if own and len(own) != exclusive_cpus(pod, container):
                return {"cpu": []}
            had |= own
        if len(had) == wanted:
            return {"cpu": self._hints(had, NONE, wanted)}
        return {"cpu": self._hints(self._available, self._reusable.get(uid, NONE) | had, wanted)}

    def _hints(self, available: CpuSet, reusable: CpuSet, wanted: int) -> Sequence[Hint]:
        """The sets of NUMA nodes that have as many CPUs free, and all those that are to be used again."""
        nodes = sorted({each.numa for each in self._topology.cpus})
        least, fitting = len(nodes), []
        for mask in masks(nodes):
            inside = self._topology.within("numa", mask)
            if len(inside) >= wanted:
                least = min(least, len(mask))
            if reusable <= inside and len(reusable) + len(available & inside) >= wanted:
                fitting.append(mask)
        return [Hint(mask, len(mask) == least) for mask in fitting]

    # Giving and taking back

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        wanted = exclusive_cpus(pod, container)
        if not wanted:
            return
        self._measures.cpu_requests.inc()
        try:
            self._allocate(pod, container, wanted, affinity)
        except Refused:
            self._measures.cpu_errors.inc()
            if self._options.full_cores:
                self._measures.unaligned.labels("container", "physical_cpu").inc()
            raise
        if self._options.full_cores:
            self._measures.aligned.labels("container", "physical_cpu").inc()

    def _allocate(self, pod: Obj, container: Obj, wanted: int, affinity: Hint) -> None:
        uid, name = pod["metadata"]["uid"], container["name"]
        if self._options.full_cores:
            self._check_cores(wanted)
        cpus = self.exclusive(uid, name)
        if not cpus:
            cpus = self._choose(wanted, affinity, self._reusable.get(uid, NONE))
            self._state.shared -= cpus
            self._state.assigned.setdefault(uid, {})[name] = cpus
            self._state.save()
            self._measure()
            if self._topology.count("cache") and len({c.cache for c in self._topology.cpus if c.id in cpus}) == 1:
                self._measures.aligned.labels("container", "uncore_cache").inc()
        reusable = self._reusable.get(uid, NONE)
        self._reusable = {uid: reusable | cpus if is_passing(pod, container) else reusable - cpus}

    def _check_cores(self, wanted: int) -> None:
        per_core = self._topology.cpus_per_core
        if wanted % per_core:
            raise Refused(
                f"SMT Alignment Error: requested {wanted} cpus not multiple cpus per core = {per_core}",
                "SMTAlignmentError",
            )
        reserved_cores = {each.core for each in self._topology.cpus if each.id in self._reserved}
        free = len(self._state.shared - self._topology.within("core", reserved_cores))
        if wanted > free:
            raise Refused(
                f"SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {free}, requested "
                f"CPUs = {wanted}, CPUs per core = {per_core}",
                "SMTAlignmentError",
            )

    def _choose(self, wanted: int, affinity: Hint, reusable: CpuSet) -> CpuSet:
        available = self._available | reusable
        cpus = NONE
        try:
            if affinity.nodes is not None:
                aligned = available & self._topology.within("numa", affinity.nodes)
                cpus = _take(self._topology, aligned, min(wanted, len(aligned)), self._options)
            return cpus | _take(self._topology, available - cpus, wanted - len(cpus), self._options)
        except TooFew as error:
            raise Refused(str(error)) from error

    def keep(self, active: Active) -> None:
        gone = [
            (uid, name)
            for uid, containers in self._state.assigned.items()
            for name in containers
            if name not in active.get(uid, frozenset())
        ]
        for uid, name in gone:
            containers = self._state.assigned[uid]
            freed = containers.pop(name).difference(*containers.values())
            self._state.shared |= freed
            if not containers:
                del self._state.assigned[uid]
        if gone:
            self._state.save()
            self._measure()

    def _measure(self) -> None:
        taken = self._topology.all_cpus - self._state.shared - self._reserved
        self._measures.cpu_shared.set(len(self._available) * 1000)
        self._measures.cpu_exclusive.set(len(taken))
        for node in sorted({each.numa for each in self._topology.cpus}):
            self._measures.cpu_per_numa.labels(str(node)).set(len(taken & self._topology.within("numa", [node])))
