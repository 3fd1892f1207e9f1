"""hostPath: a file or directory of the node itself. It is checked, or made, and never deleted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


async def _set_up(request: Request, host: Host) -> None:
    check(request.source.get("path", ""), request.source.get("type") or "")


def check(path: str, kind: str) -> None:
    """See that `path` is what the volume's type says, and make it if it says so too. Raises VolumeError."""
    if not kind:
        return
    wanted = kind.removesuffix("OrCreate")
    if wanted not in _CHECKS or (kind != wanted and wanted not in ("Directory", "File")):
        raise VolumeError(f"{kind} is an invalid volume type")
    if kind != wanted and not os.path.exists(path):
        try:
            _make(path, wanted)
        except OSError as error:
            raise VolumeError(f"{error.filename}: {(error.strerror or '').lower()}") from error
    matches, name = _CHECKS[wanted]
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = 0
    if not matches(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {name}")


def _make(path: str, kind: str) -> None:
    if kind == "Directory":
        os.makedirs(path, 0o755)
        os.chmod(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


PLUGIN = Plugin(
    source="hostPath",
    name="kubernetes.io/host-path",
    set_up=_set_up,
    owned=False,
    relabelled=False,
    locate=lambda request: Path(request.source.get("path", "")),
)
