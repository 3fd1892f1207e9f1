"""Acting when the node runs short: free what nobody needs, and if that is not enough end a pod.

`eviction` decides; here the node is looked at every ten seconds and what was decided is done.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import eviction, podspec
from shipwheel.kubelet.eviction import Observation, PodUsage, PressureState, Threshold
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.server.sampling import Sampler
from shipwheel.kubelet.services import Record
from shipwheel.kubelet.status import disruption_target
from shipwheel.kubelet.usage import pod_usage

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
FRESH_SECONDS = 10.0
"""How old what pods use may be when one of them has to go."""


@dataclass(slots=True)
class Pressure:
    """`conditions` are those that hold now."""

    clock: Clock
    thresholds: Sequence[Threshold]
    transition: float
    maximum_grace: int
    observe: Callable[[], Mapping[str, Observation]]
    sampler: Sampler
    pods: Callable[[], Sequence[Obj]]
    """Those of which something may run."""
    reclaim_disk: Callable[[], Awaitable[int]]
    """Remove what nobody needs; the bytes that freed."""
    end: Callable[[str, Ending], None]
    """End the pod of this uid."""
    record: Record
    record_node: Callable[[str, str, str], None]
    changed: Callable[[], None]
    """The node's conditions are not what they were."""
    evicted: Callable[[str], None]
    """A pod was evicted for this signal."""
    conditions: frozenset[str] = frozenset()
    _state: PressureState = field(default_factory=PressureState)
    _ending: set[str] = field(default_factory=set)
    """Pods on their way out: no other goes before they are gone."""

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except RuntimeFault as fault:
                log.warning("looking for pressure on the node: %s", fault.message)
            await self.clock.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        observations = self.observe()
        self._state, held, due = eviction.look(
            self.thresholds,
            self._state,
            observations,
            transition=self.transition,
            now=self.clock.monotonic(),
        )
        if held != self.conditions:
            self.conditions = held
            self.changed()
        active = [pod for pod in self.pods() if not podspec.is_terminal(podspec.phase_of(pod))]
        self._ending &= {pod["metadata"]["uid"] for pod in active}
        if await self._enforce_storage_limits(active) or not due or self._ending:
            return
        await self._relieve(due[0], observations, active)

    async def _usage(self) -> dict[str, PodUsage]:
        sample = await self.sampler.sample(max_age=FRESH_SECONDS)
        return {each.pod["metadata"]["uid"]: pod_usage(each) for each in sample.pods}

    async def _enforce_storage_limits(self, active: Sequence[Obj]) -> bool:
        limited = [pod for pod in active if eviction.stores_with_limits(pod)]
        if not limited:
            return False
        usage = await self._usage()
        ended = False
        for pod in limited:
            used = usage.get(pod["metadata"]["uid"])
            over = eviction.over_storage_limit(pod, used) if used is not None else None
            if over is not None and not podspec.is_critical(pod):
                signal, why = over
                self._evict(pod, signal, why, eviction.IMMEDIATE_GRACE, condition=False)
                ended = True
        return ended

    async def _relieve(
        self, threshold: Threshold, observations: Mapping[str, Observation], active: Sequence[Obj]
    ) -> None:
        resource = eviction.RESOURCES[threshold.signal]
        log.warning("the node is low on %s (%s)", resource, threshold.signal)
        self.record_node("Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if eviction.CONDITIONS[threshold.signal] == "DiskPressure" and await self.reclaim_disk():
            now = self.observe().get(threshold.signal)
            if now is not None and now.available >= threshold.limit(now.capacity, after=True):
                return
        usage = await self._usage()
        for pod in eviction.rank(active, usage, resource):
            used = usage.get(pod["metadata"]["uid"])
            text = eviction.message(pod, threshold, observations.get(threshold.signal), used)
            grace = eviction.grace_for(pod, threshold, self.maximum_grace)
            self._evict(pod, threshold.signal, text, grace, condition=True)
            return
        log.error("the node is low on %s, and there is no pod to evict", resource)

    def _evict(self, pod: Obj, signal: str, message: str, grace: int, *, condition: bool) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._ending:
            return
        self._ending.add(uid)
        self.evicted(signal)
        self.record(pod, None, "Warning", eviction.REASON, message)
        target = disruption_target(pod, message, self.clock.now()) if condition else None
        self.end(uid, Ending(eviction.REASON, message, grace, target))


def image_root(mountpoints: Sequence[str]) -> Path | None:
    """Where the runtime keeps images, if it tells."""
    return Path(mountpoints[0]) if mountpoints and mountpoints[0] else None
