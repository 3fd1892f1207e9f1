"""What a structural schema does to an object before anybody judges it: defaults in, unknown fields out.

Pruning and null handling are for custom resources (built-in kinds are conformed); defaults are for both. See
KEP-1111 and "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.api.schema.conform import DecodeError, conform_paths
from shipwheel.api.schema.model import MISSING, Schema

_META_FIELDS = frozenset(("apiVersion", "kind", "metadata"))

Defaulter = Callable[[Any], None]


def apply_defaults(schema: Schema, obj: Any) -> None:
    """Fill in, in place, the defaults that `schema` declares; a null where null is not allowed counts as absent."""
    fill = _defaulter(schema)
    if fill is not None:
        fill(obj)


def has_defaults(schema: Schema) -> bool:
    """Whether `apply_defaults` can make a difference."""
    return _defaulter(schema) is not None


def _defaulter(schema: Schema) -> Defaulter | None:
    """The compiled walk, or None when nothing below has a default."""
    try:
        return schema._default
    except AttributeError:
        schema._default = None  # a schema that contains itself adds no default by that
        base = schema._base
        schema._default = _defaulter(base) if base is not None else _compile(schema)
        return schema._default


def _has_default(schema: Schema) -> bool:
    """Null is no default, nor is a zero that would not be written."""
    if schema.default is MISSING or schema.default is None:
        return False
    return bool(schema.default) or schema.pointer or schema.always


def _copier(value: Any) -> Callable[[], Any]:
    return (lambda: copy.deepcopy(value)) if isinstance(value, dict | list) else (lambda: value)


def _compile(schema: Schema) -> Defaulter | None:
    values = {
        name: (_copier(each.default), each.nullable) for name, each in schema.properties.items() if _has_default(each)
    }
    inner = {name: walk for name, each in schema.properties.items() if (walk := _defaulter(each)) is not None}
    rest = schema.additional if schema.additional is not None else schema.items
    fill_rest = _defaulter(rest) if rest is not None else None
    rest_default = _copier(rest.default) if rest is not None and _has_default(rest) else None
    replaces_null = rest is not None and not rest.nullable and rest_default is not None
    if not (values or inner or fill_rest or replaces_null):
        return None
    properties = schema.properties

    def fill(value: Any) -> None:
        if value.__class__ is dict:
            for name, (default, nullable) in values.items():
                if value.get(name) is None and (name not in value or not nullable):
                    value[name] = default()
            for name, each in inner.items():
                if name in value:
                    each(value[name])
            if schema.additional is not None:
                for name in value:
                    if name not in properties:
                        fill_one(value, name)
        elif value.__class__ is list and schema.items is not None:
            for index in range(len(value)):
                fill_one(value, index)

    def fill_one(container: Any, key: Any) -> None:
        if container[key] is None and replaces_null and rest_default is not None:
            container[key] = rest_default()
        if fill_rest is not None:
            fill_rest(container[key])

    return fill


def prune(schema: Schema, obj: Obj) -> list[str]:
    """Take the fields that `schema` does not know out of a custom object; returns their paths, sorted.

    `apiVersion`, `kind` and `metadata` stay, here and where a resource is embedded.
    """
    found: list[str] = []
    walk = _skip if schema.preserve_unknown_fields else _prune
    walk(obj, schema, "", found, embedded=True)
    return sorted(found)


def _prune(value: Any, schema: Schema | None, path: str, found: list[str], *, embedded: bool = False) -> None:
    if schema is not None and schema.preserve_unknown_fields:
        _skip(value, schema, path, found)
    elif isinstance(value, dict):
        embedded = embedded or (schema is not None and schema.embedded_resource)
        for key in list(value):
            if embedded and key in _META_FIELDS:
                continue
            here = _join(path, key)
            child = _child(schema, key)
            if child is not None:
                _prune(value[key], child, here, found)
            else:
                found.append(here)
                del value[key]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _prune(item, schema.items if schema is not None else None, f"{path}[{index}]", found)


def _skip(value: Any, schema: Schema | None, path: str, found: list[str], *, embedded: bool = False) -> None:
    """Unknown fields stay here, but what is specified is pruned again below."""
    if schema is None:
        return
    if isinstance(value, dict):
        embedded = embedded or schema.embedded_resource
        for key, item in value.items():
            child = None if embedded and key in _META_FIELDS else _child(schema, key)
            if child is not None:
                _prune(item, child, _join(path, key), found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _skip(item, schema.items, f"{path}[{index}]", found)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _child(schema: Schema | None, key: str) -> Schema | None:
    if schema is None:
        return None
    return schema.properties.get(key) or schema.additional


def drop_nulls(schema: Schema, value: Any) -> None:
    """Take out nulls that are not allowed where no default would replace them, in place. Upstream does so
    before it fills in defaults."""
    if isinstance(value, dict):
        for key in list(value):
            child = _child(schema, key)
            if child is None:
                continue
            if value[key] is None:
                if not child.nullable and not _has_default(child):
                    del value[key]
            else:
                drop_nulls(child, value[key])
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            drop_nulls(schema.items, item)


def conform_metadata(schema: Schema, obj: Obj, object_meta: Schema, *, drop_malformed: bool = False) -> list[str]:
    """Bring the metadata of a custom object, and of resources embedded in it, into the form of `object_meta`.

    Returns the paths of unknown fields, sorted. Fields of the wrong type raise DecodeError, or are dropped (as is
    done with what was stored before).
    """
    found: list[str] = []

    def walk(schema: Schema, value: Any, path: str, *, embedded: bool = False) -> None:
        if isinstance(value, dict):
            metadata = value.get("metadata")
            if (embedded or schema.embedded_resource) and isinstance(metadata, dict):
                here = _join(path, "metadata")
                unknown = _conform_one(metadata, object_meta, drop_malformed=drop_malformed)
                found.extend(f"{here}.{each}" for each in unknown)
            for key, item in value.items():
                child = _child(schema, key)
                if child is not None and isinstance(item, dict | list):
                    walk(child, item, _join(path, key))
        elif isinstance(value, list) and schema.items is not None:
            for index, item in enumerate(value):
                walk(schema.items, item, f"{path}[{index}]")

    walk(schema, obj, "", embedded=True)
    return sorted(found)


def _conform_one(metadata: Obj, object_meta: Schema, *, drop_malformed: bool) -> list[str]:
    try:
        return conform_paths(object_meta, metadata)
    except DecodeError:
        if not drop_malformed:
            raise
    paths: list[str] = []
    for key, value in list(metadata.items()):
        single = {key: value}
        try:
            paths += conform_paths(object_meta, single)
        except DecodeError:
            single = {}
        if key in single:
            metadata[key] = single[key]
        else:
            del metadata[key]
    return paths
