"""`/metrics/resource` and `/metrics/cadvisor`: a sample as Prometheus text.

The first is what the metrics server scrapes; the second has the names that cAdvisor made known, as far as the kernel
tells without much searching.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shipwheel.kubelet.server.cgroup_stats import CgroupUsage
from shipwheel.kubelet.server.sampling import ContainerSample, Filesystem, NodeSample, PodSample, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    help: str
    kind: str
    points: tuple[tuple[Labels, float], ...]


def render(families: Iterable[Family], taken_at: int | None) -> bytes:
    """Prometheus' text format, each value with the time it was taken at, if that is to be told."""
    stamp = "" if taken_at is None else f" {taken_at // 1_000_000}"
    lines = []
    for family in families:
        if not family.points:
            continue
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {_value(value)}{stamp}" for labels, value in family.points]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(labels[name])}"' for name in sorted(labels)) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _value(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


# --- /metrics/resource


def resource_metrics(sample: Sample | None) -> bytes:
    """None: the sample failed."""
    text = b"" if sample is None else render(_resource_families(sample), sample.taken_at)
    return text + render(_scrape_errors(int(sample is None)), None)


def _scrape_errors(value: int) -> Iterator[Family]:
    for name, level in (("scrape_error", "ALPHA] (Deprecated since 1.29.0"), ("resource_scrape_error", "STABLE")):
        closing = ")" if "(" in level else "]"
        yield Family(name, f"[{level}{closing} 1 if the usage could not be read, else 0", "gauge", (({}, value),))


def volume_metrics(sample: Sample | None) -> bytes:
    """How full the volumes of claims are, as they were last counted."""
    volumes = {} if sample is None else _claimed(sample)
    return render(
        (
            Family(
                f"kubelet_volume_stats_{name}",
                f"[ALPHA] {help}",
                "gauge",
                tuple(
                    ({"namespace": namespace, "persistentvolumeclaim": claim}, getattr(found, part))
                    for (namespace, claim), found in volumes.items()
                ),
            )
            for name, part, help in _VOLUME_METRICS
        ),
        None,
    )


_VOLUME_METRICS = (
    ("capacity_bytes", "capacity", "Capacity in bytes of the volume"),
    ("available_bytes", "available", "Number of available bytes in the volume"),
    ("used_bytes", "used", "Number of used bytes in the volume"),
    ("inodes", "inodes", "Maximum number of inodes in the volume"),
    ("inodes_free", "inodes_free", "Number of free inodes in the volume"),
    ("inodes_used", "inodes_used", "Number of used inodes in the volume"),
)
"""Name, part of a `Filesystem`, help."""


def _claimed(sample: Sample) -> dict[tuple[str, str], Filesystem]:
    """The file systems of claims, each once however many pods use it."""
    return {
        (pod.pod["metadata"].get("namespace", ""), volume.claim): volume.filesystem
        for pod in sample.pods
        for volume in pod.volumes
        if volume.claim
    }


def _resource_families(sample: Sample) -> Iterator[Family]:
    containers = [(pod, each) for pod in sample.pods for each in pod.containers]
    scopes: dict[str, list[tuple[Labels, CgroupUsage]]] = {
        "container": [(_container_labels(pod, each), each.usage) for pod, each in containers],
        "node": [({}, sample.node.usage)],
        "pod": [(_pod_labels(pod), pod.usage) for pod in sample.pods],
    }
    for scope, found in scopes.items():
        yield Family(
            f"{scope}_cpu_usage_seconds_total",
            f"[STABLE] CPU time the {scope} has used, in core-seconds",
            "counter",
            tuple((labels, usage.cpu / 1e9) for labels, usage in found),
        )
        yield Family(
            f"{scope}_memory_working_set_bytes",
            f"[STABLE] Memory of the {scope} that is not easily freed, in bytes",
            "gauge",
            tuple((labels, usage.working_set) for labels, usage in found),
        )
        yield Family(
            f"{scope}_swap_usage_bytes",
            f"[ALPHA] Swap the {scope} uses, in bytes",
            "gauge",
            tuple((labels, usage.swap) for labels, usage in found),
        )
    yield Family(
        "container_swap_limit_bytes",
        "[ALPHA] Swap the container may use, in bytes",
        "gauge",
        tuple((_container_labels(pod, each), each.usage.swap_limit) for pod, each in containers),
    )
    yield Family(
        "container_start_time_seconds",
        "[STABLE] When the container started, in seconds since 1970",
        "gauge",
        tuple((_container_labels(pod, each), each.container.started_at / 1e9) for pod, each in containers),
    )


