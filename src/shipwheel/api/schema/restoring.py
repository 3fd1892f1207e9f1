"""What upstream says of values of the wrong type in an object that a strategic merge patch has made.

Such a patch is applied to maps, and the maps are then brought into Go's structs by a converter of its own, which has
other words than the decoder of JSON (`conform`) and tells neither the field nor its struct.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.schema.conform import DecodeError, conform, go_type
from shipwheel.api.schema.model import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME, Schema

_READ_AS_JSON = frozenset((QUANTITY, INT_OR_STRING, TIME, MICRO_TIME))
"""Types that read themselves."""
_SCALARS = {"string": str, "boolean": bool, "integer": int, "number": float}


def why_not_restored(schema: Schema, value: Any) -> str:
    """The complaint about the first value that is not of its schema's type; empty when there is none."""
    if value is None:
        return ""
    if schema.name in _READ_AS_JSON:
        return _read(schema, value)
    match schema.type:
        case "object" if schema.additional is not None and not schema.properties:
            if not isinstance(value, dict):
                return f"cannot restore map from {_kind(value)}"
            return _first((schema.additional, each) for each in value.values())
        case "object":
            if not isinstance(value, dict):
                return f"cannot restore struct from: {_kind(value)}"
            known = ((schema.properties[name], each) for name, each in value.items() if name in schema.properties)
            return _first(known)
        case "array":
            if not isinstance(value, list):
                return f"cannot restore slice from {_kind(value)}"
            return _first((schema.items, each) for each in value) if schema.items is not None else ""
        case "string" | "boolean" | "integer" | "number":
            return _of_scalar(schema, value)
    return ""


def _first(pairs: Any) -> str:
    return next(filter(None, (why_not_restored(schema, value) for schema, value in pairs)), "")


def _read(schema: Schema, value: Any) -> str:
    try:
        conform(schema, value)
    except DecodeError as error:
        return str(error)
    return ""


def _of_scalar(schema: Schema, value: Any) -> str:
    wanted = go_type(schema)
    fits = isinstance(value, _SCALARS[schema.type]) and not (isinstance(value, bool) and schema.type != "boolean")
    if fits or (schema.type == "number" and _kind(value) == "int64"):
        return ""
    if isinstance(value, float) and value.is_integer() and schema.type == "integer":
        return ""
    if schema.format == "byte":
        return f"cannot restore slice from {_kind(value)}"
    if _converts(_kind(value), schema.type):
        return f"cannot convert {_kind(value)} to {wanted}"
    return f"unrecognized type: {_base(schema)}"


def _converts(kind: str, wanted: str) -> bool:
    """Whether Go could convert the one to the other, if upstream let it: a number is a character too."""
    return kind in ("int64", "float64") and (
        wanted in ("integer", "number") or (kind == "int64" and wanted == "string")
    )


def _base(schema: Schema) -> str:
    """What Go's type is underneath."""
    return {"string": "string", "boolean": "bool", "number": "float64"}.get(schema.type) or schema.format or "int64"


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "int64"
        case float():
            return "float64"
        case dict():
            return "map"
    return "slice"
