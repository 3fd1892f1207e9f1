"""Keeping containers' logs small: a log that has grown too large is renamed and the runtime told to begin another.

    0.log   0.log.20260131-120000   0.log.20260131-110000.gz ...

The newest rotated file stays as it is, since a reader may still follow it; older ones are compressed.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

_STAMP = "%Y%m%d-%H%M%S"
_SCRATCH = ".tmp"


async def rotate(log: Path, *, maximum: int, files: int, now: datetime, reopen: Callable[[], Awaitable[None]]) -> bool:
    """Rotate a log that is larger than `maximum` bytes, so that at most `files` are left; returns whether it was.

    OSError when a file cannot be handled, and whatever `reopen` raises; the log is then as it was.
    """
    if not is_larger(log, maximum):
        return False
    # Compressing takes a while: not in the loop that everything else runs in.
    await asyncio.to_thread(make_room, log, files)
    moved = move_aside(log, now)
    try:
        await reopen()
    except BaseException:
        os.replace(moved, log)
        raise
    return True


def is_larger(log: Path, maximum: int) -> bool:
    try:
        return log.stat().st_size >= maximum
    except FileNotFoundError:
        return False


def make_room(log: Path, files: int) -> None:
    """Remove the oldest rotated files and compress the others."""
    for file in _to_remove(_rotated(log), files):
        file.unlink(missing_ok=True)
    for file in _rotated(log):
        if file.suffix != ".gz":
            _compress(file)


def move_aside(log: Path, now: datetime) -> Path:
    """Give the log the name of a rotated one; returns it."""
    moved = log.with_name(f"{log.name}.{now.strftime(_STAMP)}")
    log.rename(moved)
    return moved


def _rotated(log: Path) -> list[Path]:
    """The rotated files of a log, the oldest first. Half-made ones are removed."""
    found = []
    for file in log.parent.glob(f"{log.name}.*"):
        if file.suffix == _SCRATCH:
            file.unlink(missing_ok=True)
        else:
            found.append(file)
    return sorted(found)


def _to_remove(rotated: list[Path], files: int) -> list[Path]:
    """So many that with the log itself and the file it becomes `files` are left."""
    return rotated[: max(0, len(rotated) - (files - 2))]


def _compress(file: Path) -> None:
    scratch = file.with_name(file.name + _SCRATCH)
    with file.open("rb") as source, gzip.open(scratch, "wb") as target:
        shutil.copyfileobj(source, target)
    shutil.copymode(file, scratch)
    os.replace(scratch, file.with_name(file.name + ".gz"))
    file.unlink()
