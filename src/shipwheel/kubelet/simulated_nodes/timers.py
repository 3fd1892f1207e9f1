"""Things that are to be done at some time, thousands of them, with one timer between them."""

from __future__ import annotations

import asyncio
import heapq
from typing import Generic, TypeVar

from shipwheel.api.clock import Clock

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """`run` must be running; what is due is to be had from `due`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Item]] = []
        self._count = 0
        self._sooner = asyncio.Event()
        self.due: asyncio.Queue[Item] = asyncio.Queue()

    def add(self, delay: float, item: Item) -> None:
        if delay <= 0:
            self.due.put_nowait(item)
            return
        self._count += 1
        at = self._clock.monotonic() + delay
        if not self._heap or at < self._heap[0][0]:
            self._sooner.set()
        heapq.heappush(self._heap, (at, self._count, item))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                self.due.put_nowait(heapq.heappop(self._heap)[2])
            self._sooner.clear()
            await self._pause(self._heap[0][0] - now if self._heap else None)

    async def _pause(self, seconds: float | None) -> None:
        waiting: list[asyncio.Future[object]] = [asyncio.ensure_future(self._sooner.wait())]
        if seconds is not None:
            waiting.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
