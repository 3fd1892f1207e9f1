"""Jobs: pods that shall end well."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, human_duration, label_selector, pod_template_columns
from shipwheel.kinds.declare import STATUS, served

_SAID_LAST = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def _status(job: Obj, now: datetime) -> str:
    for condition in ("Complete", "Failed"):
        if is_condition_true(job, condition):
            return condition
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((each for each in _SAID_LAST if is_condition_true(job, each)), "Running")


def _completions(job: Obj, now: datetime) -> str:
    succeeded = (job.get("status") or {}).get("succeeded") or 0
    spec = job["spec"]
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Obj, now: datetime) -> str:
    status = job.get("status") or {}
    started, completed = status.get("startTime"), status.get("completionTime")
    if not started:
        return ""
    end = parse_time(completed) if completed else now
    return human_duration((end - parse_time(started)).total_seconds())


RESOURCES = (
    Resource(
        kind="Job",
        plural="jobs",
        singular="job",
        categories=("all",),
        versions=(served("batch", "v1", "Job"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Status", _status),
            Column("Completions", _completions),
            Column("Duration", _duration),
            AGE,
            *pod_template_columns("spec", "template", selector=label_selector("spec", "selector")),
        ),
        subresources=(STATUS,),
        selectable={"status.successful": lambda job: str((job.get("status") or {}).get("succeeded", 0))},
    ),
)
