"""What a driver offers: devices in a pool, their attributes and capacities, and where they can be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from shipwheel.api.errors import forbidden, invalid, required, too_long, too_many
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length, is_dns1123_label, is_valid_label_value, name_is_dns_subdomain
from shipwheel.api.objectmeta import validate_label_name
from shipwheel.api.quantity import Quantity, parse
from shipwheel.kinds.checks import NOT_POSITIVE, Errors, check_enum, check_label, check_required, check_rule
from shipwheel.kinds.core.affinity import check_node_selector
from shipwheel.kinds.resource.claimspec import TAINT_EFFECTS
from shipwheel.kinds.resource.claimstatus import check_binding_conditions
from shipwheel.kinds.resource.names import (
    check_driver_name,
    check_list,
    check_name_in_domain,
    check_pool_name,
    check_set,
)

_MAX_DEVICES = 128
_MAX_DEVICES_WITH_MORE = 64
_MAX_COUNTER_SETS = 8
_MAX_COUNTERS = 32
_MAX_CONSUMPTIONS = 2
_MAX_PROPERTIES = 32
_MAX_VALUES = 48
_MAX_VALUE = 64
_MAX_TAINTS = 16
_MAX_CHOICES = 10
_MAX_KEY = 63 + 1 + 32
_NUMBER = r"(0|[1-9]\d*)"
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
).fullmatch
_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_ONE_PLACE = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_ONE_PLACE_OF_DEVICE = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
    "in the ResourceSlice spec"
)


def check_slice(spec: Obj, old: Obj | None, errors: Errors) -> None:
    check_driver_name(spec.get("driver", ""), "spec.driver", errors)
    pool = spec.get("pool") or {}
    check_pool_name(pool.get("name", ""), "spec.pool.name", errors)
    count, generation = pool.get("resourceSliceCount", 0), pool.get("generation", 0)
    if count <= 0:
        errors.append(invalid("spec.pool.resourceSliceCount", count, NOT_POSITIVE))
    if generation < 0:
        errors.append(invalid("spec.pool.generation", generation, "must be greater than or equal to zero"))
    _check_place(spec, _PLACES, "spec", errors, _ONE_PLACE, several=f"{_ONE_PLACE}, but multiple fields are set")
    terms = (spec.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    if spec.get("nodeSelector") is not None and len(terms) != 1:
        errors.append(invalid("spec.nodeSelector.nodeSelectorTerms", terms, "must have exactly one node selector term"))
    devices, counters = spec.get("devices") or [], spec.get("sharedCounters") or []
    if devices and counters:
        errors.append(invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    more = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    before = {device.get("name", ""): device for device in (old or {}).get("devices") or ()}
    check_device = partial(_check_device, before=before, placed=bool(spec.get("perDeviceNodeSelection")))
    most = _MAX_DEVICES_WITH_MORE if more else _MAX_DEVICES
    check_set(devices, most, check_device, lambda device: device.get("name", ""), "spec.devices", errors)
    named = partial(_check_counters, name="name", most=_MAX_COUNTERS)
    check_set(counters, _MAX_COUNTER_SETS, named, lambda each: each.get("name", ""), "spec.sharedCounters", errors)


def _check_place(
    placed: Obj, fields: Sequence[str], path: str, errors: Errors, none: str, *, several: str, empty: str = ""
) -> None:
    """Where devices can be used is said in one way."""
    given = []
    for field in fields:
        value, here = placed.get(field), f"{path}.{field}"
        if value is None:
            continue
        if field == "nodeName" and not value:
            errors.append(invalid(here, value, empty or "must be either unset or set to a non-empty string"))
            continue
        if value is False:
            errors.append(invalid(here, value, "must be either unset or set to true"))
            continue
        given.append(f"`{field}`")
        if field == "nodeName":
            check_rule(name_is_dns_subdomain, value, here, errors)
        elif field == "nodeSelector":
            check_node_selector(value, here, errors)
    if not given:
        errors.append(required(path, none))
    elif len(given) > 1:
        errors.append(invalid(path, f"{{{', '.join(given)}}}", several))


def _check_counters(holder: Obj, path: str, errors: Errors, *, name: str, most: int) -> None:
    """Counters by their names, in a set that is named by the field `name`."""
    check_required(is_dns1123_label, holder.get(name), f"{path}.{name}", errors)
    counters, here = holder.get("counters") or {}, f"{path}.counters"
    if not counters:
        errors.append(required(here))
    elif len(counters) > most:
        errors.append(too_many(here, len(counters), most))
    else:
        for key in counters:
            check_label(key, here, errors)


def _check_device(device: Obj, path: str, errors: Errors, *, before: dict[str, Obj], placed: bool) -> None:
    name = device.get("name", "")
    check_label(name, f"{path}.name", errors)
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > _MAX_PROPERTIES:
        detail = f"the total number of attributes and capacities must not exceed {_MAX_PROPERTIES}"
        errors.append(invalid(path, len(attributes) + len(capacity), detail))
    for key, attribute in attributes.items():
        check_name_in_domain(key, f"{path}.attributes", errors)
        _check_attribute(attribute, f"{path}.attributes[{_shortened(key)}]", errors)
    for key, amount in capacity.items():
        check_name_in_domain(key, f"{path}.capacity", errors)
        shared = bool(device.get("allowMultipleAllocations"))
        _check_capacity(amount, shared, f"{path}.capacity[{_shortened(key)}]", errors)
    if device.get("taints") and before.get(name, {}).get("taints") != device["taints"]:
        check_list(device["taints"], _MAX_TAINTS, _check_taint, f"{path}.taints", errors)
    consuming = partial(_check_counters, name="counterSet", most=_MAX_COUNTERS)
    check_set(
        device.get("consumesCounters"),
        _MAX_CONSUMPTIONS,
        consuming,
        lambda each: each.get("counterSet", ""),
        f"{path}.consumesCounters",
        errors,
    )
    places = _PLACES[:3]
    if placed:
        once = _ONE_PLACE_OF_DEVICE
        _check_place(device, places, path, errors, once, several=once, empty="must not be empty")
    elif any(device.get(field) is not None for field in places):
        detail = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        errors.append(invalid(path, None, detail))
    check_binding_conditions(device, path, errors)


def _shortened(key: str) -> str:
    if len(key) <= _MAX_KEY:
        return key
    left = _MAX_KEY - 3
    return f"{key[: (left + 1) // 2]}...{key[-(left // 2) :]}"


def _check_attribute(attribute: Obj, path: str, errors: Errors) -> None:
    text, version = attribute.get("string"), attribute.get("version")
    if text is not None and byte_length(text) > _MAX_VALUE:
        errors.append(too_long(f"{path}.string", _MAX_VALUE))
    if version is not None:
        if not _SEMVER(version):
            detail = "must be a string compatible with semver.org spec 2.0.0"
            errors.append(invalid(f"{path}.version", version, detail))
        if byte_length(version) > _MAX_VALUE:
            errors.append(too_long(f"{path}.version", _MAX_VALUE))
    given = sum(attribute.get(field) is not None for field in ("bool", "int", "string", "version"))
    if given != 1:
        errors.append(invalid(path, attribute if given else "", "exactly one value must be specified"))


def _check_taint(taint: Obj, path: str, errors: Errors) -> None:
    errors += validate_label_name(taint.get("key", ""), f"{path}.key")
    if taint.get("value"):
        check_rule(is_valid_label_value, taint["value"], f"{path}.value", errors)
    check_enum(taint.get("effect"), TAINT_EFFECTS, f"{path}.effect", errors)


# Capacity that several claims share (KEP-5075)


def _check_capacity(capacity: Obj, shared: bool, path: str, errors: Errors) -> None:
    policy, here = capacity.get("requestPolicy"), f"{path}.requestPolicy"
    if policy is None:
        return
    if not shared:
        errors.append(forbidden(here, "allowMultipleAllocations must be true"))
        return
    values, span, default = policy.get("validValues"), policy.get("validRange"), policy.get("default")
    most = parse(capacity.get("value", "0"))
    if values and span is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        errors.append(forbidden(here, detail))
    elif (values or span is not None) and default is None:
        errors.append(
            required(f"{here}.default", f"required when {'validValues' if values else 'validRange'} is defined")
        )
    elif values:
        _check_values([parse(value) for value in values], parse(default), most, f"{here}.validValues", errors)
    elif span is not None:
        _check_range(span, parse(default), most, f"{here}.validRange", errors)


def _check_values(values: list[Quantity], default: Quantity, most: Quantity, path: str, errors: Errors) -> None:
    for index in range(1, len(values)):
        if values[index] < values[index - 1]:
            errors.append(invalid(f"{path}[{index}]", str(values[index]), "values must be sorted in ascending order"))

    def check(value: Quantity, here: str, errors: Errors) -> None:
        if value > most:
            errors.append(invalid(here, str(value), f"option is larger than capacity value: {most}"))

    check_set(values, _MAX_CHOICES, check, lambda value: str(value.value()), path, errors)
    if default not in values:
        errors.append(invalid(path, str(default), "default value is not valid according to the requestPolicy"))


def _check_range(span: Obj, default: Quantity, most: Quantity, path: str, errors: Errors) -> None:
    low, high, step = (parse(span[field]) if span.get(field) is not None else None for field in ("min", "max", "step"))
    if low is None:
        errors.append(required(f"{path}.min", "required when validRange is defined"))
        return
    wrong = [
        ("min", low > most, low, f"min is larger than capacity value: {most}"),
        ("min", default < low, default, f"default is less than min: {low}"),
    ]
    if high is not None:
        wrong += [
            ("max", low > high, low, f"min is larger than max: {high}"),
            ("max", high > most, high, f"max is larger than capacity value: {most}"),
            ("max", default > high, default, f"default is more than max: {high}"),
        ]
    if step is not None:
        wrong.append(("step", low + step > most, step, f"one step {low + step} is larger than capacity value: {most}"))
        for value in (default, high):
            if value is not None:
                off = step.value() == 0 or (value.value() - low.value()) % step.value() != 0
                wrong.append(("step", off, value, f"value is not a multiple of a given step ({step}) from ({low})"))
    errors += [invalid(f"{path}.{field}", str(value), detail) for field, is_wrong, value, detail in wrong if is_wrong]
