"""Keys that go away by themselves: which is due, and when."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence

from shipwheel.api.clock import Clock

Expiring = tuple[int, int, str]
"""(Unix time in milliseconds, revision, key): the key goes at that time, if that revision still is its newest."""

_AT_ONCE = 500


class Expiry:
    """A schedule. Superseded entries stay until their time comes; `expire` must see that they are void."""

    def __init__(self, clock: Clock, entries: Iterable[Expiring]) -> None:
        self._clock = clock
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._sooner = asyncio.Event()

    def after(self, seconds: int) -> int:
        """The time `seconds` from now."""
        return self._now() + seconds * 1000

    def add(self, entry: Expiring) -> None:
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._sooner.set()

    async def run(self, expire: Callable[[Sequence[Expiring]], Awaitable[None]]) -> None:
        """Call `expire` with what is due, when it is, for ever."""
        while True:
            if not self._heap:
                await self._change()
            elif (wait := self._heap[0][0] - self._now()) > 0:
                await self._first(self._clock.sleep(wait / 1000), self._change())
            else:
                await expire(self._due())

    def _due(self) -> list[Expiring]:
        now = self._now()
        due: list[Expiring] = []
        while self._heap and self._heap[0][0] <= now and len(due) < _AT_ONCE:
            due.append(heapq.heappop(self._heap))
        return due

    async def _change(self) -> None:
        await self._sooner.wait()
        self._sooner.clear()

    async def _first(self, *waits: Awaitable[None]) -> None:
        """Wait for the first of these and drop the others."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
