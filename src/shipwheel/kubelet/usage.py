"""The signals of eviction, read where the kernel tells them.

They are looked at every ten seconds for as long as the node lives, so this is a handful of small files; what each pod
uses is dear to find out and is asked of the sampler (`server.sampling`) only when a pod may have to go.
"""

from __future__ import annotations

import os
from pathlib import Path

from shipwheel.kubelet.eviction import Observation, PodUsage
from shipwheel.kubelet.observed import CONTAINER_NAME
from shipwheel.kubelet.server.sampling import PodSample


def observe_node(root: Path, image_root: Path | None, memory_capacity: int) -> dict[str, Observation]:
    """The eviction signals, as far as this system tells them."""
    found: dict[str, Observation] = {}
    available = memory_available(memory_capacity)
    if available is not None:
        found["memory.available"] = Observation(available, memory_capacity)
    for prefix, place in (("nodefs", root), ("imagefs", image_root or root)):
        try:
            stat = os.statvfs(place)
        except OSError:
            continue
        found[f"{prefix}.available"] = Observation(stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize)
        if stat.f_files:
            found[f"{prefix}.inodesFree"] = Observation(stat.f_ffree, stat.f_files)
    processes = _processes()
    if processes is not None:
        found["pid.available"] = processes
    return found


def memory_available(capacity: int) -> int | None:
    """Bytes that are free, or only cache that has not been used for a while."""
    v1 = Path("/sys/fs/cgroup/memory")
    try:
        if (v1 / "memory.usage_in_bytes").exists():
            usage = int((v1 / "memory.usage_in_bytes").read_text())
            inactive = _stat(v1 / "memory.stat").get("total_inactive_file", 0)
            return max(0, capacity - max(0, usage - inactive))
        stat = _stat(Path("/sys/fs/cgroup/memory.stat"))
        usage = stat["anon"] + stat["file"] + stat.get("kernel", 0)
        return max(0, capacity - max(0, usage - stat.get("inactive_file", 0)))
    except (OSError, ValueError, KeyError):
        return None


def _stat(path: Path) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in path.read_text().splitlines())}


def _processes() -> Observation | None:
    try:
        limit = min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return None
    return Observation(max(0, limit - running), limit)


def pod_usage(sample: PodSample) -> PodUsage:
    """What a sample tells of a pod, as far as eviction looks at it."""
    memory: dict[str, int] = {}
    disks: dict[str, int] = {}
    inodes = 0
    for each in sample.containers:
        name = each.container.labels.get(CONTAINER_NAME, each.container.name)
        memory[name] = each.usage.working_set
        disks[name] = each.rootfs_bytes + each.log_bytes
        inodes += each.rootfs_inodes + each.log_inodes
    volumes = {each.name: each.filesystem.used for each in sample.volumes if each.ephemeral}
    return PodUsage(
        memory=sample.usage.working_set,
        disk=sum(disks.values()) + sum(volumes.values()),
        inodes=inodes + sum(each.filesystem.inodes_used for each in sample.volumes if each.ephemeral),
        processes=sample.usage.processes,
        containers=memory,
        container_disks=disks,
        volumes=volumes,
    )
