"""Consumable capacity (KEP-5075): how much of a device a request takes, and whether so much is left."""

from __future__ import annotations

from collections.abc import Mapping

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import BINARY_SI, Quantity, parse

Amounts = Mapping[str, Quantity]
"""By the name of the capacity."""


def consumption(device: Obj, wanted: Mapping[str, str]) -> Amounts | None:
    """What a request for these amounts takes of each capacity of a device, rounded up as the device says. None when
    the device does not have what is asked for, or does not give such amounts."""
    capacity = device.get("capacity") or {}
    if wanted.keys() - capacity.keys():
        return None
    taken = {}
    for name, each in capacity.items():
        amount = _rounded(parse(wanted[name]) if name in wanted else None, each)
        if _is_against(amount, each.get("requestPolicy") or {}):
            return None
        taken[name] = amount
    return taken


def fits(device: Obj, taken: Amounts, *before: Amounts) -> bool:
    """Whether so much is left of a device's capacity, when so much was given away."""
    for name, each in (device.get("capacity") or {}).items():
        total = sum((amounts[name].nanos for amounts in before if name in amounts), taken[name].nanos)
        if total > parse(each["value"]).nanos:
            return False
    return True


def _rounded(wanted: Quantity | None, capacity: Obj) -> Quantity:
    policy = capacity.get("requestPolicy") or {}
    if wanted is None:
        return parse(policy.get("default") or capacity["value"])
    valid = policy.get("validRange") or {}
    if valid.get("min") is not None:
        return _up_to_step(wanted, valid)
    for value in policy.get("validValues") or ():
        if wanted <= parse(value):
            return parse(value)
    return wanted


def _up_to_step(wanted: Quantity, valid: Obj) -> Quantity:
    least = parse(valid["min"])
    if wanted < least:
        return least
    if valid.get("step") is None:
        return wanted
    step, start = parse(valid["step"]).value(), least.value()
    return Quantity.of(start + -(-(wanted.value() - start) // step) * step, BINARY_SI)


def _is_against(amount: Quantity, policy: Obj) -> bool:
    if policy.get("default") is not None and amount == parse(policy["default"]):
        return False
    valid = policy.get("validRange")
    if valid is not None:
        if valid.get("max") is not None and amount > parse(valid["max"]):
            return True
        least, step = parse(valid.get("min") or "0").value(), valid.get("step")
        return step is not None and (amount.value() - least) % parse(step).value() != 0
    values = policy.get("validValues") or ()
    return bool(values) and all(amount != parse(each) for each in values)