def _pod_labels(pod: PodSample) -> Labels:
    meta = pod.pod["metadata"]
    return {"pod": meta["name"], "namespace": meta.get("namespace", "")}


def _container_labels(pod: PodSample, container: ContainerSample) -> Labels:
    return {"container": container.container.name, **_pod_labels(pod)}


# --- /metrics/cadvisor

_GAUGE, _COUNTER = "gauge", "counter"
_CGROUP_METRICS = """
counter cpu_user          1e-9 container_cpu_user_seconds_total           CPU time in user mode, in seconds.
counter cpu_system        1e-9 container_cpu_system_seconds_total         CPU time in kernel mode, in seconds.
counter periods           1    container_cpu_cfs_periods_total            Enforcement periods that have passed.
counter throttled_periods 1    container_cpu_cfs_throttled_periods_total  Enforcement periods cut short.
counter throttled         1e-9 container_cpu_cfs_throttled_seconds_total  Time spent waiting for CPU quota.
gauge   memory            1    container_memory_usage_bytes               Memory in use, page cache included.
gauge   working_set       1    container_memory_working_set_bytes         Memory in use that is not easily freed.
gauge   rss               1    container_memory_rss                       Anonymous memory.
gauge   cache             1    container_memory_cache                     Page cache.
gauge   mapped            1    container_memory_mapped_file               Memory mapped from files.
gauge   swap              1    container_memory_swap                      Swap in use.
gauge   active_file       1    container_memory_total_active_file_bytes   Page cache that was used lately.
gauge   inactive_file     1    container_memory_total_inactive_file_bytes Page cache that was not used lately.
gauge   kernel_memory     1    container_memory_kernel_usage              Memory that the kernel uses for it.
gauge   memory_peak       1    container_memory_max_usage_bytes           The most memory that was ever in use.
counter memory_failures   1    container_memory_failcnt                   How often the memory limit was hit.
counter oom_kills         1    container_oom_events_total                 Processes killed for want of memory.
gauge   processes         1    container_processes                        Processes and threads.
gauge   cpu_shares        1    container_spec_cpu_shares                  CPU weight, as v1 shares.
gauge   cpu_quota         1    container_spec_cpu_quota                   CPU quota in microseconds; 0: none.
gauge   cpu_period        1    container_spec_cpu_period                  CPU enforcement period in microseconds.
gauge   memory_limit      1    container_spec_memory_limit_bytes          Memory limit; 0: none.
"""
"""Kind, field of CgroupUsage, factor, name, help."""
_DIRECTIONS = (("receive", "rx"), ("transmit", "tx"))
_COUNTED = ("bytes", "packets", "errors", "packets_dropped")
_IO = (
    ("container_fs_reads_bytes_total", "Bytes read from a device.", "rbytes"),
    ("container_fs_writes_bytes_total", "Bytes written to a device.", "wbytes"),
    ("container_fs_reads_total", "Reads completed by a device.", "rios"),
    ("container_fs_writes_total", "Writes completed by a device.", "wios"),
)


def cadvisor_metrics(sample: Sample, *, cpus: int) -> bytes:
    """`cpus` is the machine's number of cores."""
    return render(_cadvisor_families(sample, cpus), sample.taken_at)


def _cadvisor_families(sample: Sample, cpus: int) -> Iterator[Family]:
    cgroups = list(_cgroups(sample))
    yield Family(
        "cadvisor_version_info",
        "Always 1; its labels tell the kernel's version.",
        _GAUGE,
        (({"cadvisorRevision": "", "cadvisorVersion": "", "kernelVersion": platform.release()}, 1),),
    )
    yield Family(
        "container_cpu_usage_seconds_total",
        "CPU time used, in seconds.",
        _COUNTER,
        tuple(({**labels, "cpu": "total"}, usage.cpu / 1e9) for labels, usage in cgroups),
    )
    for line in _CGROUP_METRICS.strip().splitlines():
        kind, part, factor, name, help = line.split(maxsplit=4)
        points = tuple((labels, getattr(usage, part) * float(factor)) for labels, usage in cgroups)
        yield Family(name, help, kind, points)
    yield Family(
        "container_memory_failures_total",
        "Page faults.",
        _COUNTER,
        tuple(
            ({**labels, "failure_type": kind, "scope": "container"}, value)
            for labels, usage in cgroups
            for kind, value in (("pgfault", usage.page_faults), ("pgmajfault", usage.major_page_faults))
        ),
    )
    for name, help, part in _IO:
        yield Family(
            name,
            help,
            _COUNTER,
            tuple(
                ({**labels, "device": device}, counts.get(part, 0))
                for labels, usage in cgroups
                for device, counts in usage.io.items()
            ),
        )
    yield from _pressure_families(cgroups)
    yield from _container_families(sample)
    yield from _network_families(sample)
    yield from _machine_families(sample.node, cpus)


