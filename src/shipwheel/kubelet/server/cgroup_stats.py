"""What a cgroup has used, read from the kernel's files, v1 and v2.

The runtime's own statistics differ from one version to the next; the kernel's do not, and have everything that
cAdvisor's metrics need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 62
"""What is larger than this means no limit (v1 counts in pages up to 2**63)."""
_MICROSECOND, _TICK = 1_000, 10_000_000
"""In nanoseconds; the kernel counts user and system time in hundredths of a second (USER_HZ)."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """How long tasks waited (PSI): microseconds in all, and the share of the last seconds (percent)."""

    total: int = 0
    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0


@dataclass(frozen=True, slots=True)
class Stalls:
    some: Stalled = Stalled()
    """At least one task waited."""
    full: Stalled = Stalled()
    """All of them did."""


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """Times are nanoseconds, sizes bytes. A limit of 0 is none."""

    cpu: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0
    memory: int = 0
    working_set: int = 0
    rss: int = 0
    cache: int = 0
    mapped: int = 0
    swap: int = 0
    memory_peak: int = 0
    memory_failures: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0
    oom_kills: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    swap_limit: int = 0
    active_file: int = 0
    inactive_file: int = 0
    kernel_memory: int = 0
    io: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By device (`8:0`): rbytes, wbytes, rios, wios."""
    pressure: Mapping[str, Stalls] = field(default_factory=dict)
    """By resource (`cpu`, `memory`, `io`): cgroup v2 on kernels that tell."""


