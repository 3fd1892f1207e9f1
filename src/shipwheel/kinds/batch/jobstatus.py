"""What a job's status may say: an end is reached once, and for a reason."""

from __future__ import annotations

from shipwheel.api.clock import parse_time
from shipwheel.api.errors import duplicate, invalid, required
from shipwheel.api.meta import Obj, condition, is_condition_true
from shipwheel.kinds.batch import indexes
from shipwheel.kinds.batch.jobspec import is_indexed
from shipwheel.kinds.checks import Errors, check_nonnegative, wrong

_CONDITIONS = "status.conditions"


def check_job_status(new: Obj, old: Obj) -> Errors:
    errors: Errors = []
    spec, status, before = new["spec"], new.get("status") or {}, old.get("status") or {}
    changed = {field for field in status.keys() | before.keys() if status.get(field) != before.get(field)}
    _check_counts(status, errors)
    _check_conditions(new, old, changed, errors)
    _check_times(new, old, changed, errors)
    _check_finished(new, old, changed, errors)
    _check_indexes(spec, status, changed, errors)
    _check_counters(spec, status, before, errors)
    return errors


def _is(job: Obj, kind: str) -> bool:
    return is_condition_true(job, kind)


def is_finished(job: Obj) -> bool:
    return _is(job, "Complete") or _is(job, "Failed")


def _turned(new: Obj, old: Obj, *kinds: str) -> bool:
    return any(_is(new, kind) != _is(old, kind) for kind in kinds)


def _check_counts(status: Obj, errors: Errors) -> None:
    for field in ("active", "succeeded", "failed", "ready", "terminating"):
        check_nonnegative(status.get(field), f"status.{field}", errors)
    uncounted = status.get("uncountedTerminatedPods") or {}
    seen: set[str] = set()
    for field in ("succeeded", "failed"):
        for index, uid in enumerate(uncounted.get(field) or ()):
            path = f"status.uncountedTerminatedPods.{field}[{index}]"
            if not uid:
                errors.append(invalid(path, uid, "must not be empty"))
            elif uid in seen:
                errors.append(duplicate(path, uid))
            seen.add(uid)


