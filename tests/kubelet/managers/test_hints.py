"""Hints of several resources brought together, by each policy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.kubelet.managers.hints import Hint, Hints, Merger, OptionError, Options, Policy, parse_options
from shipwheel.kubelet.managers.topology import NumaNode
from tests.kubelet.managers.machines import machine

NODES = machine(sockets=2).nodes
FOUR = machine(sockets=2, nodes=2).nodes
ZERO, ONE, BOTH = frozenset({0}), frozenset({1}), frozenset({0, 1})


@pytest.mark.parametrize(
    ("policy", "offered", "expected", "admitted"),
    [
        ("best-effort", [{}], Hint(BOTH), True),
        ("single-numa-node", [{}], Hint(None), True),
        ("best-effort", [{"a": None}], Hint(BOTH), True),
        ("best-effort", [{"a": []}], Hint(BOTH, preferred=False), True),
        ("restricted", [{"a": []}], Hint(BOTH, preferred=False), False),
        ("single-numa-node", [{"a": []}], Hint(None, preferred=False), False),
        ("restricted", [{"a": [Hint(ZERO), Hint(ONE)]}, {"b": [Hint(ONE)]}], Hint(ONE), True),
        ("best-effort", [{"a": [Hint(ZERO)]}, {"b": [Hint(ONE)]}], Hint(BOTH, preferred=False), True),
        ("restricted", [{"a": [Hint(ZERO)]}, {"b": [Hint(BOTH)]}], Hint(ZERO, preferred=False), False),
        ("restricted", [{"a": [Hint(ZERO), Hint(BOTH, False)]}, {"b": [Hint(BOTH)]}], Hint(BOTH, False), False),
        ("restricted", [{"a": [Hint(BOTH)]}], Hint(BOTH), True),
        ("single-numa-node", [{"a": [Hint(BOTH)]}], Hint(None, preferred=False), False),
        ("single-numa-node", [{"a": [Hint(ZERO), Hint(BOTH, False)]}], Hint(ZERO), True),
        ("best-effort", [{"a": [Hint(ZERO, False), Hint(BOTH, False)]}], Hint(ZERO, False), True),
    ],
)
def test_merging(policy: Policy, offered: list[Hints], expected: Hint, admitted: bool) -> None:
    assert Merger(policy, NODES).merge(offered) == (expected, admitted)


def test_of_unpreferred_hints_the_one_that_the_largest_need_fits_in() -> None:
    large = [Hint(frozenset({0, 1, 2}), False), Hint(frozenset({0, 1, 2, 3}), False)]
    small = [Hint(ZERO), Hint(frozenset({0, 1, 2}), False), Hint(frozenset({0, 1, 2, 3}), False)]
    found, _ = Merger("best-effort", FOUR).merge([{"a": large}, {"b": small}])
    assert found == Hint(frozenset({0, 1, 2}), False)


def test_the_closest_nodes() -> None:
    nodes = [
        NumaNode(0, 1, distances=(10, 40, 20)),
        NumaNode(1, 1, distances=(40, 10, 40)),
        NumaNode(2, 1, distances=(20, 40, 10)),
    ]
    offered: list[Hints] = [{"a": [Hint(frozenset({0, 1})), Hint(frozenset({0, 2}))]}]
    assert Merger("restricted", nodes).merge(offered)[0].nodes == {0, 1}
    assert Merger("restricted", nodes, Options(prefer_closest=True)).merge(offered)[0].nodes == {0, 2}


@given(
    st.lists(
        st.lists(st.builds(Hint, st.sets(st.integers(0, 3), min_size=1).map(frozenset), st.booleans()), max_size=4),
        max_size=3,
    )
)
def test_what_is_admitted_suits_everybody(lists: list[Sequence[Hint]]) -> None:
    offered: list[Hints] = [{str(number): hints} for number, hints in enumerate(lists)]
    for policy in ("restricted", "single-numa-node"):
        best, admitted = Merger(policy, FOUR).merge(offered)  # type: ignore[arg-type]
        if admitted and best.nodes is not None and lists:
            assert all(any(each.preferred and each.nodes == best.nodes for each in hints) for hints in lists)
            assert policy == "restricted" or len(best.nodes) == 1


def test_options() -> None:
    assert parse_options({"prefer-closest-numa-nodes": "true", "max-allowable-numa-nodes": "12"}) == Options(True, 12)
    for wrong, message in (
        ({"x": "1"}, 'unknown Topology Manager Policy option: "x"'),
        ({"max-allowable-numa-nodes": "2"}, "should not be less than 8"),
        ({"max-allowable-numa-nodes": "many"}, "unable to convert policy option to integer"),
        ({"prefer-closest-numa-nodes": "perhaps"}, "bad value for option"),
    ):
        with pytest.raises(OptionError, match=message):
            parse_options(wrong)
