"""What the node, its pods and their containers use, at one moment.

A sample is taken when somebody asks and the last one is too old; several ways of telling (`/stats/summary`,
`/metrics/resource`, `/metrics/cadvisor`, eviction) are made of the same sample. Rates need two: the one before is kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet.observed import POD_UID
from shipwheel.kubelet.runtime.base import Container, Runtime, RuntimeFault, Sandbox, Usage
from shipwheel.kubelet.server import cgroup_stats
from shipwheel.kubelet.server.cgroup_stats import CgroupUsage

MAX_AGE = 5.0
VOLUME_AGE = 60.0
"""Counting a volume's files is slow: this is how old a count may be."""


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Bytes and inodes. `used` is what is asked about, the rest is the file system it is on."""

    available: int = 0
    capacity: int = 0
    used: int = 0
    inodes_free: int = 0
    inodes: int = 0
    inodes_used: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSample:
    container: Container
    usage: CgroupUsage
    cgroup: str = ""
    rootfs_bytes: int = 0
    rootfs_inodes: int = 0
    log_bytes: int = 0
    log_inodes: int = 0
    cpu_rate: int | None = None
    """Nanoseconds of CPU a second since the sample before."""


@dataclass(frozen=True, slots=True)
class VolumeSample:
    name: str
    filesystem: Filesystem
    claim: str = ""
    ephemeral: bool = True
    """Counts as the pod's ephemeral storage."""


@dataclass(frozen=True, slots=True)
class PodSample:
    pod: Obj
    usage: CgroupUsage
    containers: Sequence[ContainerSample] = ()
    interfaces: Sequence[Interface] = ()
    volumes: Sequence[VolumeSample] = ()
    cgroup: str = ""
    cpu_rate: int | None = None


@dataclass(frozen=True, slots=True)
class NodeSample:
    usage: CgroupUsage
    memory_capacity: int = 0
    interfaces: Sequence[Interface] = ()
    filesystem: Filesystem = Filesystem()
    image_filesystem: Filesystem = Filesystem()
    processes: int = 0
    max_processes: int = 0
    booted_at: float = 0.0
    swap_capacity: int = 0
    cpu_rate: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    taken_at: int
    """Nanoseconds since 1970."""
    node: NodeSample
    pods: Sequence[PodSample] = ()


@dataclass(slots=True)
class _Processes:
    """A process of each container and sandbox, asked for once."""

    known: dict[str, int] = field(default_factory=dict)

    async def of(self, key: str, ask: Callable[[], object]) -> int:
        if key not in self.known:
            try:
                self.known[key] = await ask()  # type: ignore[misc]
            except RuntimeFault:
                return 0
        return self.known[key]

    def forget_others(self, keys: set[str]) -> None:
        for key in self.known.keys() - keys:
            del self.known[key]


