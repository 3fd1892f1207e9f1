"""Defaults, pruning and null handling of structural schemas."""

from __future__ import annotations

import pytest

from shipwheel.api.schema import (
    DecodeError,
    apply_defaults,
    conform_metadata,
    drop_nulls,
    from_openapi,
    prune,
)
from shipwheel.kinds import catalog

OBJECT_META = catalog.schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def schema(**properties: dict):
    return from_openapi({"type": "object", "properties": properties})


def test_defaults_fill_what_is_absent_and_what_may_not_be_null():
    crd = schema(
        a={"type": "integer", "default": 1},
        b={"type": "string", "default": "x", "nullable": True},
        c={
            "type": "object",
            "default": {},
            "properties": {"d": {"type": "array", "default": [1], "items": {}}},
        },
        e={"type": "string"},
    )
    obj = {"a": None, "b": None}
    apply_defaults(crd, obj)
    assert obj == {"a": 1, "b": None, "c": {"d": [1]}}


def test_a_default_is_a_copy():
    crd = schema(a={"type": "object", "default": {"b": []}})
    one: dict = {}
    apply_defaults(crd, one)
    one["a"]["b"].append(1)
    other: dict = {}
    apply_defaults(crd, other)
    assert other == {"a": {"b": []}}


def test_defaults_reach_into_lists_and_maps():
    inner = {"type": "object", "properties": {"x": {"type": "integer", "default": 7}}}
    crd = schema(items={"type": "array", "items": inner}, map={"type": "object", "additionalProperties": inner})
    obj = {"items": [{}, {"x": 1}], "map": {"k": {}}}
    apply_defaults(crd, obj)
    assert obj == {"items": [{"x": 7}, {"x": 1}], "map": {"k": {"x": 7}}}


def test_built_in_defaults():
    pod = {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}
    apply_defaults(catalog.schema("io.k8s.api.core.v1.Pod"), pod)
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_a_null_that_is_not_allowed_goes_unless_a_default_replaces_it():
    crd = schema(
        gone={"type": "string"},
        kept={"type": "string", "nullable": True},
        defaulted={"type": "string", "default": "x"},
        inner={"type": "object", "additionalProperties": {"type": "string"}},
    )
    obj = {"gone": None, "kept": None, "defaulted": None, "inner": {"k": None}, "unknown": None}
    drop_nulls(crd, obj)
    assert obj == {"kept": None, "defaulted": None, "inner": {}, "unknown": None}


PRUNED = schema(
    spec={
        "type": "object",
        "properties": {
            "known": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
            "free": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"strict": {"type": "object", "properties": {"a": {}}}},
            },
            "embedded": {
                "type": "object",
                "x-kubernetes-embedded-resource": True,
                "properties": {"spec": {"type": "object"}},
            },
        },
    }
)


def test_pruning_takes_out_what_is_not_specified():
    obj = {
        "apiVersion": "x/v1",
        "kind": "X",
        "metadata": {"name": "n"},
        "stray": 1,
        "spec": {
            "known": "yes",
            "extra": 1,
            "list": [{"a": "", "b": 1}, {"c": 1}],
            "map": {"k": {"deep": 1}},
            "free": {"any": {"thing": 1}, "strict": {"a": 1, "b": 2}},
            "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {}, "spec": {"x": 1}, "status": {}},
        },
    }
    assert prune(PRUNED, obj) == [
        "spec.embedded.spec.x",
        "spec.embedded.status",
        "spec.extra",
        "spec.free.strict.b",
        "spec.list[0].b",
        "spec.list[1].c",
        "spec.map.k.deep",
        "stray",
    ]
    assert obj["spec"]["free"] == {"any": {"thing": 1}, "strict": {"a": 1}}
    assert obj["spec"]["embedded"] == {"apiVersion": "v1", "kind": "K", "metadata": {}, "spec": {}}
    assert prune(PRUNED, obj) == []


def test_metadata_is_conformed_where_resources_are_embedded():
    obj = {
        "metadata": {"name": "n", "madeUp": 1, "labels": {"a": "b"}},
        "spec": {"embedded": {"metadata": {"finalizers": None, "other": 1}}},
    }
    assert conform_metadata(PRUNED, obj, OBJECT_META) == ["metadata.madeUp", "spec.embedded.metadata.other"]
    assert obj == {"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"embedded": {"metadata": {}}}}


def test_malformed_metadata_is_an_error_in_requests_and_dropped_from_storage():
    def obj() -> dict:
        return {"metadata": {"name": "n", "labels": {"a": 1}, "annotations": {"b": "c"}}}

    with pytest.raises(DecodeError, match=r"ObjectMeta\.labels of type string"):
        conform_metadata(PRUNED, obj(), OBJECT_META)
    stored = obj()
    assert conform_metadata(PRUNED, stored, OBJECT_META, drop_malformed=True) == []
    assert stored == {"metadata": {"name": "n", "annotations": {"b": "c"}}}
