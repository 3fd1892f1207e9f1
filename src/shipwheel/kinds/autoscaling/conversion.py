"""The older forms of a horizontal pod autoscaler, to and from autoscaling/v2.

autoscaling/v1 knows one metric, the use of CPU; everything else of v2 travels in annotations, so that a client of
v1 that reads and writes loses nothing. The metrics in those annotations have v2beta1's form, in which target and
metric are not yet structures of their own but lie flat in the metric's source.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from shipwheel.api.meta import Obj

DEFAULT_CPU_UTILIZATION = 80
"""Percent of the requested CPU that an autoscaler without metrics aims at."""

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS = _PREFIX + "metrics"
_CURRENT_METRICS = _PREFIX + "current-metrics"
_CONDITIONS = _PREFIX + "conditions"
_BEHAVIOR = _PREFIX + "behavior"
_ROUND_TRIP = (_METRICS, _CURRENT_METRICS, _CONDITIONS, _BEHAVIOR)


def cpu_metric(utilization: int) -> Obj:
    """A v2 metric: the use of CPU in percent of what is requested."""
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _is_cpu_utilization(metric: Obj) -> bool:
    resource = metric.get("resource") or {}
    return (
        metric.get("type") == "Resource"
        and resource.get("name") == "cpu"
        and (resource.get("target") or {}).get("averageUtilization") is not None
    )


# v1


def v1_to_v2(autoscaler: Obj) -> Obj:
    spec = dict(autoscaler.get("spec") or {})
    status = dict(autoscaler.get("status") or {})
    metadata = dict(autoscaler["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    utilization = spec.pop("targetCPUUtilizationPercentage", None)
    current = status.pop("currentCPUUtilizationPercentage", None)
    metrics = [] if utilization is None else [cpu_metric(utilization)]
    others = _decoded(annotations, _METRICS, list)
    if others is not None:
        metrics = [metric_from_flat(each) for each in others] + metrics
    spec["metrics"] = metrics or [cpu_metric(DEFAULT_CPU_UTILIZATION)]
    behavior = _decoded(annotations, _BEHAVIOR, dict)
    if behavior:
        spec["behavior"] = _lower_first(behavior)
    if current is not None:
        value = {"averageUtilization": current}
        status["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": value}}]
    statuses = _decoded(annotations, _CURRENT_METRICS, list)
    if statuses is not None:
        status["currentMetrics"] = [metric_status_from_flat(each) for each in statuses]
    conditions = _decoded(annotations, _CONDITIONS, list)
    if conditions is not None:
        status["conditions"] = conditions
    for name in _ROUND_TRIP:
        annotations.pop(name, None)
    metadata["annotations"] = annotations
    if not annotations:
        del metadata["annotations"]
    return {**autoscaler, "metadata": metadata, "spec": spec, "status": status}


def v2_to_v1(autoscaler: Obj) -> Obj:
    spec = dict(autoscaler.get("spec") or {})
    status = {"currentReplicas": 0, "desiredReplicas": 0, **(autoscaler.get("status") or {})}
    metadata = dict(autoscaler["metadata"])
    kept = metadata.get("annotations") or {}
    annotations = {name: value for name, value in kept.items() if name not in _ROUND_TRIP}
    metrics = spec.pop("metrics", None) or []
    cpu = [each for each in metrics if _is_cpu_utilization(each)]
    others = [metric_to_flat(each) for each in metrics if not _is_cpu_utilization(each)]
    if cpu:
        spec["targetCPUUtilizationPercentage"] = cpu[0]["resource"]["target"]["averageUtilization"]
    if others:
        annotations[_METRICS] = _encoded(others)
    behavior = spec.pop("behavior", None)
    if behavior:
        annotations[_BEHAVIOR] = _encoded(_upper_first(behavior))
    current = status.pop("currentMetrics", None)
    if current:
        annotations[_CURRENT_METRICS] = _encoded([metric_status_to_flat(each) for each in current])
        for each in current:
            resource = each.get("resource") or {}
            value = (resource.get("current") or {}).get("averageUtilization")
            if resource.get("name") == "cpu" and value is not None:
                status["currentCPUUtilizationPercentage"] = value
    conditions = status.pop("conditions", None)
    if conditions:
        annotations[_CONDITIONS] = _encoded(conditions)
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    return {**autoscaler, "metadata": metadata, "spec": spec, "status": status}


def _encoded(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _decoded(annotations: Obj, name: str, kind: type) -> Any:
    """What an annotation holds, or None when there is none or it is unreadable: clients may write there too."""
    try:
        value = json.loads(annotations[name])
    except (KeyError, ValueError):
        return None
    return value if isinstance(value, kind) else None


def _upper_first(value: Any) -> Any:
    """The annotation holds behavior in the form of upstream's internal type: capital first letters."""
    return _rename(value, lambda key: key[0].upper() + key[1:])


