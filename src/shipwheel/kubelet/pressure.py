"""Acting when the node runs short: free what nobody needs, and if that is not enough end a pod.

`eviction` decides; here the node is looked at every ten seconds and what was decided is done. After a pod was told to
go the next look waits until it has gone, as long as that takes no more than half a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import eviction, podspec
from shipwheel.kubelet.eviction import Observation, PodUsage, PressureState
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.server.sampling import Sampler
from shipwheel.kubelet.status import disruption_target
from shipwheel.kubelet.thresholds import RESOURCES, Threshold
from shipwheel.kubelet.usage import pod_usage

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
FRESH_SECONDS = 10.0
"""How old what pods use may be when one of them has to go."""
CLEAN_UP_SECONDS = 30.0
CLEAN_UP_POLL_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Pressure:
    """`conditions` are those that hold now."""

    clock: Clock
    thresholds: Sequence[Threshold]
    transition: float
    maximum_grace: int
    local_storage: bool = True
    """Whether limits on local storage are enforced."""
    observe: Callable[[], Mapping[str, Observation]]
    separate_images: Callable[[], bool]
    """Whether images are on a disk of their own."""
    sampler: Sampler
    pods: Callable[[], Sequence[Obj]]
    """Those of which something may run."""
    reclaim_disk: Callable[[], Awaitable[int]]
    """Remove containers and images that nobody needs; the bytes that freed."""
    end: Callable[[str, Ending], None]
    """End the pod of this uid."""
    record: Callable[[Obj, str, dict[str, str]], None]
    """Record that a pod was evicted: why, and the event's annotations."""
    record_node: Callable[[str, str, str], None]
    changed: Callable[[], None]
    """The node's conditions are not what they were."""
    measures: KubeletMetrics
    conditions: frozenset[str] = frozenset()
    _state: PressureState = field(default_factory=PressureState)

    async def run(self) -> None:
        if not self.thresholds and not self.local_storage:
            return
        while True:
            evicted: Sequence[str] = ()
            try:
                evicted = await self.look()
            except RuntimeFault as fault:
                log.warning("looking for pressure on the node: %s", fault.message)
            if evicted:
                await self._wait_for_end(evicted)
            else:
                await self.clock.sleep(INTERVAL_SECONDS)

    async def _wait_for_end(self, evicted: Sequence[str]) -> None:
        waited = 0.0
        while waited < CLEAN_UP_SECONDS and {pod["metadata"]["uid"] for pod in self.pods()} & set(evicted):
            await self.clock.sleep(CLEAN_UP_POLL_SECONDS)
            waited += CLEAN_UP_POLL_SECONDS

    async def look(self) -> Sequence[str]:
        """Look, and act. The pods that were told to go, by uid."""
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
        if self.local_storage and (evicted := await self._enforce_storage_limits(active)):
            return evicted
        return await self._relieve(due[0], observations, active) if due else ()

    async def _usage(self, signal: str = "") -> dict[str, PodUsage]:
        sample = await self.sampler.sample(max_age=FRESH_SECONDS)
        if signal:
            age = self.clock.now().timestamp() - sample.taken_at / 1e9
            self.measures.eviction_age.labels(signal).observe(max(age, 0.0))
        return {each.pod["metadata"]["uid"]: pod_usage(each) for each in sample.pods}

    async def _enforce_storage_limits(self, active: Sequence[Obj]) -> Sequence[str]:
        limited = [pod for pod in active if eviction.stores_with_limits(pod)]
        if not limited:
            return ()
        usage = await self._usage()
        evicted = []
        for pod in limited:
            uid = pod["metadata"]["uid"]
            used = usage.get(uid)
            over = None
            if used is not None and not podspec.is_critical(pod):
                over = eviction.over_storage_limit(pod, used, separate=self.separate_images())
            if over is not None:
                signal, why = over
                self._evict(pod, signal, why, {}, Ending(eviction.REASON, why, eviction.IMMEDIATE_GRACE))
                evicted.append(uid)
        return evicted

    async def _relieve(
        self, threshold: Threshold, observations: Mapping[str, Observation], active: Sequence[Obj]
    ) -> Sequence[str]:
        signal, resource, separate = threshold.signal, RESOURCES[threshold.signal], self.separate_images()
        log.warning("the node is low on %s (%s)", resource, signal)
        self.record_node("Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        # With a disk of their own, nothing of containers and images is on the node's.
        if signal.startswith("imagefs.") or (signal.startswith("nodefs.") and not separate):
            await self.reclaim_disk()
            if not eviction.crossed(self.thresholds, self.observe(), after=True):
                log.info("there is enough %s without ending a pod", resource)
                return ()
        usage = await self._usage(signal)
        for pod in eviction.rank(active, usage, signal, separate=separate):
            used = usage.get(pod["metadata"]["uid"])
            text, annotations = eviction.message(pod, threshold, observations.get(signal), used)
            grace = eviction.grace_for(pod, threshold, self.maximum_grace)
            target = disruption_target(pod, text, self.clock.now())
            self._evict(pod, signal, text, annotations, Ending(eviction.REASON, text, grace, target))
            return [pod["metadata"]["uid"]]
        log.error("the node is low on %s, and there is no pod to evict", resource)
        return ()

    def _evict(self, pod: Obj, signal: str, message: str, annotations: dict[str, str], ending: Ending) -> None:
        self.measures.evictions.labels(signal).inc()
        self.record(pod, message, annotations)
        self.end(pod["metadata"]["uid"], ending)


def image_root(mountpoints: Sequence[str]) -> Path | None:
    """Where the runtime keeps images, if it tells."""
    return Path(mountpoints[0]) if mountpoints and mountpoints[0] else None
