"""`subPath`: a part of a volume in a container, without a way out of the volume.

The files of a volume belong to the pod, which may swap a directory for a symbolic link to the node's own files
at any moment, also between a check and a use. So the path is opened step by step without following links, and
what is mounted into the container is what was opened, not the path (CVE-2017-1002101, CVE-2021-25741).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from shipwheel.kubelet.volumes.mounting import Mounter


class SubPathError(Exception):
    """The path cannot be had, or leaves its volume."""


def check(sub_path: str) -> None:
    """Refuse paths that are absolute or go up. Raises SubPathError."""
    if sub_path.startswith("/"):
        raise SubPathError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise SubPathError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")


def bind(volume: Path, sub_path: str, target: Path, mounter: Mounter) -> Path:
    """Show a part of a volume at `target`; a part that is not there becomes a directory. Returns where it is to
    be had. Raises SubPathError, OSError."""
    descriptor, real = _open_within(volume, sub_path)
    try:
        if not mounter.privileged:
            return real
        opened = os.fstat(descriptor)
        if mounter.is_mount_point(target):
            if os.path.samestat(os.lstat(target), opened):
                return target
            mounter.unmount(str(target), lazily=True)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if stat.S_ISDIR(opened.st_mode):
            target.mkdir(exist_ok=True, mode=0o750)
        else:
            target.touch(0o640)
        mounter.bind(f"/proc/self/fd/{descriptor}", str(target))
        return target
    finally:
        os.close(descriptor)


def _open_within(volume: Path, sub_path: str) -> tuple[int, Path]:
    """A descriptor (O_PATH) of the part, and its path without links."""
    base = volume.resolve(strict=True)
    real = (base / sub_path).resolve()
    if not real.is_relative_to(base):
        raise SubPathError(f'subpath "{real}" not within volume path "{base}"')
    mode = stat.S_IMODE(base.stat().st_mode)
    descriptor = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in real.relative_to(base).parts:
            step = _step(descriptor, name, mode)
            os.close(descriptor)
            descriptor = step
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise SubPathError(f'error opening subpath "{real}": unexpected symlink found "{name}"')
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, real


def _step(directory: int, name: str, mode: int) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        try:
            os.mkdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        made = os.open(name, flags, dir_fd=directory)
        if stat.S_ISDIR(os.fstat(made).st_mode):
            # By the descriptor: the umask must not matter, nor a link that took the directory's place.
            os.chmod(f"/proc/self/fd/{made}", mode)
        return made
