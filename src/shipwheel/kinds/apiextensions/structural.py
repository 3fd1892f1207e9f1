"""Whether a custom resource's schema is structural: every field has its place and type outside of `anyOf` and the
like, which then only judge values (KEP-1979).

Unlike the rest of validation here, upstream shows these errors sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shipwheel.api.errors import forbidden, invalid, required
from shipwheel.api.meta import Obj
from shipwheel.api.regex import compile_pattern
from shipwheel.kinds.checks import Errors

_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_NOT_TYPED = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_JUDGING = ("allOf", "anyOf", "oneOf")
# What may not be said where values are only judged: what upstream says of each.
_FORBIDDEN_NESTED = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}


def check_structural(schema: Obj, path: str, errors: Errors) -> None:
    found: Errors = []
    _check(schema, "root", path, found)
    _check_complete(schema, schema, path, path, found)
    errors += sorted(found, key=str)


def is_structural(schema: Obj) -> bool:
    found: Errors = []
    check_structural(schema, "", found)
    return not found


def subschemas(schema: Obj) -> Iterator[tuple[str, Obj]]:
    """The schemas right below this one, each with its path from it."""
    for field in _JUDGING:
        for index, each in enumerate(schema.get(field) or ()):
            yield f"{field}[{index}]", each
    if isinstance(schema.get("not"), dict):
        yield "not", schema["not"]
    yield from places(schema)


def places(schema: Obj) -> Iterator[tuple[str, Obj]]:
    """The schemas of what lies in a value: items, properties, additional properties."""
    if isinstance(schema.get("items"), dict):
        yield "items", schema["items"]
    for name, each in (schema.get("properties") or {}).items():
        yield f"properties[{name}]", each
    if isinstance(schema.get("additionalProperties"), dict):
        yield "additionalProperties", schema["additionalProperties"]


def _check(schema: Obj, level: str, path: str, errors: Errors) -> None:
    kind, properties = schema.get("type", ""), schema.get("properties") or {}
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    if kind == "array" and schema.get("items") is None:
        errors.append(required(f"{path}.items", "must be specified"))
    for where, each in places(schema):
        _check(each, "item" if where == "items" else "field", f"{path}.{where}", errors)
    _check_extensions(schema, level, path, errors)
    _check_judgements(schema, path, errors)
    if embedded and kind != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        errors.append(invalid(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail))
    elif not kind and not schema.get("x-kubernetes-int-or-string") and not _preserves(schema):
        errors.append(required(f"{path}.type", _NOT_TYPED[level]))
    if level == "root" and kind not in ("", "object"):
        errors.append(invalid(f"{path}.type", kind, "must be object at the root"))
    if level == "root" or embedded:
        _check_type_meta(properties, path, errors)
    if level == "root" and "metadata" in properties:
        _check_root_metadata(properties["metadata"], f"{path}.properties[metadata]", errors)
    if embedded and not _preserves(schema) and not properties:
        detail = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        errors.append(required(f"{path}.properties", detail))


def _preserves(schema: Obj) -> bool:
    return bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def _check_extensions(schema: Obj, level: str, path: str, errors: Errors) -> None:
    if schema.get("additionalProperties") is not None:
        if level == "root":
            errors.append(forbidden(f"{path}.additionalProperties", "must not be used at the root"))
        if schema.get("x-kubernetes-embedded-resource"):
            detail = "must not be used if x-kubernetes-embedded-resource is set"
            errors.append(forbidden(f"{path}.additionalProperties", detail))
    if schema.get("x-kubernetes-int-or-string"):
        for extension in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(extension):
                detail = "must be false if x-kubernetes-int-or-string is true"
                errors.append(invalid(f"{path}.{extension}", True, detail))


def _check_type_meta(properties: Obj, path: str, errors: Errors) -> None:
    for field, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object")):
        declared = properties.get(field)
        if declared is not None and declared.get("type") != wanted:
            here = f"{path}.properties[{field}].type"
            errors.append(invalid(here, declared.get("type", ""), f"must be {wanted}"))


def _check_root_metadata(metadata: Obj, path: str, errors: Errors) -> None:
    """Of metadata only the name can be judged; the rest is the API's."""
    rest = {field: value for field, value in metadata.items() if field not in ("type", "default")}
    if rest.get("properties") and set(rest["properties"]) <= {"name", "generateName"}:
        del rest["properties"]
    if any(value not in (None, "", False, {}, []) for value in rest.values()):
        detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        errors.append(forbidden(path, detail))


