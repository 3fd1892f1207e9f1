"""Bring decoded JSON into the form that upstream's Go types would give it.

This is the one walk over the body of a request for a built-in kind: types are checked, unknown fields and nulls
go, zero values that a Go type does not write go, and quantities and times take their canonical form. Each schema
is compiled to a closure on first use; an object that is already as it should be is read once and left alone.

Go decodes into structs, so its complaints name the struct, the way to the field and the Go type. A `Mismatch`
gathers the way while it passes up; nothing is spent on paths as long as all is well. Paths of unknown fields are
found by a second walk, made only when there are some and somebody asked.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.api.schema.model import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME, Schema

Stray = list[tuple[Obj, str]]
"""Entries to take out of their objects when the walk is over."""
Unknown = list[tuple[Obj, str]]

Check = Callable[[Any, Stray, Unknown], Any]
"""(value, entries to drop, unknown fields) -> the value in its canonical form"""

MAX_STRICT_ERRORS = 100
_INT_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


class DecodeError(ValueError):
    """The body is not an object of its kind; the message is upstream's."""


class Mismatch(Exception):
    """A value of another JSON type than the field's."""

    def __init__(self, value: str, go_type: str, *, text: str = "") -> None:
        super().__init__(value)
        self.value = value
        self.go_type = go_type
        self.text = text
        self.struct = ""
        self.path: list[str] = []

    def to_error(self) -> DecodeError:
        if self.text:
            return DecodeError(self.text)
        where = "value"
        if self.struct:
            where = f"struct field {self.struct}.{'.'.join(reversed(self.path))}"
        return DecodeError(f"json: cannot unmarshal {self.value} into Go {where} of type {self.go_type}")


def conform(schema: Schema, value: Any, *, unknown: list[str] | None = None, known: Obj | None = None) -> Any:
    """`value` in the form of `schema`, changed in place where it can be.

    Paths of fields that the schema does not know are appended to `unknown`, if given, as
    `unknown field "spec.foo"`. Raises DecodeError for a value of the wrong type. `known` is an object that is in this
    form already: fields of `value` that equal its own are not looked at again. Most updates change one of them.
    """
    if known and value.__class__ is dict:
        same = {key: known[key] for key, item in value.items() if item and key in known and item == known[key]}
        rest = conform(schema, {key: item for key, item in value.items() if key not in same}, unknown=unknown)
        order = dict.fromkeys((*value, *rest))
        return {key: same[key] if key in same else rest[key] for key in order if key in same or key in rest}
    stray: Stray = []
    strange: Unknown = []
    try:
        value = checker(schema)(value, stray, strange)
    except Mismatch as mismatch:
        raise mismatch.to_error() from None
    if strange:
        if unknown is not None:
            unknown.extend(f'unknown field "{path}"' for path in _paths(value, strange))
        for owner, key in strange:
            owner.pop(key, None)
    for owner, key in stray:
        owner.pop(key, None)
    return value


def conform_paths(schema: Schema, value: Obj) -> list[str]:
    """The same for an object, in place; returns the paths of unknown fields."""
    unknown: list[str] = []
    conform(schema, value, unknown=unknown)
    return [each.removeprefix('unknown field "').removesuffix('"') for each in unknown]


def _paths(value: Any, strange: Unknown) -> list[str]:
    found = {(id(owner), key) for owner, key in strange}
    return list(dict.fromkeys(_find(value, found, "")))[:MAX_STRICT_ERRORS]


