"""What the scheduler writes about pods beside their bindings: events, conditions, nominations, and who has to go.

None of it may hold up the next decision, so it is written by workers of its own, the newest state of a pod only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, key_of, name_of, namespace_of, uid_of
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.client.resources import PODS
from shipwheel.scheduler.metrics import SchedulerMetrics
from shipwheel.scheduler.plugins.preemption import PREEMPTION_BY_SCHEDULER

log = logging.getLogger(__name__)

WORKERS = 4
MESSAGE_LIMIT = 1024
_FAILURES = (ApiError, ConnectionFailed, ConfigError)


class Reporter:
    """Writes in the background; `run()` must be running."""

    def __init__(self, client: Client, clock: Clock, recorder: EventRecorder, metrics: SchedulerMetrics) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._metrics = metrics
        self._jobs: dict[str, Callable[[], Awaitable[None]]] = {}
        self._arrival = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"report {number}")

    async def _work(self) -> None:
        while True:
            while not self._jobs:
                self._arrival.clear()
                await self._arrival.wait()
            key = next(iter(self._jobs))
            try:
                await self._jobs.pop(key)()
            except _FAILURES as error:
                log.warning("%s could not be written: %s", key, error)

    def later(self, key: str, job: Callable[[], Awaitable[None]]) -> None:
        """Do it soon; what was to be done under the same key is done no more."""
        self._jobs[key] = job
        self._arrival.set()

    def superseded(self, pod: Obj) -> None:
        """The pod has a node now: what was to be written about why it has none is no longer so."""
        self._jobs.pop(f"the status of {key_of(pod)}", None)

    def scheduled(self, pod: Obj, node: str, scheduler_name: str) -> None:
        message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}"
        self._recorder.for_component(scheduler_name).event(pod, "Normal", "Scheduled", message)

    async def expected(self, pod: Obj, node: str) -> None:
        """The pod will have this node when it has what it waits for (KEP-5278); others should plan with that."""
        if ((pod.get("status") or {}).get("nominatedNodeName") or "") == node:
            return
        try:
            await self._patch(pod, {"nominatedNodeName": node})
        except _FAILURES as error:
            log.warning("the node that %s is to have could not be written: %s", key_of(pod), error)

    def failed(self, pod: Obj, scheduler_name: str, reason: str, message: str, nominated: str | None = None) -> None:
        """An attempt has failed: `reason` is Unschedulable or SchedulerError. `nominated` is the node that the pod
        is promised from now on, "" for none; None leaves it as it is."""
        shown = message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "..."
        self._recorder.for_component(scheduler_name).event(pod, "Warning", "FailedScheduling", shown)
        self._condition(pod, reason, message, nominated)

    def gated(self, pod: Obj, message: str) -> None:
        """The pod waits for its gates. The API server has said so already when it was created that way."""
        known = condition(pod, "PodScheduled")
        if known is None or known.get("reason") != "SchedulingGated":
            self._condition(pod, "SchedulingGated", message, None)

    def _condition(self, pod: Obj, reason: str, message: str, nominated: str | None) -> None:
        wanted: Obj = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        generation = pod["metadata"].get("generation")
        if generation is not None:
            wanted["observedGeneration"] = generation
        status: Obj = {}
        known = condition(pod, "PodScheduled")
        if known is None or any(known.get(key) != value for key, value in wanted.items()):
            if known is None or known["status"] != "False":
                wanted["lastTransitionTime"] = rfc3339(self._clock.now())
            status["conditions"] = [wanted]
        if nominated is not None and nominated != ((pod.get("status") or {}).get("nominatedNodeName") or ""):
            status["nominatedNodeName"] = nominated or None
        if status:
            self.later(f"the status of {key_of(pod)}", lambda: self._patch(pod, status))

    async def _patch(self, pod: Obj, status: Obj) -> None:
        body: Obj = {"metadata": {"uid": uid_of(pod)}, "status": status}
        try:
            await self._client.patch(
                PODS, name_of(pod), namespace_of(pod), body, kind="strategic", subresource="status"
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def preempt(
        self, pod: Obj, victims: Sequence[Obj], node: str, scheduler_name: str, on_failure: Callable[[], Any]
    ) -> None:
        """Delete the victims."""

        async def delete() -> None:
            started, result = time.perf_counter(), "error"
            try:
                for victim in victims:
                    await self._evict(pod, victim, node, scheduler_name)
                result = "success"
            except _FAILURES:
                on_failure()
                raise
            finally:
                self._metrics.preempted(result, time.perf_counter() - started)

        self.later(f"the preemption for {key_of(pod)}", delete)

    async def _evict(self, pod: Obj, victim: Obj, node: str, scheduler_name: str) -> None:
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": PREEMPTION_BY_SCHEDULER,
            "message": f"{scheduler_name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        if victim["metadata"].get("generation") is not None:
            target["observedGeneration"] = victim["metadata"]["generation"]
        if "deletionTimestamp" in victim["metadata"]:
            return
        await self._patch(victim, {"conditions": [target]})
        try:
            await self._client.delete(PODS, name_of(victim), namespace_of(victim), uid=uid_of(victim))
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        self._recorder.for_component(scheduler_name).event(
            victim, "Normal", "Preempted", f"Preempted by pod {uid_of(pod)} on node {node}"
        )
