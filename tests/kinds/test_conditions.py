"""The two ways in which upstream keeps conditions."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kinds.conditions import remove_condition, renew_condition, set_condition


def entry(status: str = "True", reason: str = "R", message: str = "m", when: str = "then", kind: str = "A") -> Obj:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": when}


OTHER = entry(kind="B")


@pytest.mark.parametrize(
    ("present", "given", "expected"),
    [
        ([], entry(when="x"), [entry(when="now")]),
        ([entry(), OTHER], entry(message="n", when="x"), [entry(message="n"), OTHER]),
        ([entry(), OTHER], entry("False", when="x"), [entry("False", when="now"), OTHER]),
    ],
)
def test_setting_replaces_in_place_and_keeps_the_time_of_a_status(
    present: list[Obj], given: Obj, expected: list[Obj]
) -> None:
    status = {"conditions": present}
    set_condition(status, given, now="now")
    assert status["conditions"] == expected


@pytest.mark.parametrize(
    ("present", "given", "changed", "expected"),
    [
        ([], entry(when="now"), True, [entry(when="now")]),
        ([entry(), OTHER], entry(message="n", when="now"), False, [entry(), OTHER]),
        ([entry(), OTHER], entry(reason="S", when="now"), True, [OTHER, entry(reason="S")]),
        ([entry(), OTHER], entry("False", when="now"), True, [OTHER, entry("False", when="now")]),
    ],
)
def test_renewing_takes_only_another_status_or_reason_for_news(
    present: list[Obj], given: Obj, changed: bool, expected: list[Obj]
) -> None:
    status = {"conditions": present}
    assert renew_condition(status, given) is changed
    assert status["conditions"] == expected


def test_removing() -> None:
    status = {"conditions": [entry(), OTHER]}
    remove_condition(status, "A")
    assert status == {"conditions": [OTHER]}
    remove_condition(status, "B")
    assert status == {}
    remove_condition(status, "B")
    assert status == {}
