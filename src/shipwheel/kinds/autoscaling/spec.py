"""What a horizontal pod autoscaler may ask for: a target, metrics, and how quickly to follow them."""

from __future__ import annotations

from collections.abc import Callable

from shipwheel.api.errors import forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_path_segment_name
from shipwheel.api.quantity import parse
from shipwheel.kinds.autoscaling.conversion import DEFAULT_CPU_UTILIZATION, cpu_metric
from shipwheel.kinds.checks import NEGATIVE, NOT_POSITIVE, Errors, check_label, check_rule
from shipwheel.kinds.core.resources import check_container_resource_name

_MAX_PERIOD = 1800
_MAX_WINDOW = 3600
_PERIOD = 15
_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": _PERIOD},
        {"type": "Percent", "value": 100, "periodSeconds": _PERIOD},
    ],
}
_DOWN = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": _PERIOD}]}
_SOURCES = {
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
"""Kinds of metrics and their fields, in the order in which upstream looks at them."""


# Defaults


def default_autoscaler_spec(spec: Obj) -> None:
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        spec["metrics"] = [cpu_metric(DEFAULT_CPU_UTILIZATION)]
    behavior = spec.get("behavior")
    if behavior is not None:
        for direction, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            given = {key: value for key, value in (behavior.get(direction) or {}).items() if value is not None}
            behavior[direction] = {**rules, **given}


# Validation


def check_autoscaler_spec(spec: Obj, old: Obj | None, errors: Errors) -> None:
    """`old`: what was wrong before and is not touched may stay."""
    low, high = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    least = 0 if old is not None and old.get("minReplicas") == 0 else 1
    if low is not None and low < least:
        errors.append(invalid("spec.minReplicas", low, f"must be greater than or equal to {least}"))
    if high == 0:
        errors.append(required("spec.maxReplicas", "must be set and greater than 0"))
    elif high < 0:
        errors.append(invalid("spec.maxReplicas", high, "must be greater than or equal to 1"))
    if low is not None and high < low:
        detail = "must be greater than or equal to `minReplicas`"
        errors.append(invalid("spec.maxReplicas", high, detail))
    _check_scale_target(spec, old, errors)
    metrics = spec.get("metrics") or []
    lenient = old is not None and _had_bad_reference(old)
    for index, metric in enumerate(metrics):
        _check_metric(metric, f"spec.metrics[{index}]", errors, any_version=lenient)
    if low == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(forbidden("spec.metrics", detail))
    behavior = spec.get("behavior") or {}
    for direction in ("scaleUp", "scaleDown"):
        if behavior.get(direction) is not None:
            _check_rules(behavior[direction], f"spec.behavior.{direction}", errors)


def _check_scale_target(spec: Obj, old: Obj | None, errors: Errors) -> None:
    target = spec.get("scaleTargetRef") or {}
    before = (old.get("scaleTargetRef") or {}) if old is not None else None
    same = before is not None and all(before.get(key) == target.get(key) for key in ("apiVersion", "kind"))
    without_group = target.get("kind") == "ReplicationController"
    path = "spec.scaleTargetRef"
    _check_reference(target, path, errors, any_version=same, without_group=without_group)


def _check_reference(
    reference: Obj, path: str, errors: Errors, *, any_version: bool = False, without_group: bool = False
) -> None:
    for field in ("kind", "name"):
        if not reference.get(field):
            errors.append(required(f"{path}.{field}"))
        else:
            check_rule(is_path_segment_name, reference[field], f"{path}.{field}", errors)
    version = reference.get("apiVersion", "")
    if any_version:
        return
    if version.count("/") > 1:
        errors.append(invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    elif not without_group and "/" not in version.lstrip("/"):
        errors.append(invalid(f"{path}.apiVersion", version, "apiVersion must specify API group"))


def _had_bad_reference(old: Obj) -> bool:
    wrong: Errors = []
    for metric in old.get("metrics") or ():
        if metric.get("type") == "Object" and metric.get("object") is not None:
            _check_reference(metric["object"].get("describedObject") or {}, "", wrong, without_group=True)
    return any(error.field == ".apiVersion" for error in wrong)


def _check_metric(metric: Obj, path: str, errors: Errors, *, any_version: bool) -> None:
    kind = metric.get("type", "")
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errors.append(not_supported(f"{path}.type", kind, tuple(sorted(_SOURCES))))
    given = [field for field in _SOURCES.values() if metric.get(field) is not None]
    if given:
        here = f"{path}.{given[0]}"
        _CHECKS[given[0]](metric[given[0]], here, errors)
        if given[0] == "object":
            reference = metric["object"].get("describedObject") or {}
            _check_reference(reference, f"{here}.describedObject", errors, any_version=any_version, without_group=True)
    expected = _SOURCES.get(kind)
    if expected is None:
        errors.append(not_supported(f"{path}.type", kind, tuple(sorted(_SOURCES))))
    elif metric.get(expected) is None:
        errors.append(required(f"{path}.{expected}", "must populate information for the given metric source"))
    if len(given) != 1:
        for field in given:
            if field != expected:
                errors.append(forbidden(f"{path}.{field}", "must populate the given metric source only"))


def _check_identifier(source: Obj, path: str, errors: Errors) -> None:
    name = (source.get("metric") or {}).get("name")
    if not name:
        errors.append(required(f"{path}.metric.name", "must specify a metric name"))
    else:
        check_rule(is_path_segment_name, name, f"{path}.metric.name", errors)


def _check_target(source: Obj, path: str, errors: Errors) -> Obj:
    target: Obj = source.get("target") or {}
    kind = target.get("type", "")
    if not kind:
        errors.append(required(f"{path}.target.type", "must specify a metric target type"))
    if kind not in ("Utilization", "Value", "AverageValue"):
        detail = "must be either Utilization, Value, or AverageValue"
        errors.append(invalid(f"{path}.target.type", kind, detail))
    for field in ("value", "averageValue"):
        amount = target.get(field)
        if amount is not None and parse(amount).nanos <= 0:
            errors.append(invalid(f"{path}.target.{field}", amount, "must be positive"))
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        errors.append(invalid(f"{path}.target.averageUtilization", utilization, "must be greater than 0"))
    return target


def _object(source: Obj, path: str, errors: Errors) -> None:
    _check_identifier(source, path, errors)
    target = _check_target(source, path, errors)
    if target.get("value") is None and target.get("averageValue") is None:
        detail = "must set either a target value or averageValue"
        errors.append(required(f"{path}.target.averageValue", detail))


def _external(source: Obj, path: str, errors: Errors) -> None:
    _check_identifier(source, path, errors)
    target = _check_target(source, path, errors)
    value, average = target.get("value"), target.get("averageValue")
    if value is None and average is None:
        detail = "must set either a target value for metric or a per-pod target"
        errors.append(required(f"{path}.target.averageValue", detail))
    if value is not None and average is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        errors.append(forbidden(f"{path}.target.value", detail))


def _pods(source: Obj, path: str, errors: Errors) -> None:
    _check_identifier(source, path, errors)
    if _check_target(source, path, errors).get("averageValue") is None:
        detail = "must specify a positive target averageValue"
        errors.append(required(f"{path}.target.averageValue", detail))


def _resource(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("name"):
        errors.append(required(f"{path}.name", "must specify a resource name"))
    _check_resource_target(source, path, errors)


def _container_resource(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("name"):
        errors.append(required(f"{path}.name", "must specify a resource name"))
    else:
        check_container_resource_name(source["name"], f"{path}.name", errors)
    if not source.get("container"):
        errors.append(required(f"{path}.container", "must specify a container"))
    else:
        check_label(source["container"], f"{path}.container", errors)
    _check_resource_target(source, path, errors)


def _check_resource_target(source: Obj, path: str, errors: Errors) -> None:
    target = _check_target(source, path, errors)
    utilization, average = target.get("averageUtilization"), target.get("averageValue")
    if utilization is None and average is None:
        detail = "must set either a target raw value or a target utilization"
        errors.append(required(f"{path}.target.averageUtilization", detail))
    if utilization is not None and average is not None:
        detail = "may not set both a target raw value and a target utilization"
        errors.append(forbidden(f"{path}.target.averageValue", detail))


_CHECKS: dict[str, Callable[[Obj, str, Errors], None]] = {
    "object": _object,
    "external": _external,
    "pods": _pods,
    "resource": _resource,
    "containerResource": _container_resource,
}


def _check_rules(rules: Obj, path: str, errors: Errors) -> None:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        detail = "must be greater than or equal to zero"
        errors.append(invalid(f"{path}.stabilizationWindowSeconds", window, detail))
    if window is not None and window > _MAX_WINDOW:
        detail = f"must be less than or equal to {_MAX_WINDOW}"
        errors.append(invalid(f"{path}.stabilizationWindowSeconds", window, detail))
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Disabled", "Max", "Min"):
        errors.append(not_supported(f"{path}.selectPolicy", select, ("Disabled", "Max", "Min")))
    if not rules.get("policies"):
        errors.append(required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(rules.get("policies") or ()):
        _check_policy(policy, f"{path}.policies[{index}]", errors)
    tolerance = rules.get("tolerance")
    if tolerance is not None and parse(tolerance).nanos < 0:
        errors.append(invalid(f"{path}.tolerance", tolerance, NEGATIVE))


def _check_policy(policy: Obj, path: str, errors: Errors) -> None:
    if policy.get("type") not in ("Pods", "Percent"):
        errors.append(not_supported(f"{path}.type", policy.get("type", ""), ("Percent", "Pods")))
    for field in ("value", "periodSeconds"):
        if policy.get(field, 0) <= 0:
            errors.append(invalid(f"{path}.{field}", policy.get(field, 0), NOT_POSITIVE))
    if policy.get("periodSeconds", 0) > _MAX_PERIOD:
        detail = f"must be less than or equal to {_MAX_PERIOD}"
        errors.append(invalid(f"{path}.periodSeconds", policy["periodSeconds"], detail))
