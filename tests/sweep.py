"""Nothing of a test stays on the machine, even if the test's process is killed: mounts, containers, cgroups.

A fixture cleans up behind itself as long as it runs. A second process, in a session of its own, waits for the end of
the first (or of its `with` block) and removes what is still there then.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shipwheel.admin.kernel import children, command_of, kill, processes, remove_empty_cgroups, terminate, unmount_below

PATIENCE = 10.0


@contextmanager
def swept(directory: Path, *, cgroup: str = "") -> Iterator[Path]:
    """Remove a directory in the end, what is mounted below it, what runs with a path below it among its arguments,
    with all its children, and a cgroup."""
    command = [sys.executable, "-m", "tests.sweep", str(directory), cgroup]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield directory
    finally:
        waiting.communicate()


def _belonging(directory: Path) -> Iterator[int]:
    """Those that use the directory before their children."""
    found = [pid for pid in processes() if any(f"{directory}/" in part for part in command_of(pid))]
    while found:
        yield from found
        found = [child for pid in found for child in children(pid)]


async def _sweep(directory: Path, cgroup: str) -> None:
    for pid in list(_belonging(directory)):
        await terminate(pid, 0)
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)
    deadline = time.monotonic() + PATIENCE
    while (found := _cgroups(cgroup)) and time.monotonic() < deadline:
        for procs in [procs for each in found for procs in each.rglob("cgroup.procs")]:
            # A container that was just being made has left the one that made it.
            with contextlib.suppress(OSError):
                for pid in procs.read_text().split():
                    kill(int(pid))
        remove_empty_cgroups(cgroup)
        await asyncio.sleep(0.05)


def _cgroups(name: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/{name}")) if name else []


if __name__ == "__main__":
    sys.stdin.read()
    asyncio.run(_sweep(Path(sys.argv[1]), sys.argv[2]))