def _check_conditions(new: Obj, old: Obj, changed: set[str], errors: Errors) -> None:
    complete, failed = _is(new, "Complete"), _is(new, "Failed")
    failing, succeeding = _is(new, "FailureTarget"), _is(new, "SuccessCriteriaMet")

    def refuse(detail: str) -> None:
        errors.append(wrong(_CONDITIONS, detail))

    if complete and failed and _turned(new, old, "Complete", "Failed"):
        refuse("cannot set Complete=True and Failed=true conditions")
    if complete and failing and _turned(new, old, "Complete", "FailureTarget"):
        refuse("cannot set Complete=True and FailureTarget=true conditions")
    if failed and not failing and (_turned(new, old, "Failed") or "failedIndexes" in changed):
        refuse("cannot set Failed=True condition without the FailureTarget=true condition")
    if complete and not succeeding and _turned(new, old, "Complete", "SuccessCriteriaMet"):
        refuse("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
    if succeeding and failed:
        refuse("cannot set SuccessCriteriaMet=True and Failed=true conditions")
    if succeeding and failing:
        refuse("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
    if new["spec"].get("successPolicy") is not None and complete and not succeeding:
        refuse("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
    for kind in ("Failed", "Complete", "FailureTarget"):
        if _is(old, kind) and not _is(new, kind):
            refuse(f"cannot disable the terminal {kind}=True condition")
    if _is(old, "SuccessCriteriaMet") and not succeeding:
        refuse("cannot disable the SuccessCriteriaMet=True condition")
    if _is(old, "Complete") and not _is(old, "SuccessCriteriaMet") and succeeding:
        refuse("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")


def _check_times(new: Obj, old: Obj, changed: set[str], errors: Errors) -> None:
    status, before = new.get("status") or {}, old.get("status") or {}
    complete = _is(new, "Complete")
    started, completed = status.get("startTime"), status.get("completionTime")
    path = "status.completionTime"
    if _turned(new, old, "Complete") or "completionTime" in changed:
        if completed and not complete:
            detail = "cannot set completionTime when there is no Complete=True condition"
            errors.append(invalid(path, completed, detail))
        if complete and not completed:
            errors.append(required(path, "completionTime is required for Complete jobs"))
    moved = bool({"startTime", "completionTime"} & changed)
    if moved and started and completed and parse_time(completed) < parse_time(started):
        errors.append(invalid(path, completed, "must be equal to or after `startTime`"))
    if completed and before.get("completionTime") and "completionTime" in changed:
        errors.append(invalid(path, completed, "field is immutable"))
    restarted = before.get("startTime") and "startTime" in changed
    if restarted and not new["spec"].get("suspend") and not _is_resuming(new, old):
        errors.append(invalid("status.startTime", started, "field is immutable for unsuspended job once set"))


def _is_resuming(new: Obj, old: Obj) -> bool:
    return _is(old, "Suspended") and (condition(new, "Suspended") or {}).get("status") == "False"


def _check_finished(new: Obj, old: Obj, changed: set[str], errors: Errors) -> None:
    if not is_finished(new):
        return
    spec, status = new["spec"], new.get("status") or {}
    just_now = not is_finished(old)
    if status.get("active", 0) > 0 and (just_now or "active" in changed):
        errors.append(invalid("status.active", status["active"], "active>0 is invalid for finished job"))
    never_ran = spec.get("suspend") and spec.get("completions") == 0
    if not status.get("startTime") and (just_now or "startTime" in changed) and not never_ran:
        errors.append(required("status.startTime", "startTime is required for finished job"))
    uncounted = status.get("uncountedTerminatedPods") or {}
    if any(uncounted.values()) and (just_now or "uncountedTerminatedPods" in changed):
        errors.append(invalid("status.uncountedTerminatedPods", uncounted, "must be empty for finished job"))
    if (status.get("terminating") or 0) > 0 and (just_now or "terminating" in changed):
        detail = "terminating>0 is invalid for finished job"
        errors.append(invalid("status.terminating", status["terminating"], detail))


def _check_indexes(spec: Obj, status: Obj, changed: set[str], errors: Errors) -> None:
    completions, completed, failed = (
        spec.get("completions"),
        status.get("completedIndexes", ""),
        status.get("failedIndexes"),
    )
    if "completedIndexes" in changed:
        _check_readable("completedIndexes", completed, completions, errors)
        if completed and not is_indexed(spec):
            detail = "cannot set non-empty completedIndexes when non-indexed completion mode"
            errors.append(invalid("status.completedIndexes", completed, detail))
    if failed is None:
        return
    if "failedIndexes" in changed:
        if spec.get("backoffLimitPerIndex") is None:
            detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            errors.append(invalid("status.failedIndexes", failed, detail))
        else:
            _check_readable("failedIndexes", failed, completions, errors)
    if {"completedIndexes", "failedIndexes"} & changed and completions is not None:
        common = indexes.first_common(completed, failed, completions)
        if common is not None:
            detail = f"failedIndexes and completedIndexes overlap at index: {common}"
            errors.append(invalid("status.failedIndexes", failed, detail))


def _check_readable(field: str, text: str, completions: int | None, errors: Errors) -> None:
    if completions is None:
        return
    try:
        indexes.count(text, completions)
    except indexes.IndexesError as error:
        errors.append(invalid(f"status.{field}", text, f"error parsing {field}: {error}"))


def _check_counters(spec: Obj, status: Obj, before: Obj, errors: Errors) -> None:
    active, ready = status.get("active", 0), status.get("ready")
    moved = ready != before.get("ready") or active != before.get("active", 0)
    if ready is not None and ready > active and moved:
        errors.append(invalid("status.ready", ready, "cannot set more ready pods than active"))
    if status.get("failed", 0) < before.get("failed", 0):
        errors.append(invalid("status.failed", status.get("failed", 0), "cannot decrease the failed counter"))
    elastic = is_indexed(spec) and spec.get("completions") == spec.get("parallelism")
    if status.get("succeeded", 0) < before.get("succeeded", 0) and not elastic:
        detail = "cannot decrease the succeeded counter"
        errors.append(invalid("status.succeeded", status.get("succeeded", 0), detail))
