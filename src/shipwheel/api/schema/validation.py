"""Value validation of custom resources, in upstream's words.

The rules are JSON Schema's as the OpenAPI dialect has them; their order, what is said when several alternatives
fail (the errors of the one that got furthest) and a few odd corners (errors of a combination have no field) are
those of upstream's validator, because users and tests read these messages.

On an update an error of a value that has not changed is passed over (KEP-4008, ratcheting).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api.errors import (
    FieldError,
    FieldErrorType,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from shipwheel.api.meta import Obj
from shipwheel.api.regex import PatternError, compile_pattern
from shipwheel.api.schema import formats
from shipwheel.api.schema.model import MISSING, Schema

NO_FIELD = "<nil>"
"""What upstream shows as the field of an error that is about a combination of schemas."""

_INT32 = (-(2**31), 2**31 - 1)
_INT64 = (-(2**63), 2**63 - 1)
_FLOAT32_MAX = 3.4028234663852886e38


def validate(schema: Schema, obj: Any, path: str = "", *, old: Any = MISSING) -> list[FieldError]:
    """Every way in which `obj` does not follow `schema`. `old` is what it replaces, for an update."""
    return list(_ratcheted(schema, obj, path, old, root=True).errors.values())


@dataclass(slots=True)
class _Result:
    """Errors by their message, and how many checks were passed, which tells the best of several failures."""

    errors: dict[str, FieldError] = field(default_factory=dict)
    matches: int = 0

    def add(self, message: str, error: FieldError) -> None:
        self.errors.setdefault(message, error)

    def merge(self, other: _Result) -> None:
        for message, error in other.errors.items():
            self.errors.setdefault(message, error)
        self.matches += other.matches


def _ratcheted(schema: Schema, value: Any, path: str, old: Any, *, root: bool = False) -> _Result:
    result = _check(schema, value, path, old, root=root)
    if result.errors and old is not MISSING and _same(value, old):
        return _Result(matches=result.matches)
    return result


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _field(path: str) -> str:
    return path.removeprefix(".")


def _types(schema: Schema) -> tuple[str, ...]:
    if schema.int_or_string:
        return ("integer", "string")
    return (schema.type,) if schema.type else ()


def _type_of(value: Any) -> tuple[str, str]:
    """The JSON type and the format that upstream infers from a value."""
    match value:
        case bool():
            return "boolean", ""
        case str():
            return "string", ""
        case int():
            return "integer", "int64"
        case float():
            return "number", "float64"
        case list():
            return "array", ""
    return "object", ""


def _check(schema: Schema, value: Any, path: str, old: Any, *, root: bool = False) -> _Result:
    result = _Result()
    types = _types(schema)
    if value is None:
        _check_type(schema, types, value, path, result)
        _check_enum(schema, value, path, result)
        return result
    if types or schema.format:
        _check_type(schema, types, value, path, result)
        result.matches += 1
    _check_combinations(schema, value, path, old, result)
    result.matches += 1
    match value:
        case str():
            _check_string(schema, value, path, result)
            result.matches += 1
        case bool():
            pass
        case int() | float():
            _check_number(schema, value, path, result)
            result.matches += 1
        case list():
            _check_list(schema, value, path, old, result)
            result.matches += 1
    _check_enum(schema, value, path, result)
    result.matches += 1
    if isinstance(value, dict):
        _check_object(schema, value, path, old, result, root=root)
        result.matches += 1
    result.matches += 1
    return result


# --- One rule each


def _check_type(schema: Schema, types: tuple[str, ...], value: Any, path: str, result: _Result) -> None:
    def wrong(expected: str, actual: str) -> None:
        message = f"{path} in body must be of type {expected}: {json.dumps(actual, ensure_ascii=False)}"
        result.add(message, FieldError(FieldErrorType.TYPE_INVALID, _field(path), message, actual))

    if value is None:
        if types and not schema.nullable:
            wrong(",".join(types), "null")
        else:
            result.matches += 1
        return
    name, inferred = _type_of(value)
    wanted = formats.effective(types[0] if len(types) == 1 else "", schema.format) if schema.format else ""
    numeric = "number" in types or "integer" in types
    textual = name in ("string", "array")
    fits = (
        name in types
        or (name == "number" and "integer" in types and value.is_integer())
        or (name == "integer" and "number" in types)
    )
    if not textual and wanted and not fits and inferred != wanted:
        wrong(wanted, inferred)
    elif (wanted and textual and not numeric) or fits or not types:
        result.matches += 1
    else:
        wrong(",".join(types), name)


def _check_enum(schema: Schema, value: Any, path: str, result: _Result) -> None:
    if schema.enum and not any(each is not None and _same(value, each) for each in schema.enum):
        shown = [each if isinstance(each, str) else _json(each) for each in schema.enum]
        result.add(f"{path} should be one of {shown}", not_supported(_field(path), value, shown))


def _check_string(schema: Schema, value: str, path: str, result: _Result) -> None:
    length = len(value)
    if schema.max_length is not None and length > schema.max_length:
        message = f"{path} in body should be at most {schema.max_length} chars long"
        result.add(message, too_long(_field(path), schema.max_length))
    elif schema.min_length is not None and length < schema.min_length:
        _invalid(result, path, value, f"should be at least {schema.min_length} chars long")
    elif schema.pattern:
        try:
            matched = compile_pattern(schema.pattern).search(value) is not None
        except PatternError as error:
            _invalid(
                result,
                path,
                value,
                f"should match '{schema.pattern}, but pattern is invalid: error parsing regexp: {error}'",
            )
        else:
            if not matched:
                _invalid(result, path, value, f"should match '{schema.pattern}'")
    types = _types(schema)
    wanted = formats.effective(types[0] if len(types) == 1 else "", schema.format) if schema.format else ""
    if wanted and not formats.fits(wanted, value):
        message = f"{path} in body must be of type {wanted}: {json.dumps(value, ensure_ascii=False)}"
        result.add(message, FieldError(FieldErrorType.TYPE_INVALID, _field(path), message, value))


def _check_number(schema: Schema, value: float, path: str, result: _Result) -> None:
    _in_range(schema, value, path, "Checked", result)
    whole = isinstance(value, int)

    def bound(limit: float) -> float:
        return int(limit) if whole else limit

    if schema.multiple_of is not None and _in_range(schema, schema.multiple_of, path, "MultipleOf", result):
        factor = bound(schema.multiple_of)
        if factor <= 0:
            message = f"factor MultipleOf declared for {path} must be positive: {_number(factor)}"
            result.add(message, invalid(_field(path), factor, message))
        elif not _is_multiple(value, factor):
            _invalid(result, path, value, f"should be a multiple of {_number(factor)}")
    if schema.minimum is not None and _in_range(schema, schema.minimum, path, "Minimum boundary", result):
        limit = bound(schema.minimum)
        if value < limit or (schema.exclusive_minimum and value == limit):
            words = "greater than" if schema.exclusive_minimum else "greater than or equal to"
            _invalid(result, path, value, f"should be {words} {_number(limit)}")
    if schema.maximum is not None and _in_range(schema, schema.maximum, path, "Maximum boundary", result):
        limit = bound(schema.maximum)
        if value > limit or (schema.exclusive_maximum and value == limit):
            words = "less than" if schema.exclusive_maximum else "less than or equal to"
            _invalid(result, path, value, f"should be {words} {_number(limit)}")
    result.matches += 1


def _is_multiple(value: float, factor: float) -> bool:
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    quotient = 1 / factor * value if factor < 1 else value / factor
    nearest = round(quotient)
    return abs(quotient - nearest) < 1e-9 * max(1.0, abs(quotient))


def _in_range(schema: Schema, value: float, path: str, what: str, result: _Result) -> bool:
    """Can the declared type hold the number? Says so in the result if not."""
    kind = schema.type if not schema.int_or_string else ""
    form = formats.effective(kind, schema.format) if kind in ("integer", "number") and schema.format else ""
    fits = True
    if kind == "integer":
        low, high = _INT32 if form == "int32" else _INT64
        fits = float(value).is_integer() and low <= value <= high
    elif form == "float":
        fits = abs(value) <= _FLOAT32_MAX
    if not fits:
        suffix = f"with format {form}" if form else "(default format)"
        message = f"{what} value must be of type {kind} {suffix} in {path}"
        result.add(message, invalid(NO_FIELD, "", message))
    return fits


def _check_list(schema: Schema, value: list[Any], path: str, old: Any, result: _Result) -> None:
    if schema.items is not None:
        before = _by_key(schema, old)
        for index, item in enumerate(value):
            previous = before.get(_key(schema, item), MISSING) if before else MISSING
            result.merge(_ratcheted(schema.items, item, f"{path}[{index}]", previous))
    size = len(value)
    if schema.min_items is not None and size < schema.min_items:
        _invalid(result, path, size, f"should have at least {schema.min_items} items")
    if schema.max_items is not None and size > schema.max_items:
        message = f"{path} in body should have at most {schema.max_items} items"
        result.add(message, too_many(_field(path), size, schema.max_items))
    if schema.unique_items and any(_same(item, other) for index, item in enumerate(value) for other in value[:index]):
        _invalid(result, path, "", "shouldn't contain duplicates")
    result.matches += 1


def _key(schema: Schema, item: Any) -> str:
    if not isinstance(item, dict) or schema.items is None:
        return ""
    defaults = schema.items.properties
    key = []
    for name in schema.list_map_keys:
        default = defaults[name].default if name in defaults else MISSING
        key.append(item.get(name, None if default is MISSING else default))
    return _json(key)


def _by_key(schema: Schema, old: Any) -> dict[str, Any]:
    """The former items of a list that is a map; others cannot be told apart."""
    if schema.list_type != "map" or not isinstance(old, list):
        return {}
    return {_key(schema, item): item for item in old}


def _check_object(schema: Schema, value: Obj, path: str, old: Any, result: _Result, *, root: bool = False) -> None:
    size = len(value)
    if schema.min_properties is not None and size < schema.min_properties:
        _invalid(result, path, size, f"should have at least {schema.min_properties} properties")
    if schema.max_properties is not None and size > schema.max_properties:
        message = f"{path} in body should have at most {schema.max_properties} properties"
        result.add(message, too_many(_field(path), size, schema.max_properties))
    before: Obj = old if isinstance(old, dict) else {}
    for name, item in value.items():
        child = schema.properties.get(name)
        here = f"{path}.{name}" if path or child is None else name
        child = child or schema.additional
        if child is not None:
            fixed = root and name in ("apiVersion", "kind")
            result.merge(_ratcheted(child, item, here, MISSING if fixed else before.get(name, MISSING)))
    for name in schema.required:
        if name not in value:
            here = f"{path}.{name}"
            result.add(f"{here} in body is required", required(_field(here)))


# --- Combinations of schemas


def _check_combinations(schema: Schema, value: Any, path: str, old: Any, result: _Result) -> None:
    shown = json.dumps(path, ensure_ascii=False)

    def complain(words: str) -> None:
        message = f"{shown} must {words}"
        result.add(message, invalid(NO_FIELD, "", message))

    if schema.any_of:
        tried = []
        for each in schema.any_of:
            tried.append(_check(each, value, path, old))
            if not tried[-1].errors:
                break
        if tried[-1].errors:
            complain("validate at least one schema (anyOf)")
            result.merge(_best(tried))
        else:
            result.merge(tried[-1])
    if schema.one_of:
        tried = [_check(each, value, path, old) for each in schema.one_of]
        valid = [each for each in tried if not each.errors]
        if len(valid) == 1:
            result.merge(valid[0])
        elif valid:
            complain(f"validate one and only one schema (oneOf). Found {len(valid)} valid alternatives")
        else:
            complain("validate one and only one schema (oneOf). Found none valid")
            result.merge(_best(tried))
    if schema.all_of:
        tried = [_check(each, value, path, old) for each in schema.all_of]
        for outcome in tried:
            result.merge(outcome)
        failed = sum(bool(each.errors) for each in tried)
        if failed:
            complain("validate all the schemas (allOf)" + (". None validated" if failed == len(tried) else ""))
    if schema.not_ is not None and not _check(schema.not_, value, path, old).errors:
        complain("not validate the schema (not)")
    result.matches += 1


def _best(tried: list[_Result]) -> _Result:
    """The first of those that passed most checks."""
    return max(tried, key=lambda each: each.matches)


# --- Words


def _invalid(result: _Result, path: str, value: Any, words: str) -> None:
    message = f"{path} in body {words}"
    result.add(message, invalid(_field(path), value, message))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def _number(value: float) -> str:
    """As Go's `%v` prints it."""
    if isinstance(value, int):
        return str(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa.removesuffix('.0')}e{exponent[0]}{exponent[1:].zfill(2)}"
    return text
