"""Persistent volume claims: storage that is wanted."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.names import is_qualified_name
from shipwheel.api.quantity import ZERO, Quantity, parse
from shipwheel.api.resource import Column, Resource, WriteContext, keep
from shipwheel.kinds.checks import IMMUTABLE, NEGATIVE, Errors, check_immutable
from shipwheel.kinds.columns import AGE, NAME, UNSET, dig, text
from shipwheel.kinds.core.claimspec import check_claim_spec, claim_spec_warnings, default_claim_spec
from shipwheel.kinds.core.persistentvolume import (
    CLASS_ANNOTATION,
    CLASS_ANNOTATION_WARNING,
    access_modes,
    class_of,
    phase,
)
from shipwheel.kinds.core.resources import default_resource_list, is_native
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.diff import changes
from shipwheel.kinds.strategies import BuiltinStrategy

_RESIZE_STATES = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)


class PersistentVolumeClaimStrategy(BuiltinStrategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, claim: Obj) -> None:
        default_claim_spec(claim.setdefault("spec", {}))
        status = claim.setdefault("status", {})
        if not status.get("phase"):
            status["phase"] = "Pending"
        default_resource_list(status.get("capacity"))
        default_resource_list(status.get("allocatedResources"))

    def prepare_for_create(self, claim: Obj, ctx: WriteContext) -> None:
        claim["status"] = {"phase": "Pending"}
        _prepare_data_sources(claim["spec"], {})

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        _prepare_data_sources(new["spec"], old["spec"])

    def validate(self, claim: Obj) -> list[FieldError]:
        errors: Errors = []
        check_claim_spec(claim.get("spec") or {}, "spec", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        spec, before = _comparable(new, old, errors)
        if spec != before:
            detail = (
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
                f"bound claims\n{changes(before, spec)}"
            )
            errors.append(forbidden("spec", detail))
        _check_size_change(new, old, errors)
        mode = "volumeMode"
        check_immutable(new["spec"].get(mode), old["spec"].get(mode), mode, errors)
        _check_attributes_class_change(new, old, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        if not new["metadata"].get("resourceVersion"):
            errors.append(required("resourceVersion"))
        if not new["spec"].get("accessModes"):
            errors.append(required("Spec.accessModes"))
        status = new.get("status") or {}
        for name, amount in (status.get("capacity") or {}).items():
            _check_amount(amount, f"status.capacity[{name}]", errors)
        _check_resizing(status, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        warnings = claim_spec_warnings(new["spec"], "spec")
        if CLASS_ANNOTATION in annotations_of(new):
            warnings.insert(0, f"metadata.annotations[{CLASS_ANNOTATION}]: {CLASS_ANNOTATION_WARNING}")
        return warnings


def _prepare_data_sources(spec: Obj, old: Obj) -> None:
    """`dataSource` and `dataSourceRef` say the same (KEP-1495), where the former can say it: claims and snapshots.

    A reference into another namespace is of a feature that is off, so it is dropped.
    """
    reference = spec.get("dataSourceRef")
    if reference is not None and reference.get("namespace") and old.get("dataSourceRef") is None:
        reference = None
        del spec["dataSourceRef"]
    source = spec.get("dataSource")
    in_use = old.get("dataSource") is not None or old.get("dataSourceRef") is not None
    if source is not None and reference is None and not in_use and not _is_claim_or_snapshot(source):
        source = None
        del spec["dataSource"]
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif source is None and reference is not None and not reference.get("namespace"):
        spec["dataSource"] = {field: value for field, value in reference.items() if field != "namespace"}


def _is_claim_or_snapshot(source: Obj) -> bool:
    named = (source.get("apiGroup") or "", source.get("kind"))
    return named in (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _comparable(new: Obj, old: Obj, errors: Errors) -> tuple[Obj, Obj]:
    """Both specs without what may change: the volume may be set once, as may the class where there was none; of a
    bound claim the size and the attributes class."""
    spec, before = dict(new["spec"]), dict(old["spec"])
    if not before.get("volumeName"):
        keep(before, spec, "volumeName")
    _settle_class(new, old, spec, before, errors)
    if (new.get("status") or {}).get("phase") == "Bound":
        keep(spec, before, "volumeAttributesClassName")
        if dig(spec, "resources", "requests"):
            resources, size = spec["resources"], dig(before, "resources", "requests", "storage")
            spec["resources"] = {**resources, "requests": {**resources["requests"], "storage": size}}
    return spec, before


def _settle_class(new: Obj, old: Obj, spec: Obj, before: Obj, errors: Errors) -> None:
    field = "storageClassName"
    annotation, annotation_before = (annotations_of(claim).get(CLASS_ANNOTATION) for claim in (new, old))
    name, name_before = spec.get(field), before.get(field)
    newly_named = name is not None and name_before is None
    if newly_named and name == annotation_before and annotation in (None, annotation_before):
        del spec[field]
        return
    if (annotation or "") != (annotation_before or ""):
        errors.append(invalid(f"metadata.annotations.{CLASS_ANNOTATION}", annotation or "", IMMUTABLE))
    if newly_named and annotation_before in (None, name):
        del spec[field]


def _check_size_change(new: Obj, old: Obj, errors: Errors) -> None:
    """A claim grows; it may only shrink to what is more than it already has (KEP-1790)."""
    size, before = (_size(claim, "spec", "resources", "requests", "storage") for claim in (new, old))
    if size < before and size <= _size(old, "status", "capacity", "storage"):
        path = "spec.resources.requests.storage"
        errors.append(forbidden(path, "field can not be less than status.capacity"))


def _size(claim: Obj, *path: str) -> Quantity:
    amount = dig(claim, *path)
    return ZERO if amount is None else parse(amount)


def _check_attributes_class_change(new: Obj, old: Obj, errors: Errors) -> None:
    field = "volumeAttributesClassName"
    name = new["spec"].get(field)
    if name == old["spec"].get(field) or dig(old, "status", "currentVolumeAttributesClassName") is None:
        return
    if not name:
        to = "nil" if name is None else "empty string"
        detail = f"update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
        errors.append(forbidden(f"spec.{field}", detail))


def _check_amount(amount: str, path: str, errors: Errors) -> bool:
    if parse(amount).nanos < 0:
        errors.append(invalid(path, amount, NEGATIVE))
        return False
    return True


def _check_resizing(status: Obj, errors: Errors) -> None:
    path = "status.allocatedResourceStatuses"
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        _check_resizable(name, path, errors)
        if state not in _RESIZE_STATES:
            errors.append(not_supported(path, name, _RESIZE_STATES))
    path = "status.allocatedResources"
    for name, amount in (status.get("allocatedResources") or {}).items():
        if _check_resizable(name, path, errors):
            _check_amount(amount, f"{path}[{name}]", errors)


def _check_resizable(name: str, path: str, errors: Errors) -> bool:
    complaints = is_qualified_name(name)
    errors += [invalid(path, name, complaint) for complaint in complaints]
    if not complaints and is_native(name) and name != "storage":
        errors.append(not_supported(path, name, ("storage",)))
        return False
    return not complaints


def _capacity(claim: Obj, now: datetime) -> str:
    if not claim["spec"].get("volumeName"):
        return ""
    return str(dig(claim, "status", "capacity", "storage") or "0")


def _access_modes(claim: Obj, now: datetime) -> str:
    if not claim["spec"].get("volumeName"):
        return ""
    return access_modes(dig(claim, "status", "accessModes"))


RESOURCES = (
    Resource(
        kind="PersistentVolumeClaim",
        plural="persistentvolumeclaims",
        singular="persistentvolumeclaim",
        short_names=("pvc",),
        versions=(served("", "v1", "PersistentVolumeClaim"),),
        strategy=PersistentVolumeClaimStrategy(),
        columns=(
            NAME,
            Column("Status", phase),
            Column("Volume", text("spec", "volumeName")),
            Column("Capacity", _capacity),
            Column("Access Modes", _access_modes),
            Column("StorageClass", lambda claim, now: class_of(claim)),
            Column("VolumeAttributesClass", text("spec", "volumeAttributesClassName", absent=UNSET)),
            AGE,
            Column("VolumeMode", text("spec", "volumeMode", absent=UNSET), priority=1),
        ),
        subresources=(STATUS,),
        selectable={"name": lambda claim: claim["metadata"]["name"]},
    ),
)
