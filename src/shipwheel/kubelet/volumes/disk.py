"""A disk with a file system: mounted once for the node, and shown to each pod that has it.

The node's own mount is below `KUBELET/plugins`; the last pod that lets go of the disk takes it away.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from shipwheel.kubelet.volumes import ownership
from shipwheel.kubelet.volumes.base import Host, Request, VolumeError
from shipwheel.kubelet.volumes.mounting import Mounter

DEFAULT_FS = "ext4"
MISSING = 127
"""The exit code of a command that is not there."""


def plugins_directory(path: Path) -> Path:
    """`KUBELET/plugins/kubernetes.io`, of a volume's `KUBELET/pods/UID/volumes/PLUGIN/NAME`."""
    return path.parents[4] / "plugins" / "kubernetes.io"


async def mount_for_node(request: Request, host: Host, device: str, place: Path) -> None:
    """Have a disk mounted at its place. Raises MountError, VolumeError."""
    if not host.mounter.is_mount_point(place):
        make_directory(place)
        kind = request.source.get("fsType") or DEFAULT_FS
        options = (["ro"] if request.source.get("readOnly") else []) + request.mount_options
        await format_and_mount(host.mounter, device, str(place), kind, options)


async def show(request: Request, host: Host, source: str) -> None:
    """Let the pod have what is at `source`, as its volume."""
    directory = request.path
    make_directory(directory)
    host.mounter.bind(source, str(directory), read_only=request.read_only)
    if request.fs_group is not None and not request.read_only:
        await asyncio.to_thread(
            ownership.apply,
            directory if host.mounter.privileged else Path(source),
            request.fs_group,
            read_only=False,
            policy=request.fs_group_policy,
            chown=host.mounter.chown,
        )


def make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o750)


def unmount(path: Path, host: Host) -> None:
    """Take away what is mounted at a path or below."""
    for point in host.mounter.mount_points(path):
        host.mounter.unmount(point)


async def format_and_mount(mounter: Mounter, device: str, target: str, kind: str, options: list[str]) -> None:
    """Mount a disk; one without any file system is formatted first. Raises MountError, VolumeError."""
    _, found = await run("blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device)
    if not found:
        if "ro" in options:
            raise VolumeError(f"cannot mount unformatted disk {device} as we are manipulating it in read-only mode")
        force = {"ext3": ["-F", "-m0"], "ext4": ["-F", "-m0"], "xfs": ["-f"]}.get(kind, [])
        code, output = await run(f"mkfs.{kind}", *force, device)
        if code:
            raise VolumeError(f"format of disk {device} failed: type:({kind}) errcode:({code}) output:({output})")
    await mounter.mount_by_helper(device, target, kind, ["defaults", *options])


async def grow(device: str, place: Path) -> None:
    """Let the file system that is mounted at a place fill its disk. Raises VolumeError."""
    _, kind = await run("blkid", "-p", "-s", "TYPE", "-o", "value", device)
    commands = {
        **dict.fromkeys(("ext2", "ext3", "ext4"), ("resize2fs", device)),
        "xfs": ("xfs_growfs", "-d", str(place)),
        "btrfs": ("btrfs", "filesystem", "resize", "max", str(place)),
    }
    operation = "MountVolume.NodeExpandVolume"
    if kind not in commands:
        text = f"resize of format {kind} is not supported for device {device} mounted at {place}"
        raise VolumeError(text, operation=operation)
    code, output = await run(*commands[kind])
    if code:
        raise VolumeError(
            f"resize of device {device} failed: exit status {code}. Output: {output}", operation=operation
        )


async def run(*command: str) -> tuple[int, str]:
    """(exit code, output) of a program of the node."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        return MISSING, f'exec: "{command[0]}": executable file not found in $PATH'
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace").strip()