def _find(value: Any, found: set[tuple[int, str]], path: str) -> list[str]:
    """Where the unknown fields are, in the order of the document."""
    paths: list[str] = []
    if isinstance(value, dict):
        identity = id(value)
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            if (identity, key) in found:
                paths.append(here)
            else:
                paths += _find(item, found, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            paths += _find(item, found, f"{path}[{index}]")
    return paths


def checker(schema: Schema) -> Check:
    """The compiled walk for one schema."""
    try:
        return schema._conform
    except AttributeError:
        base = schema._base
        check = checker(base) if base is not None else _compile(schema)
        schema._conform = check
        return check


def _compile(schema: Schema) -> Check:
    special = _BY_NAME.get(schema.name)
    if special is not None:
        return special
    match schema.type:
        case "object" if schema.additional is not None and not schema.properties:
            return _map(schema)
        case "object":
            return _object(schema)
        case "array":
            return _array(schema)
        case "string":
            return _bytes if schema.format == "byte" else _string(schema)
        case "integer":
            return _integer(schema)
        case "number":
            return _number
        case "boolean":
            return _boolean
    return _anything


def kind_of(value: Any) -> str:
    """What Go calls a JSON value that it cannot use."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "number"


def go_type(schema: Schema) -> str:
    """What Go calls the type of such a field: `int32`, `[]v1.Container`, `map[string]string`."""
    if schema.go_type:
        return schema.go_type
    if schema.name:
        *_, package, name = schema.name.rsplit(".", 2)
        return f"{package}.{name}"
    match schema.type:
        case "object":
            return f"map[string]{go_type(schema.additional) if schema.additional is not None else 'interface {}'}"
        case "array":
            return f"[]{go_type(schema.items) if schema.items is not None else 'interface {}'}"
        case "string":
            return "[]uint8" if schema.format == "byte" else "string"
        case "integer":
            return schema.format or "int64"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
    return "interface {}"


def zero(schema: Schema) -> Any:
    """What Go writes for a field that was not given."""
    try:
        empty = schema._zero
    except AttributeError:
        empty = schema._zero = orjson.dumps(_zero(schema))
    return orjson.loads(empty)


def _zero(schema: Schema) -> Any:
    if schema.name in _NEVER_ZERO:
        return None
    match schema.type:
        case "string":
            return "0" if schema.name == QUANTITY else ""
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "array":
            return []
    if schema.name == INT_OR_STRING:
        return 0
    return {name: _zero(each) for name, each in schema.properties.items() if _is_filled(each)}


def _is_filled(field: Schema) -> bool:
    """Is a field that was not given written as zero? Where Go would write null we write nothing."""
    return field.always and field.type != "array" and field.additional is None and field.name not in _NEVER_ZERO


def _object(schema: Schema) -> Check:
    struct = schema.name.rpartition(".")[2]
    type_name = go_type(schema)
    fields: dict[str, Any] = {}
    kept: set[str] = set()
    always: dict[str, Schema] = {}

    def prepare() -> None:
        for name, each in schema.properties.items():
            special = each.name in _BY_NAME
            if each.type in ("string", "boolean") and not special and each.format != "byte":
                fields[name] = str if each.type == "string" else bool
            else:
                fields[name] = checker(each)
            if each.pointer or each.always or special:
                kept.add(name)
            if _is_filled(each):
                always[name] = each

    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is not dict:
            raise Mismatch(kind_of(value), type_name)
        if not fields:
            prepare()
        get = fields.get
        key = ""
        try:
            for key, item in value.items():
                field = get(key)
                if field is item.__class__:
                    if not item and key not in kept:
                        stray.append((value, key))
                elif field is None:
                    unknown.append((value, key))
                elif item is None:
                    if key not in always:
                        stray.append((value, key))
                elif field.__class__ is type:
                    raise Mismatch(kind_of(item), go_type(schema.properties[key]))
                else:
                    new = field(item, stray, unknown)
                    if new is not item:
                        value[key] = new
                    if not new and key not in kept:
                        stray.append((value, key))
        except Mismatch as mismatch:
            mismatch.path.append(key)
            if schema.properties[key].embedded_in:
                mismatch.path.append(schema.properties[key].embedded_in)
            mismatch.struct = mismatch.struct or struct
            raise
        for key, each in always.items():
            if value.get(key) is None:
                value[key] = zero(each)
        return value

    return check


def _map(schema: Schema) -> Check:
    assert schema.additional is not None
    each, type_name, inner = schema.additional, go_type(schema), checker
    plain = each.type == "string" and each.name not in _BY_NAME and each.format != "byte"
    item_type = go_type(each)

    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is not dict:
            raise Mismatch(kind_of(value), type_name)
        check_item = inner(each)
        for key, item in value.items():
            if plain and item.__class__ is str:
                continue
            if item is None:
                value[key] = zero(each)
            elif plain:
                raise Mismatch(kind_of(item), item_type)
            else:
                new = check_item(item, stray, unknown)
                if new is not item:
                    value[key] = new
        return value

    return check


def _array(schema: Schema) -> Check:
    each, type_name = schema.items, go_type(schema)
    if each is None:
        return _any_list(type_name)
    item_schema = each
    plain = each.type == "string" and each.name not in _BY_NAME and each.format != "byte"
    item_type = go_type(each)

    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is not list:
            raise Mismatch(kind_of(value), type_name)
        check_item = checker(item_schema)
        for index, item in enumerate(value):
            if plain and item.__class__ is str:
                continue
            if item is None:
                value[index] = zero(item_schema)
            elif plain:
                raise Mismatch(kind_of(item), item_type)
            else:
                new = check_item(item, stray, unknown)
                if new is not item:
                    value[index] = new
        return value

    return check


def _any_list(type_name: str) -> Check:
    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is not list:
            raise Mismatch(kind_of(value), type_name)
        return value

    return check


def _integer(schema: Schema) -> Check:
    type_name = go_type(schema)
    low, high = _INT_RANGES.get(schema.format, _INT_RANGES["int64"])

    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is int and low <= value <= high:
            return value
        if value.__class__ in (int, float):
            raise Mismatch(f"number {value}", type_name)
        raise Mismatch(kind_of(value), type_name)

    return check


def _number(value: Any, stray: Stray, unknown: Unknown) -> Any:
    if value.__class__ not in (int, float):
        raise Mismatch(kind_of(value), "float64")
    return value


def _boolean(value: Any, stray: Stray, unknown: Unknown) -> Any:
    if value.__class__ is not bool:
        raise Mismatch(kind_of(value), "bool")
    return value


def _string(schema: Schema) -> Check:
    type_name = go_type(schema)

    def check(value: Any, stray: Stray, unknown: Unknown) -> Any:
        if value.__class__ is not str:
            raise Mismatch(kind_of(value), type_name)
        return value

    return check


def _bytes(value: Any, stray: Stray, unknown: Unknown) -> Any:
    """Base64 in its canonical form: line breaks are taken, and taken out."""
    if value.__class__ is not str:
        raise Mismatch(kind_of(value), "[]uint8")
    text = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch("", "", text=f"illegal base64 data at input byte {_bad_base64(value)}") from None
    if text is value and len(text) % 4 == 0:
        return value
    return base64.b64encode(raw).decode()


def _bad_base64(text: str) -> int:
    """The offset that Go's decoder reports: of the character, or of the quantum that is short."""
    seen = 0
    for offset, character in enumerate(text):
        if character in "\r\n":
            continue
        if not (character.isascii() and (character.isalnum() or character in "+/=")):
            return offset
        if character == "=":
            return offset if seen % 4 < 2 else offset + 1
        seen += 1
    return len(text) - seen % 4 if seen % 4 else len(text)


def _anything(value: Any, stray: Stray, unknown: Unknown) -> Any:
    return value


def _quantity(value: Any, stray: Stray, unknown: Unknown) -> Any:
    if value.__class__ is bool or value.__class__ not in (str, int, float):
        raise Mismatch("", "", text=quantity.FORMAT_WRONG)
    try:
        return quantity.canonical(value)
    except quantity.QuantityError as error:
        raise Mismatch("", "", text=str(error)) from None


def _int_or_string(value: Any, stray: Stray, unknown: Unknown) -> Any:
    if value.__class__ is str:
        return value
    low, high = _INT_RANGES["int32"]
    if value.__class__ is int and low <= value <= high:
        return value
    if value.__class__ in (int, float):
        raise Mismatch(f"number {value}", "int32")
    raise Mismatch(kind_of(value), "int32")


_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:(Z)|([+-])(\d\d):(\d\d))", re.ASCII)
_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_CANONICAL_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_SECONDS_LAYOUT = "2006-01-02T15:04:05Z07:00"
_MICROS_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"


