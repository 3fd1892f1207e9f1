"""What a store is: revisions of bytes, with etcd's semantics.

There is one global revision, which grows with every write. A key's `mod_revision` is that of its last write;
writes compare and swap on it. A watch replays every event after a revision and then follows; compaction
forgets events and old values up to a revision. Keys may expire (etcd leases).

Both engines, `sqlite` and `etcd`, pass the same contract suite (tests/store).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: str
    value: bytes
    mod_revision: int
    create_revision: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One write. A deletion has no `current`; a creation has no `previous`."""

    revision: int
    key: str
    current: KeyValue | None
    previous: KeyValue | None


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in order, as they were at `revision`. `remaining` is how many more keys the range holds."""

    items: Sequence[KeyValue]
    revision: int
    remaining: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to `revision` has been delivered, and `events` are the last of it (maybe none)."""

    revision: int
    events: Sequence[Event]


class StoreError(Exception):
    """The store could not do it: the disk is full, etcd is away. Nothing was written."""


class OutcomeUnknown(StoreError):
    """The connection broke while a write was under way: it may or may not have happened."""


class Damaged(StoreError):
    """The data cannot be trusted. The file is left as it is."""


class Compacted(StoreError):
    """The revision asked for is older than what is kept."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} has been compacted; the oldest kept is {oldest}")
        self.revision = revision
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for has not been reached yet."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is in the future; the current one is {current}")
        self.revision = revision
        self.current = current


class Mismatch(Exception):
    """Compare-and-swap failed. `current` is what the key holds now, or None."""

    def __init__(self, key: str, current: KeyValue | None) -> None:
        super().__init__(key)
        self.key = key
        self.current = current


ABSENT = 0
"""As `expected`: the key must not exist."""


class Store(Protocol):
    """Keys are text, `/registry/...`, ordered by their bytes."""

    @property
    def shared(self) -> bool:
        """Whether others write to it too. When not, what this process knows is always the newest."""

    async def open(self) -> None:
        """Make ready for use. Raises `Damaged`, or `StoreError` when it cannot be reached."""

    async def close(self) -> None:
        """Finish what was begun and let go. Nothing acknowledged is lost."""

    async def get(self, key: str) -> KeyValue | None:
        """The newest value (a quorum read on etcd)."""

    async def range(self, prefix: str, *, start: str | None = None, limit: int = 0, revision: int = 0) -> Page:
        """The keys that begin with `prefix`, from `start` on (inclusive), at most `limit` of them (0: all),
        as they were at `revision` (0: now). Raises `Compacted`, `FutureRevision`."""

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: int = 0) -> KeyValue:
        """Write, durably, if the key's mod revision is `expected` (None: whatever it is; ABSENT: there is
        none). `ttl` seconds later, if not 0, the key goes away by itself. Raises `Mismatch`."""

    async def delete(self, key: str, *, expected: int | None = None) -> KeyValue | None:
        """Remove the key, durably. Returns what it held, with `mod_revision` set to the revision of the
        deletion, or None when there was nothing and `expected` is None. Raises `Mismatch`."""

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Progress]:
        """Every event on keys with `prefix` whose revision is greater than `after`, in order, for ever;
        all events of one revision arrive in one batch. `Progress` without events comes now and then, and
        after `request_progress`. Raises `Compacted`, `StoreError`."""

    async def request_progress(self) -> None:
        """Ask every watch to report progress up to now."""

    async def revision(self) -> int:
        """The current revision (from a quorum, on etcd)."""

    async def compact(self, revision: int) -> None:
        """Forget what is older than `revision`. Values current at it stay readable."""


def group_end(prefix: str) -> str | None:
    """The first text after all that begin with `prefix`; None when there is none.

    Texts are ordered by their UTF-8 bytes, which is the order of their code points.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)
