"""emptyDir: a directory that lives as long as its pod, on the node's disk or in memory."""

from __future__ import annotations

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.kubelet.volumes import ownership
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError

_HUGE_PAGES = "HugePages"


async def _set_up(request: Request, host: Host) -> None:
    source = request.source or {}
    medium = source.get("medium") or ""
    directory = request.path
    directory.mkdir(parents=True, exist_ok=True)
    if medium == "Memory":
        if not host.mounter.is_mount_point(directory):
            size = memory_size(request.pod, source, host.memory_capacity)
            options = f"size={size}" if size else ""
            host.mounter.mount("tmpfs", str(directory), "tmpfs", options=options)
    elif medium.startswith(_HUGE_PAGES):
        if not host.mounter.is_mount_point(directory):
            page = page_size(request.pod, medium)
            host.mounter.mount("nodev", str(directory), "hugetlbfs", options=f"pagesize={page}")
    elif medium:
        raise VolumeError(f'unknown storage medium "{medium}"')
    if directory.stat().st_mode & 0o777 != 0o777:
        directory.chmod(0o777)
    if request.fs_group is not None:
        ownership.apply(
            directory,
            request.fs_group,
            read_only=False,
            policy=request.fs_group_policy,
            chown=host.mounter.chown,
        )


def memory_size(pod: Obj, source: Obj, node_capacity: int) -> int:
    """Bytes that a memory-backed volume may hold: the smallest of its own limit, the pod's memory limit (if every
    container has one) and the node's memory. 0: no limit is known."""
    limits = [node_capacity] if node_capacity else []
    of_containers = [
        (container.get("resources") or {}).get("limits", {}).get("memory")
        for container in pod["spec"].get("containers") or ()
    ]
    of_pod = (pod["spec"].get("resources") or {}).get("limits", {}).get("memory")
    if of_pod:
        limits.append(quantity.value(of_pod))
    elif of_containers and all(of_containers):
        limits.append(sum(quantity.value(each) for each in of_containers if each))
    own = quantity.value(source.get("sizeLimit") or 0)
    if own:
        limits.append(own)
    return min(limits, default=0)


def page_size(pod: Obj, medium: str) -> str:
    """The size of page a huge-page volume is made of: named by the medium, or the only one the pod asks for."""
    requested = {
        name.removeprefix("hugepages-")
        for container in pod["spec"].get("containers") or ()
        for name in (container.get("resources") or {}).get("requests", {})
        if name.startswith("hugepages-")
    }
    if not requested:
        raise VolumeError(
            f"medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    if medium != _HUGE_PAGES:
        return str(quantity.value(medium.removeprefix(_HUGE_PAGES + "-")))
    if len(requested) > 1:
        raise VolumeError(f"medium: {medium} can't be used if container requests multiple huge page sizes")
    return str(quantity.value(requested.pop()))


PLUGIN = Plugin(source="emptyDir", name="kubernetes.io/empty-dir", set_up=_set_up)
