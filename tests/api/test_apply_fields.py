"""The algebra of sets of fields, against a model: a set of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.apply import fields as sets
from shipwheel.api.apply.fields import Fields, FieldsError, Path, excluding, only, read_fields

steps = st.sampled_from(
    ["f:a", "f:b", "f:c", 'k:{"name":"x"}', 'k:{"name":"y"}', 'k:{"port":9}', 'k:{"port":80}', "v:1", 'v:"s"']
)
paths = st.lists(steps, min_size=1, max_size=4).map(tuple)
models = st.sets(paths, max_size=8)


def of(model: set[Path]) -> Fields:
    return sets.from_paths(sorted(model))


def model_of(fields: Fields) -> set[Path]:
    return set(sets.members(fields))


def well_formed(fields: Fields, *, root: bool = True) -> bool:
    """In order, and no node without members."""
    inner = [step for step in fields if step != sets.MEMBER]
    in_order = list(fields) == list(sets.sort_steps(fields))
    return (
        in_order
        and (not root or len(inner) == len(fields))
        and (root or not fields or bool(inner))
        and all(well_formed(fields[step], root=False) for step in inner)
    )


@given(models)
def test_a_set_is_its_members(model: set[Path]) -> None:
    fields = of(model)
    assert model_of(fields) == model
    assert well_formed(fields)
    assert all(sets.has(fields, path) for path in model)
    assert not sets.has(fields, ())
    assert not sets.has(fields, ("f:other",))


@given(models, models)
def test_algebra(left: set[Path], right: set[Path]) -> None:
    both = {
        sets.union: left | right,
        sets.intersection: left & right,
        sets.difference: left - right,
        sets.difference_below: {path for path in left if not any(path[: len(other)] == other for other in right)},
    }
    for operation, expected in both.items():
        before = of(left), of(right)
        result = operation(*before)
        assert model_of(result) == expected, operation.__name__
        assert well_formed(result), operation.__name__
        assert before == (of(left), of(right))


@given(models)
def test_what_is_written_reads_as_the_same(model: set[Path]) -> None:
    fields = of(model)
    assert read_fields(fields) == fields
    assert list(read_fields(dict(reversed(fields.items())))) == list(fields)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (None, {}),
        ({".": {}}, {}),
        ({"f:a": {".": {}}}, {"f:a": {}}),
        ({"f:a": None}, {"f:a": {}}),
        ({'k:{ "port":1, "name" :"x"}': {}}, {'k:{"name":"x","port":1}': {}}),
        ({"v: 1": {}, "i:07": {}}, {"v:1": {}, "i:7": {}}),
        ({"z:new": {"f:a": {}}, "f:b": {"z:new": {}}}, {"f:b": {}}),
    ],
)
def test_foreign_sets_are_brought_into_form(foreign: Any, ours: Fields) -> None:
    assert read_fields(foreign) == ours


@pytest.mark.parametrize("wrong", ["f:a", {"f": {}}, {"fa": {}}, {"k:{": {}}, {"v:[1]": {}}, {"i:x": {}}, {"f:a": 1}])
def test_nonsense_is_refused(wrong: Any) -> None:
    with pytest.raises(FieldsError):
        read_fields(wrong)


def test_order_is_upstreams() -> None:
    numbers = ['k:{"port":80}', 'k:{"port":9}', "f:z", "i:10", "i:9", "v:10", "v:9", 'v:"a"', "v:true"]
    expected = ["f:z", 'k:{"port":9}', 'k:{"port":80}', "v:9", "v:10", 'v:"a"', "v:true", "i:9", "i:10"]
    assert list(sets.sort_steps({step: {} for step in numbers})) == expected


def test_steps_and_paths_in_messages() -> None:
    path = ("f:spec", "f:ports", sets.key_step(("port", "protocol"), 80, "TCP"), "f:name")
    assert sets.path_text(path) == '.spec.ports[port=80,protocol="TCP"].name'
    assert sets.path_text(("f:set", sets.value_step("a<b"), "i:3")) == '.set[="a<b"][3]'
    assert sets.value_step("a<b") == 'v:"a\\u003cb"'
    assert [sets.value_step(each) for each in (1, 1.5, True, "1")] == ["v:1", "v:1.5", "v:true", 'v:"1"']
    assert sets.path_text((sets.value_step(True), sets.value_step(None))) == "[=true][=null]"


def test_filters() -> None:
    fields = of(
        {
            ("f:status",),
            ("f:status", "f:phase"),
            ("f:metadata", "f:labels", "f:a"),
            ("f:spec", "f:containers", 'k:{"name":"x"}'),
            ("f:spec", "f:containers", 'k:{"name":"x"}', "f:image"),
            ("f:spec", "f:containers", 'k:{"name":"x"}', "f:resources", "f:cpu"),
        }
    )
    assert model_of(excluding("status", "metadata.labels")(fields)) == {
        ("f:spec", "f:containers", 'k:{"name":"x"}'),
        ("f:spec", "f:containers", 'k:{"name":"x"}', "f:image"),
        ("f:spec", "f:containers", 'k:{"name":"x"}', "f:resources", "f:cpu"),
    }
    assert model_of(only("spec.containers.*.resources")(fields)) == {
        ("f:spec", "f:containers", 'k:{"name":"x"}'),
        ("f:spec", "f:containers", 'k:{"name":"x"}', "f:resources", "f:cpu"),
    }
    assert model_of(only("status", "metadata.other")(fields)) == {("f:status",), ("f:status", "f:phase")}
    assert sets.everything(fields) == fields
