"""Time as a parameter.

Whatever waits, ages or expires is given a `Clock`, so that a test, or a user, can let a year pass in a
moment. Two notions of time are kept apart: `now()` is wall time (what goes into objects), `monotonic()`
measures durations.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall time, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, or raise `CancelledError`."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # asked several times by every request: not a call more than needed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Time that passes only when told to.

    `advance` wakes sleepers in order of their deadlines and lets the event loop run between them, so that a
    sleeper that sleeps again inside the interval is woken again.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._wall = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = 0

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._serial += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._serial, woken))
        await woken

    async def advance(self, seconds: float, *, turns: int = 20) -> None:
        """Let `seconds` pass; `turns` is how often the event loop runs after each wake-up."""
        target = self._elapsed + seconds
        await _yield(turns)
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, deadline)
            if not woken.done():
                woken.set_result(None)
                await _yield(turns)
        self._elapsed = target
        await _yield(turns)


async def _yield(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def rfc3339(moment: datetime) -> str:
    """`metav1.Time`: seconds precision, in UTC (`2026-01-31T12:00:00Z`)."""
    return _in_utc(moment).isoformat(timespec="seconds")[:-6] + "Z"


def rfc3339_micro(moment: datetime) -> str:
    """`metav1.MicroTime`: microseconds precision, in UTC."""
    return _in_utc(moment).isoformat(timespec="microseconds")[:-6] + "Z"


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def parse_time(text: str) -> datetime:
    """Read RFC 3339, with any fraction and offset; ValueError when it is something else."""
    if len(text) < 20 or text[10] not in "Tt":
        raise ValueError(f"parsing time {text!r} as RFC 3339")
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1] in "Zz" else text)
    if moment.tzinfo is None:
        raise ValueError(f"parsing time {text!r} as RFC 3339: no offset")
    return moment.astimezone(UTC)
