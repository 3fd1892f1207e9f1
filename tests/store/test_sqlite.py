"""What only the embedded engine promises: about its file, its clock and its memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from storehelpers import events, fill, opened, watching

from shipwheel.api.clock import ManualClock, SystemClock
from shipwheel.store.base import Compacted, Damaged, KeyValue, Store, StoreError
from shipwheel.store.sqlite import SqliteStore
from shipwheel.store.watcher import _MOST_EVENTS


def sqlite(path: str | Path) -> SqliteStore:
    return SqliteStore(str(path), clock=SystemClock())


class TestLock:
    async def test_names_who_has_the_file(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)):
            with pytest.raises(StoreError, match=rf"store.db: in use by process {os.getpid()}$"):
                await sqlite(sqlite_path).open()
        async with opened(sqlite(sqlite_path)):
            pass

    async def test_holds_between_processes_and_ends_with_them(self, sqlite_path: str) -> None:
        script = Path(__file__).with_name("crashwriter.py")
        with subprocess.Popen([sys.executable, script, sqlite_path], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(StoreError, match=f"in use by process {holder.pid}"):
                await sqlite(sqlite_path).open()
            holder.kill()
        async with opened(sqlite(sqlite_path)):
            pass

    async def test_lets_others_read(self, sqlite_path: str, tmp_path: Path) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            written = await fill(store, "/a/", 10)
            with sqlite3.connect(f"file:{sqlite_path}?mode=ro", uri=True) as reader:
                reader.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
            reader.close()
            await store.put("/b", b"")
        async with opened(sqlite(tmp_path / "backup.db")) as backup:
            assert (await backup.range("/")).items == written


class TestOpening:
    async def test_without_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=f"the directory {tmp_path}/none does not exist"):
            await sqlite(tmp_path / "none" / "store.db").open()

    async def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"[Dd]irectory"):
            await sqlite(tmp_path).open()

    async def test_where_nothing_may_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"Permission denied|Operation not permitted|Read-only|does not exist"):
            await sqlite("/proc/self/store.db").open()

    async def test_makes_a_file_for_its_owner_only(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            await store.put("/secret", b"")
            for suffix in ("", "-wal", "-shm", ".lock"):
                assert os.stat(sqlite_path + suffix).st_mode & 0o777 == 0o600

    async def test_after_a_failure_works_again(self, sqlite_path: str) -> None:
        Path(sqlite_path).write_bytes(b"no database")
        store = sqlite(sqlite_path)
        with pytest.raises(Damaged):
            await store.open()
        os.unlink(sqlite_path)
        async with opened(store):
            await store.put("/a", b"")


def overwrite(path: str, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(content)


def flip(path: str, offset: int) -> None:
    with open(path, "rb") as file:
        file.seek(offset)
        (byte,) = file.read(1)
    overwrite(path, offset, bytes([byte ^ 0xFF]))


def flip_where(path: str, content: bytes) -> None:
    flip(path, Path(path).read_bytes().index(content) + len(content) // 2)


def truncate(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


DAMAGES: dict[str, tuple[Callable[[str], object], str]] = {
    "text": (lambda path: Path(path).write_text("hello\n" * 1000), "not an SQLite database"),
    "short": (lambda path: os.truncate(path, 50), "not an SQLite database"),
    "header": (lambda path: overwrite(path, 0, bytes(100)), "not an SQLite database"),
    "half": (truncate, "malformed|page|Page"),
    "garbage page": (lambda path: overwrite(path, 3 * 8192, os.urandom(8192)), "Page|page|malformed|Tree"),
    "zeroes": (lambda path: overwrite(path, 8192, bytes(60_000)), "Page|page|malformed|Tree"),
    "other program": (lambda path: overwrite(path, 68, b"abcd"), "of another program"),
    "log header": (lambda path: flip(f"{path}-wal", 20), "-wal: the header of the log"),
    "log begins with something else": (
        lambda path: overwrite(f"{path}-wal", 0, b"x" * 40),
        "-wal: the header",
    ),
    "middle of the log": (
        lambda path: flip(f"{path}-wal", 32 + 6 * 8216 + 500),
        "-wal: frame 7 is damaged, and ack",
    ),
    "begin of the log": (lambda path: flip(f"{path}-wal", 40), "-wal: frame 1 is damaged"),
    "emptied file": (lambda path: os.truncate(path, 0), "the file is empty, but its log"),
}


class TestDamage:
    @pytest.fixture
    async def crashed(self, sqlite_path: str, tmp_path: Path) -> str:
        """A file with some of its content in the log, as a kill leaves it."""
        async with opened(sqlite(sqlite_path)) as store:
            for n in range(100):
                await store.put(f"/{n}", b"content of %d " % n * 200)
        copy = str(tmp_path / "crashed.db")
        async with opened(sqlite(sqlite_path)) as store:
            for n in range(100, 150):
                await store.put(f"/{n}", b"content of %d " % n * 200)
            for suffix in ("", "-wal"):
                shutil.copyfile(sqlite_path + suffix, copy + suffix)
        return copy

    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_is_refused_and_left_alone(self, crashed: str, damage: str) -> None:
        inflict, complaint = DAMAGES[damage]
        inflict(crashed)
        files = {suffix: Path(crashed + suffix).read_bytes() for suffix in ("", "-wal")}
        with pytest.raises(Damaged, match=complaint) as error:
            await sqlite(crashed).open()
        assert crashed in str(error.value)
        assert {suffix: Path(crashed + suffix).read_bytes() for suffix in files} == files
        assert not os.path.exists(f"{crashed}-shm")

    async def test_without_any_all_is_there(self, crashed: str) -> None:
        async with opened(sqlite(crashed)) as store:
            assert len((await store.range("/")).items) == 150

    async def test_of_the_last_unacknowledged_write_is_healed(self, crashed: str) -> None:
        size = os.path.getsize(f"{crashed}-wal")
        frames = (size - 32) // 8216
        flip(f"{crashed}-wal", 32 + (frames - 1) * 8216 + 100)
        async with opened(sqlite(crashed)) as store:
            assert len((await store.range("/")).items) == 149

    async def test_of_a_value_shows_when_it_is_read(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            await store.put("/a", b"this is a value that will be changed behind the back of the store" * 4)
            whole = await store.put("/b", b"and this one not")
        flip_where(sqlite_path, b"this is a value that will be changed")
        async with opened(sqlite(sqlite_path)) as store:
            with pytest.raises(Damaged, match="what revision 2 wrote to /a does not match its checksum"):
                await store.get("/a")
            with pytest.raises(Damaged):
                await store.range("/")
            with pytest.raises(Damaged):
                await store.put("/a", b"")
            assert await store.get("/b") == whole
            assert await store.put("/b", b"2")

    async def test_newer_schema(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)):
            pass
        overwrite(sqlite_path, 60, (99).to_bytes(4, "big"))
        with pytest.raises(StoreError, match="written by a newer version"):
            await sqlite(sqlite_path).open()

    async def test_created_and_no_more(self, sqlite_path: str) -> None:
        Path(sqlite_path).touch()
        async with opened(sqlite(sqlite_path)) as store:
            assert await store.put("/a", b"")


class TestExpiry:
    async def test_follows_the_clock(self, sqlite_path: str) -> None:
        clock = ManualClock()
        async with opened(SqliteStore(sqlite_path, clock=clock)) as store:
            late = await store.put("/late", b"", ttl=3600)
            soon = await store.put("/soon", b"", ttl=60)
            async with watching(store, "/", soon.mod_revision) as progress:
                await clock.advance(59)
                assert len((await store.range("/")).items) == 2
                await clock.advance(1)
                assert [event.previous for event in await events(progress, 1)] == [soon]
                await clock.advance(3600)
                assert [event.previous for event in await events(progress, 1)] == [late]

    async def test_goes_on_while_stopped(self, sqlite_path: str) -> None:
        clock = ManualClock()
        async with opened(SqliteStore(sqlite_path, clock=clock)) as store:
            due = [await store.put(f"/due/{n:03}", b"", ttl=60) for n in range(700)]
            renewed = await store.put("/renewed", b"", ttl=60)
            renewed = await store.put("/renewed", b"", ttl=6000)
            revision = await store.revision()
        await clock.advance(600)
        async with (
            opened(SqliteStore(sqlite_path, clock=clock)) as store,
            watching(store, "/", revision) as progress,
        ):
            assert [event.previous for event in await events(progress, 700)] == due
            assert (await store.range("/")).items == [renewed]
            await clock.advance(6000)
            assert [event.previous for event in await events(progress, 1)] == [renewed]


class TestSlowWatchers:
    async def test_are_bounded(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            async with watching(store, "/", 1) as progress:
                await store.put("/begin", b"")
                await events(progress, 1)
                await asyncio.gather(*(store.put(f"/{n}", b"") for n in range(_MOST_EVENTS + 200)))
                (watcher,) = store._watchers  # type: ignore[attr-defined]
                assert watcher._events == []
                assert len(await events(progress, _MOST_EVENTS + 200)) == _MOST_EVENTS + 200
            assert not store._watchers  # type: ignore[attr-defined]

    async def test_are_bounded_in_bytes(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store, watching(store, "/", 1) as progress:
            await store.put("/begin", b"")
            await events(progress, 1)
            for n in range(12):
                await store.put(f"/{n}", bytes(1_000_000))
                (watcher,) = store._watchers  # type: ignore[attr-defined]
                assert watcher._bytes < 10_000_000
            assert len(await events(progress, 12)) == 12

    async def test_that_missed_a_compaction_are_told(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store, watching(store, "/", 1) as progress:
            await store.put("/begin", b"")
            await events(progress, 1)
            await asyncio.gather(*(store.put(f"/{n}", b"") for n in range(_MOST_EVENTS + 200)))
            await store.compact(await store.revision())
            with pytest.raises(Compacted):
                await events(progress, 1)

    async def test_of_other_keys_hear_how_far_it_is(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store, watching(store, "/other", 1) as progress:
            told = asyncio.ensure_future(anext(progress))
            await asyncio.gather(*(store.put(f"/{n % 10}", b"") for n in range(1500)))
            assert (await asyncio.wait_for(told, 5)).revision > 1000


class TestCompactionWork:
    async def test_does_not_hold_up_writers(self, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            await asyncio.gather(*(store.put(f"/{n % 100}", bytes(1000)) for n in range(5000)))
            await store.compact(await store.revision())
            history = store._history  # type: ignore[attr-defined]
            writes = 0
            while history.sweepable:
                await store.put("/a", b"")
                writes += 1
            assert writes > 20  # a step a write, not all at once
            assert history._one("SELECT count(*) FROM history")[0] < 300


async def test_a_store_is_a_store(sqlite_path: str) -> None:
    store: Store = sqlite(sqlite_path)
    assert store.shared is False
    assert KeyValue("/a", b"", 1) == KeyValue("/a", b"", 1, 0)
