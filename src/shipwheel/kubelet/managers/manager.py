"""All managers together: a pod comes in if each can give what it asks for, in a place that all agree on.

Pods come in one after the other. What they were given is written down by the managers themselves, so a kubelet that is
started again finds it; what pods have that are no more is taken back before the next one comes in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.managers import cpusets
from shipwheel.kubelet.managers.base import Active, Provider, Refused, in_order
from shipwheel.kubelet.managers.claim_manager import RECONCILE_SECONDS, ClaimManager
from shipwheel.kubelet.managers.claim_plugins import ClaimDriverHandler, ClaimDrivers
from shipwheel.kubelet.managers.cpu_manager import CpuManager, NoCpuManager
from shipwheel.kubelet.managers.cpusets import CpuSet
from shipwheel.kubelet.managers.device_manager import DeviceManager
from shipwheel.kubelet.managers.device_plugins import DeviceHandler
from shipwheel.kubelet.managers.hints import Hint, Merger, Scope
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.memory_manager import MemoryManager, NoMemoryManager
from shipwheel.kubelet.runtime.base import LinuxResources, Runtime, RuntimeFault
from shipwheel.kubelet.services import Extras
from shipwheel.kubelet.volumes.csi.registration import PluginHandler

log = logging.getLogger(__name__)

MISPLACED = "TopologyAffinityError"


@dataclass(frozen=True, slots=True)
class RunningContainer:
    id: str
    uid: str
    """Of its pod."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How pods are placed on NUMA nodes."""

    merger: Merger
    scope: Scope = "container"


