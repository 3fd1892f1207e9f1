"""The signals of eviction, read where the kernel tells them.

They are looked at every ten seconds for as long as the node lives, so this is a handful of small files; what each pod
uses is dear to find out and is asked of the sampler (`server.sampling`) only when a pod may have to go.
"""

from __future__ import annotations

import os
from pathlib import Path

from shipwheel.kubelet.eviction import Observation, PodUsage, Stored, counted
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
            found[f"{prefix}.inodesFree"] = counted(stat.f_ffree, stat.f_files)
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
    return counted(max(0, limit - running), limit)


def separate_images(root: Path, image_root: Path | None) -> bool:
    """Whether images are on another file system than the kubelet's directory."""
    try:
        return image_root is not None and image_root.stat().st_dev != root.stat().st_dev
    except OSError:
        return False


def pod_usage(sample: PodSample) -> PodUsage:
    """What a sample tells of a pod, as far as eviction looks at it."""
    named = {each.container.labels.get(CONTAINER_NAME, each.container.name): each for each in sample.containers}
    volumes = {
        ephemeral: {
            each.name: Stored(each.filesystem.used, each.filesystem.inodes_used)
            for each in sample.volumes
            if each.ephemeral == ephemeral
        }
        for ephemeral in (True, False)
    }
    return PodUsage(
        memory=sample.usage.working_set,
        processes=sample.usage.processes,
        containers={name: each.usage.working_set for name, each in named.items()},
        layers={name: Stored(each.rootfs_bytes, each.rootfs_inodes) for name, each in named.items()},
        logs={name: Stored(each.log_bytes, each.log_inodes) for name, each in named.items()},
        volumes=volumes[True],
        in_memory=volumes[False],
    )
