"""Files that change all at once.

A reader must never see half of an update (a certificate with the old key). So the files are in a directory of
their own, named after its time; `..data` links to it and is renamed over; what users see are links through
`..data`. Upstream's volumes have this form, and programs that watch for changes of `..data` rely on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_DATA = "..data"
_NEW_DATA = "..data_tmp"
_MAX_PATH, _MAX_NAME = 4096, 255


@dataclass(frozen=True, slots=True)
class FileProjection:
    data: bytes
    mode: int
    user: int | None = None
    """Who shall own the file; None: root."""


Payload = Mapping[str, FileProjection]
"""By path relative to the volume."""


class PayloadError(ValueError):
    """A path that would leave the volume."""


def write(
    target: Path,
    payload: Payload,
    *,
    now: datetime,
    chown: Callable[[str, int, int], None],
    set_permissions: Callable[[], None] = lambda: None,
) -> bool:
    """Make `target` show exactly `payload`; returns whether anything had to change. `set_permissions` is called
    when the new files are there and nobody sees them yet. Raises PayloadError, OSError."""
    payload = {os.path.normpath(_checked(path)): file for path, file in payload.items()}
    data = target / _DATA
    old_name = os.readlink(data) if data.is_symlink() else ""
    old = target / old_name if old_name else None
    gone: set[str] = set()
    if old is not None:
        gone = _paths_below(old) - payload.keys()
        if not gone and all(_same(old / path, file.data) for path, file in payload.items()):
            _link_visible(target, payload)
            return False
    directory = Path(tempfile.mkdtemp(prefix=now.strftime("..%Y_%m_%d_%H_%M_%S."), dir=target))
    directory.chmod(0o755)
    try:
        for path, file in payload.items():
            _write_file(directory / path, file, chown)
        set_permissions()
        (target / _NEW_DATA).unlink(missing_ok=True)
        (target / _NEW_DATA).symlink_to(directory.name)
        (target / _NEW_DATA).rename(data)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    _link_visible(target, payload)
    shown = {path.split("/", 1)[0] for path in payload}
    for name in {path.split("/", 1)[0] for path in gone} - shown:
        (target / name).unlink(missing_ok=True)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _checked(path: str) -> str:
    if not path:
        raise PayloadError('invalid path: must not be empty: ""')
    if path.startswith("/"):
        raise PayloadError(f"invalid path: must be relative path: {path}")
    if len(path) > _MAX_PATH:
        raise PayloadError(f"invalid path: must be less than or equal to {_MAX_PATH} characters")
    items = path.split("/")
    if ".." in items:
        raise PayloadError(f"invalid path: must not contain '..': {path}")
    if any(len(item) > _MAX_NAME for item in items):
        raise PayloadError(f"invalid path: filenames must be less than or equal to {_MAX_NAME} characters")
    if items[0].startswith(".."):
        raise PayloadError(f"invalid path: must not start with '..': {path}")
    return path


def _write_file(path: Path, file: FileProjection, chown: Callable[[str, int, int], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    # The umask must not take away what was asked for.
    path.chmod(file.mode)
    if file.user is not None:
        chown(str(path), file.user, -1)


def _paths_below(directory: Path) -> set[str]:
    return {str((Path(at) / name).relative_to(directory)) for at, _, names in os.walk(directory) for name in names}


def _same(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _link_visible(target: Path, payload: Payload) -> None:
    for name in {path.split("/", 1)[0] for path in payload}:
        link = target / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
