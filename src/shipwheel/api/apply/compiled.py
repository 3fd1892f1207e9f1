"""From a schema to the types by which its values are merged.

How a list or map is owned is said by `x-kubernetes-list-type` and `x-kubernetes-map-type`; where an older schema
lacks the former, by the list's patch strategy. What a schema leaves open is untyped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from shipwheel.api.apply.types import LEAF, UNTYPED, Granular, MapList, MergeType, SetList, Untyped
from shipwheel.api.meta import Obj
from shipwheel.api.schema.conform import zero
from shipwheel.api.schema.model import MISSING, QUANTITY, Schema, from_openapi

_WHOLE = {QUANTITY, "io.k8s.apimachinery.pkg.runtime.RawExtension"}
"""Definitions whose values are owned whole though their schemas do not say so."""

_SCALARS = ("string", "integer", "number", "boolean")

_STRINGS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
OBJECT_META: Final = from_openapi(
    {
        "type": "object",
        "properties": {
            **{
                name: {"type": "string"}
                for name in (
                    *("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"),
                    *("creationTimestamp", "deletionTimestamp"),
                )
            },
            "generation": {"type": "integer"},
            "deletionGracePeriodSeconds": {"type": "integer"},
            "labels": _STRINGS,
            "annotations": _STRINGS,
            "ownerReferences": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uid"],
                "items": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "properties": {
                        **{name: {"type": "string"} for name in ("apiVersion", "kind", "name", "uid")},
                        **{name: {"type": "boolean"} for name in ("controller", "blockOwnerDeletion")},
                    },
                },
            },
            "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "managedFields": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    }
)
"""The metadata of objects whose own schema does not spell it out: custom ones."""

_STRING: Final = from_openapi({"type": "string"})


def merge_type(schema: Schema) -> MergeType:
    """The type of whole objects of this schema."""
    try:
        return schema._merge_type
    except AttributeError:
        schema._merge_type = kind = _resource(schema, preserve=False)
        return kind


def properties_of(schema: Schema) -> dict[str, Schema]:
    """The fields of an object that carries its own metadata, which every schema has, said or unsaid."""
    properties = {"apiVersion": _STRING, "kind": _STRING, **schema.properties}
    metadata = properties.get("metadata")
    if metadata is None or not metadata.properties:
        properties["metadata"] = OBJECT_META
    return properties


def _resource(schema: Schema, *, preserve: bool) -> MergeType:
    return _granular(Granular, properties_of(schema), schema, preserve=preserve)


def _compile(schema: Schema, *, preserve: bool) -> MergeType:
    """`preserve`: an object further up keeps fields it does not know, and so do all below it."""
    preserve = preserve or schema.preserve_unknown_fields
    if schema.name in _WHOLE or schema.type in _SCALARS:
        return LEAF
    if schema.type == "array":
        return _list(schema, preserve=preserve)
    if schema.map_type == "atomic":
        return LEAF
    if schema.embedded_resource:
        return _resource(schema, preserve=preserve)
    if schema.type == "object":
        return _granular(Granular, schema.properties, schema, preserve=preserve)
    return _granular(Untyped, schema.properties, schema, preserve=preserve) if schema.properties else UNTYPED


def _granular(make: type[Granular], properties: dict[str, Schema], schema: Schema, *, preserve: bool) -> MergeType:
    element: Callable[[], MergeType] | None = None
    if schema.additional is not None:
        element = _later(schema.additional, preserve=preserve)
    elif preserve or schema.preserve_unknown_fields or not schema.properties:
        element = lambda: UNTYPED  # noqa: E731
    return make({name: _later(each, preserve=preserve) for name, each in properties.items()}, element)


def _later(schema: Schema, *, preserve: bool) -> Callable[[], MergeType]:
    """Compiled when asked for the first time, and once for all who share the schema."""

    def compiled() -> MergeType:
        if preserve:
            return _compile(schema, preserve=True)
        try:
            return schema._merge_type
        except AttributeError:
            schema._merge_type = kind = _compile(schema, preserve=False)
            return kind

    return compiled


@lru_cache(maxsize=512)
def blank(schema: Schema) -> Obj:
    """An object of the kind before anything is set, as Go has it: fields that are always written are zero, and
    lists and maps among them null. So a create does not bring these containers into being, but fills them."""
    return _blank(schema) if schema.name else {}


def _blank(schema: Schema) -> Obj:
    return {name: _blank_value(each) for name, each in schema.properties.items() if each.always}


def _blank_value(schema: Schema) -> Any:
    if schema.properties:
        return _blank(schema)
    if schema.type == "array" or schema.additional is not None:
        return None
    return zero(schema)


def list_relation(schema: Schema) -> tuple[str, tuple[str, ...]]:
    """(`atomic`, `set` or `map`; the keys of the latter)."""
    if "x-kubernetes-list-type" in schema.to_openapi() or not schema.patch_strategy:
        return schema.list_type, schema.list_map_keys
    if "merge" not in schema.patch_strategy:
        return "atomic", ()
    return ("map", (schema.patch_merge_key,)) if schema.patch_merge_key else ("set", ())


def key_defaults(schema: Schema, keys: tuple[str, ...]) -> dict[str, Any]:
    """Of a list of type `map`: what its keys are where an item does not give them."""
    properties = schema.items.properties if schema.items else {}
    defaults = {key: _default(properties[key]) for key in keys if key in properties}
    return {key: value for key, value in defaults.items() if value is not MISSING and value is not None}


def _default(schema: Schema) -> Any:
    """What a field is declared to be when it is not given; one that Go always writes is zero."""
    return zero(schema) if schema.default is MISSING and schema.always and not schema.name else schema.default


def _list(schema: Schema, *, preserve: bool) -> MergeType:
    relation, keys = list_relation(schema)
    if relation == "set":
        return SetList()
    if relation != "map" or schema.items is None:
        return LEAF
    return MapList(keys, key_defaults(schema, keys), _later(schema.items, preserve=preserve))