class Sampler:
    """`pods` are the pods of the node; `volumes` tells where a pod's volumes are: (volume, path, whether it is on
    the node's own disk)."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        *,
        pods: Callable[[], Sequence[Obj]],
        volumes: Callable[[Obj], Sequence[tuple[Obj, Path, bool]]] = lambda pod: (),
        volume_age: float = VOLUME_AGE,
        root: Path,
    ) -> None:
        """`volume_age` is in seconds; negative: volumes are not counted."""
        self._runtime = runtime
        self._clock = clock
        self._pods = pods
        self._volumes = volumes
        self._volume_age = volume_age
        self._root = root
        self.last: Sample | None = None
        """None before anybody asked for one."""
        self._lock = asyncio.Lock()
        self._processes = _Processes()
        self._counted: dict[Path, tuple[float, Filesystem]] = {}

    async def sample(self, *, max_age: float = MAX_AGE) -> Sample:
        """A sample that is not older than `max_age` seconds. Raises RuntimeFault."""
        async with self._lock:
            now = self._now()
            if self.last is None or now - self.last.taken_at >= max_age * 1e9:
                before, self.last = self.last, await self._take(now)
                if before is not None:
                    self.last = with_rates(self.last, before)
            return self.last

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000

    async def _take(self, now: int) -> Sample:
        usages = await self._runtime.usage()
        containers: dict[str, list[Container]] = {}
        for each in await self._runtime.containers():
            if each.state == "RUNNING":
                containers.setdefault(each.labels.get(POD_UID, ""), []).append(each)
        sandboxes = {each.uid: each for each in await self._runtime.sandboxes() if each.ready}
        running = {each.id for group in containers.values() for each in group}
        self._processes.forget_others(running | {each.id for each in sandboxes.values()})
        pods = [
            await self._pod(pod, sandboxes[uid], containers.get(uid, []), usages)
            for pod in self._pods()
            if (uid := pod["metadata"]["uid"]) in sandboxes
        ]
        return Sample(now, await self._node(), pods)

    async def _pod(
        self, pod: Obj, sandbox: Sandbox, containers: Sequence[Container], usages: Mapping[str, Usage]
    ) -> PodSample:
        samples = [await self._container(each, usages.get(each.id)) for each in containers]
        process = await self._processes.of(sandbox.id, lambda: self._runtime.sandbox_process(sandbox.id))
        cgroup, usage = _pod_cgroup(process, pod["metadata"]["uid"])
        return PodSample(
            pod=pod,
            usage=usage if cgroup else total([each.usage for each in samples]),
            containers=samples,
            interfaces=interfaces(_read(f"/proc/{process}/net/dev")) if process and sandbox.ips else (),
            volumes=[await self._volume(*each) for each in self._volumes(pod)] if self._volume_age >= 0 else [],
            cgroup=cgroup,
        )

    async def _container(self, container: Container, usage: Usage | None) -> ContainerSample:
        process = await self._processes.of(container.id, lambda: self._runtime.container_process(container.id))
        paths = cgroup_stats.paths_of(_read(f"/proc/{process}/cgroup")) if process else {}
        log = _log_size(container.log_path)
        told = usage or Usage(container.id)
        return ContainerSample(
            container=container,
            usage=cgroup_stats.read(paths) if paths else _told(told, container),
            cgroup=paths.get("memory") or paths.get("") or "",
            rootfs_bytes=told.filesystem_bytes,
            rootfs_inodes=told.filesystem_inodes,
            log_bytes=log[0],
            log_inodes=log[1],
        )

    async def _volume(self, volume: Obj, path: Path, on_disk: bool) -> VolumeSample:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        now = self._clock.monotonic()
        kept = self._counted.get(path)
        if kept is None or now - kept[0] >= self._volume_age:
            kept = self._counted[path] = (now, await asyncio.to_thread(_counted, path, on_disk))
            for stale in [each for each, (since, _) in self._counted.items() if now - since > 3 * self._volume_age]:
                del self._counted[stale]
        return VolumeSample(volume["name"], kept[1], claim, ephemeral=on_disk and not claim)

    async def _node(self) -> NodeSample:
        memory = _meminfo(_read("/proc/meminfo"))
        stat = _read("/proc/stat")
        images = await self._runtime.image_filesystems()
        image_filesystem = _on(Path(images[0].mountpoint)) if images else Filesystem()
        if images:
            image_filesystem = replace(image_filesystem, used=images[0].used_bytes, inodes_used=images[0].inodes_used)
        load = _read("/proc/loadavg").split()
        return NodeSample(
            usage=_node_usage(stat, memory, _read("/proc/vmstat")),
            memory_capacity=memory.get("MemTotal", 0),
            interfaces=interfaces(_read("/proc/net/dev")),
            filesystem=_on(self._root),
            image_filesystem=image_filesystem,
            processes=int(load[3].partition("/")[2]) if len(load) > 3 else 0,
            max_processes=int(_read("/proc/sys/kernel/pid_max") or 0),
            booted_at=float(next((line.split()[1] for line in stat.splitlines() if line.startswith("btime")), 0)),
            swap_capacity=memory.get("SwapTotal", 0),
        )


# --- Arithmetic


def with_rates(sample: Sample, before: Sample) -> Sample:
    """The same, with what each has used of the CPU since the sample before."""
    seconds = (sample.taken_at - before.taken_at) / 1e9
    if seconds <= 0:
        return sample
    old_pods = {each.pod["metadata"]["uid"]: each for each in before.pods}
    old_containers = {each.container.id: each for pod in before.pods for each in pod.containers}

    def rate(now: CgroupUsage, then: CgroupUsage | None) -> int | None:
        return None if then is None else max(int((now.cpu - then.cpu) / seconds), 0)

    def usage_of(found: PodSample | ContainerSample | None) -> CgroupUsage | None:
        return found.usage if found else None

    return replace(
        sample,
        node=replace(sample.node, cpu_rate=rate(sample.node.usage, before.node.usage)),
        pods=[
            replace(
                pod,
                cpu_rate=rate(pod.usage, usage_of(old_pods.get(pod.pod["metadata"]["uid"]))),
                containers=[
                    replace(each, cpu_rate=rate(each.usage, usage_of(old_containers.get(each.container.id))))
                    for each in pod.containers
                ],
            )
            for pod in sample.pods
        ],
    )


def total(usages: Sequence[CgroupUsage]) -> CgroupUsage:
    """What several have used together."""
    return CgroupUsage(
        cpu=sum(each.cpu for each in usages),
        memory=sum(each.memory for each in usages),
        working_set=sum(each.working_set for each in usages),
        rss=sum(each.rss for each in usages),
        swap=sum(each.swap for each in usages),
        page_faults=sum(each.page_faults for each in usages),
        major_page_faults=sum(each.major_page_faults for each in usages),
        processes=sum(each.processes for each in usages),
    )


def _told(usage: Usage, container: Container) -> CgroupUsage:
    """What the runtime says, where there is no process to look at."""
    return CgroupUsage(
        cpu=usage.cpu_nanoseconds,
        memory=usage.memory_usage,
        working_set=usage.memory_working_set,
        rss=usage.memory_rss,
        page_faults=usage.page_faults,
        major_page_faults=usage.major_page_faults,
        memory_limit=container.resources.memory_limit_bytes if container.resources else 0,
    )


def _pod_cgroup(process: int, uid: str) -> tuple[str, CgroupUsage]:
    """The cgroup above the sandbox's, if it is the pod's: named after its uid."""
    paths = cgroup_stats.paths_of(_read(f"/proc/{process}/cgroup")) if process else {}
    above = {name: os.path.dirname(path) for name, path in paths.items()}
    of_memory = above.get("memory") or above.get("") or ""
    if uid not in os.path.basename(of_memory).replace("_", "-"):
        return "", CgroupUsage()
    return of_memory, cgroup_stats.read(above)


def interfaces(text: str) -> list[Interface]:
    """From /proc/PID/net/dev, without the loopback interface; the default interface, by habit eth0, first."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(each) for each in rest.split()]
        if name.strip() == "lo" or len(numbers) < 12:
            continue
        received, sent = numbers[:4], numbers[8:12]
        found.append(Interface(name.strip(), *received, *sent))
    return sorted(found, key=lambda each: each.name != "eth0")


