"""Volume attributes classes: what may be changed about a volume that exists (KEP-3751)."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, forbidden, required
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import served
from shipwheel.kinds.storage.storageclass import check_parameters, check_provisioner


class VolumeAttributesClassStrategy(Strategy):
    returns_deleted = True
    tracks_generation = False

    def validate(self, attributes_class: Obj) -> list[FieldError]:
        errors: Errors = []
        parameters = attributes_class.get("parameters") or {}
        check_provisioner(attributes_class.get("driverName", ""), "driverName", errors)
        check_parameters(parameters, "parameters", errors)
        if not parameters:
            errors.append(required("parameters", "must contain at least one key/value pair"))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        changed = [field for field in ("driverName", "parameters") if new.get(field) != old.get(field)]
        return [forbidden(field, f"updates to {field} are forbidden.") for field in changed] + self.validate(new)


RESOURCES = (
    Resource(
        kind="VolumeAttributesClass",
        plural="volumeattributesclasses",
        singular="volumeattributesclass",
        short_names=("vac",),
        namespaced=False,
        versions=(served("storage.k8s.io", "v1", "VolumeAttributesClass"),),
        strategy=VolumeAttributesClassStrategy(),
        columns=(NAME, Column("DriverName", text("driverName")), AGE),
    ),
)
