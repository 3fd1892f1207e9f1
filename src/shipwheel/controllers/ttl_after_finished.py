"""Finished Jobs with `ttlSecondsAfterFinished` are deleted when that time is over (KEP-592)."""

from __future__ import annotations

from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, is_being_deleted, name_of, namespace_of, split_key, uid_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import JOBS
from shipwheel.controllers.framework import Context, is_not_found
from shipwheel.controllers.job.plan import is_finished


def seconds_left(job: Obj, now: datetime) -> float | None:
    """How long a Job may still stay; 0 or less: its time is over; None: it is not to be deleted."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or not is_finished(job) or is_being_deleted(job):
        return None
    ended = [entry for kind in ("Complete", "Failed") if (entry := condition(job, kind)) and entry["status"] == "True"]
    since = parse_time(ended[0]["lastTransitionTime"])
    return (since + timedelta(seconds=ttl) - now).total_seconds()


class TtlAfterFinishedController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._jobs = ctx.informer(JOBS)
        self._loop = ctx.loop(
            "ttl_jobs_to_delete",
            self.reconcile,
            workers=ctx.config.concurrent_ttl_after_finished_syncs,
            informers=(self._jobs,),
        )
        self._jobs.add_handler(self._on_job)
        self._delay = ctx.metrics.histogram(
            "ttl_after_finished_controller_job_deletion_duration_seconds",
            "[ALPHA] The time it took to delete the job since it became eligible for deletion",
            tuple(0.1 * 2**power for power in range(14)),
        )

    async def run(self) -> None:
        await self._loop.run()

    def _on_job(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and seconds_left(new, self._ctx.clock.now()) is not None:
            self._loop.add(new)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        job = self._jobs.get(namespace, name)
        left = seconds_left(job, self._ctx.clock.now()) if job is not None else None
        if job is None or left is None or left > 0:
            return left
        try:
            # The cache may be old: its end may have been taken back, or its time prolonged.
            fresh = await self._ctx.client.get(JOBS, name, namespace)
            left = seconds_left(fresh, self._ctx.clock.now())
            if left is None or left > 0:
                return left
            await self._ctx.client.delete(
                JOBS,
                name_of(fresh),
                namespace_of(fresh),
                propagation="Foreground",
                uid=uid_of(fresh),
                resource_version=fresh["metadata"]["resourceVersion"],
            )
            self._delay.observe(-left)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None
