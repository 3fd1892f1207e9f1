"""Reading a container's log: the file that the runtime writes in the CRI log format.

A line is `TIME STREAM TAGS CONTENT`; a content longer than the runtime's limit comes in several lines, all but the last
tagged `P` (partial). The file is renamed when it has grown large, and a new one appears under its name.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.meta import Obj

POLL_SECONDS = 0.1
CHECK_SECONDS = 1.0
"""How often the runtime is asked whether the container still runs: it costs more than a look at the file."""
_BLOCK = 1 << 16


class LogError(Exception):
    """The log cannot be read; the message is for the client."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`PodLogOptions`, as far as a kubelet acts on them. None: not limited."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"
    """`All`, `Stdout` or `Stderr`."""


@dataclass(frozen=True, slots=True)
class LogLine:
    time: bytes
    stream: bytes
    content: bytes
    """Ends with a line feed unless more of it follows."""


def parse_line(raw: bytes) -> LogLine | None:
    """A line of a log file; None when it is not in the CRI format."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    time, stream, tags, content = parts
    if tags.split(b":", 1)[0] == b"P":
        content = content.removesuffix(b"\n")
    return LogLine(time, stream, content)


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of a file begin. A last line without a line feed counts."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    position, found = end, 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if position + at + 1 == end:
                continue
            found += 1
            if found == lines:
                return position + at + 1
    return 0


class _Selection:
    """Which lines the client wants, and in what form."""

    def __init__(self, options: LogOptions) -> None:
        self._since = options.since
        self._timestamps = options.timestamps
        self._remaining = options.limit_bytes
        self._stream = options.stream.lower().encode() if options.stream != "All" else b""
        self._at_line_start = True

    @property
    def exhausted(self) -> bool:
        return self._remaining is not None and self._remaining <= 0

    def take(self, line: LogLine) -> bytes:
        """What to send of a line."""
        if self._since is not None:
            if _time(line.time) < self._since:
                return b""
            # Times only grow, so the first line that is late enough ends the search.
            self._since = None
        starts, self._at_line_start = self._at_line_start, line.content.endswith(b"\n") or not line.content
        if self._stream and line.stream != self._stream:
            return b""
        content = line.time + b" " + line.content if self._timestamps and starts else line.content
        if self._remaining is not None:
            content = content[: self._remaining]
            self._remaining -= len(content)
        return content


def _time(text: bytes) -> datetime:
    try:
        return parse_time(text.decode())
    except ValueError as error:
        raise LogError(f"failed to get parse function: unsupported log format: {text!r}") from error


class ContainerLog:
    """The log file under a path, whatever file that is at the moment. Raises LogError when there is none."""

    def __init__(self, path: str) -> None:
        try:
            self._path = os.path.realpath(path, strict=True)
        except OSError as error:
            raise LogError(
                f'failed to try resolving symlinks in path "{path}": lstat {path}: {(error.strerror or "").lower()}'
            ) from error
        self.file = open(self._path, "rb")  # noqa: SIM115 - closed by close()
        self._rest = b""

    def close(self) -> None:
        self.file.close()

    def lines(self, *, whole_only: bool) -> Iterator[bytes]:
        """Lines up to the present end; with `whole_only` an unfinished last one is kept for later."""
        while block := self.file.read(_BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if self._rest and not whole_only:
            rest, self._rest = self._rest, b""
            yield rest

    def reopen_if_rotated(self) -> bool:
        """Go on with the file that has taken the path, once the old one is read."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        if os.path.samestat(now, os.fstat(self.file.fileno())):
            if now.st_size >= self.file.tell():
                return False
            self.file.seek(0)  # It was cut off and begun anew.
            return True
        self.file.close()
        self.file = open(self._path, "rb")  # noqa: SIM115
        self._rest = b""
        return True


async def copy_log(
    log: ContainerLog,
    options: LogOptions,
    write: Callable[[bytes], Awaitable[None]],
    *,
    running: Callable[[], Awaitable[bool]],
    clock: Clock,
) -> None:
    """Send a log through `write` and close it; with `follow`, until the container has ended. Raises LogError."""
    selection = _Selection(options)
    try:
        if options.tail_lines is not None:
            log.file.seek(tail_offset(log.file, options.tail_lines))
        ended = False
        checked = clock.monotonic() - CHECK_SECONDS
        while True:
            for block in _blocks(log.lines(whole_only=options.follow and not ended), selection):
                await write(block)
            if selection.exhausted or not options.follow or ended:
                return
            if log.reopen_if_rotated():
                continue
            if clock.monotonic() - checked >= CHECK_SECONDS:
                # When it has ended, the file is read once more: what came in between is not lost.
                checked = clock.monotonic()
                ended = not await running()
            if not ended:
                await clock.sleep(POLL_SECONDS)
    finally:
        log.close()


def _blocks(lines: Iterator[bytes], selection: _Selection) -> Iterator[bytes]:
    """What to send of the lines, gathered into pieces worth a write."""
    gathered: list[bytes] = []
    size = 0
    for raw in lines:
        line = parse_line(raw)
        if line is None:
            continue
        content = selection.take(line)
        gathered.append(content)
        size += len(content)
        if size >= _BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
        if selection.exhausted:
            break
    if size:
        yield b"".join(gathered)


def container_to_read(pod: Obj, container: str, *, previous: bool) -> str:
    """The id (`containerd://...`) of the container whose log is meant by a pod's container name: the running one,
    else the last that ran. Raises LogError in upstream's words."""
    name = pod["metadata"]["name"]
    statuses = pod.get("status") or {}
    status: Obj | None = next(
        (
            each
            for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
            for each in statuses.get(field) or ()
            if each["name"] == container
        ),
        None,
    )
    where = f'container "{container}" in pod "{name}"'
    if status is None:
        raise LogError(f"{where} is not available")
    state = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    last_id = (last or {}).get("containerID", "")
    if previous:
        if not last_id:
            raise LogError(f"previous terminated {where} not found")
        return last_id
    if "running" in state:
        return status.get("containerID", "")
    if "terminated" in state or last is not None:
        found = (state.get("terminated") or {}).get("containerID") or last_id
        if not found:
            raise LogError(f"{where} is terminated")
        return found
    if "waiting" in state:
        reason = state["waiting"].get("reason", "")
        known = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }
        raise LogError(f"{where} is waiting to start: {known.get(reason, reason)}")
    raise LogError(f"{where} is waiting to start - no logs yet")
