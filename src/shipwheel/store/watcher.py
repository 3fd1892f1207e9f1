"""Between the commits of an embedded store and one reader of its events: a bounded buffer.

A reader that is too slow loses the buffer, not events: it reads what it missed from the history table and then
follows again. So neither a stuck reader nor a thousand of them can make the store grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipwheel.store.base import Event, Progress

_MOST_EVENTS = 2000
_MOST_BYTES = 8 << 20
_SILENCE = 1000
"""After so many revisions without an event for it, a reader is told how far they have come."""


class Watcher:
    """Follows the commits once `follow` was called, until it overflows."""

    def __init__(self, prefix: str, position: int) -> None:
        self.prefix = prefix
        self.position = position
        """Everything up to this revision has been handed to the reader."""
        self._following = False
        self._reached = position
        self._events: list[Event] = []
        self._bytes = 0
        self._report = False
        self._failure: Exception | None = None
        self._wake: asyncio.Future[None] | None = None

    def follow(self) -> None:
        """From now on `deliver` is called with every commit after `position`."""
        self._following = True
        self._reached = self.position
        self._events, self._bytes = [], 0

    def deliver(self, events: Sequence[Event], revision: int) -> None:
        """A commit that brought the store to `revision`."""
        if not self._following or revision <= self.position:
            return
        self._reached = revision
        for event in events:
            if event.key.startswith(self.prefix) and event.revision > self.position:
                self._events.append(event)
                self._bytes += len(event.current.value) if event.current else 0
        if len(self._events) > _MOST_EVENTS or self._bytes > _MOST_BYTES:
            self._following = False
            self._events, self._bytes = [], 0
        if self._events or not self._following or revision - self.position >= _SILENCE:
            self._rouse()

    def report(self) -> None:
        """Have the reader told how far it is."""
        self._report = True
        self._rouse()

    def fail(self, failure: Exception) -> None:
        """End the reader's wait with this."""
        self._failure = failure
        self._rouse()

    async def next(self) -> Progress | None:
        """What has been delivered since the last call, waiting for it; None when it was too much."""
        while self._following and not self._due():
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self._failure:
            raise self._failure
        self._report = False
        if not self._following:
            return None
        progress = Progress(self._reached, self._events)
        self.position = self._reached
        self._events, self._bytes = [], 0
        return progress

    def _due(self) -> bool:
        silent = self._reached - self.position >= _SILENCE
        return bool(self._events or self._report or self._failure or silent)

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
