"""Reading logs in the CRI format: selection, partial lines, following, rotation."""

from __future__ import annotations

import asyncio
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import ManualClock
from shipwheel.kubelet.server.container_logs import (
    CHECK_SECONDS,
    POLL_SECONDS,
    ContainerLog,
    LogError,
    LogOptions,
    container_to_read,
    copy_log,
    tail_offset,
)

LINES = [
    b"2026-01-01T00:00:00.000000001Z stdout F one\n",
    b"2026-01-01T00:00:01.000000001Z stderr F two\n",
    b"2026-01-01T00:00:02.000000001Z stdout P thr\n",
    b"2026-01-01T00:00:02.100000001Z stdout F ee\n",
    b"2026-01-01T01:00:03.000000001+01:00 stdout F four words are here\n",
]


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(b"".join(LINES))
        self.clock = ManualClock()
        self.running = True
        self.sent = b""

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    async def copy(self, **options: object) -> bytes:
        async def write(data: bytes) -> None:
            self.sent += data

        async def running() -> bool:
            return self.running

        log = ContainerLog(str(self.path))
        await copy_log(log, LogOptions(**options), write, running=running, clock=self.clock)  # type: ignore[arg-type]
        return self.sent


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "0.log")


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, b"one\ntwo\nthree\nfour words are here\n"),
        ({"tail_lines": 1}, b"four words are here\n"),
        ({"tail_lines": 2}, b"ee\nfour words are here\n"),
        ({"tail_lines": 0}, b""),
        ({"tail_lines": 99}, b"one\ntwo\nthree\nfour words are here\n"),
        ({"limit_bytes": 6}, b"one\ntw"),
        ({"stream": "Stderr"}, b"two\n"),
        ({"stream": "Stdout", "limit_bytes": 5}, b"one\nt"),
        (
            {"timestamps": True, "tail_lines": 4},
            b"2026-01-01T00:00:01.000000001Z two\n"
            b"2026-01-01T00:00:02.000000001Z three\n"
            b"2026-01-01T01:00:03.000000001+01:00 four words are here\n",
        ),
        ({"since": datetime(2026, 1, 1, 0, 0, 2, 50000, tzinfo=UTC)}, b"ee\nfour words are here\n"),
        ({"since": datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)}, b""),
    ],
)
async def test_selection(log: Log, options: dict[str, object], sent: bytes) -> None:
    assert await log.copy(**options) == sent


async def test_a_last_line_without_its_end_is_shown(log: Log) -> None:
    log.append(b"2026-01-01T00:00:05Z stdout F half")
    assert (await log.copy(tail_lines=1)) == b"half"


async def test_lines_in_no_known_format_are_passed_over(log: Log) -> None:
    log.append(b"garbage\n\n2026-01-01T00:00:05Z stdout F end\n")
    assert (await log.copy(tail_lines=3)) == b"end\n"


async def test_following_sees_what_comes_and_ends_with_the_container(log: Log) -> None:
    copying = asyncio.create_task(log.copy(follow=True, tail_lines=0))
    await log.clock.advance(1)
    log.append(b"2026-01-01T00:00:05Z stdout F no")
    await log.clock.advance(POLL_SECONDS * 2)
    assert log.sent == b"", "an unfinished line waits for its end"
    log.append(b"w\n")
    await log.clock.advance(POLL_SECONDS * 2)
    assert log.sent == b"now\n"
    log.append(b"2026-01-01T00:00:06Z stdout F last\n")
    log.running = False
    await log.clock.advance(CHECK_SECONDS + POLL_SECONDS)
    assert await copying == b"now\nlast\n"


async def test_following_goes_on_in_the_next_file(log: Log) -> None:
    copying = asyncio.create_task(log.copy(follow=True, tail_lines=0))
    await log.clock.advance(1)
    log.append(b"2026-01-01T00:00:05Z stdout F before\n")
    log.path.rename(log.path.with_suffix(".rotated"))
    await log.clock.advance(POLL_SECONDS * 2)
    log.path.write_bytes(b"2026-01-01T00:00:06Z stdout F after\n")
    log.running = False
    await log.clock.advance(CHECK_SECONDS + POLL_SECONDS)
    assert await copying == b"before\nafter\n"


def test_a_log_that_is_not_there() -> None:
    with pytest.raises(LogError, match="failed to try resolving symlinks in path"):
        ContainerLog("/nowhere/0.log")


async def test_a_link_is_followed(log: Log, tmp_path: Path) -> None:
    link = tmp_path / "link.log"
    os.symlink(log.path, link)
    log.path = link
    assert (await log.copy(tail_lines=1)) == b"four words are here\n"


@given(st.lists(st.integers(0, 90_000), max_size=6), st.integers(0, 8), st.booleans())
def test_the_tail_of_any_file(lengths: list[int], lines: int, complete: bool) -> None:
    rows = [b"x" * length + b"\n" for length in lengths]
    if rows and not complete:
        rows[-1] = b"y" + rows[-1][:-1]
    raw = b"".join(rows)
    expected = b"".join(rows[-lines:]) if lines else b""
    assert raw[tail_offset(io.BytesIO(raw), lines) :] == expected


TERMINATED = {"terminated": {"containerID": "containerd://t"}}


@pytest.mark.parametrize(
    ("status", "previous", "found"),
    [
        ({"containerID": "containerd://r", "state": {"running": {}}}, False, "containerd://r"),
        ({"state": TERMINATED}, False, "containerd://t"),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": TERMINATED},
            False,
            "containerd://t",
        ),
        ({"state": {"running": {}}, "lastState": TERMINATED}, True, "containerd://t"),
        ({"state": {"running": {}}}, True, 'previous terminated container "c" in pod "p" not found'),
        (
            {"state": {"waiting": {"reason": "ContainerCreating"}}},
            False,
            'container "c" in pod "p" is waiting to start: ContainerCreating',
        ),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}},
            False,
            'container "c" in pod "p" is waiting to start: trying and failing to pull image',
        ),
        ({"state": {"terminated": {}}}, False, 'container "c" in pod "p" is terminated'),
        (None, False, 'container "c" in pod "p" is not available'),
    ],
)
def test_which_container_is_meant(status: dict | None, previous: bool, found: str) -> None:
    statuses = [{"name": "c", **status}] if status else []
    pod = {"metadata": {"name": "p"}, "status": {"containerStatuses": statuses}}
    try:
        assert container_to_read(pod, "c", previous=previous) == found
    except LogError as error:
        assert str(error) == found
