"""local: a disk, partition or directory of this node, behind a PersistentVolume.

A directory is shown as it is; a disk is mounted once for the node, formatted if it is empty, and shown to each
pod. As a block volume the device itself is given to containers.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from shipwheel.kubelet.volumes import ownership
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError
from shipwheel.kubelet.volumes.mounting import Mounter

_DEFAULT_FS = "ext4"


async def _set_up(request: Request, host: Host) -> None:
    path = request.source.get("path", "")
    if ".." in path.split("/"):
        raise VolumeError(f"invalid path: {path} must not contain '..'")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise VolumeError(f'path "{path}" does not exist') from error
    is_device = stat.S_ISBLK(mode)
    if request.block:
        if not is_device:
            raise VolumeError(f"{path} is not a block device")
        return
    if not is_device and not stat.S_ISDIR(mode):
        raise VolumeError("only directory and block device are supported")
    directory = request.path
    if host.mounter.is_mount_point(directory):
        return
    source = await _mounted_disk(request, host, path) if is_device else path
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    host.mounter.bind(source, str(directory), read_only=request.read_only)
    if request.fs_group is not None and not request.read_only:
        await asyncio.to_thread(
            ownership.apply,
            Path(source) if not host.mounter.privileged else directory,
            request.fs_group,
            read_only=False,
            policy=request.fs_group_policy,
            chown=host.mounter.chown,
        )


async def _mounted_disk(request: Request, host: Host, device: str) -> str:
    """Where the node has the disk mounted."""
    place = _place_of(request.path)
    if not host.mounter.is_mount_point(place):
        place.mkdir(parents=True, exist_ok=True, mode=0o750)
        kind = request.source.get("fsType") or _DEFAULT_FS
        await format_and_mount(host.mounter, device, str(place), kind, request.mount_options)
    return str(place)


def _place_of(path: Path) -> Path:
    """Of the disk behind `KUBELET/pods/UID/volumes/PLUGIN/NAME`."""
    return path.parents[4] / "plugins" / "kubernetes.io" / "local-volume" / "mounts" / path.name


async def _tear_down(path: Path, host: Host) -> None:
    """The last pod that has a disk takes the node's own mount of it away."""
    for point in host.mounter.mount_points(path):
        host.mounter.unmount(point)
    place, pods = _place_of(path), path.parents[3]
    if any(host.mounter.is_mount_point(each) for each in pods.glob(f"*/volumes/{path.parent.name}/{path.name}")):
        return
    if host.mounter.is_mount_point(place):
        host.mounter.unmount(str(place))
        place.rmdir()


async def format_and_mount(mounter: Mounter, device: str, target: str, kind: str, options: list[str]) -> None:
    """Mount a disk; one without any file system is formatted first. Raises MountError, VolumeError."""
    if not await _output("blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device):
        force = {"ext3": ["-F", "-m0"], "ext4": ["-F", "-m0"], "xfs": ["-f"]}.get(kind, [])
        code, output = await _run(f"mkfs.{kind}", *force, device)
        if code:
            raise VolumeError(f"format of disk {device} failed: type:({kind}) errcode:({code}) output:({output})")
    await mounter.mount_by_helper(device, target, kind, ["defaults", *options])


async def _output(*command: str) -> str:
    return (await _run(*command))[1]


async def _run(*command: str) -> tuple[int, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        return 127, f"{command[0]}: executable file not found in $PATH"
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace").strip()


PLUGIN = Plugin(
    source="local",
    name="kubernetes.io/local-volume",
    set_up=_set_up,
    owned=False,
    tear_down=_tear_down,
    locate=lambda request: Path(request.source["path"]) if request.block else request.path,
)
