"""Mounts, by the system calls themselves.

`Mounter` does it; `NoMounter` is for pods whose containers are simulated, on machines without root: volumes are
plain directories then, and nothing changes its owner.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


class MountError(OSError):
    """A mount or its end failed; as text, what the kernel or the file system's helper said."""

    def __str__(self) -> str:
        return self.args[1] if len(self.args) > 1 else super().__str__()


class Mounter:
    """Mounts in the namespace of this process. All paths are absolute."""

    privileged = True

    def mount(self, source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
        """mount(2). Raises MountError."""
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        )
        if done:
            error = ctypes.get_errno()
            raise MountError(error, f"mount {source} at {target}: {os.strerror(error).lower()}")

    def bind(self, source: str, target: str, *, read_only: bool = False, recursive: bool = False) -> None:
        self.mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))
        if read_only:
            self.mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)

    def make_shared(self, path: Path) -> None:
        """See to it that what is mounted below a directory is also seen in containers that share it, and the other way
        round (`mountPropagation`). Raises MountError."""
        if not is_shared(path, Path("/proc/self/mountinfo").read_text()):
            self.bind(str(path), str(path))
            self.mount("none", str(path), flags=MS_SHARED | MS_REC)

    async def mount_by_helper(self, source: str, target: str, kind: str, options: list[str]) -> None:
        """mount(8), for file systems that need a helper program (NFS, iSCSI's file systems by type)."""
        command = ["mount", "-t", kind]
        if options:
            command += ["-o", ",".join(options)]
        process = await asyncio.create_subprocess_exec(
            *command,
            source,
            target,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise MountError(
                process.returncode,
                f"mount failed: exit status {process.returncode}\nMounting command: mount\n"
                f"Mounting arguments: {' '.join([*command[1:], source, target])}\n"
                f"Output: {output.decode(errors='replace')}",
            )

    def unmount(self, target: str, *, lazily: bool = False) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if lazily else 0)):
            error = ctypes.get_errno()
            raise MountError(error, f"unmount {target}: {os.strerror(error).lower()}")

    def mount_points(self, directory: Path) -> list[str]:
        """Those at or under a directory, the latest first."""
        name = str(directory)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        # A node has thousands of mounts: most lines need not be taken apart.
        found = [_point(line) for line in lines if name in line or "\\" in line]
        return [each for each in reversed(found) if Path(each).is_relative_to(directory)]

    def is_mount_point(self, path: Path) -> bool:
        """Whether something is mounted just there: it is asked for often, and the list of all mounts is long."""
        here = _mount_id(path)
        return here is not None and here != _mount_id(path.parent)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)


class NoMounter(Mounter):
    """Leaves volumes as plain directories."""

    privileged = False

    def mount(self, source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
        return None

    async def mount_by_helper(self, source: str, target: str, kind: str, options: list[str]) -> None:
        return None

    def unmount(self, target: str, *, lazily: bool = False) -> None:
        return None

    def make_shared(self, path: Path) -> None:
        return None

    def mount_points(self, directory: Path) -> list[str]:
        return []

    def is_mount_point(self, path: Path) -> bool:
        return False

    def chown(self, path: str, uid: int, gid: int) -> None:
        return None


def _mount_id(path: Path) -> str | None:
    """The mount that a path is in; None when there is no such path."""
    try:
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        facts = Path(f"/proc/self/fdinfo/{opened}").read_text()
    finally:
        os.close(opened)
    return next(line.split()[1] for line in facts.splitlines() if line.startswith("mnt_id:"))


def is_shared(path: Path, mountinfo: str) -> bool:
    """Whether a path is in a mount that is shared; `mountinfo` as the kernel lists mounts."""
    for line in reversed(mountinfo.splitlines()):
        if path.is_relative_to(_point(line)):
            # The fields between the options and the dash are optional.
            return any(each.startswith("shared:") for each in line.partition(" - ")[0].split()[6:])
    return False


def _point(line: str) -> str:
    """A mountinfo line's mount point; white space and backslashes are written there as octal."""
    point = line.split(" ", 5)[4]
    if "\\" not in point:
        return point
    return point.encode("latin-1", "backslashreplace").decode("unicode_escape")
