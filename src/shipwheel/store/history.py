"""The history table: every write as a row, in SQLite.

A row is a revision: what one key became. What a key was at revision R is its last row up to R, so a range in the
past, a watch from the past and the present are all the same kind of read, and no read needs to hold a transaction
open. Compaction sweeps away the rows that nobody can ask for any more.

Nothing here waits for the disk: the connection runs with `synchronous=NORMAL`, where SQLite writes to the system's page
cache and leaves the moment of the sync to us (`disksync`), so every statement takes microseconds and can run
in the event loop. `checkpoint` says what must be synced before the next write.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from zlib import crc32

from shipwheel.store.base import Damaged, Event, KeyValue

APPLICATION_ID = 0x53687077
"""In the file's header: "Shpw"."""
SCHEMA_VERSION = 1

_PAGE_SIZE = 8192
"""Holds a few objects; of 4 KiB, a 2 KB object would leave almost half empty."""
_CREATE = f"""
BEGIN;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,   -- the revision that created the key; 0 when this one deleted it
    previous INTEGER NOT NULL,  -- the key's revision before this one; 0 when there was none
    expires INTEGER,            -- Unix time in milliseconds
    checksum INTEGER,
    value BLOB
);
CREATE UNIQUE INDEX history_by_key ON history (key, revision, created);
CREATE INDEX history_expiring ON history (revision, key, expires) WHERE expires IS NOT NULL;
CREATE TABLE compaction (revision INTEGER NOT NULL, swept INTEGER NOT NULL);
INSERT INTO compaction VALUES (0, 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_NEWEST = """
SELECT key, max(revision) AS revision, created FROM history
WHERE key >= ? AND key < ? AND revision <= ? GROUP BY key HAVING created > 0
"""
"""Of each key in a range, the row that counts at a revision (`created` is that of the row with the maximum)."""
_RANGE = f"""
SELECT history.key, history.revision, history.created, checksum, value
FROM ({_NEWEST} ORDER BY key LIMIT ?) AS newest JOIN history ON history.revision = newest.revision ORDER BY 1
"""
_COUNT = f"SELECT count(*), max(key) FROM ({_NEWEST} ORDER BY key LIMIT ?)"
_EVENTS = """
SELECT now.revision, now.key, now.created, now.checksum, now.value,
       before.revision, before.created, before.checksum, before.value
