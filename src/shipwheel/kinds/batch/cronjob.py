"""Cron jobs: jobs by the clock."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, NONE, UNSET, label_selector, pod_template_columns, since, text
from shipwheel.kinds.declare import STATUS, served


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
        versions=(served("batch", "v1", "CronJob"),),
        strategy=Strategy(),
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
