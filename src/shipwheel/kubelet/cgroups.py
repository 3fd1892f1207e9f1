"""The cgroups of pods: one for each QoS class, one for each pod, the runtime's own below those.

    /kubepods/pod<uid>  (Guaranteed)      /kubepods/burstable/pod<uid>      /kubepods/besteffort/pod<uid>

Where things are and what is written is decided by plain functions; `CgroupTree` makes directories and writes. On
cgroup v1 each controller has a tree of its own, on v2 there is one for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from shipwheel.api.meta import Obj
from shipwheel.kubelet import resources
from shipwheel.kubelet.resources import CgroupValues
from shipwheel.kubelet.server import cgroup_stats

log = logging.getLogger(__name__)

V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "devices", "freezer",
                  "net_cls", "net_prio", "perf_event", "rdma", "misc", "systemd")  # fmt: skip
V1_WRITTEN = ("cpu", "cpuset", "memory", "pids", "hugetlb")
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")
_REMOVE_TRIES = 50
_REMOVE_SECONDS = 0.02


def pod_path(root: str, pod: Obj) -> str:
    """The pod's cgroup below the hierarchy's root."""
    kind = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}[resources.qos_class(pod)]
    return f"{root.rstrip('/')}/kubepods{kind}/pod{pod['metadata']['uid']}"


def v1_files(values: CgroupValues) -> dict[str, dict[str, str]]:
    """What to write, by controller and file."""
    cpu: dict[str, str] = {}
    if values.cpu_shares is not None:
        cpu["cpu.shares"] = str(values.cpu_shares)
    if values.cpu_quota is not None:
        cpu["cpu.cfs_period_us"] = str(values.cpu_period)
        cpu["cpu.cfs_quota_us"] = str(values.cpu_quota or -1)
    memory = {"memory.limit_in_bytes": str(values.memory)} if values.memory else {}
    pids = {"pids.max": str(values.pids)} if values.pids else {}
    huge = {f"hugetlb.{size}.limit_in_bytes": str(limit) for size, limit in _huge(values.hugepages).items()}
    return {"cpu": cpu, "memory": memory, "pids": pids, "hugetlb": huge}


def v2_files(values: CgroupValues) -> dict[str, str]:
    files: dict[str, str] = {}
    if values.cpu_shares is not None:
        files["cpu.weight"] = str(resources.cpu_weight(values.cpu_shares))
    if values.cpu_quota is not None:
        quota = str(values.cpu_quota) if values.cpu_quota > 0 else "max"
        files["cpu.max"] = f"{quota} {values.cpu_period}"
    if values.memory:
        files["memory.max"] = str(values.memory)
    if values.pids:
        files["pids.max"] = str(values.pids)
    return files | {f"hugetlb.{size}.max": str(limit) for size, limit in _huge(values.hugepages).items()}


def _huge(listed: Mapping[str, int] | None) -> dict[str, int]:
    """`hugepages-2Mi` as the kernel names it: `2MB`."""
    return {name.removeprefix("hugepages-").replace("i", "B"): limit for name, limit in (listed or {}).items()}


def larger(left: CgroupValues, right: CgroupValues) -> CgroupValues:
    """Limits that both fit in."""

    def limit(one: int | None, other: int | None) -> int | None:
        return None if not one or not other or -1 in (one, other) else max(one, other)

    return CgroupValues(
        max(left.cpu_shares or 0, right.cpu_shares or 0) or None,
        limit(left.cpu_quota, right.cpu_quota),
        right.cpu_period,
        limit(left.memory, right.memory),
        right.hugepages,
        right.pids,
    )


class NoCgroups:
    """For machines where the kubelet may not make any, and for simulated pods."""

    def __init__(self, root: str = "") -> None:
        self._root = root

    def parent_of(self, pod: Obj) -> str:
        return self._root

    async def ensure(self, pod: Obj, *, only_grow: bool = False) -> None:
        return

    async def remove(self, uid: str) -> None:
        return

    def make_classes(self) -> None:
        return

    def hold(self, path: str, values: CgroupValues) -> None:
        return

    def pod_memory(self, pod: Obj) -> tuple[int, int] | None:
        return None

    def pods_memory(self) -> tuple[int, int] | None:
        return None


class CgroupTree:
    """`root` is the cgroup below which all pods are; `mount` where the file systems are mounted."""

    def __init__(
        self,
        root: str = "/",
        *,
        mount: Path = Path("/sys/fs/cgroup"),
        v2: bool = False,
        enforce_cpu: bool = True,
        cpu_period: int = resources.DEFAULT_PERIOD,
        pids: int | None = None,
        node: CgroupValues | None = None,
        own_cpus: Callable[[str], bool] = lambda uid: False,
    ) -> None:
        """`node` is what all pods together are held to. `own_cpus`: whether a pod has CPUs for itself alone, and so
        all of their time."""
        self._root = root.rstrip("/")
        self._mount = mount
        self._v2 = v2
        self._enforce_cpu = enforce_cpu
        self._cpu_period = cpu_period
        self._pids = pids
        self._node = node or CgroupValues()
        self._own_cpus = own_cpus
        self._applied: dict[str, tuple[str, CgroupValues]] = {}
        self._burstable: dict[str, int] = {}
        self._ready = False

    def parent_of(self, pod: Obj) -> str:
        return pod_path(self._root, pod)

    async def ensure(self, pod: Obj, *, only_grow: bool = False) -> None:
        if not self._ready:
            self.make_classes()
        uid = pod["metadata"]["uid"]
        path = pod_path(self._root, pod)
        values = self.values_for(pod)
        known = self._applied.get(uid)
        if only_grow and known is not None:
            values = larger(known[1], values)
        if known == (path, values) and self._exists(path):
            return
        self._make(path)
        self._write(path, values)
        self._applied[uid] = (path, values)
        self._weigh_classes(pod)

    def values_for(self, pod: Obj) -> CgroupValues:
        enforce = self._enforce_cpu and not self._own_cpus(pod["metadata"]["uid"])
        made = resources.pod_cgroup(pod, enforce_cpu=enforce, period=self._cpu_period)
        return CgroupValues(made.cpu_shares, made.cpu_quota, made.cpu_period, made.memory, made.hugepages, self._pids)

    async def remove(self, uid: str) -> None:
        """OSError when a process in it does not go."""
        self._applied.pop(uid, None)
        if self._burstable.pop(uid, None) is not None:
            self._weigh_burstable()
        name = f"pod{uid}"
        paths = [f"{self._root}/kubepods{kind}/{name}" for kind in ("", "/burstable", "/besteffort")]
        directories = [place for path in paths for place in self._places(path) if place.is_dir()]
        for directory in directories:
            await self._remove_tree(directory)

    def pod_memory(self, pod: Obj) -> tuple[int, int] | None:
        path = pod_path(self._root, pod)
        if not self._exists(path):
            return None
        usage = self._read(path)
        return usage.memory, usage.memory_limit

    def pods_memory(self) -> tuple[int, int] | None:
        """(bytes in use, the most there may be) of all pods together; None where it cannot be told."""
        usage = self._read(f"{self._root}/kubepods")
        return (usage.working_set, usage.memory_limit) if usage.memory_limit else None

    def _read(self, path: str) -> cgroup_stats.CgroupUsage:
        return cgroup_stats.read({"": path} if self._v2 else {"memory": path}, self._mount)

    def pods(self) -> set[str]:
        """The uids of the pods that have a cgroup."""
        found = set()
        for kind in ("", "/burstable", "/besteffort"):
            for place in self._places(f"{self._root}/kubepods{kind}"):
                found |= {each.name.removeprefix("pod") for each in place.glob("pod*") if each.is_dir()}
        return found

    async def _remove_tree(self, directory: Path) -> None:
        """What is still in it was forgotten by a runtime that died, and is killed. The kernel needs a moment until the
        last process has really left."""
        for attempt in range(_REMOVE_TRIES):
            try:
                _remove_directories(directory)
                return
            except OSError:
                if attempt == _REMOVE_TRIES - 1:
                    raise
                if attempt >= _REMOVE_TRIES // 5:
                    _kill_inside(directory)
                await asyncio.sleep(_REMOVE_SECONDS)

    def _places(self, path: str) -> Iterable[Path]:
        if self._v2:
            return [self._mount / path.lstrip("/")]
        return [
            self._mount / controller / path.lstrip("/")
            for controller in V1_CONTROLLERS
            if (self._mount / controller).is_dir()
        ]

    def _exists(self, path: str) -> bool:
        first = self._mount / path.lstrip("/") if self._v2 else self._mount / "memory" / path.lstrip("/")
        return first.is_dir()

    def make_classes(self) -> None:
        """Make the cgroups that all pods' are in, and hold them to what pods may have. OSError."""
        for path in ("/kubepods", "/kubepods/burstable", "/kubepods/besteffort"):
            self._make(self._root + path)
        self._write(f"{self._root}/kubepods", self._node)
        self._write(f"{self._root}/kubepods/besteffort", CgroupValues(resources.MINIMUM_SHARES))
        self._ready = True

    def hold(self, path: str, values: CgroupValues) -> None:
        """Hold a cgroup of somebody else's to these values; OSError when there is none."""
        if not self._exists(path):
            raise FileNotFoundError(f"cgroup {path} does not exist")
        self._write(path, values)

    def _weigh_classes(self, pod: Obj) -> None:
        """The burstable class weighs what its pods asked for together."""
        if resources.qos_class(pod) != "Burstable":
            return
        asked = resources.pod_requests(pod).get("cpu")
        self._burstable[pod["metadata"]["uid"]] = asked.milli_value() if asked else 0
        self._weigh_burstable()

    def _weigh_burstable(self) -> None:
        shares = resources.cpu_shares(sum(self._burstable.values()))
        self._write(f"{self._root}/kubepods/burstable", CgroupValues(shares))

    def _make(self, path: str) -> None:
        if self._v2:
            self._make_v2(path)
            return
        for controller in V1_WRITTEN:
            base = self._mount / controller
            if not base.is_dir():
                continue
            directory = base / path.lstrip("/")
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if controller == "cpuset":
                _fill_cpuset(base, directory)

    def _make_v2(self, path: str) -> None:
        """Make each level, and hand the controllers down to it."""
        current = self._mount
        for part in path.strip("/").split("/"):
            available = (current / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{each}" for each in V2_CONTROLLERS if each in available)
            if wanted:
                (current / "cgroup.subtree_control").write_text(wanted)
            current = current / part
            current.mkdir(mode=0o755, exist_ok=True)

    def _write(self, path: str, values: CgroupValues) -> None:
        if self._v2:
            directory = self._mount / path.lstrip("/")
            for name, text in v2_files(values).items():
                if (directory / name).exists():
                    (directory / name).write_text(text)
            return
        for controller, files in v1_files(values).items():
            directory = self._mount / controller / path.lstrip("/")
            for name, text in files.items():
                if (directory / name).exists():
                    (directory / name).write_text(text)


def _kill_inside(directory: Path) -> None:
    for listing in directory.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            for pid in listing.read_text().split():
                log.info("killing process %s, left in cgroup %s", pid, listing.parent)
                os.kill(int(pid), signal.SIGKILL)


def _remove_directories(directory: Path) -> None:
    """Remove a cgroup and those below it, the deepest first. Their files go with them."""
    inside = sorted((each for each in directory.rglob("*") if each.is_dir()), reverse=True)
    for each in (*inside, directory):
        with contextlib.suppress(FileNotFoundError):
            each.rmdir()


def _fill_cpuset(base: Path, directory: Path) -> None:
    """A v1 cpuset begins empty, and nothing can run in it until it is filled from its parent."""
    levels = [
        *reversed([each for each in directory.parents if each.is_relative_to(base) and each != base]),
        directory,
    ]
    parent = base
    for level in levels:
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (level / name).read_text().strip():
                (level / name).write_text((parent / name).read_text())
        parent = level


def can_lower_oom_score() -> bool:
    """Whether the kernel lets this process protect others from the OOM killer (CAP_SYS_RESOURCE)."""
    try:
        with open("/proc/self/status") as file:
            effective = next(line for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def own_oom_score() -> int:
    try:
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
