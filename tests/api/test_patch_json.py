"""JSON patch: the RFC's own examples, upstream's liberties, limits, and laws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.errors import ApiError
from shipwheel.api.patch import apply_json_patch, json_patch
from shipwheel.api.patch.values import clone, same

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "/", "~", ""]), json_values, max_size=4)


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        # RFC 6902, appendix A.
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        (
            {"baz": "qux", "foo": "bar"},
            [{"op": "replace", "path": "/baz", "value": "boo"}],
            {"baz": "boo", "foo": "bar"},
        ),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        (
            {"baz": "qux", "foo": ["a", 2, "c"]},
            [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        (
            {"foo": "bar"},
            [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
            {"foo": "bar", "child": {"grandchild": {}}},
        ),
        (
            {"foo": "bar"},
            [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
            {"foo": "bar", "baz": "qux"},
        ),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["x"]}], {"foo": ["bar", ["x"]]}),
        # Upstream's liberties.
        ({}, [{"op": "replace", "path": "/new", "value": 1}], {"new": 1}),
        ({}, [{"op": "add", "path": "/new"}], {"new": None}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/-2", "value": 0}], {"a": [0, 2]}),
        ({}, [{"op": "test", "path": "/gone", "value": None}], {}),
        ({"a": 1}, [{"op": "copy", "from": "/gone", "path": "/b"}], {"a": 1, "b": None}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "test", "path": "", "value": {"a": 1}}], {"a": 1}),
        ({"a": 1}, [{"op": "add", "path": "ignored/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": 1}, None, {"a": 1}),
    ],
)
def test_documents(document: Any, operations: Any, result: Any) -> None:
    before = clone(document)
    assert same(apply_json_patch(document, operations), result)
    assert same(document, before)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (
            {"op": "add", "path": "", "value": 1},
            'add operation does not apply: doc is missing path: "": missing value',
        ),
        (
            {"op": "add", "path": "/x/y", "value": 1},
            'add operation does not apply: doc is missing path: "/x/y": missing value',
        ),
        ({"op": "add", "value": 1}, "add operation failed to decode path: missing value"),
        (
            {"op": "add", "path": "/l/x", "value": 1},
            "error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": "
            "invalid syntax",
        ),
        (
            {"op": "add", "path": "/l/4", "value": 1},
            "error in add for path: '/l/4': Unable to access invalid index: 4: invalid index referenced",
        ),
        (
            {"op": "remove", "path": "/x"},
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            {"op": "remove", "path": "/l/2"},
            "error in remove for path: '/l/2': Unable to access invalid index: 2: invalid index referenced",
        ),
        (
            {"op": "remove", "path": "/s/x"},
            'remove operation does not apply: doc is missing path: "/s/x": missing value',
        ),
        (
            {"op": "replace", "path": "/l/9", "value": 1},
            "replace operation does not apply: doc is missing key: /l/9: missing value",
        ),
        (
            {"op": "replace", "path": "/x/y", "value": 1},
            "replace operation does not apply: doc is missing path: /x/y: missing value",
        ),
        ({"op": "replace", "path": "", "value": 1}, "replace operation value must be object or array"),
        (
            {"op": "replace", "path": 7},
            "replace operation failed to decode path: json: cannot unmarshal number into Go value of type string",
        ),
        (
            {"op": "move", "path": "/a"},
            "move operation failed to decode from: operation, missing from field: missing value",
        ),
        (
            {"op": "move", "from": "/x", "path": "/a"},
            "error in move for path: 'x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            {"op": "move", "from": "/o", "path": "/o/p"},
            "move operation does not apply: doc is missing destination path: /o/p: missing value",
        ),
        (
            {"op": "copy", "from": "/l/5", "path": "/a"},
            "error in copy for from: '/l/5': Unable to access invalid index: 5: invalid index referenced",
        ),
        ({"op": "test", "path": "/s", "value": "u"}, "testing value /s failed: test failed"),
        ({"op": "test", "path": "/n", "value": 1.0}, "testing value /n failed: test failed"),
        (
            {"op": "test"},
            "test operation failed to decode path: operation missing path field: missing value",
        ),
        ({"op": "jump", "path": "/s"}, "Unexpected kind: jump"),
        ({}, "Unexpected kind: unknown"),
        (None, "Unexpected kind: unknown"),
    ],
)
def test_patches_that_do_not_apply(operation: Any, why: str) -> None:
    document = {"l": [1, 2], "s": "t", "n": 1, "o": {}}
    with pytest.raises(ApiError) as caught:
        apply_json_patch(document, [{"op": "add", "path": "/done", "value": 1}, operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert str(caught.value.__cause__) == why
    assert document == {"l": [1, 2], "s": "t", "n": 1, "o": {}}


def test_what_is_no_patch() -> None:
    with pytest.raises(ApiError, match=r"cannot unmarshal object into Go value of type jsonpatch.Patch") as caught:
        apply_json_patch({}, {"op": "add"})
    assert caught.value.code == 400
    with pytest.raises(ApiError, match=r"cannot unmarshal string into Go value of type jsonpatch.Operation"):
        apply_json_patch({}, ["add"])


def test_limits() -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)
    assert caught.value.code == 413
    assert caught.value.message == "The allowed maximum operations in a JSON patch is 10000, got 10001"
    doubling = [{"op": "copy", "from": "/a", "path": f"/{index}"} for index in range(4)]
    document = {"a": "x" * (json_patch.MAX_COPY_BYTES // 3)}
    with pytest.raises(ApiError) as caught:
        apply_json_patch(document, doubling)
    assert str(caught.value.__cause__).startswith("Unable to complete the copy, the accumulated size increase of copy")


@given(documents, json_values)
def test_add_then_test_then_remove_is_nothing(document: dict[str, Any], value: Any) -> None:
    operations = [
        {"op": "add", "path": "/new", "value": value},
        {"op": "test", "path": "/new", "value": value},
        {"op": "remove", "path": "/new"},
    ]
    assert same(apply_json_patch(document, operations), document)


@given(documents)
def test_moving_there_and_back_is_nothing(document: dict[str, Any]) -> None:
    for key in document:
        path = "/" + key.replace("~", "~0").replace("/", "~1")
        operations = [
            {"op": "move", "from": path, "path": "/elsewhere"},
            {"op": "move", "from": "/elsewhere", "path": path},
        ]
        assert same(apply_json_patch(document, operations), document)


@given(documents, json_values)
def test_the_result_shares_nothing_with_the_patch(document: dict[str, Any], value: Any) -> None:
    operations = [
        {"op": "add", "path": "/new", "value": [value]},
        {"op": "copy", "from": "/new", "path": "/copy"},
    ]
    result = apply_json_patch(document, operations)
    result["new"].append("changed")
    assert result["copy"] == [value]
    assert operations[0]["value"] == [value]
