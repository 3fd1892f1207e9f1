"""nfs: a directory that a server exports, mounted for each pod."""

from __future__ import annotations

from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError
from shipwheel.kubelet.volumes.mounting import MountError


async def _set_up(request: Request, host: Host) -> None:
    directory = request.path
    if host.mounter.is_mount_point(directory):
        return
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    server = request.source["server"]
    shown = f"[{server}]" if ":" in server else server
    options = (["ro"] if request.read_only else []) + request.mount_options
    try:
        await host.mounter.mount_by_helper(
            f"{shown}:{request.source['path']}", str(directory), "nfs", list(dict.fromkeys(options))
        )
    except MountError as error:
        directory.rmdir()
        raise VolumeError(str(error)) from error


PLUGIN = Plugin(source="nfs", name="kubernetes.io/nfs", set_up=_set_up, owned=False, relabelled=False)
