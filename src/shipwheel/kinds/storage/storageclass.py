"""Storage classes: how storage that is wanted comes to be."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, duplicate, invalid, not_supported, required, too_long
from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.api.names import byte_length, is_qualified_name
from shipwheel.api.objectmeta import validate_label_name
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_fixed, check_rule
from shipwheel.kinds.columns import AGE, text
from shipwheel.kinds.core.nodelabels import DEPRECATED
from shipwheel.kinds.declare import older, served

_MAX_PARAMETERS = 512
_MAX_PARAMETERS_SIZE = 256 * 1024
_RECLAIM_POLICIES = ("Delete", "Retain")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")

_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


class StorageClassStrategy(Strategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, storage_class: Obj) -> None:
        if storage_class.get("reclaimPolicy") is None:
            storage_class["reclaimPolicy"] = "Delete"
        if storage_class.get("volumeBindingMode") is None:
            storage_class["volumeBindingMode"] = "Immediate"

    def validate(self, storage_class: Obj) -> list[FieldError]:
        errors: Errors = []
        check_provisioner(storage_class.get("provisioner", ""), "provisioner", errors)
        check_parameters(storage_class.get("parameters") or {}, "parameters", errors)
        policy, mode = storage_class.get("reclaimPolicy"), storage_class.get("volumeBindingMode")
        if policy and policy not in _RECLAIM_POLICIES:
            errors.append(not_supported("reclaimPolicy", policy, _RECLAIM_POLICIES))
        if mode is None:
            errors.append(required("volumeBindingMode"))
        elif mode not in _BINDING_MODES:
            errors.append(not_supported("volumeBindingMode", mode, _BINDING_MODES))
        _check_topologies(storage_class.get("allowedTopologies") or [], "allowedTopologies", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            check_fixed(new, old, field, errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return [
            f"allowedTopologies[{index}].matchLabelExpressions[{position}].key: {DEPRECATED[expression['key']]}"
            for index, term in enumerate(new.get("allowedTopologies") or ())
            for position, expression in enumerate(term.get("matchLabelExpressions") or ())
            if expression.get("key") in DEPRECATED
        ]


def check_provisioner(name: str, path: str, errors: Errors) -> None:
    if not name:
        errors.append(required(path))
    else:
        check_rule(is_qualified_name, name.lower(), path, errors)


def check_parameters(parameters: Obj, path: str, errors: Errors) -> None:
    if len(parameters) > _MAX_PARAMETERS:
        errors.append(too_long(path, _MAX_PARAMETERS))
    if "" in parameters:
        errors.append(invalid(path, "", "field can not be empty."))
    if sum(byte_length(key) + byte_length(value) for key, value in parameters.items()) > _MAX_PARAMETERS_SIZE:
        errors.append(too_long(path, _MAX_PARAMETERS_SIZE))


def _check_topologies(terms: list[Obj], path: str, errors: Errors) -> None:
    seen: list[dict[str, set[str]]] = [{} for _ in terms]  # terms that match everything are never unique
    for index, term in enumerate(terms):
        here = f"{path}[{index}].matchLabelExpressions"
        wanted: dict[str, set[str]] = {}
        for position, expression in enumerate(term.get("matchLabelExpressions") or ()):
            key, values = expression.get("key", ""), expression.get("values") or []
            _check_values(values, f"{here}[{position}].values", errors)
            errors += validate_label_name(key, f"{here}[{position}].key")
            if key in wanted:
                errors.append(duplicate(f"{here}[{position}].key", key))
            wanted[key] = set(values)
        errors += [duplicate(here, "") for each in seen if each == wanted]
        seen.append(wanted)


def _check_values(values: list[str], path: str, errors: Errors) -> None:
    if not values:
        errors.append(required(path))
    for index, value in enumerate(values):
        if value in values[:index]:
            errors.append(duplicate(f"{path}[{index}]", value))


def is_default(storage_class: Obj) -> bool:
    return any(annotations_of(storage_class).get(annotation) == "true" for annotation in _DEFAULT)


def _name(storage_class: Obj, now: datetime) -> str:
    name = name_of(storage_class)
    return f"{name} (default)" if is_default(storage_class) else name


RESOURCES = (
    Resource(
        kind="StorageClass",
        plural="storageclasses",
        singular="storageclass",
        short_names=("sc",),
        namespaced=False,
        versions=(
            served("storage.k8s.io", "v1", "StorageClass"),
            older(
                "storage.k8s.io", "v1beta1", "StorageClass", since="1.19", until="1.22", replacement="storage.k8s.io/v1"
            ),
        ),
        strategy=StorageClassStrategy(),
        columns=(
            Column("Name", _name, format="name"),
            Column("Provisioner", text("provisioner")),
            Column("ReclaimPolicy", text("reclaimPolicy", absent="Delete")),
            Column("VolumeBindingMode", text("volumeBindingMode", absent="Immediate")),
            Column("AllowVolumeExpansion", lambda obj, now: bool(obj.get("allowVolumeExpansion"))),
            AGE,
        ),
    ),
)
