"""A small kind with every way of owning, and strategies that make its objects: for the tests of apply."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from shipwheel.api.schema import from_openapi

GV = "test.example.com/v1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

STRING = {"type": "string"}
_STRUCT = {"type": "object", "properties": {"x": STRING, "y": STRING}}
_ITEM = {
    "type": "object",
    "properties": {
        "name": STRING,
        "v": STRING,
        "sub": _STRUCT,
        "tags": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
    },
}
_PORT = {
    "type": "object",
    "properties": {"port": {"type": "integer"}, "protocol": {**STRING, "default": "TCP"}, "n": STRING},
}
SPEC = {
    "type": "object",
    "properties": {
        "replicas": {"type": "integer"},
        "paused": {"type": "boolean"},
        "text": STRING,
        "port": {"x-kubernetes-int-or-string": True},
        "labels": {"type": "object", "additionalProperties": STRING},
        "atomicMap": {"type": "object", "additionalProperties": STRING, "x-kubernetes-map-type": "atomic"},
        "nested": {"type": "object", "properties": {**_STRUCT["properties"], "deep": _STRUCT}},
        "list": {"type": "array", "items": STRING, "x-kubernetes-list-type": "atomic"},
        "set": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
        "items": {
            "type": "array",
            "items": _ITEM,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
        "ports": {
            "type": "array",
            "items": _PORT,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
        },
        "old": {
            "type": "array",
            "items": _ITEM,
            "x-kubernetes-patch-strategy": "merge,retainKeys",
            "x-kubernetes-patch-merge-key": "name",
        },
        "oldSet": {"type": "array", "items": STRING, "x-kubernetes-patch-strategy": "merge"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
STATUS = {"type": "object", "properties": {"phase": STRING, "n": {"type": "integer"}}}
SCHEMA = from_openapi({"type": "object", "properties": {"spec": SPEC, "status": STATUS}})

_names = st.sampled_from("abcd")
_words = st.sampled_from("xyz")
_struct = st.fixed_dictionaries({}, optional={"x": _words, "y": _words})
_set = st.lists(_names, unique=True, max_size=3)
_item = st.fixed_dictionaries({"name": _names}, optional={"v": _words, "sub": _struct, "tags": _set})
_items = st.lists(_item, unique_by=lambda each: each["name"], max_size=3)
_port = st.fixed_dictionaries(
    {"port": st.sampled_from([9, 80])}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "n": _words}
)
_ports = st.lists(_port, unique_by=lambda each: (each["port"], each.get("protocol", "TCP")), max_size=3)
_map = st.dictionaries(_names, _words, max_size=3)
specs = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(1, 3),
        "paused": st.booleans(),
        "text": _words,
        "port": st.sampled_from([1, "http"]),
        "labels": _map,
        "atomicMap": _map,
        "nested": st.fixed_dictionaries({}, optional={"x": _words, "y": _words, "deep": _struct}),
        "list": st.lists(_words, max_size=3),
        "set": _set,
        "items": _items,
        "ports": _ports,
        "old": _items,
        "oldSet": _set,
        "free": st.dictionaries(_names, st.one_of(_words, _map, st.lists(_words, max_size=2)), max_size=2),
    },
)


def thing(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """An object of the kind; without `spec` it has none."""
    obj: dict[str, Any] = {
        "apiVersion": GV,
        "kind": "Thing",
        "metadata": {"name": "t", "namespace": "default", **metadata},
    }
    if spec is not None:
        obj["spec"] = spec
    return obj


things = st.builds(lambda spec, labels: thing(spec, **({"labels": labels} if labels else {})), specs, st.none() | _map)
