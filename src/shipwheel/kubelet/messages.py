"""The message that a container leaves when it ends: from its file, or from the end of its log.

The runtime's log format is one line a write: time, stream, `F` (full) or `P` (partial), text.
"""

from __future__ import annotations

import os
from pathlib import Path

from shipwheel.kubelet.observed import MESSAGE_PATH, MESSAGE_POLICY
from shipwheel.kubelet.runtime.base import Container

FILE_BYTES = 4096
LOG_BYTES = 2048
LOG_LINES = 80


def termination_message(container: Container) -> str:
    """What a container that ended said; empty when it said nothing."""
    fallback = (
        container.annotations.get(MESSAGE_POLICY) == "FallbackToLogsOnError"
        and container.exit_code != 0
        and container.reason != "ContainerCannotRun"
    )
    path = container.annotations.get(MESSAGE_PATH)
    host = next((each.host_path for each in container.mounts if path and each.container_path == path), "")
    text = ""
    if host:
        try:
            text = _tail(Path(host), FILE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"Error on reading termination log {host}: {error.strerror}"
    if not text and fallback and container.log_path:
        return log_tail(Path(container.log_path))
    return text


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size)


def log_tail(path: Path) -> str:
    """The end of a container's log, without its times: at most 80 lines and 2 kB."""
    try:
        raw = _tail(path, 64 * 1024)
    except OSError as error:
        return f"Error on reading termination message from logs: {error.strerror}"
    written = []
    for line in raw.splitlines()[-LOG_LINES:]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            written.append(parts[3] + (b"\n" if parts[2] == b"F" else b""))
    return b"".join(written)[-LOG_BYTES:].decode(errors="replace")
