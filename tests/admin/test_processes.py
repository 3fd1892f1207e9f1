"""The parts of a process: which failures stay among themselves, and which end it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from shipwheel.admin import kept
from shipwheel.admin.kept import HOPELESS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RETRY_DELAY", 0.0)


async def test_a_part_that_cannot_start_ends_the_process() -> None:
    starts = 0

    async def fail() -> None:
        nonlocal starts
        starts += 1
        raise OSError("out of coffee")

    with pytest.raises(OSError, match="out of coffee"):
        await kept.kept("part", fail)
    assert starts == HOPELESS


async def test_a_part_that_fails_later_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = 0
    running = asyncio.Event()
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr(kept, "time", SimpleNamespace(monotonic=lambda: next(times)))

    async def fail_after_a_while() -> None:
        nonlocal starts
        starts += 1
        if starts > 2 * HOPELESS:
            running.set()
            await asyncio.Event().wait()
        raise OSError("out of coffee")

    task = asyncio.create_task(kept.kept("part", fail_after_a_while))
    await running.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
