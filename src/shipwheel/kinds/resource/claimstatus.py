"""What a claim has got: the devices allocated to it, who may use it, and what drivers report of the devices."""

from __future__ import annotations

from functools import partial

from shipwheel.api.errors import duplicate, forbidden, invalid, required, too_long, too_many
from shipwheel.api.ip import is_valid_interface_address
from shipwheel.api.meta import Obj
from shipwheel.api.names import byte_length
from shipwheel.api.objectmeta import validate_conditions, validate_label_name
from shipwheel.kinds.checks import Errors, check_enum, check_immutable, check_label, check_rule
from shipwheel.kinds.core.affinity import check_node_selector
from shipwheel.kinds.resource.claimspec import (
    MAX_CONFIGS,
    MAX_REQUESTS,
    check_configuration,
    check_request_name,
    request_names,
)
from shipwheel.kinds.resource.names import (
    check_driver_name,
    check_list,
    check_parameters,
    check_pool_name,
    check_set,
    check_uid,
)

_MAX_RESULTS = 32
_MAX_USERS = 256
_MAX_BINDING_CONDITIONS = 4
_MAX_CONDITIONS = 8
_MAX_DATA = 10 * 1024
_MAX_ADDRESSES = 16
_MAX_DEVICES = 1 << 31
_MAX_LENGTHS = {"interfaceName": 256, "hardwareAddress": 128}

DeviceKey = tuple[str, str, str, str]


def device_key(device: Obj) -> DeviceKey:
    """Driver, pool, device, and which share of it."""
    driver, pool, name, share = (device.get(field) or "" for field in ("driver", "pool", "device", "shareID"))
    return driver, pool, name, share


def allocated_devices(status: Obj) -> set[DeviceKey]:
    return {device_key(each) for each in _results(status)}


def _results(status: Obj) -> list[Obj]:
    return ((status.get("allocation") or {}).get("devices") or {}).get("results") or []


def check_claim_status(new: Obj, old: Obj, errors: Errors) -> None:
    status, before = new.get("status") or {}, old.get("status") or {}
    users, path = status.get("reservedFor") or [], "status.reservedFor"
    check_set(users, _MAX_USERS, _check_user, lambda user: user.get("uid", ""), path, errors)
    reported = partial(_check_report, allocated=allocated_devices(status))
    check_set(status.get("devices"), _MAX_DEVICES, reported, device_key, "status.devices", errors)
    if users and status.get("allocation") is None:
        errors.append(forbidden(path, "may not be specified when `allocated` is not set"))
    elif new["metadata"].get("deletionTimestamp") and any(each not in before.get("reservedFor", ()) for each in users):
        detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.append(forbidden(path, detail))
    allocation = status.get("allocation")
    if allocation is not None and before.get("allocation") is not None:
        check_immutable(allocation, before["allocation"], "status.allocation", errors)
    elif allocation is not None:
        known = request_names((new.get("spec") or {}).get("devices") or {})
        _check_allocation(allocation, known, "status.allocation", errors)


def _check_user(user: Obj, path: str, errors: Errors) -> None:
    for field in ("resource", "name", "uid"):
        if not user.get(field):
            errors.append(required(f"{path}.{field}"))


def _check_allocation(allocation: Obj, known: frozenset[str], path: str, errors: Errors) -> None:
    devices, named = allocation.get("devices") or {}, partial(check_request_name, known=known)

    def check_result(result: Obj, here: str, errors: Errors) -> None:
        named(result.get("request", ""), f"{here}.request", errors)
        _check_device(result, here, errors)
        check_binding_conditions(result, here, errors)

    def check_config(config: Obj, here: str, errors: Errors) -> None:
        check_enum(config.get("source"), ("FromClaim", "FromClass"), f"{here}.source", errors)
        check_set(config.get("requests"), MAX_REQUESTS, named, str, f"{here}.requests", errors)
        check_configuration(config, here, errors)

    check_list(devices.get("results"), _MAX_RESULTS, check_result, f"{path}.devices.results", errors)
    check_list(devices.get("config"), 2 * MAX_CONFIGS, check_config, f"{path}.devices.config", errors)
    if allocation.get("nodeSelector") is not None:
        check_node_selector(allocation["nodeSelector"], f"{path}.nodeSelector", errors)


def _check_device(device: Obj, path: str, errors: Errors) -> None:
    check_driver_name(device.get("driver", ""), f"{path}.driver", errors)
    check_pool_name(device.get("pool", ""), f"{path}.pool", errors)
    check_label(device.get("device", ""), f"{path}.device", errors)
    if device.get("shareID") is not None:
        check_uid(device["shareID"], f"{path}.shareID", errors)


def check_binding_conditions(device: Obj, path: str, errors: Errors) -> None:
    """What has to become true, or may go wrong, before a pod is bound to the device's node (KEP-5007)."""
    good, bad = device.get("bindingConditions") or [], device.get("bindingFailureConditions") or []
    fields = (("bindingConditions", good), ("bindingFailureConditions", bad))
    for field, conditions in fields:
        check_list(conditions, _MAX_BINDING_CONDITIONS, _check_condition, f"{path}.{field}", errors)
    for field, conditions in fields:
        for index, condition in enumerate(conditions):
            here = f"{path}.{field}[{index}]"
            if condition in conditions[:index]:
                errors.append(duplicate(here, condition))
            if conditions is bad and condition in good:
                errors.append(
                    invalid(here, condition, "bindingFailureConditions must not overlap with bindingConditions")
                )
    for (field, conditions), (other, others) in (fields, fields[::-1]):
        if others and not conditions:
            errors.append(invalid(f"{path}.{field}", None, f"{field} are required to use {other}"))


def _check_condition(name: str, path: str, errors: Errors) -> None:
    errors += validate_label_name(name, path)


def _check_report(device: Obj, path: str, errors: Errors, *, allocated: set[DeviceKey]) -> None:
    _check_device(device, path, errors)
    if device_key(device) not in allocated:
        shown = "/".join(part for part in device_key(device) if part)
        errors.append(invalid(path, shown, "must be an allocated device in the claim"))
    conditions = device.get("conditions") or []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(f"{path}.conditions", len(conditions), _MAX_CONDITIONS))
    errors += validate_conditions(conditions, f"{path}.conditions")
    if device.get("data") is not None:
        check_parameters(device["data"], _MAX_DATA, f"{path}.data", errors)
    network = device.get("networkData") or {}
    for field, most in _MAX_LENGTHS.items():
        if byte_length(network.get(field, "")) > most:
            errors.append(too_long(f"{path}.networkData.{field}", most))
    check_set(network.get("ips"), _MAX_ADDRESSES, _check_address, str, f"{path}.networkData.ips", errors)


def _check_address(address: str, path: str, errors: Errors) -> None:
    check_rule(is_valid_interface_address, address, path, errors)
