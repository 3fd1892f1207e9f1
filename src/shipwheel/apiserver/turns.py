"""Long answers take turns.

A list of ten thousand pods as a Table, or all of them at the beginning of a watch, is a good part of a second's work.
It is done in slices of about a millisecond, and after each slice of one answer everybody else's requests are looked at
before the next slice of any: so a GET waits for one slice, however many clients are listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from shipwheel.apiserver.entries import Entry

SLICE = 64 * 1024
"""How many bytes of stored objects are decoded, rendered or compared in a turn."""


class Turns:
    """`async with turns:` around each slice of work. First come, first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._lock.release()


def slices(entries: Sequence[Entry], limit: int = SLICE) -> Iterator[Sequence[Entry]]:
    """Runs of entries of about `limit` bytes together, at least one entry in each."""
    start = size = 0
    for position, entry in enumerate(entries, 1):
        size += len(entry.tail)
        if size >= limit:
            yield entries[start:position]
            start, size = position, 0
    if start < len(entries):
        yield entries[start:]
