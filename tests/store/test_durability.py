"""What was acknowledged stays: through kills, power losses and full disks."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storehelpers import fill, opened

import shipwheel.store.sqlite
from shipwheel.api.clock import SystemClock
from shipwheel.store.base import KeyValue, OutcomeUnknown, StoreError
from shipwheel.store.sqlite import SqliteStore

BLOCK = 4096


def sqlite(path: str | Path) -> SqliteStore:
    return SqliteStore(str(path), clock=SystemClock())


class TestKill:
    async def test_loses_nothing_and_repeats_nothing(self, sqlite_path: str) -> None:
        chance = random.Random(20)
        acknowledged: dict[str, int] = {}
        for _ in range(20):
            told = await asyncio.to_thread(self._write_until_killed, sqlite_path, chance.uniform(0.02, 0.25))
            assert not acknowledged.keys() & told.keys()
            acknowledged |= told
            async with opened(sqlite(sqlite_path)) as store:
                items = [kv for kv in (await store.range("/")).items if kv.key != "/churn"]
                found = {kv.key: kv.mod_revision for kv in items}
                assert acknowledged.items() <= found.items()
                assert len(found) <= len(acknowledged) + 8 * 20
                assert all(kv.create_revision == kv.mod_revision for kv in items)
                assert len(set(found.values())) == len(found)
                assert max(found.values()) <= await store.revision()
                acknowledged = found  # what was begun and is there now has to stay, too
        assert len(acknowledged) > 1000

    def _write_until_killed(self, path: str, seconds: float) -> dict[str, int]:
        script = Path(__file__).with_name("crashwriter.py")
        with subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            try:
                writer.wait(seconds)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
            lines = [line.split() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        assert writer.returncode == -signal.SIGKILL
        return {f"/{int(name)}/{int(number):08}": int(revision) for name, number, revision in lines}


class Disk:
    """A `DiskSync` that remembers what is certain to be on the disk: each file as it was at its last sync."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        self.failure: OSError | None = None
        self.pause: asyncio.Event | None = None
        self.syncs = 0

    async def sync(self, fd: int) -> None:
        self.syncs += 1
        path = os.readlink(f"/proc/self/fd/{fd}")
        content = Path(path).read_bytes()
        if self.pause:
            await self.pause.wait()
        else:
            for _ in range(4):
                await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self.synced[path] = content

    def close(self) -> None:
        pass

    def lose_power(self, path: str, target: Path, chance: random.Random) -> None:
        """Make `target` what a disk may hold if the power went now: of what was not synced, any part."""
        for suffix in ("", "-wal"):
            now = Path(path + suffix).read_bytes()
            before = self.synced.get(path + suffix, b"")
            size = chance.choice((len(now), max(len(before), min(len(now), BLOCK))))
            mixed = bytearray(size)
            for start in range(0, size, BLOCK):
                new, old = now[start : start + BLOCK], before[start : start + BLOCK]
                block = chance.choice((new, old.ljust(len(new), b"\0")))[: size - start]
                mixed[start : start + len(block)] = block
            if suffix:
                mixed[:32] = now[:32]  # SQLite itself syncs the log's header before what follows it
            Path(f"{target}{suffix}").write_bytes(mixed)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shipwheel.store.sqlite, "open_disk_sync", lambda: disk)
    return disk


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestPowerLoss:
    @pytest.mark.parametrize("seed", range(3))
    async def test_loses_nothing_acknowledged(
        self, seed: int, disk: Disk, sqlite_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shipwheel.store.sqlite, "_LOG_BYTES", 600_000)  # a checkpoint every few commits
        chance = random.Random(seed)
        acknowledged: dict[str, KeyValue] = {}
        outages: list[tuple[Path, dict[str, KeyValue]]] = []

        async def write(writer: int) -> None:
            for number in range(70):
                key = f"/{writer}/{number % 25}"
                acknowledged.pop(key, None)  # from now on it may be the old or the new
                value = chance.randbytes(chance.choice((10, 3000, 20_000)))
                acknowledged[key] = await store.put(key, value)

        async with opened(sqlite(sqlite_path)) as store:
            for path in (sqlite_path, f"{sqlite_path}-wal"):
                disk.synced[path] = Path(path).read_bytes()
            writers = [asyncio.ensure_future(write(writer)) for writer in range(6)]
            while not all(writer.done() for writer in writers):
                target = tmp_path / f"outage{len(outages)}"
                disk.lose_power(sqlite_path, target, chance)
                outages.append((target, dict(acknowledged)))
                for _ in range(chance.randrange(1, 12)):
                    await asyncio.sleep(0)
            await asyncio.gather(*writers)
        assert len(outages) > 30
        for target, certain in outages:
            async with opened(sqlite(target)) as survivor:
                found = {kv.key: kv for kv in (await survivor.range("/")).items}
                assert {key: found.get(key) for key in certain} == certain


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestSync:
    async def test_comes_before_the_answer(self, disk: Disk, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            disk.pause = asyncio.Event()
            put = asyncio.ensure_future(store.put("/a", b"1"))
            await asyncio.sleep(0.02)
            assert not put.done()
            assert await store.get("/a") is None
            assert (await store.range("/")).items == []
            disk.pause.set()
            assert await put == await store.get("/a")

    async def test_is_shared_by_all_that_wait(self, disk: Disk, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            before = disk.syncs
            await asyncio.gather(*(store.put(f"/{n}", b"") for n in range(50)))
            assert disk.syncs - before == 1
            disk.pause = asyncio.Event()
            puts = []
            for n in range(50):
                puts.append(asyncio.ensure_future(store.put(f"/{n}", b"2")))
                await asyncio.sleep(0)
            disk.pause.set()
            await asyncio.gather(*puts)
            assert disk.syncs - before == 3

    async def test_watchers_know_before_the_writer(self, disk: Disk, sqlite_path: str) -> None:
        order: list[str] = []
        async with opened(sqlite(sqlite_path)) as store:

            async def watch() -> None:
                async for progress in store.watch("/", after=1):
                    order.extend(f"watched {event.key}" for event in progress.events)

            watching = asyncio.ensure_future(watch())
            await asyncio.sleep(0)
            for key in "/a", "/b", "/c":
                await store.put(key, b"")
                order.append(f"wrote {key}")
            watching.cancel()
        assert order == [f"{what} {key}" for key in ("/a", "/b", "/c") for what in ("watched", "wrote")]

    async def test_that_fails_leaves_the_outcome_unknown(self, disk: Disk, sqlite_path: str) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            before = await store.put("/a", b"1")
            disk.failure = OSError(5, "Input/output error")
            put = asyncio.ensure_future(store.put("/a", b"2"))
            await asyncio.sleep(0)
            behind = asyncio.ensure_future(store.put("/b", b"2"))
            with pytest.raises(OutcomeUnknown, match="Input/output error"):
                await put
            with pytest.raises(StoreError):
                await behind
            disk.failure = None
            with pytest.raises(StoreError, match="possible again after a restart"):
                await store.put("/a", b"3")
            assert await store.get("/a") == before
        async with opened(sqlite(sqlite_path)) as store:
            found = await store.get("/a")
            assert found is not None
            assert found.value in (b"1", b"2")
            assert await store.put("/a", b"4")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount]
    if os.geteuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield mount
    subprocess.run(["umount", mount], check=True)


class TestDiskFull:
    async def test_fails_writes_and_nothing_else(self, small_disk: Path) -> None:
        await self._fill_up(small_disk / "store.db", lambda: (small_disk / "ballast").write_bytes(b""))

    async def test_file_size_limit(self, sqlite_path: str) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            await self._fill_up(Path(sqlite_path), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async def _fill_up(self, path: Path, make_room: object) -> None:
        assert callable(make_room)
        if path.parent.name == "disk":
            (path.parent / "ballast").write_bytes(b"x" * (2 << 20))
        async with opened(sqlite(path)) as store:
            written: list[KeyValue] = []
            failures: list[StoreError] = []
            while len(failures) < 12:
                puts = (store.put(f"/{len(written)}/{n}", os.urandom(20_000)) for n in range(4))
                for outcome in await asyncio.gather(*puts, return_exceptions=True):
                    (written if isinstance(outcome, KeyValue) else failures).append(outcome)  # type: ignore
            assert all(type(failure) is StoreError for failure in failures)
            assert all(re.search("full|I/O error", str(failure)) for failure in failures)
            assert written
            revision = written[-1].mod_revision
            assert await store.revision() == revision
            assert [await store.get(kv.key) for kv in written] == written
            make_room()
            more = await fill(store, "/more/", 3)
            assert more[0].mod_revision == revision + 1
        async with opened(sqlite(path)) as store:
            assert [await store.get(kv.key) for kv in written + more] == written + more
            assert len((await store.range("/")).items) == len(written + more)


class TestSpace:
    async def test_of_what_is_compacted_is_used_again(self, sqlite_path: str) -> None:
        sizes = []
        async with opened(sqlite(sqlite_path)) as store:
            for _ in range(8):
                for n in range(300):
                    await store.put(f"/{n % 20}", os.urandom(2000))
                await store.compact(await store.revision())
                await fill(store, "/tick", 20)
                sizes.append(os.path.getsize(sqlite_path) + os.path.getsize(f"{sqlite_path}-wal"))
        assert sizes[-1] <= sizes[2] * 1.1
        assert os.path.getsize(sqlite_path) < 3_000_000

    async def test_sweeping_goes_on_after_a_restart(self, sqlite_path: str, tmp_path: Path) -> None:
        async with opened(sqlite(sqlite_path)) as store:
            for n in range(1000):
                await store.put(f"/{n % 10}", b"x" * 100)
            revision = await store.revision()
            await store.compact(revision)
            copy = tmp_path / "copy"  # as it is in the middle of the sweep
            for suffix in ("", "-wal"):
                shutil.copyfile(sqlite_path + suffix, f"{copy}{suffix}")
        async with opened(sqlite(copy)) as store:
            history = store._history  # type: ignore[attr-defined]
            while history.sweepable:
                await asyncio.sleep(0.001)
            assert history._one("SELECT count(*) FROM history")[0] <= 11
            assert len((await store.range("/")).items) == 10
            assert await store.revision() == revision
