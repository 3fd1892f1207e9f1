"""The pods of this node, each with its worker: how they come, go, and are found.

Pods come from the API server's watch, from files and a URL, and from the runtime itself, which may have pods that
nobody wants any more. A pod gets its worker here, if the node admits it; the worker does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.kubelet import podspec, resizing
from shipwheel.kubelet.admission import Admission, shortage_message, shortages
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.mirror import Mirrors
from shipwheel.kubelet.pleg import Pleg, RunningPod
from shipwheel.kubelet.pod_worker import Ending, Kit, PodWorker, Stage
from shipwheel.kubelet.status_manager import StatusManager

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 2.0
_LIFECYCLE: dict[Stage, str] = {
    "living": "sync",
    "dying": "terminating",
    "dead": "terminated",
    "settled": "terminated",
    "gone": "terminated",
}
"""What metrics call a worker's stages."""
_WORKING = (
    ("desired", "true"), ("desired", ""), ("orphan", "true"), ("orphan", ""), ("runtime_only", "unknown"),
)  # fmt: skip
_METRIC_STATES = {"CREATED": "created", "RUNNING": "running", "EXITED": "exited", "UNKNOWN": "unknown"}


class PodTable:
    """`run()` owns the workers. `kit` and `admission` are given when everything they need is put together."""

    kit: Kit
    admission: Admission

    def __init__(
        self,
        clock: Clock,
        statuses: StatusManager,
        mirrors: Mirrors,
        pleg: Pleg,
        measures: KubeletMetrics,
        *,
        node: Callable[[], Obj | None],
        allocatable: Callable[[], Mapping[str, str]],
        find: Callable[[str], Obj | None],
        gone: Callable[[str], None],
    ) -> None:
        """`find` looks up an API pod by uid; `gone` is told of a pod of which nothing is left."""
        self._clock = clock
        self._statuses = statuses
        self._mirrors = mirrors
        self._pleg = pleg
        self._measures = measures
        self._node = node
        self._allocatable = allocatable
        self._find = find
        self._gone = gone
        self._workers: dict[str, PodWorker] = {}
        self._waiting: dict[str, Obj] = {}
        """Static pods that came back while they were still ending."""
        self._group: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[PodWorker]:
        return iter(list(self._workers.values()))

    def get(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    async def run(self, sources_ready: Callable[[], Awaitable[None]]) -> None:
        """Own the workers until cancelled. What the runtime has beside them is ended once all sources were read."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._pleg.wait_listed()
                await sources_ready()
                await self._housekeep()
            finally:
                self._group = None

    # Pods come and go

    def on_pod(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        """A change of a pod at the API server."""
        pod = new or old
        assert pod is not None
        if podspec.is_mirror(pod):
            static = self._mirrors.seen(pod, gone=new is None)
            if static is not None:
                self._statuses.reconcile(static)
            return
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if new is None:
            if worker is not None:
                worker.update(pod)
                worker.removed()
        elif worker is None:
            self._begin(new)
        else:
            worker.update(new)
            self._statuses.reconcile(uid)

    def on_static(self, pods: Mapping[str, Obj]) -> None:
        """The static pods that there are now, by uid."""
        for uid, worker in self._workers.items():
            if podspec.is_static(worker.pod) and uid not in pods and worker.stage != "gone":
                worker.removed()
                self._mirrors.forget(worker.pod)
        for uid, pod in pods.items():
            running = self._workers.get(uid)
            if running is None:
                self._begin(pod)
            elif running.ending:
                self._waiting[uid] = pod

    def _begin(self, pod: Obj) -> None:
        """Give a pod its worker."""
        worker = PodWorker(pod, self.kit)
        self._measures.containers_per_pod.observe(len(podspec.containers(pod)))
        if is_being_deleted(pod):
            worker.terminate()
        elif not podspec.is_terminal(podspec.phase_of(pod)):
            self._admit(worker)
        self._start(worker, f"pod {podspec.describe(pod)}")

    def _admit(self, worker: PodWorker) -> None:
        allocatable = self.kit.managers.counted(self._allocatable())
        verdict = self.admission.check(worker.given, self._others(worker.uid), self._node(), allocatable)
        if verdict is None:
            return
        for victim in verdict.victims:
            self._measures.preemptions.labels(verdict.signal).inc()
            self._workers[victim].terminate(verdict.ending)
        if verdict.reason:
            self._reject(worker, verdict.reason, verdict.message)

    def _reject(self, worker: PodWorker, reason: str, message: str) -> None:
        self._measures.rejections.labels(reason).inc()
        worker.reject(reason, message)

    async def _give_parts(self, worker: PodWorker) -> None:
        """Devices, CPUs and memory of its own, if it asks for them; a pod that cannot have them ends."""
        if worker.ending or podspec.is_terminal(podspec.phase_of(worker.pod)):
            return
        refused = await self.kit.managers.admit(worker.given)
        if refused is not None and not worker.ending:
            self.kit.record(worker.pod, None, "Warning", refused.reason, str(refused))
            self._reject(worker, refused.reason, str(refused))

    def _start(self, worker: PodWorker, name: str) -> None:
        assert self._group is not None
        self._workers[worker.uid] = worker
        self._group.create_task(self._work(worker), name=name)

    async def _work(self, worker: PodWorker) -> None:
        await self._give_parts(worker)
        await worker.run()
        del self._workers[worker.uid]
        self._gone(worker.uid)
        self.wake_waiting()
        again = self._waiting.pop(worker.uid, None)
        if again is not None:
            self._begin(again)

    async def _housekeep(self) -> None:
        """End what the runtime has and nobody wants."""
        while True:
            for found in self._pleg.known():
                if found.uid not in self._workers:
                    self._end_orphan(found)
            await self._clock.sleep(HOUSEKEEPING_SECONDS)

    def _end_orphan(self, found: RunningPod) -> None:
        self._measures.orphans.inc()
        log.info("ending orphaned pod %s/%s (%s)", found.namespace, found.name, found.uid)
        meta = {"name": found.name, "namespace": found.namespace, "uid": found.uid}
        worker = PodWorker({"metadata": meta, "spec": {"containers": []}}, self.kit)
        worker.terminate(Ending("", "", grace=1))
        worker.removed()
        self._start(worker, f"orphan {found.uid}")

    def end(self, uid: str, ending: Ending) -> None:
        """End a pod for a reason of the node's own."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.terminate(ending)

    # Waking workers

    def wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    def wake_all(self) -> None:
        for worker in self:
            worker.wake()

    def wake_waiting(self) -> None:
        """Room was made: see whether those who wait for it can grow."""
        for worker in self:
            if worker.resizing.waits:
                worker.wake()

    def refresh_volumes(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.refresh_volumes()

    # What others ask

    def api_pod(self, uid: str) -> Obj | None:
        """The pod's object at the API server: for a static pod its mirror."""
        worker = self._workers.get(uid)
        if worker is not None and podspec.is_static(worker.pod):
            return self._mirrors.of(worker.pod)
        return self._find(uid)

    def could_be_running(self, uid: str) -> bool:
        worker = self._workers.get(uid)
        return worker is not None and worker.could_be_running

    def is_settled(self, uid: str) -> bool:
        """Whether the pod has ended, and its volumes are unmounted."""
        worker = self._workers.get(uid)
        return worker is None or worker.stage in ("settled", "gone")

    def finishes(self, uid: str) -> bool:
        """Whether a pod is meant to end by itself."""
        worker = self._workers.get(uid)
        return worker is not None and podspec.may_end(worker.pod)

    def pods(self) -> list[Obj]:
        """Every pod of this node, with its newest status."""
        found = []
        for worker in self:
            status = self._statuses.get(worker.uid)
            found.append({**worker.pod, "status": status} if status else worker.pod)
        return found

    def measure(self) -> None:
        """Bring the gauges up to date."""
        measures, running, states = self._measures, 0, Counter[str]()
        desired, active, ephemeral = Counter[str](), Counter[str](), 0
        for worker in self:
            static = str(podspec.is_static(worker.pod)).lower()
            desired[static] += 1
            active[static] += worker.could_be_running
            ephemeral += len(podspec.ephemeral_containers(worker.pod))
            running += any(each.ready for each in worker.observed.sandboxes)
            states.update(_METRIC_STATES[each.state] for each in worker.observed.containers)
        self._measure_work()
        measures.running_pods.set(running)
        measures.ephemeral_containers.set(ephemeral)
        for state in _METRIC_STATES.values():
            measures.running_containers.labels(state).set(states[state])
        for static in ("true", "false"):
            measures.desired_pods.labels(static).set(desired[static])
            measures.active_pods.labels(static).set(active[static])

    def _measure_work(self) -> None:
        """What workers are at."""
        measures, mirrors = self._measures, 0
        working: Counter[tuple[str, str, str]] = Counter()
        pending: Counter[str] = Counter()
        in_progress = 0
        for worker in self:
            static = podspec.is_static(worker.pod)
            mirrors += static and worker.could_be_running
            # What was found in the runtime has no containers of its own to run.
            config = "desired" if podspec.containers(worker.pod) else "runtime_only"
            origin = "unknown" if config == "runtime_only" else "true" if static else ""
            working[_LIFECYCLE[worker.stage], config, origin] += 1
            for each in worker.resizing.conditions:
                if each["type"] == resizing.PENDING:
                    pending[each["reason"].lower()] += 1
                in_progress += each["type"] == resizing.IN_PROGRESS
        measures.mirror_pods.set(mirrors)
        for lifecycle in dict.fromkeys(_LIFECYCLE.values()):
            for config, origin in _WORKING:
                measures.working_pods.labels(lifecycle, config, origin).set(working[lifecycle, config, origin])
        for reason in ("deferred", "infeasible"):
            measures.pending_resizes.labels(reason).set(pending[reason])
        measures.resizes_in_progress.set(in_progress)

    def holding(self) -> list[Obj]:
        """The pods that hold resources, as they were given them."""
        return [*self._holding()]

    def _holding(self) -> Iterable[Obj]:
        return (
            each.given for each in self if each.could_be_running and not podspec.is_terminal(podspec.phase_of(each.pod))
        )

    def _others(self, uid: str) -> list[Obj]:
        return [pod for pod in self._holding() if pod["metadata"]["uid"] != uid]

    def shortage(self, pod: Obj) -> str:
        """What there is too little of for a pod of these resources; empty when it fits."""
        short = shortages(pod, self._others(pod["metadata"]["uid"]), self._allocatable())
        return shortage_message(short[0]) if short else ""
