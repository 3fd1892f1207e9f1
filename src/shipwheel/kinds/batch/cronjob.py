"""Cron jobs: jobs by the clock."""

from __future__ import annotations

import re
from datetime import datetime

from shipwheel.api import cron
from shipwheel.api.ages import since
from shipwheel.api.errors import FieldError, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, WriteContext, keep
from shipwheel.kinds.batch.jobspec import check_job_spec, default_job_template_spec, job_spec_warnings
from shipwheel.kinds.checks import Errors, check_nonnegative
from shipwheel.kinds.columns import AGE, NAME, NONE, UNSET, label_selector, pod_template_columns, text
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.strategies import BuiltinStrategy
from shipwheel.kinds.workload import drop_disabled_in_template, name_warnings

_CONCURRENCY = ("Allow", "Forbid", "Replace")
_MAX_NAME = 52
_ZONE_PART = re.compile(r"[A-Za-z.\-_0-9+]{1,14}").fullmatch


class CronJobStrategy(BuiltinStrategy):
    def default(self, cron_job: Obj) -> None:
        spec = cron_job.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        for field, value in (
            ("suspend", False),
            ("successfulJobsHistoryLimit", 3),
            ("failedJobsHistoryLimit", 1),
        ):
            if spec.get(field) is None:
                spec[field] = value
        default_job_template_spec(spec.setdefault("jobTemplate", {}).setdefault("spec", {}))

    def prepare_for_create(self, cron_job: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(cron_job, ctx)
        drop_disabled_in_template(_job_spec(cron_job).get("template"))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        drop_disabled_in_template(_job_spec(new).get("template"))

    def validate(self, cron_job: Obj) -> list[FieldError]:
        errors: Errors = []
        _check_spec(cron_job["spec"], None, errors)
        name = cron_job["metadata"].get("name", "")
        if len(name) > _MAX_NAME:  # jobs are named after it, with eleven characters more
            errors.append(invalid("metadata.name", name, f"must be no more than {_MAX_NAME} characters"))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        _check_spec(new["spec"], old["spec"], errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        path = "spec.jobTemplate.spec"
        if old is None:
            return name_warnings(new) + job_spec_warnings(_job_spec(new), path)
        warnings = []
        if new["metadata"].get("generation") != old["metadata"].get("generation"):
            warnings = job_spec_warnings(_job_spec(new), path)
        if "TZ" in new["spec"].get("schedule", ""):
            warnings.append(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see "
                "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            )
        return warnings


def _job_spec(cron_job: Obj) -> Obj:
    return (cron_job["spec"].get("jobTemplate") or {}).get("spec") or {}


def _check_spec(spec: Obj, old: Obj | None, errors: Errors) -> None:
    if not spec.get("schedule"):
        errors.append(required("spec.schedule"))
    else:
        _check_schedule(spec, old, errors)
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        check_nonnegative(spec.get(field), f"spec.{field}", errors)
    zone = spec.get("timeZone")
    if zone is not None and (old is None or zone != old.get("timeZone")):
        _check_time_zone(zone, "spec.timeZone", errors)
    policy = spec.get("concurrencyPolicy")
    if not policy:
        errors.append(required("spec.concurrencyPolicy"))
    elif policy not in _CONCURRENCY:
        errors.append(not_supported("spec.concurrencyPolicy", policy, _CONCURRENCY))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    path = "spec.jobTemplate.spec"
    check_job_spec(job, path, errors)
    if job.get("selector") is not None:
        errors.append(invalid(f"{path}.selector", job["selector"], "`selector` will be auto-generated"))
    if job.get("manualSelector"):
        errors.append(not_supported(f"{path}.manualSelector", True, ("nil", "false")))


def _check_schedule(spec: Obj, old: Obj | None, errors: Errors) -> None:
    schedule = spec["schedule"]
    try:
        cron.parse(schedule)
    except cron.CronError as error:
        errors.append(invalid("spec.schedule", schedule, str(error)))
    if "TZ" not in schedule:
        return
    if old is None or "TZ" not in old.get("schedule", ""):
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        errors.append(invalid("spec.schedule", schedule, detail))
    elif spec.get("timeZone") is not None:
        detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        errors.append(invalid("spec.schedule", schedule, detail))


def _check_time_zone(zone: str, path: str, errors: Errors) -> None:
    if not zone:
        errors.append(invalid(path, zone, "timeZone must be nil or non-empty string"))
        return
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not _ZONE_PART(part):
            errors.append(invalid(path, zone, f"unknown time zone {zone}"))
            return
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        errors.append(invalid(path, zone, detail))
    try:
        cron.load_zone(zone)
    except cron.CronError as error:
        errors.append(invalid(path, zone, str(error)))


def _suspend(obj: Obj, now: datetime) -> str:
    suspend = obj["spec"].get("suspend")
    return UNSET if suspend is None else str(suspend)


def _last_schedule(obj: Obj, now: datetime) -> str:
    last = (obj.get("status") or {}).get("lastScheduleTime")
    return since(last, now) if last else NONE


RESOURCES = (
    Resource(
        kind="CronJob",
        plural="cronjobs",
        singular="cronjob",
        short_names=("cj",),
        categories=("all",),
        versions=(
            served("batch", "v1", "CronJob"),
            older("batch", "v1beta1", "CronJob", since="1.21", until="1.25", replacement="batch/v1", orphans=True),
            older("batch", "v2alpha1", "CronJob", since="1.8", until="1.21", replacement="batch/v1"),
        ),
        strategy=CronJobStrategy(),
        columns=(
            NAME,
            Column("Schedule", text("spec", "schedule")),
            Column("Timezone", text("spec", "timeZone", absent=NONE)),
            Column("Suspend", _suspend, type="boolean"),
            Column("Active", lambda obj, now: len((obj.get("status") or {}).get("active") or ()), type="integer"),
            Column("Last Schedule", _last_schedule),
            AGE,
            *pod_template_columns(
                "spec",
                "jobTemplate",
                "spec",
                "template",
                selector=label_selector("spec", "jobTemplate", "spec", "selector"),
            ),
        ),
        subresources=(STATUS,),
    ),
)
