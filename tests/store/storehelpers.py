"""What several tests of stores need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from shipwheel.store.base import Event, KeyValue, Progress, Store


@contextlib.asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def watching(store: Store, prefix: str, after: int) -> AsyncIterator[AsyncIterator[Progress]]:
    progress = store.watch(prefix, after=after)
    try:
        yield progress
    finally:
        await progress.aclose()  # type: ignore[attr-defined]


async def events(progress: AsyncIterator[Progress], number: int) -> list[Event]:
    """The next so many events, and no more than these."""
    found: list[Event] = []
    while len(found) < number:
        found += (await asyncio.wait_for(anext(progress), 10)).events
    assert len(found) == number
    return found


async def fill(store: Store, prefix: str, number: int) -> list[KeyValue]:
    """Put so many keys, one after the other in the order of their names."""
    return [await store.put(f"{prefix}{index:04}", b"%d" % index) for index in range(number)]
