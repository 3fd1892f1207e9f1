"""What a definition says about how its objects are shown, chosen and scaled: columns, selectable fields,
subresources."""

from __future__ import annotations

from shipwheel.api.errors import duplicate, invalid, required, too_many
from shipwheel.api.meta import Obj
from shipwheel.kinds.apiextensions.fieldpath import FieldPathError, find_schema
from shipwheel.kinds.checks import Errors

_TYPES = ("boolean", "date", "integer", "number", "string")
_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_MAX_SELECTABLE = 8
_NO_SCHEMA_OF_VERSION = "`version.schema.openAPIV3Schema` is not"  # as upstream says, though it means the contrary
_NOT_SELECTABLE = (
    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
)


def _path_complaint(path: str) -> str:
    if not path.startswith("."):
        return "must be a simple json path starting with ."
    return ""


def check_columns(columns: list[Obj] | None, path: str, errors: Errors) -> None:
    for index, column in enumerate(columns or ()):
        here = f"{path}[{index}]"
        kind, form, place = (column.get(field, "") for field in ("type", "format", "jsonPath"))
        if not column.get("name"):
            errors.append(required(f"{here}.name"))
        if not kind:
            errors.append(required(f"{here}.type", f"must be one of {','.join(_TYPES)}"))
        elif kind not in _TYPES:
            errors.append(invalid(f"{here}.type", kind, f"must be one of {','.join(_TYPES)}"))
        if form and form not in _FORMATS:
            errors.append(invalid(f"{here}.format", form, f"must be one of {','.join(_FORMATS)}"))
        if not place:
            errors.append(required(f"{here}.JSONPath"))
        elif complaint := _path_complaint(place):
            errors.append(invalid(f"{here}.JSONPath", place, complaint))


def check_subresources(subresources: Obj | None, path: str, errors: Errors) -> None:
    scale = (subresources or {}).get("scale")
    if scale is None:
        return
    for field, under in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        here, place = f"{path}.scale.{field}", scale.get(field, "")
        if not place:
            errors.append(required(here))
        elif complaint := _path_complaint(place):
            errors.append(invalid(here, place, complaint))
        elif not place.startswith(f"{under}."):
            errors.append(invalid(here, place, f"should be a json path under {under}"))
    here, place = f"{path}.scale.labelSelectorPath", scale.get("labelSelectorPath")
    if not place:
        return
    if complaint := _path_complaint(place):
        errors.append(invalid(here, place, complaint))
    elif not place.startswith((".spec.", ".status.")):
        errors.append(invalid(here, place, "should be a json path under either .spec or .status"))


def check_selectable(fields: list[Obj], schema: Obj | None, path: str, errors: Errors, *, as_many: bool) -> None:
    """Fields by which a list can be asked for (KEP-4358). `as_many`: there were as many before."""
    if fields and schema is None:
        missing = "validations.schema is" if path == "spec.selectableFields" else _NO_SCHEMA_OF_VERSION
        errors.append(invalid(path, "", f"may only be set when {missing} included"))
        return
    seen: set[tuple[str, ...]] = set()
    for index, field in enumerate(fields):
        here, place = f"{path}[{index}].jsonPath", field.get("jsonPath", "")
        if not place:
            errors.append(required(here))
            continue
        try:
            steps, found = find_schema(schema or {}, place, brackets=False)
        except FieldPathError as error:
            errors.append(invalid(here, place, f"is an invalid path: {error}"))
            continue
        if steps[0] == "metadata":
            errors.append(invalid(here, place, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            errors.append(invalid(here, place, _NOT_SELECTABLE))
        if steps in seen:
            errors.append(duplicate(here, place))
        seen.add(steps)
    if len(seen) > _MAX_SELECTABLE and not as_many:
        errors.append(too_many(path, len(seen), _MAX_SELECTABLE))
