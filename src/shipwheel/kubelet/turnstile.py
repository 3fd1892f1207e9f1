"""A limit on how much is started at once, where what was begun goes before what is new.

Starting a container keeps a core busy for a while. When a hundred pods arrive together, working on all of them
at once makes each of them late; so a few get through at a time, and a container of a pod whose sandbox stands goes
before the next pod's sandbox.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")


class Turnstile:
    def __init__(self, places: int) -> None:
        self._free = places
        self._begun: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def passing(self, *, begun: bool) -> AsyncIterator[None]:
        """Hold one of the places. `begun` goes before whoever waits with something new."""
        await self._enter(self._begun if begun else self._new)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, queue: deque[asyncio.Future[None]]) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        for queue in (self._begun, self._new):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


async def uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """Do something that must not be given up half-way: a cancellation waits until it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
