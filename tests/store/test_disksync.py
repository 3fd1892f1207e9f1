"""Both ways to wait for the disk."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shipwheel.store.disksync import DiskSync, ThreadSync, UringSync, open_disk_sync
from shipwheel.store.uring import Ring, Unsupported


def uring() -> DiskSync:
    try:
        return UringSync(Ring())
    except (OSError, Unsupported) as error:
        pytest.skip(f"no io_uring: {error}")


@pytest.mark.parametrize("make", [uring, ThreadSync, open_disk_sync])
class TestSync:
    async def test_returns_when_it_is_done(self, make: Callable[[], DiskSync], tmp_path: Path) -> None:
        sync = make()
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        for _ in range(20):
            os.write(fd, b"x" * 5000)
            await asyncio.wait_for(sync.sync(fd), 10)
        os.close(fd)
        sync.close()

    async def test_tells_what_went_wrong(self, make: Callable[[], DiskSync]) -> None:
        sync = make()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await sync.sync(999)
        reading, writing = os.pipe()
        with pytest.raises(OSError, match="Invalid argument"):
            await sync.sync(writing)
        os.close(reading)
        os.close(writing)
        sync.close()

    async def test_leaves_no_descriptor_open(self, make: Callable[[], DiskSync]) -> None:
        gc.collect()
        before = set(os.listdir("/proc/self/fd"))
        make().close()
        assert set(os.listdir("/proc/self/fd")) <= before


async def test_without_io_uring_a_thread_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Ring:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("shipwheel.store.disksync.Ring", refuse)
    sync = open_disk_sync()
    assert isinstance(sync, ThreadSync)
    sync.close()
