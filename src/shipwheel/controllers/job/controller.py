"""The Job loop."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from functools import partial

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    condition,
    controller_of,
    is_being_deleted,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    split_key,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import JOBS, PODS
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import (
    Context,
    each,
    in_batches,
    is_not_found,
    namespace_is_terminating,
    selector_of,
)
from shipwheel.controllers.job import tracking
from shipwheel.controllers.job.backoff import Backoff
from shipwheel.controllers.job.metrics import JobMetrics
from shipwheel.controllers.job.plan import (
    FINALIZER,
    INDEX,
    View,
    Work,
    failure_counts,
    is_finished,
    is_ours,
    is_suspended,
    make_condition,
    plan,
    view,
)
from shipwheel.controllers.ownership import claim

_BATCH_SECONDS = 1.0
"""Changes of pods are looked at together: a Job's pods tend to end at the same time."""
_NAME_MAX = 58


class JobController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._jobs = ctx.informer(JOBS)
        self._pods = ctx.pods()
        self._writes = ctx.writes("job_controller", "Job")
        self._released: dict[str, set[str]] = {}
        self._backoffs: dict[str, Backoff] = {}
        informers = (self._jobs, self._pods)
        self._loop = ctx.loop(
            "job", self.reconcile, workers=ctx.config.concurrent_job_syncs, informers=informers, writes=self._writes
        )
        self._orphans = ctx.loop("job_orphan_pod", self._reconcile_orphan, workers=1, informers=informers)
        self._jobs.add_handler(self._on_job)
        self._pods.add_handler(self._on_pod)
        self._metrics = JobMetrics(ctx.metrics)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._orphans.run())

    # Events

    def _on_job(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        job = new if new is not None else old
        assert job is not None
        self._loop.add(job)
        if kind == "ADDED" and not is_ours(job):
            self._metrics.managed_by(job["spec"]["managedBy"])
        if new is None or is_finished(new):
            for pod in self._pods.by_index("owner", uid_of(job)):
                self._orphans.add(pod)

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        self._metrics.tracked(new, old)
        pod = new if new is not None else old
        assert pod is not None
        found = False
        for reference in [controller_of(each_) for each_ in (new, old) if each_ is not None]:
            if reference is not None and reference["kind"] == "Job":
                job = self._jobs.get(namespace_of(pod), reference["name"])
                if job is not None and uid_of(job) == reference["uid"]:
                    self._loop.queue.add_after(key_of(job), 0 if kind == "ADDED" else _BATCH_SECONDS)
                    found = found or not is_finished(job)
        if new is None:
            return
        if not found and FINALIZER in (new["metadata"].get("finalizers") or ()):
            self._orphans.add(new)
        if controller_of(new) is None and not is_being_deleted(new):
            for job in self._jobs.list(namespace_of(new)):
                if selector_of(job).matches(labels_of(new)):
                    self._loop.add(job)

    async def _reconcile_orphan(self, key: str) -> float | None:
        """A pod whose Job is gone or finished needs nobody to count it."""
        namespace, name = split_key(key)
        pod = self._pods.get(namespace, name)
        if pod is None or FINALIZER not in (pod["metadata"].get("finalizers") or ()):
            return None
        owner = controller_of(pod)
        if owner is not None:
            if owner["kind"] != "Job":
                return None
            job = self._jobs.get(namespace, owner["name"])
            if job is not None and uid_of(job) == owner["uid"] and (not is_ours(job) or not is_finished(job)):
                return None
        await self._release(None, pod)
        return None

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        job = self._jobs.get(namespace, name)
        if job is None or is_finished(job) or not is_ours(job):
            self._released.pop(key, None)
            self._backoffs.pop(key, None)
            self._writes.forget(key)
            return None
        sync = _Sync(self._ctx.clock.monotonic())
        try:
            look_after = await self._sync(key, job, sync)
        except BaseException:
            self._metrics.synced(job, sync.action, self._ctx.clock.monotonic() - sync.started, ok=False)
            raise
        self._metrics.synced(job, sync.action, self._ctx.clock.monotonic() - sync.started, ok=True)
        return look_after

    async def _sync(self, key: str, job: Obj, sync: _Sync) -> float | None:
        namespace = namespace_of(job)
        matches = selector_of(job).matches
        candidates = [*self._pods.by_index("owner", uid_of(job)), *self._pods.by_index("orphan", namespace)]
        pods = await claim(self._ctx.client, job, JOBS, PODS, candidates, matches, add_finalizers=(FINALIZER,))
        self._forget_released(key, pods)
        found = view(
            job,
            pods,
            frozenset(self._released.get(key, ())),
            self._backoffs.get(key, Backoff()),
            self._ctx.clock.now(),
        )
        status = tracking.fresh_status(job)
        tracking.start(status, found)
        error, look_after = await self._manage(key, found, status, sync)
        await self._track(key, found, status)
        if error is not None:
            raise error
        waits = [wait for wait in (look_after, found.look_after) if wait is not None]
        return min(waits, default=None)

    def _forget_released(self, key: str, pods: list[Obj]) -> None:
        """Remember the pods that we have released only as long as the cache shows them with the finalizer."""
        released = self._released.get(key)
        if released:
            shown = {uid_of(pod) for pod in pods if FINALIZER in (pod["metadata"].get("finalizers") or ())}
            released &= shown

    async def _manage(
        self, key: str, found: View, status: Obj, sync: _Sync
    ) -> tuple[BaseException | None, float | None]:
        """Create and delete pods; (the first error, seconds after which to look again)."""
        job = found.job
        active = len(found.active)
        ready = sum(podutil.is_ready(pod) for pod in found.active)
        work = Work()
        errors: list[BaseException] = []
        if found.verdict is not None:
            errors = await each(self._delete(key, job, pod) for pod in found.active)
            gone = active - len(errors)
            if errors:
                found.verdict = None
            active -= gone
            found.terminating += gone
            ready = 0 if not errors else ready
        elif is_being_deleted(job):
            self._judge_completion(found, active)
        else:
            work = plan(found)
            sync.action = work.action
            errors = await each(self._delete(key, job, pod, uncounted=True) for pod in work.delete)
            gone = len(work.delete) - len(errors)
            active -= gone
            found.terminating += gone
            ready -= min(sum(podutil.is_ready(pod) for pod in work.delete), gone)
            made, failed = await self._create(key, found, work.create)
            active += made
            errors += failed
            self._metrics.created(found, made, len(failed))
            if not self._judge_completion(found, active):
                self._judge_suspension(found, status)
        status["active"] = active
        status["ready"] = ready
        status["terminating"] = found.terminating
        return (errors[0] if errors else None), work.look_after

    @staticmethod
    def _judge_completion(found: View, active: int) -> bool:
        """Whether enough pods have succeeded; that is a verdict."""
        completions = found.completions
        enough = found.succeeded > 0 if completions is None else found.succeeded >= completions
        if enough and active == 0:
            found.verdict = make_condition(
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                found.now,
            )
            return True
        return False

    def _judge_suspension(self, found: View, status: Obj) -> None:
        suspended = condition(found.job, "Suspended")
        was = suspended is not None and suspended["status"] == "True"
        if is_suspended(found.job) and not was:
            self._set_suspended(found, status, "True", "JobSuspended", "Job suspended")
            self._event(found.job, "Normal", "Suspended", "Job suspended")
            status.pop("startTime", None)
        elif not is_suspended(found.job) and was:
            self._set_suspended(found, status, "False", "JobResumed", "Job resumed")
            self._event(found.job, "Normal", "Resumed", "Job resumed")
            status["startTime"] = rfc3339(found.now)

    @staticmethod
    def _set_suspended(found: View, status: Obj, value: str, reason: str, message: str) -> None:
        others = [entry for entry in status.get("conditions") or () if entry["type"] != "Suspended"]
        status["conditions"] = [*others, make_condition("Suspended", value, reason, message, found.now)]

    # Counting

    async def _track(self, key: str, found: View, status: Obj) -> None:
        """Write down what has ended, take the finalizers off, count, and finish the Job if that is all."""
        job = found.job
        tally = tracking.tally(found, status)
        if not tracking.same_status(job.get("status") or {}, status):
            job = await self._write(key, job, status)
            self._backoffs[key] = found.backoff
        for action in tally.handled:
            self._metrics.handled(action)
        status = copy.deepcopy(status)
        errors = await each(self._release(key, pod) for pod in tally.release)
        held = tracking.held_uids(found) - self._released.get(key, set())
        tracking.settle(status, held)
        finished = not tally.more and not errors and tracking.finish(status, tally.verdict, found.terminating)
        if not tracking.same_status(job.get("status") or {}, status):
            job = await self._write(key, job, status)
        self._metrics.counted(found.job, found.job.get("status") or {}, status)
        if finished and tally.verdict is not None:
            self._tell_end(job, tally.verdict)
        if errors:
            raise errors[0]
        if tally.more:
            self._loop.queue.add(key)

    async def _write(self, key: str, job: Obj, status: Obj) -> Obj:
        call = self._ctx.client.update(JOBS, {**job, "status": status}, subresource="status")
        return await self._writes.do(key, self._jobs, call)

    async def _release(self, key: str | None, pod: Obj) -> None:
        """Take the tracking finalizer off a pod."""
        metadata = {"uid": uid_of(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}
        try:
            await self._ctx.client.patch(
                PODS, name_of(pod), namespace_of(pod), {"metadata": metadata}, kind="strategic"
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
        if key is not None:
            self._released.setdefault(key, set()).add(uid_of(pod))

    def _tell_end(self, job: Obj, verdict: Obj) -> None:
        self._metrics.finished(job, verdict)
        if verdict["type"] == "Complete":
            completions = job["spec"].get("completions")
            if completions is not None and ((job.get("status") or {}).get("succeeded") or 0) > completions:
                message = "Too many succeeded pods running after completion count reached"
                self._event(job, "Warning", "TooManySucceededPods", message)
            self._event(job, "Normal", "Completed", "Job completed")
        else:
            self._event(job, "Warning", verdict.get("reason", ""), verdict.get("message", ""))

    # Pods

    async def _create(self, key: str, found: View, indexes: tuple[int | None, ...]) -> tuple[int, list[BaseException]]:
        """Create pods; (how many, errors)."""
        return await in_batches([partial(self._create_one, key, found, index) for index in indexes])

    async def _create_one(self, key: str, found: View, index: int | None) -> None:
        job = found.job
        try:
            call = self._ctx.client.create(PODS, pod_of(found, index), namespace_of(job))
            created = await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if namespace_is_terminating(error):
                return
            self._event(job, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._event(job, "Normal", "SuccessfulCreate", f"Created pod: {name_of(created)}")

    async def _delete(self, key: str, job: Obj, pod: Obj, *, uncounted: bool = False) -> None:
        """Delete a pod; `uncounted`: its end is not to be counted."""
        try:
            if uncounted:
                await self._release(key, pod)
            call = self._ctx.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if is_not_found(error):
                return
            self._event(job, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    def _event(self, job: Obj, kind: str, reason: str, message: str) -> None:
        self._ctx.recorder.event(job, "Warning" if kind == "Warning" else "Normal", reason, message)


@dataclass(slots=True)
class _Sync:
    """What metrics tell of a sync: when it began, in seconds of the monotonic clock, and what it came to."""

    started: float
    action: str = "reconciling"


def pod_of(found: View, index: int | None) -> Obj:
    """The pod to create for an index, or for none."""
    job = found.job
    pod = podutil.pod_from_template(job["spec"]["template"], owner_reference(job), name_of(job))
    metadata = pod["metadata"]
    finalizers = metadata.get("finalizers") or []
    metadata["finalizers"] = [*finalizers, *([] if FINALIZER in finalizers else [FINALIZER])]
    if index is None:
        return pod
    ending = f"-{index}-"
    metadata["generateName"] = name_of(job)[: _NAME_MAX - len(ending)] + ending
    metadata["labels"] = {**labels_of(pod), INDEX: str(index)}
    metadata["annotations"] = {**annotations_of(pod), INDEX: str(index)}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        metadata["annotations"] |= failure_counts(job, found.delayed.get(index))
    spec = copy.deepcopy(pod["spec"])
    spec["hostname"] = f"{name_of(job)}-{index}"
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        variables = container.setdefault("env", [])
        if not any(each_["name"] == "JOB_COMPLETION_INDEX" for each_ in variables):
            field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
            variables.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": field})
    return {**pod, "spec": spec}
