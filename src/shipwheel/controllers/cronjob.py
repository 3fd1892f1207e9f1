"""CronJobs: start Jobs when it is time.

`decide` is pure: it knows the schedule, when a Job was last started and what is running, and says whether a Job
is due. A Job's name carries its minute, so that it cannot be started twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shipwheel.api import cron
from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    controller_of,
    is_being_deleted,
    is_condition_true,
    name_of,
    namespace_of,
    owner_reference,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CRON_JOBS, JOBS
from shipwheel.controllers.framework import (
    OWNER_INDEXERS,
    Context,
    Writes,
    is_already_exists,
    is_not_found,
    namespace_is_terminating,
)
from shipwheel.controllers.job.plan import is_finished

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"

_SLACK = 0.1
"""Seconds after the minute at which to look, so that it has certainly begun."""
_TOO_MANY = 100


@dataclass(slots=True)
class Decision:
    """What to do now. Events are (type, reason, message)."""

    start: datetime | None = None
    """The scheduled time of the Job to start."""
    replace: bool = False
    """End the active Jobs first."""
    wait: float | None = None
    """Seconds until the next time."""
    events: list[tuple[str, str, str]] = field(default_factory=list)


def decide(cronjob: Obj, active_names: Iterable[str], now: datetime) -> Decision:
    """Whether a Job is due; `active_names` are those of the Jobs still running."""
    decision = Decision()
    spec = cronjob["spec"]
    zone_name = spec.get("timeZone") or ""
    try:
        zone = cron.load_zone(zone_name)
    except cron.CronError as error:
        decision.events.append(("Warning", "UnknownTimeZone", f'invalid timeZone: "{zone_name}": {error}'))
        return decision
    if spec.get("suspend"):
        return decision
    text = spec["schedule"]
    if "TZ" in text:
        message = (
            f'CRON_TZ or TZ used in schedule "{text}" is not officially supported, see '
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )
        decision.events.append(("Warning", "UnsupportedSchedule", message))
    try:
        schedule = cron.parse(text, zone)
    except cron.CronError as error:
        decision.events.append(("Warning", "UnparseableSchedule", f'unparseable schedule: "{text}" : {error}'))
        return decision
    due, missed = _most_recent(cronjob, schedule, now)
    decision.wait = _until_next(schedule, now)
    if due is None:
        return decision
    if missed > _TOO_MANY:
        message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        decision.events.append(("Warning", "TooManyMissedTimes", message))
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None and due + timedelta(seconds=deadline) < now:
        shown = due.strftime("%a, %d %b %Y %H:%M:%S +0000")
        decision.events.append(("Warning", "MissSchedule", f"Missed scheduled time to start a job: {shown}"))
        return decision
    active = set(active_names)
    last = (cronjob.get("status") or {}).get("lastScheduleTime")
    if job_name(cronjob, due) in active or (last and parse_time(last) == due):
        return decision
    policy = spec.get("concurrencyPolicy") or "Allow"
    if policy == "Forbid" and active:
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        decision.events.append(("Normal", "JobAlreadyActive", message))
        return decision
    decision.start = due
    decision.replace = policy == "Replace" and bool(active)
    return decision


def _most_recent(cronjob: Obj, schedule: cron.Schedule, now: datetime) -> tuple[datetime | None, int]:
    """(the last time that has come and was not used, about how many have)."""
    last = (cronjob.get("status") or {}).get("lastScheduleTime")
    since = parse_time(last or cronjob["metadata"]["creationTimestamp"])
    deadline = cronjob["spec"].get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    first = schedule.next(since)
    if first is None or first > now:
        return None, 0
    second = schedule.next(first)
    if second is None or second > now:
        return first, 1
    # Not one by one: somebody may have been away for a year of minutes.
    period = max((second - first).total_seconds(), 1.0)
    missed = int((now - first).total_seconds() / period) + 1
    recent: datetime | None = None
    time = schedule.next(first + timedelta(seconds=(missed - 2) * period))
    while time is not None and time <= now:
        recent = time
        time = schedule.next(time)
    return recent or first, missed


def _until_next(schedule: cron.Schedule, now: datetime) -> float | None:
    following = schedule.next(now)
    return None if following is None else (following - now).total_seconds() + _SLACK


def job_name(cronjob: Obj, scheduled: datetime) -> str:
    return f"{name_of(cronjob)}-{int(scheduled.timestamp()) // 60}"


def job_for(cronjob: Obj, scheduled: datetime) -> Obj:
    """The Job of a scheduled time."""
    template = copy.deepcopy(cronjob["spec"]["jobTemplate"])
    meta = template.get("metadata") or {}
    local = scheduled.astimezone(cron.load_zone(cronjob["spec"].get("timeZone") or ""))
    annotations = {**(meta.get("annotations") or {}), SCHEDULED_AT: local.isoformat().replace("+00:00", "Z")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(cronjob, scheduled),
            "namespace": namespace_of(cronjob),
            "labels": meta.get("labels") or {},
            "annotations": annotations,
            "ownerReferences": [owner_reference(cronjob)],
        },
        "spec": template.get("spec") or {},
    }


def beyond_history(cronjob: Obj, jobs: Sequence[Obj]) -> list[Obj]:
    """The finished Jobs that are more than the history limits allow, oldest first."""
    surplus: list[Obj] = []
    for outcome, limit_name in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
        limit = cronjob["spec"].get(limit_name)
        if limit is None:
            continue
        done = sorted((job for job in jobs if is_condition_true(job, outcome)), key=_start_order)
        surplus += done[: max(len(done) - limit, 0)]
    return surplus


def _start_order(job: Obj) -> tuple[bool, str, str]:
    started = (job.get("status") or {}).get("startTime") or ""
    return not started, started, name_of(job)


class CronJobController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._cronjobs = ctx.informer(CRON_JOBS)
        self._jobs = ctx.informer(JOBS, OWNER_INDEXERS)
        self._writes = Writes()
        self._loop = ctx.loop(
            "cronjob",
            self.reconcile,
            workers=ctx.config.concurrent_cron_job_syncs,
            informers=(self._cronjobs, self._jobs),
            writes=self._writes,
        )
        self._cronjobs.add_handler(self._loop.on_event)
        self._jobs.add_handler(self._on_job)
        self._skew = ctx.metrics.histogram(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "[STABLE] Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
            (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        )

    async def run(self) -> None:
        await self._loop.run()

    def _on_job(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for job in (new, old):
            owner = controller_of(job) if job is not None else None
            if job is not None and owner is not None and owner["kind"] == "CronJob":
                cronjob = self._cronjobs.get(namespace_of(job), owner["name"])
                if cronjob is not None and uid_of(cronjob) == owner["uid"]:
                    self._loop.add(cronjob)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        cronjob = self._cronjobs.get(namespace, name)
        if cronjob is None:
            self._writes.forget(key)
            return None
        jobs = list(self._jobs.by_index("owner", uid_of(cronjob)))
        status = copy.deepcopy(cronjob.get("status") or {})
        await self._take_stock(cronjob, status, jobs)
        # Written before any Job goes: a Job may be all that tells that its time has been used.
        cronjob = await self._write(key, cronjob, status)
        for job in beyond_history(cronjob, jobs):
            await self._delete(key, cronjob, status, job)
        wait = None
        if not is_being_deleted(cronjob):
            wait = await self._schedule(key, cronjob, status)
        await self._write(key, cronjob, status)
        return wait

    async def _write(self, key: str, cronjob: Obj, status: Obj) -> Obj:
        """The CronJob with this status, written if it differs."""
        if status == (cronjob.get("status") or {}):
            return cronjob
        changed = {**cronjob, "status": copy.deepcopy(status)}
        call = self._ctx.client.update(CRON_JOBS, changed, subresource="status")
        return await self._writes.do(key, self._cronjobs, call)

    async def _take_stock(self, cronjob: Obj, status: Obj, jobs: Iterable[Obj]) -> None:
        """Bring the list of active Jobs and the times of the last start and success up to date. A Job that was
        started for a time, but whose start never came to be in the status, is taken up."""
        known = {uid_of(job) for job in jobs}
        for job in jobs:
            active = any(each["uid"] == uid_of(job) for each in status.get("active") or ())
            scheduled = annotations_of(job).get(SCHEDULED_AT)
            if scheduled:
                _note_start(status, parse_time(scheduled))
            if not is_finished(job):
                if not active:
                    message = f"Saw a job that the controller did not create or forgot: {name_of(job)}"
                    self._event(cronjob, "Warning", "UnexpectedJob", message)
                    if scheduled and not is_being_deleted(job):
                        _add_active(status, job)
                continue
            outcome = "Complete" if is_condition_true(job, "Complete") else "Failed"
            if active:
                _drop_active(status, uid_of(job))
                message = f"Saw completed job: {name_of(job)}, condition: {outcome}"
                self._event(cronjob, "Normal", "SawCompletedJob", message)
            ended = (job.get("status") or {}).get("completionTime")
            if outcome == "Complete" and ended and ended > (status.get("lastSuccessfulTime") or ""):
                status["lastSuccessfulTime"] = ended
        for reference in list(status.get("active") or ()):
            if reference["uid"] in known:
                continue
            try:
                await self._ctx.client.get(JOBS, reference["name"], reference["namespace"])
            except ApiError as error:
                if not is_not_found(error):
                    raise
                self._event(cronjob, "Normal", "MissingJob", f"Active job went missing: {reference['name']}")
                _drop_active(status, reference["uid"])

    async def _schedule(self, key: str, cronjob: Obj, status: Obj) -> float | None:
        """Start a Job if one is due; seconds until the next may be."""
        names = [each["name"] for each in status.get("active") or ()]
        decision = decide({**cronjob, "status": status}, names, self._ctx.clock.now())
        for kind, reason, message in decision.events:
            self._event(cronjob, kind, reason, message)
        if decision.start is None:
            return decision.wait
        if decision.replace:
            for reference in list(status.get("active") or ()):
                job = await self._ctx.client.get(JOBS, reference["name"], reference["namespace"])
                await self._delete(key, cronjob, status, job)
        started = await self._start(key, cronjob, decision.start, status)
        return decision.wait if started else None

    async def _start(self, key: str, cronjob: Obj, scheduled: datetime, status: Obj) -> bool:
        wanted = job_for(cronjob, scheduled)
        try:
            job = await self._writes.do(key, self._jobs, self._ctx.client.create(JOBS, wanted))
            now = self._ctx.clock.now()
            self._skew.observe(max((now - scheduled).total_seconds(), 0.0))
            self._event(cronjob, "Normal", "SuccessfulCreate", f"Created job {name_of(job)}")
        except ApiError as error:
            if not is_already_exists(error):
                if not namespace_is_terminating(error):
                    self._event(cronjob, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
            job = await self._ctx.client.get(JOBS, name_of(wanted), namespace_of(wanted))
            owner = controller_of(job)
            if owner is None or owner["uid"] != uid_of(cronjob):
                return False
            self._writes.wrote(key, self._jobs, job)
        _add_active(status, job)
        _note_start(status, scheduled)
        return True

    async def _delete(self, key: str, cronjob: Obj, status: Obj, job: Obj) -> None:
        try:
            call = self._ctx.client.delete(
                JOBS, name_of(job), namespace_of(job), propagation="Background", uid=uid_of(job)
            )
            await self._writes.do(key, self._jobs, call)
        except ApiError as error:
            if not is_not_found(error):
                self._event(cronjob, "Warning", "FailedDelete", f"Deleted job: {error}")
                raise
        _drop_active(status, uid_of(job))
        self._event(cronjob, "Normal", "SuccessfulDelete", f"Deleted job {name_of(job)}")

    def _event(self, cronjob: Obj, kind: str, reason: str, message: str) -> None:
        self._ctx.recorder.event(cronjob, "Warning" if kind == "Warning" else "Normal", reason, message)


def _note_start(status: Obj, scheduled: datetime) -> None:
    last = status.get("lastScheduleTime")
    if not last or parse_time(last) < scheduled:
        status["lastScheduleTime"] = rfc3339(scheduled)


def _add_active(status: Obj, job: Obj) -> None:
    if any(each["uid"] == uid_of(job) for each in status.get("active") or ()):
        return
    reference = {
        "kind": "Job",
        "namespace": namespace_of(job),
        "name": name_of(job),
        "uid": uid_of(job),
        "apiVersion": "batch/v1",
        "resourceVersion": job["metadata"].get("resourceVersion", ""),
    }
    status["active"] = [*(status.get("active") or ()), reference]


def _drop_active(status: Obj, uid: str) -> None:
    active = [each for each in status.get("active") or () if each["uid"] != uid]
    if active:
        status["active"] = active
    else:
        status.pop("active", None)