# Judgements


def _check_judgements(schema: Obj, path: str, errors: Errors, *, skip: tuple[bool, bool] | None = None) -> None:
    """`skip`: whether `anyOf`, and the `anyOf` of the first `allOf`, is the pattern of int-or-string."""
    any_of, all_of = schema.get("anyOf") or [], schema.get("allOf") or []
    skip_any = skip[0] if skip is not None else any_of == _INT_OR_STRING
    skip_first = skip[1] if skip is not None else bool(all_of) and all_of[0].get("anyOf") == _INT_OR_STRING
    if not skip_any:
        for index, each in enumerate(any_of):
            _check_nested(each, f"{path}.anyOf[{index}]", errors)
    for index, each in enumerate(all_of):
        _check_nested(each, f"{path}.allOf[{index}]", errors, skip_any=skip_first and index == 0)
    for index, each in enumerate(schema.get("oneOf") or ()):
        _check_nested(each, f"{path}.oneOf[{index}]", errors)
    if isinstance(schema.get("not"), dict):
        _check_nested(schema["not"], f"{path}.not", errors)
    pattern = schema.get("pattern")
    if pattern:
        complaint = _pattern_complaint(pattern)
        if complaint:
            detail = f"must be a valid regular expression, but isn't: {complaint}"
            errors.append(invalid(f"{path}.pattern", pattern, detail))


def _pattern_complaint(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except ValueError as error:
        return str(error)
    return ""


def _check_nested(schema: Obj, path: str, errors: Errors, *, skip_any: bool = False) -> None:
    _check_judgements(schema, path, errors, skip=(skip_any, False))
    for where, each in places(schema):
        if where != "additionalProperties":
            _check_nested(each, f"{path}.{where}", errors)
    for field, detail in _FORBIDDEN_NESTED.items():
        if _is_set(schema.get(field), is_default=field == "default"):
            errors.append(forbidden(f"{path}.{field}", detail))
    if "metadata" in (schema.get("properties") or {}):
        detail = "must not be specified in a nested context"
        errors.append(forbidden(f"{path}.properties[metadata]", detail))


def _is_set(value: Any, *, is_default: bool) -> bool:
    return value is not None if is_default else value not in (None, "", False, [], {})


# Completeness


def _check_complete(judging: Obj, schema: Obj | None, path: str, judging_path: str, errors: Errors) -> None:
    """Whatever is judged is also specified."""
    for field in _JUDGING:
        for index, each in enumerate(judging.get(field) or ()):
            _check_nested_complete(each, schema, path, f"{judging_path}.{field}[{index}]", errors)
    if isinstance(judging.get("not"), dict):
        _check_nested_complete(judging["not"], schema, path, f"{judging_path}.not", errors)


def _check_nested_complete(judging: Obj, schema: Obj | None, path: str, judging_path: str, errors: Errors) -> None:
    if schema is None:
        errors.append(required(path, f"because it is defined in {judging_path}"))
        return
    _check_complete(judging, schema, path, judging_path, errors)
    if isinstance(judging.get("items"), dict):
        items = schema.get("items") if isinstance(schema.get("items"), dict) else None
        _check_nested_complete(judging["items"], items, f"{path}.items", f"{judging_path}.items", errors)
    specified = schema.get("properties") or {}
    for name, each in (judging.get("properties") or {}).items():
        where = f"properties[{name}]"
        _check_nested_complete(each, specified.get(name), f"{path}.{where}", f"{judging_path}.{where}", errors)
