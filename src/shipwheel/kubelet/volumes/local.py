"""local: a disk, partition or directory of this node, behind a PersistentVolume.

A directory is shown as it is; a disk is mounted once for the node, formatted if it is empty, and shown to each
pod. As a block volume the device itself is given to containers. When somebody has made the disk larger and says so in
the PersistentVolume, its file system follows.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shipwheel.kubelet.volumes import disk, growth
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError


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
    place = _place_of(request.path)
    if not host.mounter.is_mount_point(request.path):
        if is_device:
            await disk.mount_for_node(request, host, path, place)
        await disk.show(request, host, str(place) if is_device else path)
    due = growth.due(request)
    if due is not None and host.cluster is not None:
        await due.begin(host.cluster)
        if is_device:
            await disk.grow(path, place)
        await host.cluster.resized(due.claim, due.size)
        growth.tell(request, host)


def _place_of(path: Path) -> Path:
    """Where the node has the disk behind a volume mounted."""
    return disk.plugins_directory(path) / "local-volume" / "mounts" / path.name


async def _tear_down(path: Path, host: Host) -> None:
    """The last pod that has a disk takes the node's own mount of it away."""
    disk.unmount(path, host)
    place, pods = _place_of(path), path.parents[3]
    if any(host.mounter.is_mount_point(each) for each in pods.glob(f"*/volumes/{path.parent.name}/{path.name}")):
        return
    if host.mounter.is_mount_point(place):
        host.mounter.unmount(str(place))
        place.rmdir()


PLUGIN = Plugin(
    source="local",
    name="kubernetes.io/local-volume",
    set_up=_set_up,
    refreshed=lambda request: request.claim is not None,
    owned=False,
    tear_down=_tear_down,
    locate=lambda request: Path(request.source["path"]) if request.block else request.path,
)