def _time(value: Any, stray: Stray, unknown: Unknown) -> Any:
    """RFC 3339 in UTC and whole seconds."""
    return _canonical_time(value) if value.__class__ is str else _moment(value, _SECONDS_LAYOUT)


@lru_cache(maxsize=4096)
def _canonical_time(value: str) -> str:
    """The same few moments stand in many objects, and many times in each."""
    moment = _moment(value, _SECONDS_LAYOUT)
    if _CANONICAL.fullmatch(value):
        return value
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _micro_time(value: Any, stray: Stray, unknown: Unknown) -> Any:
    """RFC 3339 in UTC with six digits; fewer are not taken."""
    moment = _moment(value, _MICROS_LAYOUT)
    if _CANONICAL_MICRO.fullmatch(value):
        return value
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def _moment(value: Any, layout: str) -> datetime:
    if value.__class__ is not str:
        raise Mismatch(kind_of(value), "string")
    match = _RFC3339.fullmatch(value)
    if match is None or (layout is _MICROS_LAYOUT and len(match[7] or "") != 6):
        raise Mismatch("", "", text=_parse_complaint(value, layout))
    year, month, day, hour, minute, second, fraction, utc, sign, hours, minutes = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second),
            int((fraction or "")[:6].ljust(6, "0")), tzinfo=UTC,
        )  # fmt: skip
    except ValueError:
        raise Mismatch("", "", text=_parse_complaint(value, layout)) from None
    if not utc:
        offset = (int(hours) * 60 + int(minutes)) * (1 if sign == "+" else -1)
        moment = datetime.fromtimestamp(moment.timestamp() - offset * 60, UTC)
    return moment