def _lower_first(value: Any) -> Any:
    return _rename(value, lambda key: key[0].lower() + key[1:])


def _rename(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {rename(key): _rename(each, rename) for key, each in value.items() if each is not None}
    return [_rename(each, rename) for each in value] if isinstance(value, list) else value


# v2beta1: the flat form of metrics

_FIELDS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def v2beta1_to_v2(autoscaler: Obj) -> Obj:
    spec, status = dict(autoscaler.get("spec") or {}), dict(autoscaler.get("status") or {})
    if spec.get("metrics"):
        spec["metrics"] = [metric_from_flat(each) for each in spec["metrics"]]
    if status.get("currentMetrics"):
        status["currentMetrics"] = [metric_status_from_flat(each) for each in status["currentMetrics"]]
    metadata = dict(autoscaler.get("metadata") or {})
    annotations = dict(metadata.pop("annotations", None) or {})
    behavior = _decoded(annotations, _BEHAVIOR, dict)
    if behavior:
        spec["behavior"] = _lower_first(behavior)
    annotations.pop(_BEHAVIOR, None)
    if annotations:
        metadata["annotations"] = annotations
    return {**autoscaler, "metadata": metadata, "spec": spec, "status": status}


def v2_to_v2beta1(autoscaler: Obj) -> Obj:
    spec, status = dict(autoscaler.get("spec") or {}), dict(autoscaler.get("status") or {})
    if spec.get("metrics"):
        spec["metrics"] = [metric_to_flat(each) for each in spec["metrics"]]
    if status.get("currentMetrics"):
        status["currentMetrics"] = [metric_status_to_flat(each) for each in status["currentMetrics"]]
    metadata, behavior = dict(autoscaler["metadata"]), spec.pop("behavior", None)
    if behavior:
        kept = metadata.get("annotations") or {}
        metadata["annotations"] = {**kept, _BEHAVIOR: _encoded(_upper_first(behavior))}
    return {**autoscaler, "metadata": metadata, "spec": spec, "status": status}


def metric_to_flat(metric: Obj) -> Obj:
    """A v2 metric in v2beta1's form."""
    return _flatten(metric, "target")


def metric_status_to_flat(status: Obj) -> Obj:
    """A v2 metric status in v2beta1's form."""
    return _flatten(status, "current")


def metric_from_flat(metric: Obj) -> Obj:
    """A v2beta1 metric in v2's form."""
    return _unflatten(metric, "target")


def metric_status_from_flat(status: Obj) -> Obj:
    """A v2beta1 metric status in v2's form."""
    return _unflatten(status, "current")


def _names(kind: str, side: str) -> dict[str, str]:
    """Names of the flat fields, by those of v2's `target` or `current`."""
    if kind == "Object":
        return {"value": f"{side}Value", "averageValue": "averageValue"}
    names = {"averageValue": f"{side}AverageValue"}
    if kind == "External":
        names["value"] = f"{side}Value"
    if kind in ("Resource", "ContainerResource"):
        names["averageUtilization"] = f"{side}AverageUtilization"
    return names


def _flatten(metric: Obj, side: str) -> Obj:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    source = metric.get(field)
    if source is None:
        return metric
    flat: Obj = {key: source[key] for key in ("name", "container") if key in source}
    identifier = source.get("metric") or {}
    if identifier:
        flat["metricName"] = identifier.get("name", "")
        if identifier.get("selector") is not None:
            flat["metricSelector" if kind == "External" else "selector"] = identifier["selector"]
    if kind == "Object":
        flat["target"] = source.get("describedObject") or {}
    value = source.get(side) or {}
    flat |= {name: value[key] for key, name in _names(kind, side).items() if value.get(key) is not None}
    return {"type": kind, field: flat}


def _unflatten(metric: Obj, side: str) -> Obj:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    flat = metric.get(field)
    if flat is None:
        return metric
    source: Obj = {key: flat[key] for key in ("name", "container") if key in flat}
    if "metricName" in flat:
        source["metric"] = {"name": flat["metricName"]}
        selector = flat.get("metricSelector" if kind == "External" else "selector")
        if selector is not None:
            source["metric"]["selector"] = selector
    if kind == "Object":
        source["describedObject"] = flat.get("target") or {}
    value = {key: flat[name] for key, name in _names(kind, side).items() if flat.get(name) is not None}
    if side == "target":
        if value.get("value") == "0" and "averageValue" in value:
            del value["value"]  # the flat form cannot leave it out
        value = {"type": _target_type(kind, value), **value}
    source[side] = value
    return {"type": kind, field: source}


def _target_type(kind: str, value: Obj) -> str:
    if "averageUtilization" in value:
        return "Utilization"
    if kind == "External":
        return "Value" if "value" in value else "AverageValue"
    return "Value" if kind == "Object" and "averageValue" not in value else "AverageValue"