class ResourceManagers:
    """`active` gives the containers of pods that hold resources; None until all pods are known."""

    def __init__(
        self,
        *,
        placement: Placement,
        cpus: CpuManager | NoCpuManager,
        memory: MemoryManager | NoMemoryManager,
        devices: DeviceManager,
        claims: ClaimManager,
        drivers: ClaimDrivers,
        clock: Clock,
        runtime: Runtime,
        measures: ManagerMetrics,
        active: Callable[[], Active | None],
        running: Callable[[], Iterable[RunningContainer]],
        reconcile_seconds: float = 10.0,
    ) -> None:
        self.cpus = cpus
        self.memory = memory
        self.devices = devices
        self.claims = claims
        self.drivers = drivers
        self._placement = placement
        self._clock = clock
        self._runtime = runtime
        self.measures = measures
        self._active = active
        self._running = running
        self._reconcile_seconds = reconcile_seconds
        self._lock = asyncio.Lock()
        self._set: dict[str, CpuSet] = {}
        """The CPUs that containers were last set to, by id."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.devices.run(), name="device plugins")
            group.create_task(self.drivers.run(), name="claim drivers")
            group.create_task(self._reconcile_claims(), name="claims")
            if isinstance(self.cpus, CpuManager):
                group.create_task(self._reconcile_cpus(), name="cpu manager")

    def plugin_handlers(self) -> Mapping[str, PluginHandler]:
        return {
            "DRAPlugin": ClaimDriverHandler(self.drivers),
            "DevicePlugin": DeviceHandler(self.devices.connect, self.devices.disconnect),
        }

    # Coming in

    async def admit(self, pod: Obj) -> Refused | None:
        """Give the pod's containers what they ask for; what stands against it otherwise."""
        async with self._lock:
            self._forget_others(pod)
            if self._placement.merger.policy == "none":
                return await self._give_all(pod, lambda container: Hint())
            self.measures.topology_requests.inc()
            began = self._clock.monotonic()
            refused = await self._place(pod)
            self.measures.topology_duration.observe((self._clock.monotonic() - began) * 1000)
            if refused is not None:
                self.measures.topology_errors.inc()
            return refused

    def _forget_others(self, pod: Obj) -> None:
        active = self._active()
        if active is not None:
            own = frozenset(each["name"] for each in in_order(pod))
            for provider in self._providers:
                provider.keep({**active, pod["metadata"]["uid"]: own})

    @property
    def _providers(self) -> Sequence[Provider]:
        return self.devices, self.cpus, self.memory

    async def _place(self, pod: Obj) -> Refused | None:
        scope, single = self._placement.scope, self._placement.merger.policy == "single-numa-node"
        merge = self._placement.merger.merge
        if scope == "pod":
            hint, fits = merge([each.pod_hints(pod) for each in self._providers])
            refused = await self._give_all(pod, lambda container: hint) if fits else _misplaced()
        else:
            fits, refused = True, None
            for container in in_order(pod):
                hint, fits = merge([each.hints(pod, container) for each in self._providers])
                refused = await self._give(pod, container, hint) if fits else _misplaced()
                if refused is not None:
                    break
                if single:
                    self.measures.aligned.labels(scope, "numa_node").inc()
        if single and not fits:
            self.measures.unaligned.labels(scope, "numa_node").inc()
        elif single and scope == "pod" and refused is None:
            self.measures.aligned.labels(scope, "numa_node").inc()
        return refused

    async def _give_all(self, pod: Obj, hint: Callable[[Obj], Hint]) -> Refused | None:
        for container in in_order(pod):
            refused = await self._give(pod, container, hint(container))
            if refused is not None:
                return refused
        return None

    async def _give(self, pod: Obj, container: Obj, hint: Hint) -> Refused | None:
        try:
            for provider in self._providers:
                await provider.allocate(pod, container, hint)
        except Refused as refused:
            return refused
        return None

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        """(present, usable) of each extended resource."""
        return self.devices.capacity()

    def has_own_cpus(self, uid: str, name: str = "") -> bool:
        """Whether a container of the pod, or that of this name, has CPUs for itself alone."""
        return bool(self.cpus.exclusive(uid, name)) if name else self.cpus.has_exclusive(uid)

    def counted(self, allocatable: Mapping[str, str]) -> Mapping[str, str]:
        """What of the node is only counted: devices are given one by one."""
        return {name: amount for name, amount in allocatable.items() if not self.devices.is_ours(name)}

    # Running

    async def prepare(self, pod: Obj) -> None:
        """Before the pod's sandbox is made; ClaimFault."""
        await self.claims.prepare(pod)

    async def unprepare(self, pod: Obj) -> None:
        """When its containers have ended; ClaimFault."""
        await self.claims.unprepare(pod)

    async def extras(self, pod: Obj, container: Obj) -> Extras:
        """What a container that is about to start gets. Refused, ClaimFault."""
        uid, name = pod["metadata"]["uid"], container["name"]
        if podspec.container_kind(pod, name) == "ephemeral":
            return Extras()
        by_plugin = await self.devices.extras(pod, container)
        by_claim = self.claims.cdi_of(pod, container)
        memory = {node for block in self.memory.blocks(uid, name) for node in block.nodes}
        return Extras(
            by_plugin.devices,
            by_plugin.mounts,
            by_plugin.env,
            by_plugin.annotations,
            cpuset_cpus=cpusets.shown(self.cpus.affinity(uid, name)),
            cpuset_mems=cpusets.shown(memory),
            cdi_devices=(*by_plugin.cdi_devices, *by_claim),
        )

    def statuses(self, pod: Obj, status: Obj) -> Obj:
        """The pod's status, which also tells how the devices of its containers are."""
        uid = pod["metadata"]["uid"]
        changed = False
        listed = []
        for each in status.get("containerStatuses") or ():
            container = podspec.find_container(pod, each["name"])
            found = self.devices.statuses(uid, each["name"])
            if container is not None:
                found += self.claims.statuses(pod, container)
            changed = changed or bool(found)
            listed.append({**each, "allocatedResourcesStatus": found} if found else each)
        return {**status, "containerStatuses": listed} if changed else status

    # Keeping it so

    async def _reconcile_claims(self) -> None:
        while True:
            await self._clock.sleep(RECONCILE_SECONDS)
            active = self._active()
            if active is not None:
                await self.claims.reconcile(active)

    async def _reconcile_cpus(self) -> None:
        """Move running containers to what the shared pool is now."""
        while True:
            await self._clock.sleep(self._reconcile_seconds)
            active = self._active()
            if active is not None:
                async with self._lock:
                    self.cpus.keep(active)
            await self.set_cpus()

    async def set_cpus(self) -> None:
        running = list(self._running())
        ids = {each.id for each in running}
        self._set = {key: cpus for key, cpus in self._set.items() if key in ids}
        for each in running:
            wanted = self.cpus.affinity(each.uid, each.name)
            if not wanted or self._set.get(each.id) == wanted:
                continue
            try:
                await self._runtime.update_resources(each.id, LinuxResources(cpuset_cpus=cpusets.shown(wanted)))
                self._set[each.id] = wanted
            except RuntimeFault as fault:
                log.warning("moving container %s to CPUs %s: %s", each.id, cpusets.shown(wanted), fault.message)


def _misplaced() -> Refused:
    return Refused("Resources cannot be allocated with Topology locality", MISPLACED)
