"""Horizontal pod autoscalers: as many pods as the metrics ask for."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.ages import UNKNOWN
from shipwheel.api.errors import FieldError
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource
from shipwheel.kinds.autoscaling.conversion import v1_to_v2, v2_to_v1, v2_to_v2beta1, v2beta1_to_v2
from shipwheel.kinds.autoscaling.spec import check_autoscaler_spec, default_autoscaler_spec
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, NONE, UNSET, number
from shipwheel.kinds.declare import STATUS, older, served
from shipwheel.kinds.strategies import BuiltinStrategy
from shipwheel.kinds.workload import check_counts

_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_SHOWN = 2


class HorizontalPodAutoscalerStrategy(BuiltinStrategy):
    tracks_generation = False

    def default(self, autoscaler: Obj) -> None:
        default_autoscaler_spec(autoscaler.setdefault("spec", {}))

    def validate(self, autoscaler: Obj) -> list[FieldError]:
        errors: Errors = []
        check_autoscaler_spec(autoscaler["spec"], None, errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_autoscaler_spec(new["spec"], old["spec"], errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_counts(new.get("status") or {}, ("currentReplicas", "desiredReplicas"), errors)
        return errors


def _targets(autoscaler: Obj, now: datetime) -> str:
    metrics = autoscaler["spec"].get("metrics") or ()
    current = (autoscaler.get("status") or {}).get("currentMetrics") or ()
    if not metrics:
        return NONE
    texts = [_target(spec, current[i] if i < len(current) else {}) for i, spec in enumerate(metrics)]
    shown = ", ".join(texts[:_SHOWN])
    return f"{shown} + {len(texts) - _SHOWN} more..." if len(texts) > _SHOWN else shown


def _target(spec: Obj, status: Obj) -> str:
    """`cpu: 30%/50%`: where a metric is, and where it shall be."""
    kind = spec.get("type", "")
    if kind not in _SOURCES:
        return "<unknown type>"
    source = spec.get(_SOURCES[kind]) or {}
    target = source.get("target") or {}
    current = (status.get(_SOURCES[kind]) or {}).get("current") or {}
    if kind in ("Resource", "ContainerResource"):
        if target.get("averageValue") is not None:
            value = f"{current.get('averageValue', UNKNOWN)}/{target['averageValue']}"
        else:
            value = f"{_percent(current, UNKNOWN)}/{_percent(target, '<auto>')}"
        return f"{source.get('name', '')}: {value}"
    if kind == "Pods":
        return f"{current.get('averageValue', UNKNOWN)}/{target.get('averageValue')}"
    if target.get("averageValue") is not None:
        return f"{current.get('averageValue', UNKNOWN)}/{target['averageValue']} (avg)"
    return f"{current.get('value', UNKNOWN)}/{target.get('value')}"


def _percent(value: Obj, absent: str) -> str:
    utilization = value.get("averageUtilization")
    return absent if utilization is None else f"{utilization}%"


def _reference(autoscaler: Obj, now: datetime) -> str:
    target = autoscaler["spec"].get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _min_pods(autoscaler: Obj, now: datetime) -> str:
    replicas = autoscaler["spec"].get("minReplicas")
    return UNSET if replicas is None else str(replicas)


RESOURCES = (
    Resource(
        kind="HorizontalPodAutoscaler",
        plural="horizontalpodautoscalers",
        singular="horizontalpodautoscaler",
        short_names=("hpa",),
        categories=("all",),
        versions=(
            served("autoscaling", "v2", "HorizontalPodAutoscaler"),
            served(
                "autoscaling",
                "v1",
                "HorizontalPodAutoscaler",
                to_storage=v1_to_v2,
                from_storage=v2_to_v1,
            ),
            older(
                "autoscaling",
                "v2beta2",
                "HorizontalPodAutoscaler",
                since="1.23",
                until="1.26",
                replacement="autoscaling/v2",
            ),
            older(
                "autoscaling",
                "v2beta1",
                "HorizontalPodAutoscaler",
                since="1.22",
                until="1.25",
                replacement="autoscaling/v2",
                to_storage=v2beta1_to_v2,
                from_storage=v2_to_v2beta1,
            ),
        ),
        strategy=HorizontalPodAutoscalerStrategy(),
        columns=(
            NAME,
            Column("Reference", _reference),
            Column("Targets", _targets),
            Column("MinPods", _min_pods),
            Column("MaxPods", number("spec", "maxReplicas")),
            Column("Replicas", number("status", "currentReplicas")),
            AGE,
        ),
        subresources=(STATUS,),
    ),
)
