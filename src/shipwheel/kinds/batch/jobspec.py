"""What a job shall do: the spec that Jobs and CronJobs share."""

from __future__ import annotations

from typing import Any

from shipwheel.api.errors import invalid, not_supported, required, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_domain_prefixed_path
from shipwheel.kinds.batch.jobpolicies import check_pod_failure_policy, check_success_policy
from shipwheel.kinds.checks import MAX_INT32, Errors, check_nonnegative
from shipwheel.kinds.workload import check_pod_template, default_pod_template, template_warnings

_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
_MAX_MANAGED_BY = 63
_MAX_PARALLELISM = 100_000
_MAX_FAILED_INDEXES = 100_000
_MANY_COMPLETIONS = 100_000
_PARALLELISM_FOR_MANY = 10_000
_FAILED_INDEXES_FOR_MANY = 10_000


def default_job_spec(spec: Obj) -> None:
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
        if spec.get("completions") is None:
            spec["completions"] = 1
    _fill(spec, "backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else MAX_INT32)
    _fill(spec, "completionMode", "NonIndexed")
    _fill(spec, "suspend", False)
    policy = spec.get("podFailurePolicy")
    _fill(spec, "podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed")
    _fill(spec, "manualSelector", False)
    default_job_template_spec(spec)


def default_job_template_spec(spec: Obj) -> None:
    """What is filled in even where the rest waits for the job to be made."""
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"
    default_pod_template(spec.setdefault("template", {}))


def _fill(spec: Obj, field: str, value: Any) -> None:
    if spec.get(field) is None:
        spec[field] = value


def check_job_spec(spec: Obj, path: str, errors: Errors) -> None:
    for field in _COUNTS:
        if field in spec:
            check_nonnegative(spec[field], f"{path}.{field}", errors)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    manager = spec.get("managedBy")
    if manager is not None:
        errors += is_domain_prefixed_path(manager, f"{path}.managedBy")
        if byte_length(manager) > _MAX_MANAGED_BY:
            errors.append(too_long(f"{path}.managedBy", _MAX_MANAGED_BY))
    _check_completion_mode(spec, path, errors)
    if spec.get("podFailurePolicy") is not None:
        check_pod_failure_policy(spec, f"{path}.podFailurePolicy", errors)
    if spec.get("successPolicy") is not None:
        check_success_policy(spec, f"{path}.successPolicy", errors)
    _check_replacement_policy(spec, f"{path}.podReplacementPolicy", errors)
    check_pod_template(spec.get("template") or {}, f"{path}.template", errors)
    _check_restart_policy(spec, f"{path}.template.spec.restartPolicy", errors)


def is_indexed(spec: Obj) -> bool:
    return spec.get("completionMode") == "Indexed"


def _check_completion_mode(spec: Obj, path: str, errors: Errors) -> None:
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        errors.append(not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        _check_indexed(spec, path, errors)
    elif mode in (None, "NonIndexed"):
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                errors.append(invalid(f"{path}.{field}", spec[field], "requires indexed completion mode"))


def _check_indexed(spec: Obj, path: str, errors: Errors) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    failures = spec.get("maxFailedIndexes")

    def at_most(field: str, value: int, limit: int, when: str = "") -> None:
        if value > limit:
            errors.append(invalid(f"{path}.{field}", value, f"must be less than or equal to {limit}{when}"))

    if completions is None:
        errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    at_most("parallelism", parallelism, _MAX_PARALLELISM, " when completion mode is Indexed")
    if failures is not None:
        if completions is not None and failures > completions:
            errors.append(invalid(f"{path}.maxFailedIndexes", failures, "must be less than or equal to completions"))
        at_most("maxFailedIndexes", failures, _MAX_FAILED_INDEXES)
    if (completions or 0) <= _MANY_COMPLETIONS or spec.get("backoffLimitPerIndex") is None:
        return
    when = f" when completions are above {_MANY_COMPLETIONS} and used with backoff limit per index"
    if failures is None:
        detail = f"must be specified when completions is above {_MANY_COMPLETIONS}"
        errors.append(required(f"{path}.maxFailedIndexes", detail))
    at_most("parallelism", parallelism, _PARALLELISM_FOR_MANY, when)
    at_most("maxFailedIndexes", failures or 0, _FAILED_INDEXES_FOR_MANY, when)


def _check_replacement_policy(spec: Obj, path: str, errors: Errors) -> None:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return
    possible = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if policy not in possible:
        errors.append(not_supported(path, policy, possible))


def _check_restart_policy(spec: Obj, path: str, errors: Errors) -> None:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        errors.append(required(path, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(not_supported(path, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        errors.append(invalid(path, policy, detail))


def job_spec_warnings(spec: Obj, path: str) -> list[str]:
    warnings = []
    many = (spec.get("completions") or 0) > _MANY_COMPLETIONS
    if is_indexed(spec) and many and (spec.get("parallelism") or 0) > _PARALLELISM_FOR_MANY:
        warnings.append(
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "
            "10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    return warnings + template_warnings(spec.get("template"), f"{path}.template")
