"""Limit ranges: what one pod, container or claim may ask for in a namespace."""

from __future__ import annotations

import math
import uuid

from shipwheel.api.errors import FieldError, duplicate, forbidden, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_qualified_name
from shipwheel.api.quantity import Quantity, parse
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import NAME, text
from shipwheel.kinds.core.resources import (
    check_container_resource_name,
    check_resource_name,
    default_resource_list,
    is_overcommit_allowed,
)
from shipwheel.kinds.declare import served

_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_AMOUNTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_MAX_MILLI = (2**63 - 1) // 1000


class LimitRangeStrategy(Strategy):
    allow_create_on_update = True
    tracks_generation = False

    def default(self, limit_range: Obj) -> None:
        for limit in limit_range.get("spec", {}).get("limits") or ():
            for field in _AMOUNTS:
                default_resource_list(limit.get(field))
            if limit.get("type") == "Container":
                _default_container_limit(limit)

    def prepare_for_create(self, limit_range: Obj, ctx: WriteContext) -> None:
        if not limit_range["metadata"].get("name"):
            limit_range["metadata"]["name"] = str(uuid.uuid4())

    def validate(self, limit_range: Obj) -> list[FieldError]:
        errors: Errors = []
        seen: set[str] = set()
        for index, limit in enumerate(limit_range.get("spec", {}).get("limits") or ()):
            path = f"spec.limits[{index}]"
            kind = limit.get("type", "")
            _check_type(kind, f"{path}.type", errors)
            if kind in seen:
                errors.append(duplicate(f"{path}.type", kind))
            seen.add(kind)
            _check_limit(limit, kind, path, errors)
        return errors


def _default_container_limit(limit: Obj) -> None:
    """The limit is the maximum, and the request the limit or else the minimum, where nothing else is said."""
    default = {**(limit.get("max") or {}), **(limit.get("default") or {})}
    request = {**(limit.get("min") or {}), **default, **(limit.get("defaultRequest") or {})}
    if default:
        limit["default"] = default
    if request:
        limit["defaultRequest"] = request


def _check_type(kind: str, path: str, errors: Errors) -> None:
    complaints = is_qualified_name(kind)
    errors += [invalid(path, kind, complaint) for complaint in complaints]
    if not complaints and "/" not in kind and kind not in _TYPES:
        errors.append(invalid(path, kind, "must be a standard limit type or fully qualified"))


def _check_limit(limit: Obj, kind: str, path: str, errors: Errors) -> None:
    check_name = check_container_resource_name if kind in ("Pod", "Container") else check_resource_name
    amounts: dict[str, dict[str, Quantity]] = {}
    for field in _AMOUNTS:
        given = limit.get(field) or {}
        if kind == "Pod" and field in ("default", "defaultRequest"):
            if given:
                errors.append(forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
            given = {}
        for name in given:
            check_name(name, f"{path}.{field}[{name}]", errors)
        amounts[field] = {name: parse(value) for name, value in given.items()}
    if kind == "PersistentVolumeClaim" and "storage" not in amounts["max"] and "storage" not in amounts["min"]:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(f"{path}.limits", detail))
    for name in sorted({name for each in amounts.values() for name in each}):
        _check_amounts(name, {field: each.get(name) for field, each in amounts.items()}, path, errors)


def _check_amounts(name: str, of: dict[str, Quantity | None], path: str, errors: Errors) -> None:
    low, high, default, request = of["min"], of["max"], of["default"], of["defaultRequest"]
    ratio = of["maxLimitRequestRatio"]

    def ordered(less: Quantity | None, more: Quantity | None, words: str, field: str, shown: Quantity | None) -> None:
        if less is not None and more is not None and less > more:
            first, second = words.split("/")
            detail = f"{first} value {less} is greater than {second} value {more}"
            errors.append(invalid(f"{path}.{field}[{name}]", str(shown), detail))

    ordered(low, high, "min/max", "min", low)
    ordered(low, request, "min/default request", "defaultRequest", request)
    ordered(request, high, "default request/max", "defaultRequest", request)
    ordered(request, default, "default request/default limit", "defaultRequest", request)
    ordered(low, default, "min/default", "default", low)
    ordered(default, high, "default/max", "default", high)
    if ratio is not None:
        _check_ratio(ratio, low, high, f"{path}.maxLimitRequestRatio[{name}]", errors)
    if default is not None and request is not None and default != request and not is_overcommit_allowed(name):
        detail = f"default value {default} must equal to defaultRequest value {request} in {name}"
        errors.append(invalid(f"{path}.defaultRequest[{name}]", str(request), detail))


def _quotient(most: int, least: int) -> float:
    try:
        return most / least
    except (ZeroDivisionError, OverflowError):
        return math.inf


def _check_ratio(ratio: Quantity, low: Quantity | None, high: Quantity | None, path: str, errors: Errors) -> None:
    if ratio < parse(1):
        errors.append(invalid(path, str(ratio), f"ratio {ratio} is less than 1"))
    if low is None or high is None:
        return
    exact = max(ratio.value(), low.value(), high.value()) < _MAX_MILLI
    most, least = (high.milli_value(), low.milli_value()) if exact else (high.value(), low.value())
    possible = _quotient(most, least)
    if (ratio.milli_value() / 1000 if exact else ratio.value()) > possible:
        errors.append(invalid(path, str(ratio), f"ratio {ratio} is greater than max/min = {possible:f}"))


RESOURCES = (
    Resource(
        kind="LimitRange",
        plural="limitranges",
        singular="limitrange",
        short_names=("limits",),
        versions=(served("", "v1", "LimitRange"),),
        strategy=LimitRangeStrategy(),
        columns=(NAME, Column("Created At", text("metadata", "creationTimestamp"), type="date")),
    ),
)
