"""Devices: what drivers offer, what is asked for, what was given (KEP-4381).

Expressions in CEL are kept as they are: they are read by the scheduler, which allocates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import FieldError, invalid, invalid_object
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.objectmeta import validate_annotations, validate_labels
from shipwheel.api.resource import Column, Resource, Server, Strategy, WriteContext
from shipwheel.kinds.checks import Errors, check_fixed, check_only
from shipwheel.kinds.columns import AGE, NAME, dig, text
from shipwheel.kinds.core.resources import is_extended
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.resource.claimauthorization import check_status_writer
from shipwheel.kinds.resource.claimspec import (
    MAX_CONFIGS,
    check_admin_access,
    check_configuration,
    check_devices,
    check_selectors,
    default_devices,
)
from shipwheel.kinds.resource.claimstatus import allocated_devices, check_claim_status, device_key
from shipwheel.kinds.resource.names import check_list
from shipwheel.kinds.resource.slicespec import check_slice

_GROUP = "resource.k8s.io"
_NAMESPACES = GroupResource("", "namespaces")


def _devices(spec: Obj | None) -> Obj:
    return (spec or {}).get("devices") or {}


def _refuse_admin_access(requests: list[Obj], path: str, obj: Obj, server: Server, ctx: WriteContext) -> None:
    namespace = server.peek(_NAMESPACES, "", obj["metadata"].get("namespace", ""))
    errors: Errors = []
    check_admin_access(requests, namespace, path, errors)
    if errors:
        raise invalid_object(_GROUP, ctx.resource.kind, obj["metadata"]["name"], errors)


class DeviceClassStrategy(Strategy):
    returns_deleted = True

    def validate(self, device_class: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = device_class.get("spec") or {}
        check_selectors(spec.get("selectors"), "spec.selectors", errors)
        check_list(spec.get("config"), MAX_CONFIGS, check_configuration, "spec.config", errors)
        extended = spec.get("extendedResourceName")
        if extended is not None and not is_extended(extended):
            errors.append(invalid("spec.extendedResourceName", extended, "must be a valid extended resource name"))
        return errors


class ResourceClaimStrategy(Strategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, claim: Obj) -> None:
        default_devices(_devices(claim.get("spec")))

    def validate(self, claim: Obj) -> list[FieldError]:
        errors: Errors = []
        check_devices(_devices(claim.get("spec")), "spec.devices", errors)
        return errors

    async def before_create(self, claim: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        requests = _devices(claim.get("spec")).get("requests") or []
        _refuse_admin_access(requests, "spec.devices.requests", claim, server, ctx)
        return None

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_fixed(new, old, "spec", errors)
        return errors

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        """What is reported of devices goes with their allocation."""
        super().prepare_for_status_update(new, old, ctx)
        status = new.get("status") or {}
        gone = allocated_devices(old.get("status") or {}) - allocated_devices(status)
        if gone and status.get("devices"):
            new["status"] = {**status, "devices": [each for each in status["devices"] if device_key(each) not in gone]}

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_claim_status(new, old, errors)
        return errors

    async def before_update(self, new: Obj, old: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        results, before = (dig(each, "status", "allocation", "devices", "results") or [] for each in (new, old))
        if not any(result.get("adminAccess") for result in before):
            _refuse_admin_access(results, "status.allocation.devices.results", new, server, ctx)
        if ctx.subresource == "status":
            errors: Errors = []
            await check_status_writer(new, old, server, ctx, errors)
            if errors:
                raise invalid_object(_GROUP, ctx.resource.kind, new["metadata"]["name"], errors)
        return None


class ResourceClaimTemplateStrategy(Strategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, template: Obj) -> None:
        default_devices(_devices((template.get("spec") or {}).get("spec")))

    def validate(self, template: Obj) -> list[FieldError]:
        spec, path = template.get("spec") or {}, "spec.metadata"
        metadata = spec.get("metadata") or {}
        errors: Errors = validate_annotations(metadata.get("annotations") or {}, f"{path}.annotations")
        errors += validate_labels(metadata.get("labels"), f"{path}.labels")
        check_only(metadata, ("annotations", "labels"), "cannot be set", path, errors)
        check_devices(_devices(spec.get("spec")), "spec.spec.devices", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        check_fixed(new, old, "spec", errors)
        return errors

    async def before_create(self, template: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        requests = _devices((template.get("spec") or {}).get("spec")).get("requests") or []
        _refuse_admin_access(requests, "spec.devices.requests", template, server, ctx)
        return None


class ResourceSliceStrategy(Strategy):
    returns_deleted = True

    def prepare_for_create(self, resource_slice: Obj, ctx: WriteContext) -> None:
        _prepare_devices(resource_slice, ctx.now)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        _prepare_devices(new, ctx.now)

    def validate(self, resource_slice: Obj) -> list[FieldError]:
        errors: Errors = []
        check_slice(resource_slice.get("spec") or {}, None, errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_slice(new.get("spec") or {}, old.get("spec") or {}, errors)
        for field in ("spec.pool.name", "spec.driver", "spec.nodeName"):
            check_fixed(new, old, field, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        driver = dig(new, "spec", "driver") or ""
        if driver == driver.lower():
            return []
        return [f'spec.driver: driver names should be lowercase; "{driver}" contains uppercase characters']


_OFF_BY_DEFAULT = ("bools", "ints", "strings", "versions")
"""Attributes with several values (KEP-5491) are not on in this release."""


def _prepare_devices(resource_slice: Obj, now: datetime) -> None:
    """Taints say since when they are there; what is off by default is not kept."""
    for device in (resource_slice.get("spec") or {}).get("devices") or ():
        for taint in device.get("taints") or ():
            if not taint.get("timeAdded"):
                taint["timeAdded"] = rfc3339(now)
        device.pop("nodeAllocatableResourceMappings", None)
        for attribute in (device.get("attributes") or {}).values():
            for field in _OFF_BY_DEFAULT:
                attribute.pop(field, None)


def _state(claim: Obj, now: datetime) -> str:
    deleted = bool(claim["metadata"].get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if dig(claim, "status", "allocation"):
        states.append("allocated")
        if dig(claim, "status", "reservedFor"):
            states.append("reserved")
    elif not deleted:
        states.append("pending")
    return ",".join(states)


RESOURCES = (
    Resource(
        kind="DeviceClass",
        plural="deviceclasses",
        singular="deviceclass",
        namespaced=False,
        versions=(served(_GROUP, "v1", "DeviceClass"),),
        strategy=DeviceClassStrategy(),
        columns=(NAME, AGE),
    ),
    Resource(
        kind="ResourceClaim",
        plural="resourceclaims",
        singular="resourceclaim",
        versions=(served(_GROUP, "v1", "ResourceClaim"),),
        strategy=ResourceClaimStrategy(),
        columns=(NAME, Column("State", _state), AGE),
        subresources=(STATUS,),
    ),
    Resource(
        kind="ResourceClaimTemplate",
        plural="resourceclaimtemplates",
        singular="resourceclaimtemplate",
        versions=(served(_GROUP, "v1", "ResourceClaimTemplate"),),
        strategy=ResourceClaimTemplateStrategy(),
        columns=(NAME, AGE),
    ),
    Resource(
        kind="ResourceSlice",
        plural="resourceslices",
        singular="resourceslice",
        namespaced=False,
        versions=(served(_GROUP, "v1", "ResourceSlice"),),
        strategy=ResourceSliceStrategy(),
        columns=(
            NAME,
            Column("Node", text("spec", "nodeName")),
            Column("Driver", text("spec", "driver")),
            Column("Pool", text("spec", "pool", "name")),
            AGE,
        ),
        unknown_field="field label not supported for {gvk}: {field}",
        selectable={
            "spec.nodeName": lambda each: each["spec"].get("nodeName", ""),
            "spec.driver": lambda each: each["spec"].get("driver", ""),
        },
    ),
)
