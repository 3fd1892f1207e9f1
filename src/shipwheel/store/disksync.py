"""Wait for the disk without holding up Python, and without Python holding up the answer.

A write is acknowledged when `fdatasync` has returned. A thread could wait for it, but the thread needs the
interpreter lock to say that it is done, and a busy event loop lets go of that lock only for instants: with a loop
kept busy by short callbacks the answer of a 0.15 ms sync was seen 30 ms late on average, and once a second. The
kernel's io_uring does the same work and wakes the event loop through a file descriptor, with no lock involved:
0.15 ms, and 0.25 ms under that load. Where io_uring is missing or forbidden (macOS, old kernels, most container
sandboxes) a thread it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from shipwheel.store.uring import Ring, Unsupported


class DiskSync(Protocol):
    async def sync(self, fd: int) -> None:
        """Return when all that was written to `fd` is on the disk; OSError when it may not be.

        One call at a time.
        """

    def close(self) -> None:
        """Let go of everything."""


def open_disk_sync() -> DiskSync:
    """The best way that this machine allows."""
    with contextlib.suppress(OSError, Unsupported):
        return UringSync(Ring())
    return ThreadSync()


class UringSync:
    """`fdatasync` by the kernel's own workers."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] | None = None
        self._loop.add_reader(ring.completed, self._on_completed)

    async def sync(self, fd: int) -> None:
        self._done = self._loop.create_future()
        self._ring.submit_fdatasync(fd)
        result = await self._done
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def _on_completed(self) -> None:
        for result in self._ring.results():
            if self._done is not None and not self._done.done():
                self._done.set_result(result)

    def close(self) -> None:
        self._loop.remove_reader(self._ring.completed)
        self._ring.close()


class ThreadSync:
    """`fdatasync` by a thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "disksync")

    async def sync(self, fd: int) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, _fdatasync, fd)

    def close(self) -> None:
        self._thread.shutdown()


_fdatasync = getattr(os, "fdatasync", os.fsync)
