"""Long answers take turns, and everybody else comes between."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.turns import Turns, slices
from tests.apiserver.test_forms import THINGS


async def test_one_slice_at_a_time_and_everybody_in_turn() -> None:
    turns = Turns()
    done: list[str] = []

    async def work(name: str) -> None:
        for _ in range(3):
            async with turns:
                done.append(name)

    async def other() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            done.append("other")

    async with asyncio.TaskGroup() as group:
        for each in (work("a"), work("b"), other()):
            group.create_task(each)
    assert [each for each in done if each != "other"] == ["a", "b"] * 3
    assert "other" in done[1:3]


@given(st.lists(st.integers(0, 300)), st.integers(1, 500))
def test_slices_are_all_there_is(sizes: list[int], limit: int) -> None:
    entries = [Entry(THINGS, str(number), bytes(size), 1) for number, size in enumerate(sizes)]
    runs = [list(run) for run in slices(entries, limit)]
    assert [entry for run in runs for entry in run] == entries
    assert all(runs)
    for run in runs:
        assert sum(len(entry.tail) for entry in run[:-1]) < limit
