"""One client's watch: what there is or what it has missed, then every change as it happens.

A change is written to all its watchers at the moment it happens, whether they keep up or not; one that is too far
behind is cut off, and starts anew from where it was. What a watch begins with may be all objects of a kind: that goes
out in slices and no faster than the client reads it, while what changes meanwhile waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shipwheel.api.clock import Clock
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.rendering import Rendering
from shipwheel.apiserver.turns import SLICE, Turns
from shipwheel.apiserver.watchcache import Change, Filter, ResourceCache, WatchCache, Watcher
from shipwheel.client.histogram import Series
from shipwheel.client.httpserver import StreamWriter, frame

SLOW_READER_BYTES = 16 << 20
"""A watcher that is further behind than this is cut off."""
BOOKMARK_SECONDS = 60.0


class _Event(NamedTuple):
    kind: str
    entry: Entry


class Watch:
    """What one client watches of a kind; it runs once."""

    def __init__(
        self,
        cache: WatchCache,
        objects: ResourceCache,
        wanted: Filter,
        rendering: Rendering,
        *,
        turns: Turns,
        clock: Clock,
        bookmarks: bool,
        sent: Series,
    ) -> None:
        """`sent` counts events by their size."""
        self._cache = cache
        self._objects = objects
        self._wanted = wanted
        self._rendering = rendering
        self._turns = turns
        self._clock = clock
        self._bookmarks = bookmarks
        self._sent = sent
        self.initial = 0
        """How many events the watch began with."""
        self._writer: StreamWriter | None = None
        self._waiting: deque[_Event] | None = deque()
        """What changed since the watch began, until what it began with is sent; None from then on."""
        self._waiting_bytes = 0
        self._begun = False
        """An event has been sent."""

    async def run(
        self,
        writer: StreamWriter,
        *,
        since: int,
        past: Sequence[Change] | None,
        initial_end: bool,
        begun: Callable[[], None],
        seconds: float,
        stop: asyncio.Event,
    ) -> None:
        """Until the client is gone, the time is up or `stop` is set.

        `past` is what happened after the revision `since`; with None all there is now comes first, and `initial_end`
        says when that is done; `begun` is called then.
        """
        self._writer = writer
        first: deque[_Event] = deque()
        if past is None:
            since = self._cache.revision
            entries, _ = self._objects.select(self._wanted)
            first.extend(_Event("ADDED", entry) for entry in entries)
        else:
            missed = Watcher(self._wanted, since, lambda kind, change: first.append(_Event(kind, change.after)))
            late = self._objects.changes_since(max([since, *(change.revision for change in past)]))
            if late is None:
                writer.abort()
                return
            for change in (*past, *late):
                missed.offer(change)
                since = max(since, change.revision)
        # Nothing has waited since the cache was looked at, so nothing is missed or told twice.
        self.initial = len(first)
        watcher = Watcher(self._wanted, since, self._deliver)
        self._objects.add_watcher(watcher)
        try:
            await self._send(first)
            if initial_end:
                self._bookmark(writer, since, initial_end=True)
            begun()
            assert self._waiting is not None
            await self._send(self._waiting)
            self._waiting = None
            await self._follow(seconds, stop)
        finally:
            self._objects.remove_watcher(watcher)

    def _deliver(self, kind: str, change: Change) -> None:
        writer = self._writer
        if writer is None:
            return
        if self._waiting is None:
            if self._begun:
                framed = self._rendering.frame(kind, change)
            else:
                framed = frame(self._event(kind, change.after))
            writer.write_framed(framed)
            self._sent.observe(len(framed))
            behind = writer.buffered
        else:
            self._waiting.append(_Event(kind, change.after))
            self._waiting_bytes += len(change.after.tail)
            behind = self._waiting_bytes
        if behind > SLOW_READER_BYTES:
            self._writer = None
            writer.abort()

    def _event(self, kind: str, entry: Entry) -> bytes:
        if self._begun:
            return self._rendering.event(kind, entry)
        self._begun = True
        return self._rendering.first_event(kind, entry)

    async def _send(self, events: deque[_Event]) -> None:
        """Send what may be much, as fast as it is read, until there is no more."""
        writer = self._writer
        while events and writer is not None:
            async with self._turns:
                size = 0
                while events and size < SLICE:
                    kind, entry = events.popleft()
                    size += len(entry.tail)
                    event = self._event(kind, entry)
                    writer.write_framed(frame(event))
                    self._sent.observe(len(event))
                if events is self._waiting:
                    self._waiting_bytes -= size
            await writer.drain()

    async def _follow(self, seconds: float, stop: asyncio.Event) -> None:
        """Let the cache push until the time is up, with a bookmark now and then."""
        writer, clock = self._writer, self._clock
        deadline = clock.monotonic() + seconds
        while writer is not None and not writer.closed.is_set():
            left = deadline - clock.monotonic()
            if left <= 0:
                self._periodic_bookmark(writer)
                return
            try:
                async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                    await stop.wait()
                    return
            except TimeoutError:
                if left > BOOKMARK_SECONDS:
                    self._periodic_bookmark(writer)

    def _periodic_bookmark(self, writer: StreamWriter) -> None:
        if self._bookmarks:
            self._bookmark(writer, self._cache.revision)

    def _bookmark(self, writer: StreamWriter, revision: int, *, initial_end: bool = False) -> None:
        framed = self._rendering.bookmark(revision, initial_end=initial_end)
        writer.write_framed(framed)
        self._sent.observe(len(framed))
