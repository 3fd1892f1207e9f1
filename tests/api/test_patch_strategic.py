"""Strategic merge patch: strategies, directives, orders, errors; and its laws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.errors import ApiError
from shipwheel.api.patch import apply_strategic
from shipwheel.api.patch.values import clone, same
from shipwheel.api.schema import from_openapi


def keyed(properties: dict[str, Any], key: str = "name", strategy: str = "merge") -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "object", "properties": properties},
        "x-kubernetes-patch-strategy": strategy,
        "x-kubernetes-patch-merge-key": key,
    }


STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}
MERGED_STRINGS = {**STRINGS, "x-kubernetes-patch-strategy": "merge"}
PORTS = keyed({"port": {"type": "integer"}, "name": STRING, "protocol": STRING}, "port")
SCHEMA = from_openapi(
    {
        "type": "object",
        "properties": {
            "name": STRING,
            "labels": {"type": "object", "additionalProperties": STRING},
            "finalizers": MERGED_STRINGS,
            "command": STRINGS,
            "containers": keyed({"name": STRING, "image": STRING, "ports": PORTS, "args": STRINGS}),
            "keyless": {**keyed({"x": STRING}), "x-kubernetes-patch-merge-key": ""},
            "volumes": keyed({"name": STRING, "a": {"type": "object"}, "b": STRING}, strategy="merge,retainKeys"),
            "strategy": {
                "type": "object",
                "properties": {"type": STRING, "rolling": {"type": "object", "properties": {"max": STRING}}},
                "x-kubernetes-patch-strategy": "retainKeys",
            },
            "whole": {
                "type": "object",
                "properties": {"a": STRING, "b": STRING},
                "x-kubernetes-patch-strategy": "replace",
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
    name="io.k8s.api.test.v1.Thing",
)
A, B, C, D = ({"name": name} for name in "abcd")


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"name": "x"}, {}, {"name": "x"}),
        ({"name": "x", "command": ["a"]}, {"name": None, "gone": None}, {"command": ["a"]}),
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"a": None, "c": "3"}}, {"labels": {"b": "2", "c": "3"}}),
        ({}, {"labels": {"a": None, "c": "3"}}, {"labels": {"c": "3"}}),
        ({"command": ["a", "b"]}, {"command": ["c"]}, {"command": ["c"]}),
        ({"command": ["a"]}, {"command": {"not": "a list"}}, {"command": {"not": "a list"}}),
        ({"free": {"a": {"b": 1}, "l": [1]}}, {"free": {"a": {"c": 2}, "l": [2]}},
         {"free": {"a": {"b": 1, "c": 2}, "l": [2]}}),
        # Lists of scalars.
        ({"finalizers": ["a", "b"]}, {"finalizers": ["b", "c"]}, {"finalizers": ["a", "b", "c"]}),
        ({"finalizers": ["a", "b", "c"]}, {"$deleteFromPrimitiveList/finalizers": ["b", "x"]},
         {"finalizers": ["a", "c"]}),
        ({"command": ["a", "b"]}, {"$deleteFromPrimitiveList/command": ["b"]}, {"command": ["a"]}),
        ({}, {"$deleteFromPrimitiveList/finalizers": ["b"]}, {}),
        ({"finalizers": ["a"]}, {"$deleteFromPrimitiveList/finalizers": None}, {}),
        ({"finalizers": ["a", "b"]},
         {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"],
          "finalizers": ["c"]},
         {"finalizers": ["c", "b"]}),
        ({"finalizers": ["a", "b", "c"]}, {"$setElementOrder/finalizers": ["c", "b", "a"]},
         {"finalizers": ["c", "b", "a"]}),
        # Lists of objects.
        ({"containers": [A, {**B, "image": "1"}]}, {"containers": [{**B, "image": "2"}, C]},
         {"containers": [A, {**B, "image": "2"}, C]}),
        ({"containers": [A, B]}, {"containers": [{**A, "$patch": "delete"}]}, {"containers": [B]}),
        ({"containers": [A, B]}, {"containers": [{"$patch": "replace"}, C]}, {"containers": [C]}),
        ({"containers": [A]}, {"containers": [{**A, "ports": [{"port": 1, "protocol": "TCP"}]}]},
         {"containers": [{**A, "ports": [{"port": 1, "protocol": "TCP"}]}]}),
        ({"containers": [{**A, "ports": [{"port": 1}, {"port": 2}]}]},
         {"containers": [{**A, "ports": [{"port": 2, "name": "x"}, {"port": 1, "$patch": "delete"}]}]},
         {"containers": [{**A, "ports": [{"port": 2, "name": "x"}]}]}),
        ({"containers": [{**A, "args": ["x"]}]}, {"containers": [{**A, "args": None}]}, {"containers": [A]}),
        ({}, {"containers": [A, {**B, "$patch": "delete"}]}, {"containers": [A]}),
        ({"containers": [A, B, C]}, {"$setElementOrder/containers": [C, A], "containers": [{**C, "image": "i"}]},
         {"containers": [B, {**C, "image": "i"}, A]}),
        ({"containers": [A, B, C]}, {"$setElementOrder/containers": [D, A], "containers": [D]},
         {"containers": [D, A, B, C]}),
        ({"containers": [B, A]}, {"$setElementOrder/containers": [A], "containers": [{**A, "image": "i"}]},
         {"containers": [B, {**A, "image": "i"}]}),
        ({}, {"$setElementOrder/containers": [A], "containers": [A]}, {"containers": [A]}),
        ({}, {"$setElementOrder/containers": [A]}, {}),
        # Directives in objects.
        ({"labels": {"a": "1"}}, {"labels": {"b": "2", "$patch": "replace"}}, {"labels": {"b": "2"}}),
        ({"labels": {"a": "1"}}, {"labels": {"$patch": "delete"}}, {"labels": {}}),
        ({}, {"labels": {"b": "2", "$patch": "replace"}}, {}),
        ({"whole": {"a": "1"}}, {"whole": {"b": "2"}}, {"whole": {"b": "2"}}),
        ({"strategy": {"type": "Rolling", "rolling": {"max": "1"}}},
         {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}, {"strategy": {"type": "Recreate"}}),
        ({"volumes": [{**A, "a": {"x": "y"}}]}, {"volumes": [{**A, "$retainKeys": ["name", "b"], "b": "z"}]},
         {"volumes": [{**A, "b": "z"}]}),
        ({"name": "x"}, {"$patch": "replace", "name": "y"}, {"name": "y"}),
    ],
)  # fmt: skip
def test_documents(original: Any, patch: Any, result: Any) -> None:
    before = clone([original, patch])
    assert same(apply_strategic(original, patch, SCHEMA), result)
    assert same([original, patch], before)


@pytest.mark.parametrize(
    ("original", "patch", "code", "message"),
    [
        ({}, [], 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ({}, {"$patch": "merge"}, 500, "unknown patch type: merge in map: map[$patch:merge]"),
        (
            {"containers": [A]},
            {"containers": [{**B, "$patch": "upsert"}]},
            500,
            "unknown patch type: upsert in map: map[$patch:upsert name:b]",
        ),
        (
            {"containers": [A]},
            {"containers": [{"$patch": "merge"}]},
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            {"containers": [A]},
            {"containers": [{"image": "x"}]},
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            {"containers": [A]},
            {"containers": [{"$patch": "delete"}]},
            500,
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            {"containers": [A]},
            {"containers": ["x"]},
            500,
            "list element types are not identical: [[map[name:a]] [x]]",
        ),
        ({"keyless": [A]}, {"keyless": [B]}, 500, "cannot merge lists without merge key for struct"),
        ({}, {"$retainKeys": "name"}, 400, "invalid patch format of retainKeys"),
        ({}, {"$retainKeys": ["a"], "name": "x"}, 400, "invalid patch format of retainKeys"),
        ({}, {"$deleteFromPrimitiveList": ["a"]}, 400, "invalid patch format of primitive list"),
        ({}, {"$setElementOrder": ["a"]}, 400, "invalid patch format of setElementOrder list"),
        (
            {},
            {"$setElementOrder/other": ["a"]},
            500,
            'unable to find api field in struct Thing for the json field "other"',
        ),
        (
            {},
            {"$setElementOrder/containers": {}},
            500,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
        (
            {"containers": [A, B]},
            {"$setElementOrder/containers": [A, B], "containers": [{**B, "image": "i"}, A]},
            500,
            "The order in patch list:\n[map[image:i name:b] map[name:a]]\n doesn't match $setElementOrder list:\n"
            "[map[name:a] map[name:b]]\n",
        ),
        (
            {"finalizers": [["a"]]},
            {"finalizers": [["b"]]},
            422,
            "the server rejected our request due to an error in our request",
        ),
    ],
)
def test_errors(original: Any, patch: Any, code: int, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic(original, patch, SCHEMA)
    assert caught.value.message == message
    assert caught.value.code == code


names = st.sampled_from("abcde")
images = st.sampled_from(["1", "2", "3"])
containers = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"image": images, "args": st.lists(images, max_size=2)}),
    unique_by=lambda each: each["name"],
    max_size=4,
)
things = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "labels": st.dictionaries(names, images, max_size=3),
        "finalizers": st.lists(names, unique=True, min_size=1, max_size=4),
        "command": st.lists(names, min_size=1, max_size=3),
        "containers": containers.filter(bool),
    },
)


@given(things, things)
def test_applying_twice_is_applying_once(original: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply_strategic(original, patch, SCHEMA)
    assert same(apply_strategic(once, patch, SCHEMA), once)


@given(things)
def test_a_patch_made_of_the_object_itself_changes_nothing(original: dict[str, Any]) -> None:
    assert same(apply_strategic(original, original, SCHEMA), original)
    assert same(apply_strategic(original, {}, SCHEMA), original)


@given(things, things)
def test_everything_the_patch_says_is_so_afterwards(original: dict[str, Any], patch: dict[str, Any]) -> None:
    result = apply_strategic(original, patch, SCHEMA)
    assert result.get("labels", {}).items() >= patch.get("labels", {}).items()
    assert {*result.get("finalizers", ())} == {*original.get("finalizers", ()), *patch.get("finalizers", ())}
    by_name = {each["name"]: each for each in result.get("containers", ())}
    assert by_name.keys() == {c["name"] for o in (original, patch) for c in o.get("containers", ())}
    for container in patch.get("containers", ()):
        assert by_name[container["name"]].items() >= container.items()


@given(things, containers.filter(bool))
def test_set_element_order_orders(original: dict[str, Any], wanted: list[dict[str, Any]]) -> None:
    """As kubectl apply does it: all wanted items in the patch, and their order beside them."""
    patch = {"containers": wanted, "$setElementOrder/containers": [{"name": each["name"]} for each in wanted]}
    result = apply_strategic(original, patch, SCHEMA)["containers"]
    chosen = {each["name"] for each in wanted}
    assert [c["name"] for c in result if c["name"] in chosen] == [c["name"] for c in wanted]
    others = [c["name"] for c in original.get("containers", ()) if c["name"] not in chosen]
    assert [c["name"] for c in result if c["name"] not in chosen] == others


@given(things, st.sets(names))
def test_delete_directives_delete(original: dict[str, Any], unwanted: set[str]) -> None:
    patch = {
        "containers": [{"name": name, "$patch": "delete"} for name in unwanted],
        "$deleteFromPrimitiveList/finalizers": list(unwanted),
    }
    result = apply_strategic(original, patch, SCHEMA)
    assert result.get("finalizers", []) == [f for f in original.get("finalizers", []) if f not in unwanted]
    left = [c for c in original.get("containers", []) if c["name"] not in unwanted]
    assert result.get("containers", []) == left
