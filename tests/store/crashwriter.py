"""Writes to a store until it is killed, and says on standard output what was acknowledged: `WRITER NUMBER REVISION`.

Each writer creates its keys in order, so that at any moment at most one of its writes is not acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys

from shipwheel.api.clock import SystemClock
from shipwheel.store.base import ABSENT
from shipwheel.store.sqlite import SqliteStore

WRITERS = 8


async def main(path: str) -> None:
    store = SqliteStore(path, clock=SystemClock())
    await store.open()
    os.write(1, b"open\n")

    async def write(writer: int) -> None:
        number = len((await store.range(f"/{writer}/")).items)
        while True:
            value = b"%d" % number * (number % 700)
            written = await store.put(f"/{writer}/{number:08}", value, expected=ABSENT)
            os.write(1, b"%d %d %d\n" % (writer, number, written.mod_revision))
            number += 1

    async def churn() -> None:
        """Rewrite one key and compact, so that pages are freed and used again."""
        while True:
            for _ in range(50):
                await store.put("/churn", os.urandom(3000))
            await store.compact(await store.revision() - 20)

    await asyncio.gather(churn(), *(write(writer) for writer in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