def _pressure_families(cgroups: Sequence[tuple[Labels, CgroupUsage]]) -> Iterator[Family]:
    for resource in ("cpu", "memory", "io"):
        for part, word in (("full", "stalled"), ("some", "waiting")):
            points = tuple(
                (labels, getattr(usage.pressure[resource], part).total / 1e6)
                for labels, usage in cgroups
                if resource in usage.pressure
            )
            name = f"container_pressure_{resource}_{word}_seconds_total"
            who = "all tasks" if part == "full" else "tasks"
            yield Family(name, f"Time that {who} waited for {resource.replace('io', 'IO')}.", _COUNTER, points)


def _cgroups(sample: Sample) -> Iterator[tuple[Labels, CgroupUsage]]:
    """The root, pods and containers: their labels and what they use."""
    yield {"id": "/", "container": "", "image": "", "name": "", "pod": "", "namespace": ""}, sample.node.usage
    for pod in sample.pods:
        if pod.cgroup:
            yield {"id": pod.cgroup, "container": "", "image": "", "name": "", **_pod_labels(pod)}, pod.usage
        for each in pod.containers:
            yield _cadvisor_labels(pod, each), each.usage


def _cadvisor_labels(pod: PodSample, each: ContainerSample) -> Labels:
    return {
        "id": each.cgroup or f"/{each.container.id}",
        "image": each.container.image,
        "name": each.container.id,
        **_container_labels(pod, each),
    }


def _container_families(sample: Sample) -> Iterator[Family]:
    containers = [(_cadvisor_labels(pod, each), each) for pod in sample.pods for each in pod.containers]
    seen = sample.taken_at // 1_000_000_000
    yield Family(
        "container_last_seen",
        "When the container was last seen, in seconds since 1970.",
        _GAUGE,
        tuple((labels, seen) for labels, _ in containers),
    )
    yield Family(
        "container_start_time_seconds",
        "When the container started, in seconds since 1970.",
        _GAUGE,
        tuple((labels, each.container.started_at // 1_000_000_000) for labels, each in containers),
    )
    yield Family(
        "container_fs_usage_bytes",
        "Bytes in the container's writable layer.",
        _GAUGE,
        tuple(({**labels, "device": ""}, each.rootfs_bytes) for labels, each in containers),
    )


def _network_families(sample: Sample) -> Iterator[Family]:
    places = [(pod.cgroup, _pod_labels(pod), each) for pod in sample.pods for each in pod.interfaces]
    places += [("/", {"pod": "", "namespace": ""}, each) for each in sample.node.interfaces]
    for direction, short in _DIRECTIONS:
        for counted in _COUNTED:
            part = f"{short}_{counted.removeprefix('packets_')}"
            points = tuple(
                (
                    {"id": cgroup, "image": "", "name": "", "interface": each.name, **labels},
                    getattr(each, part),
                )
                for cgroup, labels, each in places
            )
            name = f"container_network_{direction}_{counted}_total"
            yield Family(name, f"{counted.replace('_', ' ').capitalize()}, {direction} side.", _COUNTER, points)


def _machine_families(node: NodeSample, cpus: int) -> Iterator[Family]:
    yield Family("machine_cpu_cores", "Logical CPU cores.", _GAUGE, (({}, cpus),))
    yield Family(
        "machine_memory_bytes",
        "Memory of the machine.",
        _GAUGE,
        (({}, node.memory_capacity),),
    )
    yield Family(
        "machine_swap_bytes",
        "Swap of the machine.",
        _GAUGE,
        (({}, node.swap_capacity),),
    )
