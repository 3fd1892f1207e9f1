"""ConfigMaps."""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.core.keyeddata import MAX_SIZE, check_keys, check_sealed, encoded_size, text_size
from shipwheel.kinds.declare import served


class ConfigMapStrategy(Strategy):
    tracks_generation = False

    def validate(self, config_map: Obj) -> list[FieldError]:
        errors: Errors = []
        data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
        check_keys(data, "data", errors)
        for key in data.keys() & binary.keys():
            errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        check_keys(binary, "binaryData", errors)
        if text_size(data) + encoded_size(binary) > MAX_SIZE:
            errors.append(too_long("[]", MAX_SIZE))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        check_sealed(new, old, ("data", "binaryData"), errors)
        return errors + self.validate(new)


RESOURCES = (
    Resource(
        kind="ConfigMap",
        plural="configmaps",
        singular="configmap",
        short_names=("cm",),
        versions=(served("", "v1", "ConfigMap"),),
        strategy=ConfigMapStrategy(),
        columns=(
            NAME,
            Column("Data", lambda obj, now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
            AGE,
        ),
    ),
)
