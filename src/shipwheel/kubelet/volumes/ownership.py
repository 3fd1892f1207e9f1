"""`fsGroup`: a volume's files belong to a group that all of the pod's processes are in.

Directories get the setgid bit, so that what is made in them later belongs to the group as well.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_READ_WRITE, _READ_ONLY, _SEARCH = 0o660, 0o440, 0o110

Chown = Callable[[str, int, int], None]


def apply(directory: Path, group: int, *, read_only: bool, policy: str, chown: Chown) -> None:
    """Give everything at and under `directory` to the group; with the policy `OnRootMismatch` only if the
    directory itself is not right yet, which is why it is changed last."""
    if policy == "OnRootMismatch" and _is_right(directory, group, read_only):
        return
    for path in _deepest_first(str(directory)):
        _change(path, group, read_only, chown)


def _change(path: str, group: int, read_only: bool, chown: Chown) -> None:
    info = os.lstat(path)
    chown(path, -1, group)
    if stat.S_ISLNK(info.st_mode):
        return
    mode = stat.S_IMODE(info.st_mode) | (_READ_ONLY if read_only else _READ_WRITE)
    if stat.S_ISDIR(info.st_mode):
        mode |= _SEARCH | stat.S_ISGID
    os.chmod(path, mode)


def _is_right(directory: Path, group: int, read_only: bool) -> bool:
    info = directory.stat()
    wanted = (_READ_ONLY if read_only else _READ_WRITE) | _SEARCH | stat.S_ISGID
    return info.st_gid == group and info.st_mode & wanted == wanted


def _deepest_first(path: str) -> Iterator[str]:
    if os.path.isdir(path) and not os.path.islink(path):
        with os.scandir(path) as entries:
            for entry in entries:
                yield from _deepest_first(entry.path)
    yield path