_ELEMENTS = (
    (r"\d{4}", "2006", ""), ("-", "-", ""), (r"\d\d", "01", "month"), ("-", "-", ""), (r"\d\d", "02", "day"),
    ("T", "T", ""), (r"\d\d", "15", "hour"), (":", ":", ""), (r"\d\d", "04", "minute"), (":", ":", ""),
    (r"\d\d", "05", "second"),
)  # fmt: skip
_LIMITS = {"month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}


def _parse_complaint(text: str, layout: str) -> str:
    """What Go's time.Parse says of a text it does not take."""
    head = f'parsing time "{text}"'
    rest = text
    for pattern, element, part in _ELEMENTS:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'{head} as "{layout}": cannot parse "{rest}" as "{element}"'
        if part:
            low, high = _LIMITS[part]
            if not low <= int(match[0]) <= high:
                return f"{head}: {part} out of range"
        rest = rest[match.end() :]
    fraction = re.match(r"[.,]\d+", rest, re.ASCII)
    if layout is _MICROS_LAYOUT and (fraction is None or len(fraction[0]) < 7):
        return f'{head} as "{layout}": cannot parse "{rest}" as ".000000"'
    if fraction is not None:
        rest = rest[7 if layout is _MICROS_LAYOUT else fraction.end() :]
    zone = re.match(r"Z|[+-]\d\d:\d\d", rest, re.ASCII)
    if zone is None:
        return f'{head} as "{layout}": cannot parse "{rest}" as "Z07:00"'
    if rest[zone.end() :]:
        return f'{head}: extra text: "{rest[zone.end() :]}"'
    return f"{head}: day out of range"


_FREE_FORM = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
}
_NEVER_ZERO = {TIME, MICRO_TIME, *_FREE_FORM}
"""Types whose zero is written as null."""
_BY_NAME: dict[str, Check] = {
    QUANTITY: _quantity,
    INT_OR_STRING: _int_or_string,
    TIME: _time,
    MICRO_TIME: _micro_time,
    **dict.fromkeys(_FREE_FORM, _anything),
}
