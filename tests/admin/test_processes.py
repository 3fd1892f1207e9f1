"""The parts of a process: which failures stay among themselves, and which end it."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from shipwheel.admin import kept, node_agent
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.kept import HOPELESS
from shipwheel.network.dns.server import CannotListen


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RETRY_DELAY", 0.0)


async def test_a_part_that_cannot_start_ends_the_process() -> None:
    starts = 0

    async def fail() -> None:
        nonlocal starts
        starts += 1
        raise OSError("out of coffee")

    with pytest.raises(OSError, match="out of coffee"):
        await kept.kept("part", fail)
    assert starts == HOPELESS


async def test_a_part_that_fails_later_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = 0
    running = asyncio.Event()
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr(kept, "time", SimpleNamespace(monotonic=lambda: next(times)))

    async def fail_after_a_while() -> None:
        nonlocal starts
        starts += 1
        if starts > 2 * HOPELESS:
            running.set()
            await asyncio.Event().wait()
        raise OSError("out of coffee")

    task = asyncio.create_task(kept.kept("part", fail_after_a_while))
    await running.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_explains_itself_needs_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cannot_listen())

    async def cannot_listen() -> None:
        raise CannotListen("127.0.0.1", port, "Address already in use")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ClusterError) as caught:
            await kept.kept("DNS", lambda: node_agent._dns(fail()))
    assert str(caught.value).startswith(
        f"the DNS server cannot listen on 127.0.0.1, port {port}: Address already in use; process {os.getpid()} ("
    )
    assert [each.getMessage() for each in caplog.records] == [f"DNS failed: {caught.value}"] * 3
    assert not any(each.exc_info for each in caplog.records)