def _meminfo(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdigit():
            found[name] = int(number[0]) * (1024 if len(number) > 1 else 1)
    return found


def _node_usage(stat: str, memory: Mapping[str, int], vmstat: str) -> CgroupUsage:
    tick = 10_000_000
    times = next((line.split()[1:] for line in stat.splitlines() if line.startswith("cpu ")), [])
    numbers = [int(each) for each in times] + [0] * 8
    user, system = numbers[0] + numbers[1], numbers[2] + numbers[5] + numbers[6]
    faults = dict(line.split() for line in vmstat.splitlines() if line.startswith(("pgfault ", "pgmajfault ")))
    used = memory.get("MemTotal", 0) - memory.get("MemFree", 0)
    return CgroupUsage(
        cpu=(user + system) * tick,
        cpu_user=user * tick,
        cpu_system=system * tick,
        memory=used,
        working_set=max(used - memory.get("Inactive(file)", 0), 0),
        rss=memory.get("AnonPages", 0),
        cache=memory.get("Cached", 0),
        swap=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        page_faults=int(faults.get("pgfault", 0)),
        major_page_faults=int(faults.get("pgmajfault", 0)),
    )


# --- Files


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _on(path: Path) -> Filesystem:
    """The file system that a path is on."""
    try:
        info = os.statvfs(path)
    except OSError:
        return Filesystem()
    return Filesystem(
        available=info.f_bavail * info.f_frsize,
        capacity=info.f_blocks * info.f_frsize,
        used=(info.f_blocks - info.f_bfree) * info.f_frsize,
        inodes_free=info.f_ffree,
        inodes=info.f_files,
        inodes_used=info.f_files - info.f_ffree,
    )


def _counted(path: Path, on_disk: bool) -> Filesystem:
    """What a volume holds: counted when it shares its file system with others, else what the file system says."""
    found = _on(path)
    if not on_disk:
        return found
    used = inodes = 0
    seen: set[tuple[int, int]] = set()
    for at, names, files in os.walk(path):
        for name in [*names, *files, ""]:
            try:
                info = os.lstat(os.path.join(at, name) if name else at)
            except OSError:
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                used += info.st_blocks * 512
                inodes += 1
    return replace(found, used=used, inodes_used=inodes)


def _log_size(path: str) -> tuple[int, int]:
    """(bytes, files) of a container's logs, rotated ones included."""
    size = count = 0
    try:
        with os.scandir(os.path.dirname(path)) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                size += info.st_blocks * 512
                count += 1
    except OSError:
        return 0, 0
    return size, count
