"""Reading ranges of keys from the history table, in pieces, so that the event loop breathes between them.

Rows are never changed, so the pieces fit together without a transaction around them; a compaction in the middle is
noticed.
"""

from __future__ import annotations

import asyncio

from shipwheel.store.base import Compacted, KeyValue, Page, group_end
from shipwheel.store.history import History

_ROWS = 256
_COUNTED = 4096
_PAGERS = 64


class Ranges:
    """Pages of keys. Remembers how much was left behind a page, so that only the first page of many has to count."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._left: dict[tuple[str, str, int], int] = {}
        """Keys in a prefix from a start on, at a revision."""

    async def page(self, prefix: str, start: str, limit: int, at: int) -> Page:
        """At most `limit` keys (0: all) with `prefix` from `start` on, at revision `at`. Raises `Compacted`."""
        end = group_end(prefix)
        begin = max(prefix, start)
        left = self._left.pop((prefix, begin, at), None)
        items: list[KeyValue] = []
        while True:
            wanted = min(_ROWS, limit - len(items)) if limit else _ROWS
            self._check(at)
            found = self._history.range(begin, end, at, wanted)
            items += found
            if found:
                begin = _after(found[-1].key)
            if len(found) < wanted:
                return Page(items, at)
            if len(items) == limit:
                break
            await asyncio.sleep(0)
        remaining = await self._count(begin, end, at) if left is None else left - limit
        self._left[prefix, begin, at] = remaining
        if len(self._left) > _PAGERS:
            del self._left[next(iter(self._left))]
        return Page(items, at, remaining)

    async def _count(self, begin: str, end: str | None, at: int) -> int:
        total = 0
        while True:
            self._check(at)
            counted, last = self._history.count(begin, end, at, _COUNTED)
            total += counted
            if last is None or counted < _COUNTED:
                return total
            begin = _after(last)
            await asyncio.sleep(0)

    def _check(self, at: int) -> None:
        if at < self._history.compacted:
            raise Compacted(at, self._history.compacted)


def _after(key: str) -> str:
    """The first key that can follow."""
    return f"{key}\0"
