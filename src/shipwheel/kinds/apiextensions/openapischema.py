"""Whether a custom resource's schema says something that can be kept: no words that are not supported, lists and
maps that can be what they are declared to be, defaults that follow the schema."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from shipwheel.api import schema as schemas
from shipwheel.api.errors import forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj
from shipwheel.kinds.apiextensions.fieldpath import FieldPathError, find_schema
from shipwheel.kinds.apiextensions.structural import subschemas
from shipwheel.kinds.checks import Errors

TYPES = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES = ("atomic", "set", "map")
_MAP_TYPES = ("atomic", "granular")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_META = ("metadata", "kind", "apiVersion")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")


@dataclass(frozen=True, slots=True)
class Demands:
    """What is wanted of a schema. Where a stored definition lacked something already, it is wanted no longer."""

    known_types: bool = True
    atomic_sets: bool = True
    map_keys: bool = True
    no_defaults: str = ""
    """Why there may be no defaults here."""
    in_meta: bool = False


def check_openapi_schema(schema: Obj, path: str, errors: Errors, demands: Demands, *, is_root: bool = True) -> None:
    _check_words(schema, path, errors, demands)
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(forbidden(f"{path}.uniqueItems", detail))
    additional = schema.get("additionalProperties")
    if additional is not None and additional is not True and schema.get("properties"):
        detail = "additionalProperties and properties are mutual exclusive"
        errors.append(forbidden(f"{path}.additionalProperties", detail))
    embedded = is_root or bool(schema.get("x-kubernetes-embedded-resource"))
    for where, each in subschemas(schema):
        below = demands
        if where == "additionalProperties" and demands.in_meta:
            below = replace(demands, no_defaults="inside additionalProperties applying to object metadata")
        elif embedded and where in _META_PLACES:
            field = where.removeprefix("properties[").removesuffix("]")
            reason = f"in top-level {field}" if is_root else demands.no_defaults
            below = replace(demands, in_meta=True, no_defaults=reason)
        check_openapi_schema(each, f"{path}.{where}", errors, below, is_root=False)
    _check_extensions(schema, path, errors, demands)
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        _check_rule(rule, schema, f"{path}.x-kubernetes-validations[{index}]", errors)


_META_PLACES = tuple(f"properties[{field}]" for field in _META)


def _check_words(schema: Obj, path: str, errors: Errors, demands: Demands) -> None:
    kind = schema.get("type", "")
    if demands.known_types and kind and kind not in TYPES:
        errors.append(not_supported(f"{path}.type", kind, TYPES))
    if schema.get("default") is not None and demands.no_defaults:
        errors.append(forbidden(f"{path}.default", f"must not be set {demands.no_defaults}"))
    for word in _UNSUPPORTED:
        if schema.get(word):
            errors.append(forbidden(f"{path}.{word}", f"{word} is not supported"))
    if kind == "null":
        detail = "type cannot be set to null, use nullable as an alternative"
        errors.append(forbidden(f"{path}.type", detail))
    if isinstance(schema.get("items"), list):
        errors.append(forbidden(f"{path}.items", "items must be a schema object and not an array"))
    if demands.in_meta and schema.get("x-kubernetes-embedded-resource"):
        detail = "must not be used inside of resource meta"
        errors.append(forbidden(f"{path}.x-kubernetes-embedded-resource", detail))


def _check_extensions(schema: Obj, path: str, errors: Errors, demands: Demands) -> None:
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        here = f"{path}.x-kubernetes-preserve-unknown-fields"
        errors.append(invalid(here, False, "must be true or undefined"))
    map_type, list_type = schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type")
    if map_type is not None:
        _check_declared(schema, "object", "x-kubernetes-map-type", path, errors)
        if map_type not in _MAP_TYPES:
            errors.append(not_supported(f"{path}.x-kubernetes-map-type", map_type, _MAP_TYPES))
    if list_type is not None:
        is_list = _check_declared(schema, "array", "x-kubernetes-list-type", path, errors)
        if is_list and demands.atomic_sets:
            _check_set(schema, list_type, path, errors)
        if list_type not in _LIST_TYPES:
            errors.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, _LIST_TYPES))
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if keys and list_type != "map":
        here, detail = f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty"
        errors.append(required(here, detail) if list_type is None else invalid(here, list_type, detail))
    if list_type == "map":
        _check_map_list(schema, keys, path, errors)
    if demands.map_keys:
        check_map_keys(schema, path, errors)


def _check_declared(schema: Obj, wanted: str, extension: str, path: str, errors: Errors) -> bool:
    kind = schema.get("type", "")
    if kind == wanted:
        return True
    detail = f"must be {wanted} if {extension} is specified"
    errors.append(invalid(f"{path}.type", kind, detail) if kind else required(f"{path}.type", detail))
    return False


def _check_set(schema: Obj, list_type: str, path: str, errors: Errors) -> None:
    wrong = _not_atomic(schema, list_type)
    if wrong:
        detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
        errors.append(invalid(f"{path}.items.{wrong}", schema["items"].get("x-kubernetes-list-type"), detail))


def _not_atomic(schema: Obj, list_type: str | None) -> str:
    """The extension that keeps the items of a set from being compared as wholes."""
    items = schema.get("items")
    if list_type != "set" or not isinstance(items, dict):
        return ""
    if items.get("type") == "array" and items.get("x-kubernetes-list-type", "atomic") != "atomic":
        return "x-kubernetes-list-type"
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        return "x-kubernetes-map-type"
    return ""


def _check_map_list(schema: Obj, keys: list[str], path: str, errors: Errors) -> None:
    items = schema.get("items")
    here = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        errors.append(required(here, "must not be empty if x-kubernetes-list-type is map"))
    if items is None:
        detail = "must have a schema if x-kubernetes-list-type is map"
        errors.append(required(f"{path}.items", detail))
        return
    if not isinstance(items, dict):
        detail = "must only have a single schema if x-kubernetes-list-type is map"
        errors.append(invalid(f"{path}.items", items, detail))
        return
    if items.get("type") != "object":
        detail = "must be object if parent array's x-kubernetes-list-type is map"
        errors.append(invalid(f"{path}.items.type", items.get("type", ""), detail))
        return
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        if key not in properties:
            errors.append(invalid(here, keys, "entries must all be names of item properties"))
        elif properties[key].get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(invalid(f"{path}.items.properties[{key}].type", items["type"], detail))
        if key in keys[:index]:
            errors.append(invalid(here, keys, "must not contain duplicate entries"))


def check_map_keys(schema: Obj, path: str, errors: Errors) -> None:
    """The keys by which a list is a map are always there."""
    items, list_type = schema.get("items"), schema.get("x-kubernetes-list-type")
    if not isinstance(items, dict) or list_type not in ("set", "map"):
        return
    if items.get("nullable"):
        detail = f"cannot be nullable when x-kubernetes-list-type is {list_type}"
        errors.append(forbidden(f"{path}.items.nullable", detail))
    if list_type != "map":
        return
    properties, wanted = items.get("properties") or {}, items.get("required") or ()
    for key in schema.get("x-kubernetes-list-map-keys") or ():
        declared, here = properties.get(key), f"{path}.items.properties[{key}]"
        if declared is None:
            continue
        if key not in wanted and declared.get("default") is None:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            errors.append(required(f"{here}.default", detail))
        if declared.get("nullable"):
            detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            errors.append(forbidden(f"{here}.nullable", detail))


def _check_rule(rule: Obj, schema: Obj, path: str, errors: Errors) -> None:
    """A rule in CEL (KEP-2876)."""
    text, message = rule.get("rule", ""), rule.get("message", "")
    if not text.strip():
        errors.append(required(f"{path}.rule", "rule is not specified"))
    elif message and not message.strip():
        errors.append(invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif _has_newlines(message.strip()):
        errors.append(invalid(f"{path}.message", message, "must not contain line breaks"))
    elif _has_newlines(text.strip()) and not message.strip():
        detail = "message must be specified if rule contains line breaks"
        errors.append(required(f"{path}.message", detail))
    expression, reason, field = (rule.get(name) for name in ("messageExpression", "reason", "fieldPath"))
    if expression and not expression.strip():
        detail = "messageExpression must be non-empty if specified"
        errors.append(required(f"{path}.messageExpression", detail))
    if reason is not None and reason not in _REASONS:
        errors.append(not_supported(f"{path}.reason", reason, _REASONS))
    if field and not field.strip():
        errors.append(invalid(f"{path}.fieldPath", field, "must be non-empty if specified"))
    if field and _has_newlines(field):
        errors.append(invalid(f"{path}.fieldPath", field, "must not contain line breaks"))
    if field and not _leads_somewhere(field, schema):
        errors.append(invalid(f"{path}.fieldPath", field, "must be a valid path"))


def _leads_somewhere(path: str, schema: Obj) -> bool:
    try:
        find_schema(schema, path, brackets=True)
    except FieldPathError:
        return False
    return True


def _has_newlines(text: str) -> bool:
    return "\n" in text or "\r" in text


# Defaults


def check_defaults(schema: Obj, path: str, errors: Errors, *, pruned: bool = True) -> None:
    """Defaults are good values, without fields that would be pruned (unless `pruned` is False)."""
    default = schema.get("default")
    if default is not None:
        _check_default(schema, f"{path}.default", errors, pruned=pruned)
    for where, each in subschemas(schema):
        if where.startswith(("properties[", "items")):
            check_defaults(each, f"{path}.{where}", errors, pruned=pruned)


def _check_default(declared: Obj, path: str, errors: Errors, *, pruned: bool) -> None:
    schema, default = schemas.from_openapi(declared), declared["default"]
    if pruned and _is_pruned(schema, default):
        errors.append(invalid(path, default, "must not have unknown fields"))
    for error in schemas.validate(schema, default):
        errors.append(replace(error, field=f"{path}.{error.field}" if error.field else path))


def _is_pruned(schema: schemas.Schema, value: object) -> bool:
    """Whether fields would be taken out of the value. Pruning works in place, so on a holder of a copy."""
    return bool(schemas.prune(schema, deepcopy(value))) if isinstance(value, dict) else False


def has_unpruned_defaults(schema: Obj) -> bool:
    found: Errors = []
    check_defaults(schema, "", found, pruned=True)
    return any(error.detail == "must not have unknown fields" for error in found)


# What a stored definition lacked


def has_anywhere(schema: Obj, lacks: str) -> bool:
    """Whether the schema, or one below it, lacks what the demand of that name asks for."""
    return _lacks(schema, lacks) or any(has_anywhere(each, lacks) for _, each in subschemas(schema))


def _lacks(schema: Obj, demand: str) -> bool:
    if demand == "known_types":
        return bool(schema.get("type")) and schema["type"] not in TYPES
    if demand == "atomic_sets":
        return bool(_not_atomic(schema, schema.get("x-kubernetes-list-type")))
    found: Errors = []
    check_map_keys(schema, "", found)
    return bool(found)
