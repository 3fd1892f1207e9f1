"""When a job fails or succeeds early (KEP-3329 pod failure policy, KEP-3998 success policy)."""

from __future__ import annotations

from shipwheel.api.errors import duplicate, invalid, not_supported, required, too_long, too_many
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_qualified_name
from shipwheel.kinds.batch import indexes
from shipwheel.kinds.checks import Errors, check_nonnegative, check_rule, valid_values, wrong

_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_MAX_RULES = 20
_MAX_CODES = 255
_MAX_PATTERNS = 20
_MAX_INDEXES = 64 * 1024


def check_pod_failure_policy(spec: Obj, path: str, errors: Errors) -> None:
    rules = spec["podFailurePolicy"].get("rules") or []
    pod = (spec.get("template") or {}).get("spec") or {}
    containers = {
        container.get("name") for field in ("containers", "initContainers") for container in pod.get(field) or ()
    }
    if len(rules) > _MAX_RULES:
        errors.append(too_many(f"{path}.rules", len(rules), _MAX_RULES))
    for index, rule in enumerate(rules):
        _check_rule(spec, rule, containers, f"{path}.rules[{index}]", errors)


def _check_rule(spec: Obj, rule: Obj, containers: set[str | None], path: str, errors: Errors) -> None:
    action = rule.get("action", "")
    if action == "FailIndex":
        if spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            errors.append(invalid(f"{path}.action", action, detail))
    else:
        _check_choice(action, _ACTIONS, f"{path}.action", errors)
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes is not None:
        _check_exit_codes(codes, containers, f"{path}.onExitCodes", errors)
    if conditions:
        _check_conditions(conditions, f"{path}.onPodConditions", errors)
    if codes is not None and conditions:
        errors.append(wrong(path, "specifying both OnExitCodes and OnPodConditions is not supported"))
    if codes is None and not conditions:
        errors.append(wrong(path, "specifying one of OnExitCodes and OnPodConditions is required"))


def _check_choice(value: str, possible: tuple[str, ...], path: str, errors: Errors) -> None:
    if not value:
        errors.append(required(path, valid_values(possible)))
    elif value not in possible:
        errors.append(not_supported(path, value, possible))


def _check_exit_codes(codes: Obj, containers: set[str | None], path: str, errors: Errors) -> None:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    _check_choice(operator, _OPERATORS, f"{path}.operator", errors)
    container = codes.get("containerName")
    if container is not None and container not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        errors.append(invalid(f"{path}.containerName", container, detail))
    if not values:
        errors.append(invalid(f"{path}.values", values or None, "at least one value is required"))
    elif len(values) > _MAX_CODES:
        errors.append(too_many(f"{path}.values", len(values), _MAX_CODES))
    for index, code in enumerate(values):
        if operator == "In" and code == 0:
            errors.append(invalid(f"{path}.values[{index}]", code, "must not be 0 for the In operator"))
        if code in values[:index]:
            errors.append(duplicate(f"{path}.values[{index}]", code))
    if values != sorted(values):
        errors.append(invalid(f"{path}.values", values, "must be ordered"))


def _check_conditions(patterns: list[Obj], path: str, errors: Errors) -> None:
    if len(patterns) > _MAX_PATTERNS:
        errors.append(too_many(path, len(patterns), _MAX_PATTERNS))
    for index, pattern in enumerate(patterns):
        check_rule(is_qualified_name, pattern.get("type", ""), f"{path}[{index}].type", errors)
        _check_choice(pattern.get("status", ""), _STATUSES, f"{path}[{index}].status", errors)


def check_success_policy(spec: Obj, path: str, errors: Errors) -> None:
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        errors.append(invalid(path, policy, "requires indexed completion mode"))
        return
    rules = policy.get("rules") or []
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(f"{path}.rules", detail))
    if len(rules) > _MAX_RULES:
        errors.append(too_many(f"{path}.rules", len(rules), _MAX_RULES))
    for position, rule in enumerate(rules):
        _check_success_rule(rule, spec.get("completions") or 0, f"{path}.rules[{position}]", errors)


def _check_success_rule(rule: Obj, completions: int, path: str, errors: Errors) -> None:
    wanted, listed = rule.get("succeededCount"), rule.get("succeededIndexes")
    if wanted is None and listed is None:
        detail = "at least one of succeededCount or succeededIndexes must be specified"
        errors.append(required(path, detail))
    total = 0
    if listed is not None:
        here = f"{path}.succeededIndexes"
        if byte_length(listed) > _MAX_INDEXES:
            errors.append(too_long(here, _MAX_INDEXES))
        try:
            total = indexes.count(listed, completions)
        except indexes.IndexesError as error:
            errors.append(invalid(here, listed, f"error parsing succeededIndexes: {error}"))
    if wanted is None:
        return
    here = f"{path}.succeededCount"
    check_nonnegative(wanted, here, errors)
    if wanted > completions:
        detail = f"must be less than or equal to {completions} (the number of specified completions)"
        errors.append(invalid(here, wanted, detail))
    if listed is not None and wanted > total:
        detail = (
            f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        )
        errors.append(invalid(here, wanted, detail))