def paths_of(text: str) -> dict[str, str]:
    """A process's cgroups (/proc/PID/cgroup) by controller; the controller of v2 is the empty string."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def read(paths: Mapping[str, str], root: Path = ROOT) -> CgroupUsage:
    """What the cgroups at these paths have used. What cannot be read counts as nothing: the container may be
    gone already."""
    if "memory" in paths or "cpuacct" in paths:
        return _read_v1({name: root / name / path.lstrip("/") for name, path in paths.items()})
    return _read_v2(root / paths.get("", "/").lstrip("/"))


def _read_v1(at: Mapping[str, Path]) -> CgroupUsage:
    nowhere = Path("/nonexistent")
    cpu, account = at.get("cpu", nowhere), at.get("cpuacct", nowhere)
    memory, pids, block = at.get("memory", nowhere), at.get("pids", nowhere), at.get("blkio", nowhere)
    times, throttling, stat = (
        _pairs(account / "cpuacct.stat"),
        _pairs(cpu / "cpu.stat"),
        _pairs(memory / "memory.stat"),
    )
    usage = _number(memory / "memory.usage_in_bytes")
    both = _number(memory / "memory.memsw.limit_in_bytes")
    limit = stat.get("hierarchical_memory_limit", 0)
    return CgroupUsage(
        cpu=_number(account / "cpuacct.usage"),
        cpu_user=times.get("user", 0) * _TICK,
        cpu_system=times.get("system", 0) * _TICK,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled=throttling.get("throttled_time", 0),
        memory=usage,
        working_set=max(usage - stat.get("total_inactive_file", 0), 0),
        rss=stat.get("total_rss", 0),
        cache=stat.get("total_cache", 0),
        mapped=stat.get("total_mapped_file", 0),
        swap=stat.get("total_swap", 0),
        memory_peak=_number(memory / "memory.max_usage_in_bytes"),
        memory_failures=_number(memory / "memory.failcnt"),
        page_faults=stat.get("total_pgfault", 0),
        major_page_faults=stat.get("total_pgmajfault", 0),
        processes=_number(pids / "pids.current"),
        oom_kills=_pairs(memory / "memory.oom_control").get("oom_kill", 0),
        cpu_shares=_number(cpu / "cpu.shares"),
        cpu_quota=max(_number(cpu / "cpu.cfs_quota_us"), 0),
        cpu_period=_number(cpu / "cpu.cfs_period_us"),
        memory_limit=_limited(limit),
        swap_limit=max(_limited(both) - _limited(limit), 0),
        active_file=stat.get("total_active_file", 0),
        inactive_file=stat.get("total_inactive_file", 0),
        kernel_memory=_number(memory / "memory.kmem.usage_in_bytes"),
        io=_blkio(block),
    )


def _read_v2(at: Path) -> CgroupUsage:
    times, stat = _pairs(at / "cpu.stat"), _pairs(at / "memory.stat")
    usage = _number(at / "memory.current")
    quota, _, period = _text(at / "cpu.max").partition(" ")
    weight = _number(at / "cpu.weight")
    return CgroupUsage(
        cpu=times.get("usage_usec", 0) * _MICROSECOND,
        cpu_user=times.get("user_usec", 0) * _MICROSECOND,
        cpu_system=times.get("system_usec", 0) * _MICROSECOND,
        periods=times.get("nr_periods", 0),
        throttled_periods=times.get("nr_throttled", 0),
        throttled=times.get("throttled_usec", 0) * _MICROSECOND,
        memory=usage,
        working_set=max(usage - stat.get("inactive_file", 0), 0),
        rss=stat.get("anon", 0),
        cache=stat.get("file", 0),
        mapped=stat.get("file_mapped", 0),
        swap=_number(at / "memory.swap.current"),
        memory_peak=_number(at / "memory.peak"),
        memory_failures=_pairs(at / "memory.events").get("max", 0),
        page_faults=stat.get("pgfault", 0),
        major_page_faults=stat.get("pgmajfault", 0),
        processes=_number(at / "pids.current"),
        oom_kills=_pairs(at / "memory.events").get("oom_kill", 0),
        # The inverse of the kernel's own translation (KEP-2254).
        cpu_shares=2 + (weight - 1) * 262142 // 9999 if weight else 0,
        cpu_quota=int(quota) if quota.isdigit() else 0,
        cpu_period=int(period) if period.strip().isdigit() else 0,
        memory_limit=_limited(_number(at / "memory.max")),
        swap_limit=_limited(_number(at / "memory.swap.max")),
        active_file=stat.get("active_file", 0),
        inactive_file=stat.get("inactive_file", 0),
        kernel_memory=stat.get("kernel", 0),
        pressure={name: found for name in ("cpu", "memory", "io") if (found := _stalls(at / f"{name}.pressure"))},
        io={
            device: {key: int(value) for key, _, value in (each.partition("=") for each in rest)}
            for device, *rest in (line.split() for line in _text(at / "io.stat").splitlines() if "=" in line)
        },
    )


def _stalls(path: Path) -> Stalls | None:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise."""
    found = {}
    for line in _text(path).splitlines():
        kind, *rest = line.split()
        values = dict(each.partition("=")[::2] for each in rest)
        averages = (float(values.get(name, 0)) for name in ("avg10", "avg60", "avg300"))
        found[kind] = Stalled(int(values.get("total", 0)), *averages)
    return Stalls(found.get("some", Stalled()), found.get("full", Stalled())) if found else None


def _blkio(at: Path) -> dict[str, dict[str, int]]:
    names = {
        ("bytes", "Read"): "rbytes",
        ("bytes", "Write"): "wbytes",
        ("ops", "Read"): "rios",
        ("ops", "Write"): "wios",
    }
    found: dict[str, dict[str, int]] = {}
    for kind, file in (("bytes", "blkio.throttle.io_service_bytes"), ("ops", "blkio.throttle.io_serviced")):
        for line in _text(at / file).splitlines():
            parts = line.split()
            name = names.get((kind, parts[1])) if len(parts) == 3 else None
            if name:
                found.setdefault(parts[0], {})[name] = int(parts[2])
    return found


def _limited(value: int) -> int:
    return value if value < _UNLIMITED else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def _pairs(path: Path) -> dict[str, int]:
    """`name number` on each line."""
    found = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found
