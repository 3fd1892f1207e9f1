"""What a simulated program is, and what it sees of its container.

A program is a generator: it yields what it says and how long it waits, so whoever runs it decides what time is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Output:
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float
    """Infinity: for ever."""


Event = Output | Sleep
Program = Generator[Event, None, int]
"""Returns the exit code."""

STEP = Sleep(0.001)
"""What a turn of a loop takes, so that no loop is endless in no time."""
FOREVER = Sleep(float("inf"))


@dataclass(slots=True)
class World:
    """What a program sees of its container."""

    env: dict[str, str]
    hostname: str
    files: dict[str, bytes]
    """What was written, by absolute path; shared by all programs of a container."""
    mounts: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Path inside to (path on the node, read-only)."""
    working_dir: str = "/"
    user: int = 0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    kill: Callable[[int], None] = lambda signal: None
    """Send a signal to the container's first process."""

    def path(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self.working_dir, name))

    def _on_node(self, path: str) -> tuple[Path, bool] | None:
        """Where a path under a mount is on the node, and whether it is read-only."""
        for inside in sorted(self.mounts, key=len, reverse=True):
            if path == inside or path.startswith(inside.rstrip("/") + "/"):
                place, read_only = self.mounts[inside]
                rest = path[len(inside) :].strip("/")
                return (Path(place) / rest if rest else Path(place)), read_only
        return None

    def read(self, name: str) -> bytes:
        """Raises OSError."""
        path = self.path(name)
        if path == "/dev/null":
            return b""
        mounted = self._on_node(path)
        if mounted is not None:
            return mounted[0].read_bytes()
        if path in self.files:
            return self.files[path]
        if self.is_directory(name):
            raise IsADirectoryError(21, "Is a directory")
        raise FileNotFoundError(2, "No such file or directory")

    def write(self, name: str, data: bytes, *, append: bool = False) -> None:
        """Raises OSError."""
        path = self.path(name)
        if path.startswith("/dev/"):
            return
        mounted = self._on_node(path)
        if mounted is None:
            self.files[path] = (self.files.get(path, b"") if append else b"") + data
            return
        place, read_only = mounted
        if read_only:
            raise OSError(30, "Read-only file system")
        with place.open("ab" if append else "wb") as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Raises OSError."""
        path = self.path(name)
        mounted = self._on_node(path)
        if mounted is not None:
            if mounted[1]:
                raise OSError(30, "Read-only file system")
            mounted[0].unlink()
        elif path in self.files:
            del self.files[path]
        else:
            raise FileNotFoundError(2, "No such file or directory")

    def is_directory(self, name: str) -> bool:
        path = self.path(name)
        mounted = self._on_node(path)
        if mounted is not None:
            return mounted[0].is_dir()
        if path in ("/", "/tmp", "/etc", "/var", "/root", "/home", "/usr", "/bin", "/dev", "/proc", "/sys"):
            return True
        prefix = path.rstrip("/") + "/"
        return any(each.startswith(prefix) for each in (*self.files, *self.mounts))

    def exists(self, name: str) -> bool:
        try:
            self.read(name)
        except IsADirectoryError:
            return True
        except OSError:
            return self.is_directory(name)
        return True

    def names(self, name: str) -> list[str]:
        """What a directory holds. Raises OSError."""
        path = self.path(name)
        mounted = self._on_node(path)
        if mounted is not None:
            return sorted(each.name for each in mounted[0].iterdir())
        if not self.is_directory(name):
            raise FileNotFoundError(2, "No such file or directory")
        prefix = path.rstrip("/") + "/"
        below = (each[len(prefix) :] for each in (*self.files, *self.mounts) if each.startswith(prefix))
        return sorted({each.split("/")[0] for each in below if each})


Unknown = Callable[[Sequence[str]], Program]


def not_found(command: Sequence[str]) -> Program:
    """What a shell says of a program that is not there."""
    yield Output("stderr", f"sh: {command[0]}: not found\n".encode())
    return 127


def complain(who: str, what: str, error: Exception) -> Output:
    """A failure as programs tell it: `cat: can't open 'x': No such file or directory`."""
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Output("stderr", f"{who}: {what}: {why}\n".encode())
