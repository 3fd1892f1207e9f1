"""Which tolerations cover which taints."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kinds.taints import tolerates

TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k", "operator": "Gt", "value": "1"}, False),
    ],
)
def test_one(toleration: Obj, covers: bool) -> None:
    assert (tolerates([toleration], TAINT) is not None) == covers


@pytest.mark.parametrize(
    ("operator", "value", "covers"), [("Gt", "4", True), ("Gt", "5", False), ("Lt", "6", True), ("Lt", "x", False)]
)
def test_numbers(operator: str, value: str, covers: bool) -> None:
    taint = {"key": "k", "value": "5", "effect": "NoSchedule"}
    assert (tolerates([{"key": "k", "operator": operator, "value": value}], taint) is not None) == covers


def test_no_value_is_the_empty_one() -> None:
    assert tolerates([{"key": "k", "value": None}], {"key": "k", "effect": "NoSchedule"}) is not None
    assert tolerates([], TAINT) is None
