"""What the kernel tells about this machine, and how to end what runs on it: processes, mounts, cgroups.

Everything here works by number or path and touches nothing it was not given.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

CAP_SYS_RESOURCE = 24
_MNT_DETACH = 2


# --- Capabilities


def has_capability(status: str, number: int) -> bool:
    """Whether a process (its /proc/PID/status) effectively has a capability."""
    line = next(each for each in status.splitlines() if each.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)


# --- Mounts


def filesystem_of(directory: Path, mountinfo: str) -> str:
    """The type of the file system that a directory is on (`ext4`, `overlay`), by /proc/PID/mountinfo."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = _unescape(before.split()[4])
        if (point == "/" or directory.is_relative_to(point)) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def mounts_below(directory: Path, mountinfo: str) -> list[str]:
    """Mount points at or under a directory, the innermost and latest first."""
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]


def unmount_below(directory: Path) -> None:
    """Unmount everything at or under a directory, lazily where it is busy."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in mounts_below(directory, Path("/proc/self/mountinfo").read_text()):
        libc.umount2(os.fsencode(point), _MNT_DETACH)


def _unescape(text: str) -> str:
    """mountinfo writes white space and backslashes as octal."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape") if "\\" in text else text


# --- Cgroups


def remove_empty_cgroups(name: str) -> None:
    """Remove a cgroup and those below it from every hierarchy, where no process is in them."""
    base = Path("/sys/fs/cgroup")
    for top in {base / name, *base.glob(f"*/{name}")}:
        if top.is_dir():
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)


# --- Processes


def network_namespace() -> str:
    """That of this process: `net:[4026531840]`."""
    return os.readlink("/proc/self/ns/net")


def processes() -> Iterator[int]:
    """The numbers of all processes."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def command_of(pid: int) -> list[str]:
    """Its arguments; none when there is no such process, or a kernel thread."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def terminate(pid: int, timeout: float) -> None:
    """SIGTERM, and SIGKILL after `timeout` seconds; returns when the process is gone."""
    kill(pid, signal.SIGTERM if timeout else signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while alive(pid):
        if time.monotonic() > deadline:
            kill(pid)
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
