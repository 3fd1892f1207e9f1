"""What was made of objects for some encoding, kept for the next who asks.

A protobuf message or a row of a Table costs many times what joining JSON does, and the same ones are asked for again
and again: by every page of every list, by every watcher, by the answer to the write itself. So they are kept at the
entry they were made of, and go with it when the object changes. When all of them together have grown to `limit`
bytes, they are dropped and made anew as they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from shipwheel.apiserver.entries import Entry

LIMIT = 48 << 20


class Forms:
    """`entries` gives all that may have kept something."""

    def __init__(self, entries: Callable[[], Iterable[Entry]], limit: int = LIMIT) -> None:
        self._entries = entries
        self._limit = limit
        self._size = 0
        """Bytes kept since everything was dropped, those that have gone with their entries included."""

    def keep(self, entry: Entry, key: Hashable, form: object, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            self._size = size
            for each in self._entries():
                each.forms = None
        if entry.forms is None:
            entry.forms = {key: form}
        else:
            entry.forms[key] = form
