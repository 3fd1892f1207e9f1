"""What processes use, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. Proportional: pages that n processes share count 1/n to each."""

    resident: int
    proportional: int


def memory(pids: Iterable[int]) -> Memory:
    """The sums over processes; one that has ended counts nothing."""
    resident = proportional = 0
    for pid in pids:
        for line in _lines(f"/proc/{pid}/smaps_rollup"):
            name, _, rest = line.partition(":")
            if name == "Rss":
                resident += int(rest.split()[0]) * 1024
            elif name == "Pss":
                proportional += int(rest.split()[0]) * 1024
    return Memory(resident, proportional)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time used so far."""
    ticks = 0
    for pid in pids:
        for line in _lines(f"/proc/{pid}/stat"):
            fields = line.rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def command(pid: int) -> str:
    """The name of its program; empty when it has ended."""
    return "".join(_lines(f"/proc/{pid}/comm"))


def parent(pid: int) -> int:
    for line in _lines(f"/proc/{pid}/stat"):
        return int(line.rpartition(")")[2].split()[1])
    return 0


def children(pid: int) -> list[int]:
    """Those that any of its threads started."""
    tables = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in tables for line in _lines(str(each)) for child in line.split()]


def listening_on(port: int) -> list[int]:
    """Processes of this machine that listen on a TCP port; needs the rights to look at them."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(table)[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _sockets(entry) & inodes]


def _sockets(pid: str) -> set[str]:
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    except OSError:  # it has ended, or is not ours to look at
        pass
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
