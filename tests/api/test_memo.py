"""Results kept by content: right, shared, and within bounds."""

from __future__ import annotations

from typing import Any

from shipwheel.api.memo import Memo, remembered


def test_the_same_content_is_worked_on_once() -> None:
    asked: list[Any] = []

    @remembered
    def names(value: Any, suffix: str) -> list[str]:
        asked.append(value)
        return [f"{name}{suffix}" for name in value]

    assert names({"a": 1, "b": [None]}, "!") == ["a!", "b!"]
    assert names({"a": 1, "b": [None]}, "!") == ["a!", "b!"]
    assert len(asked) == 1
    assert names({"a": 1, "b": [None]}, "?") == ["a?", "b?"]
    assert names({"a": 1.0, "b": [None]}, "!") == ["a!", "b!"]
    assert len(asked) == 3


def test_a_result_of_nothing_is_remembered() -> None:
    asked: list[Any] = []

    @remembered
    def nothing(value: Any) -> None:
        asked.append(value)

    assert nothing("x") is None and nothing("x") is None
    assert asked == ["x"]


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    memo: Memo[int] = Memo(kept=1600)
    memo.put("asked for", 100, -1)
    for number in range(100):
        memo.put(number, 100, number)
        assert memo.get("asked for", 100) == -1
    assert memo.get(99, 100) == 99
    assert memo.get(0, 100) is None


def test_what_is_large_is_not_kept() -> None:
    memo: Memo[int] = Memo(kept=1600)
    memo.put("large", 101, 1)
    assert memo.get("large", 101) is None
