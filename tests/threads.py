"""Let a test's own clock stand still while threads work: what they do takes real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

SECONDS = 10.0
"""A thread that works longer waits for what the test is to do next."""


class Threads(ThreadPoolExecutor):
    """The executor of an event loop, which knows whether anything is under way."""

    def __init__(self) -> None:
        super().__init__(8)
        self._working: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return future

    async def idle(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + SECONDS
        while self._working and loop.time() < latest:
            await asyncio.sleep(0.001)


def counted_threads() -> Threads:
    """Have the running loop use threads that are counted."""
    made = Threads()
    asyncio.get_running_loop().set_default_executor(made)
    return made
