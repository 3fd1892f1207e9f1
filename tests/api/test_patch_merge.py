"""Merge patch: the RFC's own examples, and its laws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.errors import ApiError
from shipwheel.api.patch import apply_merge_patch
from shipwheel.api.patch.values import clone, same

scalars = st.booleans() | st.integers() | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values)


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        # RFC 7386, appendix A (those whose documents are objects).
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        # Nulls inside arrays go too, but a null item stays.
        ({}, {"a": [{"b": None, "c": 1}, None]}, {"a": [{"c": 1}, None]}),
        ({"a": {"b": 1}}, {"a": [{"c": None}]}, {"a": [{"c": None}]}),
    ],
)
def test_documents(original: Any, patch: Any, result: Any) -> None:
    before = clone(original), clone(patch)
    assert same(apply_merge_patch(original, patch), result)
    assert same([original, patch], list(before))


def test_what_is_no_merge_patch() -> None:
    with pytest.raises(ApiError, match="Invalid JSON Patch"):
        apply_merge_patch({}, None)
    with pytest.raises(ApiError) as caught:
        apply_merge_patch({}, [])
    assert caught.value.code == 400
    assert caught.value.message == (
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    )


@given(objects, objects)
def test_applying_twice_is_applying_once(original: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply_merge_patch(original, patch)
    assert same(apply_merge_patch(once, patch), once)


@given(objects, objects)
def test_any_object_can_be_made_of_any_other(original: dict[str, Any], wanted: dict[str, Any]) -> None:
    def difference(old: Any, new: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return new
        gone = {key: None for key in old if key not in new}
        return gone | {
            key: difference(old.get(key), value) for key, value in new.items() if not same(old.get(key), value)
        }

    assert same(apply_merge_patch(original, difference(original, wanted)), wanted)


@given(objects, objects)
def test_what_is_not_touched_is_not_copied(original: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy(original)
    result = apply_merge_patch(original, patch)
    assert same(original, before)
    assert all(result[key] is value for key, value in original.items() if key not in patch)
