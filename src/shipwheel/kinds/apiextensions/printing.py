"""What a definition says about how its objects are shown, chosen and scaled: columns, selectable fields,
subresources."""

from __future__ import annotations

import re

from shipwheel.api.errors import duplicate, invalid, required, too_many
from shipwheel.api.meta import Obj
from shipwheel.kinds.checks import Errors

_TYPES = ("boolean", "date", "integer", "number", "string")
_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_MAX_SELECTABLE = 8
_STEPS = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_\-]*)+").fullmatch


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
        detail = "may only be set when `version.schema.openAPIV3Schema` is not included"
        errors.append(invalid(path, "", detail))
        return
    seen: set[str] = set()
    for index, field in enumerate(fields):
        here, place = f"{path}[{index}].jsonPath", field.get("jsonPath", "")
        if not place:
            errors.append(required(here))
            continue
        complaint = _selectable_complaint(place, schema or {})
        if complaint:
            errors.append(invalid(here, place, complaint))
        if place in seen:
            errors.append(duplicate(here, place))
        seen.add(place)
    if len(seen) > _MAX_SELECTABLE and not as_many:
        errors.append(too_many(path, len(seen), _MAX_SELECTABLE))


def _selectable_complaint(place: str, schema: Obj) -> str:
    if not _STEPS(place):
        return "is an invalid path: only field names separated by dots are allowed"
    steps = place[1:].split(".")
    found: Obj | None = schema
    for step in steps:
        found = ((found or {}).get("properties") or {}).get(step)
        if found is None:
            return f'is an invalid path: does not refer to a valid field: "{step}"'
    if steps[0] == "metadata":
        return "must not point to fields in metadata"
    if (found or {}).get("type") not in ("string", "boolean", "integer"):
        return (
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
            "are allowed."
        )
    return ""
