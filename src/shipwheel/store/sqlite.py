"""The embedded engine: one process, one SQLite file, etcd's semantics.

Group commit: whatever is asked for while the disk is busy waits in a queue, and then becomes one transaction and one
sync. Compare-and-swap is decided against an index of every key's revision, kept in memory, which changes only when a
transaction is on the disk; so a transaction that fails needs no undoing, and nobody has seen anything of it.

All is done in the event loop, without threads: a statement takes microseconds (the database is in the page cache), and
the waiting for the disk is `disksync`'s. The order after a sync is fixed: the index, then the watchers, then the
writers. A watcher that awaits its next event gets it before the writer gets its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shipwheel.api.clock import Clock
from shipwheel.store.base import (
    Compacted,
    Damaged,
    Event,
    FutureRevision,
    KeyValue,
    Mismatch,
    OutcomeUnknown,
    Page,
    Progress,
    StoreError,
)
from shipwheel.store.disksync import DiskSync, open_disk_sync
from shipwheel.store.expiry import Expiring, Expiry
from shipwheel.store.history import History
from shipwheel.store.integrity import check
from shipwheel.store.lockfile import lock
from shipwheel.store.ranges import Ranges
from shipwheel.store.watcher import Watcher

_log = logging.getLogger(__name__)

_WRITES_A_COMMIT = 128
_REVISIONS_A_SWEEP = 64
_ROWS_A_READ = 256
_LOG_BYTES = 2 << 20
"""Checkpoint when about so much was written. Larger: fewer page writes. Smaller: shorter pauses."""
_BYTES_A_WRITE = 16 << 10
"""What a write adds to the log besides its value: a page of the table and one of the index."""
_EXPIRY_RETRY = 10


@dataclass(slots=True, eq=False)
class _Write:
    key: str
    value: bytes | None
    expected: int | None
    expires: int | None
    done: asyncio.Future[KeyValue | None]


@dataclass(slots=True, eq=False)
class _Compact:
    revision: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Outcome:
    """What a transaction did, to be told once it is on the disk."""

    revisions: dict[str, int] = field(default_factory=dict)
    """Keys it wrote; 0 when deleted."""
    events: list[Event] = field(default_factory=list)
    expiring: list[Expiring] = field(default_factory=list)
    answers: list[tuple[asyncio.Future[Any], Any]] = field(default_factory=list)

    def wrote(self, event: Event) -> None:
        self.events.append(event)
        self.revisions[event.key] = event.revision if event.current else 0


class SqliteStore:
    """`Store` in the file `path`, with `path`-wal, `path`-shm and `path`.lock beside it."""

    shared = False

    def __init__(self, path: str, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._history: History
        self._index: dict[str, int] = {}
        self._revision = 0
        self._queue: list[_Write | _Compact] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._watchers: set[Watcher] = set()
        self._logged = 0
        self._refusal: str | None = "not open"
        """Why writes are not accepted."""
        self._opened = contextlib.AsyncExitStack()

    # Opening and closing

    async def open(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            with _file_errors(self._path):
                stack.callback(os.close, lock(self._path))
                await asyncio.to_thread(_create_or_check, self._path)
                self._open_history(stack)
            self._sync: DiskSync = open_disk_sync()
            stack.callback(self._sync.close)
            self._expiry = Expiry(self._clock, self._history.expiring())
            self._index = self._history.current()
            self._ranges = Ranges(self._history)
            self._revision = self._history.newest
            self._work.set()
            self._refusal = None
            for work in (self._commit_forever(), self._expiry.run(self._expire)):
                stack.push_async_callback(_cancelled, asyncio.create_task(work))
            self._opened = stack.pop_all()

    def _open_history(self, stack: contextlib.AsyncExitStack) -> None:
        # Descriptors of the file itself are closed last: closing one drops SQLite's locks on it (fcntl(2)).
        self._file_fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, self._file_fd)
        self._history = History(self._path)
        stack.callback(self._history.close)
        self._log_fd = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, self._log_fd)
        _sync_directory(self._path)

    async def close(self) -> None:
        if self._refusal is None:
            self._refusal = "closed"
            await self._idle.wait()
        for watcher in self._watchers:
            watcher.fail(StoreError(f"{self._path}: closed"))
        with _file_errors(self._path):
            await self._opened.aclose()

    # Reading

    async def get(self, key: str) -> KeyValue | None:
        revision = self._index.get(key)
        with self._read_errors():
            return self._history.read(revision) if revision else None

    async def range(self, prefix: str, *, start: str | None = None, limit: int = 0, revision: int = 0) -> Page:
        at = revision or self._revision
        if at > self._revision:
            raise FutureRevision(at, self._revision)
        with self._read_errors():
            return await self._ranges.page(prefix, start or "", limit, at)

    async def revision(self) -> int:
        return self._revision

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Progress]:
        watcher = Watcher(prefix, after)
        self._watchers.add(watcher)
        try:
            while True:
                while watcher.position < self._revision:
                    yield self._catch_up(watcher)
                    await asyncio.sleep(0)
                watcher.follow()
                while (progress := await watcher.next()) is not None:
                    yield progress
        finally:
            self._watchers.discard(watcher)

    def _catch_up(self, watcher: Watcher) -> Progress:
        if watcher.position < self._history.compacted:
            raise Compacted(watcher.position, self._history.compacted)
        with self._read_errors():
            events = self._history.events(watcher.position, self._revision, _ROWS_A_READ)
        watcher.position = events[-1].revision if len(events) == _ROWS_A_READ else self._revision
        return Progress(watcher.position, [event for event in events if event.key.startswith(watcher.prefix)])

    async def request_progress(self) -> None:
        for watcher in self._watchers:
            watcher.report()

    # Writing

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: int = 0) -> KeyValue:
        written = await self._write(key, value, expected, self._expiry.after(ttl) if ttl else None)
        assert written is not None
        return written

    async def delete(self, key: str, *, expected: int | None = None) -> KeyValue | None:
        return await self._write(key, None, expected, None)

    def _write(
        self, key: str, value: bytes | None, expected: int | None, expires: int | None
    ) -> asyncio.Future[KeyValue | None]:
        done: asyncio.Future[KeyValue | None] = asyncio.get_running_loop().create_future()
        self._enqueue(_Write(key, value, expected, expires, done))
        return done

    async def compact(self, revision: int) -> None:
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(_Compact(revision, done))
        await done

    def _enqueue(self, request: _Write | _Compact) -> None:
        if self._refusal is not None:
            raise StoreError(f"{self._path}: {self._refusal}")
        self._queue.append(request)
        self._work.set()
        self._idle.clear()

    async def _expire(self, due: Sequence[Expiring]) -> None:
        current = [entry for entry in due if self._index.get(entry[2]) == entry[1]]
        deletions = (self.delete(key, expected=revision) for _, revision, key in current)
        outcomes = await asyncio.gather(*deletions, return_exceptions=True)
        for entry, outcome in zip(current, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                _log.warning("%s has expired but cannot be deleted: %s", entry[2], outcome)
                self._expiry.add((self._expiry.after(_EXPIRY_RETRY), *entry[1:]))

    async def _commit_forever(self) -> None:
        requests: list[_Write | _Compact] = []
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                requests, self._queue = self._queue[:_WRITES_A_COMMIT], self._queue[_WRITES_A_COMMIT:]
                committed = await self._commit(requests)
                if self._logged > _LOG_BYTES:
                    await self._checkpoint()
                if self._queue or (committed and self._history.sweepable):
                    self._work.set()
                if not self._queue:
                    self._idle.set()
        except OSError as failure:
            # What SQLite holds and what the disk holds may differ from here on; only opening the file anew can tell.
            _log.error("%s: %s; no more writes", self._path, failure)
            self._refuse(f"{failure.strerror}; writing is possible again after a restart", requests)
        except BaseException as failure:
            if self._refusal is None:  # else: it was `close`
                self._refuse(f"writing ended by {failure!r}", requests)
            raise

    def _refuse(self, reason: str, underway: Sequence[_Write | _Compact]) -> None:
        self._refusal = reason
        _answer((request.done, OutcomeUnknown(f"{self._path}: {reason}")) for request in underway)
        _answer((request.done, StoreError(f"{self._path}: {reason}")) for request in self._queue)
        self._queue = []
        self._idle.set()

    async def _commit(self, requests: Sequence[_Write | _Compact]) -> bool:
        """One transaction, one sync. Whether it succeeded; OSError when that cannot be known."""
        outcome = _Outcome()
        before = self._history.newest
        try:
            with self._history.transaction():
                for request in requests:
                    if not request.done.cancelled():
                        self._apply(request, outcome)
                sweeps = self._history.sweepable
                if sweeps:
                    self._history.sweep(_REVISIONS_A_SWEEP)
        except sqlite3.Error as error:
            _answer((request.done, _store_error(self._path, error)) for request in requests)
            return False
        if self._history.newest != before or sweeps or any(isinstance(r, _Compact) for r in requests):
            await self._sync.sync(self._log_fd)
        self._publish(outcome)
        return True

    def _apply(self, request: _Write | _Compact, outcome: _Outcome) -> None:
        if isinstance(request, _Compact):
            if request.revision > self._history.compacted:
                self._history.compact(request.revision)
                self._logged += _BYTES_A_WRITE
            outcome.answers.append((request.done, None))
            return
        try:
            outcome.answers.append((request.done, self._apply_write(request, outcome)))
        except (Mismatch, Damaged) as refusal:
            outcome.answers.append((request.done, refusal))

    def _apply_write(self, write: _Write, outcome: _Outcome) -> KeyValue | None:
        key, value = write.key, write.value
        revision = outcome.revisions.get(key, self._index.get(key, 0))
        before = self._history.read(revision) if revision else None
        if write.expected is not None and write.expected != revision:
            raise Mismatch(key, before)
        if value is not None:
            after = self._history.put(key, value, before, write.expires)
            outcome.wrote(Event(after.mod_revision, key, after, before))
            if write.expires is not None:
                outcome.expiring.append((write.expires, after.mod_revision, key))
            self._logged += len(value) + _BYTES_A_WRITE
            return after
        if before is None:
            return None
        deletion = self._history.delete(before)
        outcome.wrote(Event(deletion, key, None, before))
        self._logged += _BYTES_A_WRITE
        return replace(before, mod_revision=deletion)

    def _publish(self, outcome: _Outcome) -> None:
        for key, revision in outcome.revisions.items():
            if revision:
                self._index[key] = revision
            else:
                self._index.pop(key, None)
        self._revision = self._history.newest
        for entry in outcome.expiring:
            self._expiry.add(entry)
        for watcher in self._watchers:
            watcher.deliver(outcome.events, self._revision)
        _answer(outcome.answers)

    async def _checkpoint(self) -> None:
        self._logged = 0
        try:
            self._history.checkpoint()
        except sqlite3.Error as error:
            _log.warning("%s: the log cannot be copied into the file yet: %s", self._path, error)
        await self._sync.sync(self._file_fd)

    @contextlib.contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _store_error(self._path, error) from error


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _answer(answers: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, answer in answers:
        if done.done():
            continue  # whoever asked has gone
        if isinstance(answer, Exception):
            done.set_exception(answer)
        else:
            done.set_result(answer)


def _store_error(path: str, error: sqlite3.Error) -> StoreError:
    damaged = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return (Damaged if damaged else StoreError)(f"{path}: {error} ({error.sqlite_errorname})")


def _create_or_check(path: str) -> None:
    if os.path.exists(path):
        check(path)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _file_errors(path: str) -> Iterator[None]:
    """Say what is wrong with the file in words that help."""
    try:
        yield
    except sqlite3.Error as error:
        raise _store_error(path, error) from error
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the directory {os.path.dirname(path) or '.'} does not exist") from error
    except OSError as error:
        hint = {
            errno.EACCES: f"; this process runs as user {os.geteuid()}",
            errno.EROFS: "; the store must be on a file system that can be written to",
        }.get(error.errno or 0, "")
        raise StoreError(f"{error.filename or path}: {error.strerror}{hint}") from error