FROM history AS now LEFT JOIN history AS before ON before.revision = now.previous
WHERE now.revision > ? AND now.revision <= ? ORDER BY now.revision LIMIT ?
"""

END_OF_TEXT = b""
"""Greater than every text, as any BLOB is in SQLite."""


class History:
    """The table, over one connection. Values are checked against their checksums; `Damaged` when one does not fit."""

    def __init__(self, path: str) -> None:
        """Open or create `path`. sqlite3.Error when that is not possible."""
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            self._db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a new file
            self._db.execute("PRAGMA journal_mode = WAL")
            if self._one("SELECT count(*) FROM sqlite_master") == (0,):
                self._db.executescript(_CREATE)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA secure_delete = FAST")
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
            self.compacted, self._swept = self._one("SELECT revision, swept FROM compaction")
            newest = self._one("SELECT max(revision) FROM history")[0]
        except BaseException:
            self._db.close()
            raise
        self.newest: int = max(newest or 0, self.compacted, 1)
        """The newest revision; an empty store begins at 1, as etcd does."""

    def close(self) -> None:
        """Everything into the main file, and let go of it."""
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. sqlite3.Error when nothing."""
        newest, compaction = self.newest, (self.compacted, self._swept)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self.newest, (self.compacted, self._swept) = newest, compaction
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def put(self, key: str, value: bytes, before: KeyValue | None, expires: int | None) -> KeyValue:
        """Write the next revision."""
        revision = self.newest + 1
        created = before.create_revision if before else revision
        self._insert(revision, key, created, before, expires, _checksum(key, revision, value), value)
        return KeyValue(key, value, revision, created)

    def delete(self, before: KeyValue) -> int:
        """Write the next revision: the key is gone."""
        revision = self.newest + 1
        self._insert(revision, before.key, 0, before, None, None, None)
        return revision

    def _insert(
        self,
        revision: int,
        key: str,
        created: int,
        before: KeyValue | None,
        expires: int | None,
        checksum: int | None,
        value: bytes | None,
    ) -> None:
        self._db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?)",
            (revision, key, created, before.mod_revision if before else 0, expires, checksum, value),
        )
        self.newest = revision

    def read(self, revision: int) -> KeyValue:
        """The write of that revision, which must be one that is kept and no deletion."""
        row = self._one("SELECT key, revision, created, checksum, value FROM history WHERE revision = ?", revision)
        return self._key_value(*row)

    def current(self) -> dict[str, int]:
        """The revision of every key there is."""
        rows = self._db.execute("SELECT key, max(revision), created FROM history GROUP BY key")
        return {key: revision for key, revision, created in rows if created}

    def expiring(self) -> list[tuple[int, int, str]]:
        """(Unix time in milliseconds, revision, key) of writes that expire, superseded ones too."""
        return self._db.execute("SELECT expires, revision, key FROM history WHERE expires IS NOT NULL").fetchall()

    def range(self, start: str, end: str | None, revision: int, limit: int) -> list[KeyValue]:
        """The first `limit` keys in [start, end) as they were at `revision`."""
        rows = self._db.execute(_RANGE, (start, end or END_OF_TEXT, revision, limit)).fetchall()
        return [self._key_value(*row) for row in rows]

    def count(self, start: str, end: str | None, revision: int, limit: int) -> tuple[int, str | None]:
        """How many keys are in [start, end) at `revision`, counting no further than `limit`; and the last one."""
        return self._one(_COUNT, start, end or END_OF_TEXT, revision, limit)

    def events(self, after: int, upto: int, limit: int) -> list[Event]:
        """The first `limit` writes with after < revision <= upto."""
        rows = self._db.execute(_EVENTS, (after, upto, limit)).fetchall()
        return [
            Event(
                row[0],
                row[1],
                self._key_value(row[1], row[0], row[2], row[3], row[4]) if row[2] else None,
                self._key_value(row[1], *row[5:]) if row[5] else None,
            )
            for row in rows
        ]

    def compact(self, revision: int) -> None:
        """From now on nobody asks for what was before `revision`; `sweep` removes it."""
        self._db.execute("UPDATE compaction SET revision = ?", (revision,))
        self.compacted = revision

    @property
    def sweepable(self) -> int:
        """How many revisions `sweep` has still to look at."""
        return max(0, min(self.compacted, self.newest - 1) - self._swept)

    def sweep(self, revisions: int) -> None:
        """Look at the next so many revisions: what they superseded goes, and deletions go.

        The newest row always stays, even a deletion: revisions continue from it after a restart.
        """
        after, upto = self._swept, self._swept + min(revisions, self.sweepable)
        self._db.execute(
            "DELETE FROM history WHERE revision IN"
            " (SELECT previous FROM history WHERE revision > ? AND revision <= ? AND previous > 0)",
            (after, upto),
        )
        self._db.execute("DELETE FROM history WHERE revision > ? AND revision <= ? AND created = 0", (after, upto))
        self._db.execute("UPDATE compaction SET swept = ?", (upto,))
        self._swept = upto

    def checkpoint(self) -> bool:
        """Copy the log into the main file; then the next write begins the log anew, and the log stays short.

        The caller must have synced the log before, and must sync the main file before it writes again: until
        then only the log has everything. Hence `synchronous=OFF` meanwhile. False when a reader in another
        process (a backup) is in the way.
        """
        self._db.execute("PRAGMA synchronous = OFF")
        try:
            busy, logged, copied = self._one("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")
        return not busy and logged == copied

    def _one(self, statement: str, *arguments: object) -> tuple:
        return self._db.execute(statement, arguments).fetchone()

    def _key_value(self, key: str, revision: int, created: int, checksum: int, value: bytes) -> KeyValue:
        if value is None or _checksum(key, revision, value) != checksum:
            raise Damaged(f"{self.path}: what revision {revision} wrote to {key} does not match its checksum")
        return KeyValue(key, value, revision, created)


def _checksum(key: str, revision: int, value: bytes) -> int:
    return crc32(value, crc32(key.encode(), revision & 0xFFFFFFFF))
