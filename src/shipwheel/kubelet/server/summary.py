"""`/stats/summary` (stats.k8s.io v1alpha1): a sample in the form that upstream's clients read."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet.server.cgroup_stats import CgroupUsage
from shipwheel.kubelet.server.sampling import (
    ContainerSample,
    Filesystem,
    Interface,
    PodSample,
    Sample,
    VolumeSample,
)


def summary(node: str, sample: Sample, *, only_cpu_and_memory: bool = False) -> Obj:
    time = _time(sample.taken_at)
    whole = sample.node
    found: Obj = {
        "nodeName": node,
        "startTime": _time(int(whole.booted_at * 1e9)),
        "cpu": _cpu(time, whole.usage, whole.cpu_rate),
        "memory": _memory(time, whole.usage, whole.memory_capacity),
    }
    if not only_cpu_and_memory:
        found |= {
            "network": _network(time, whole.interfaces),
            "fs": _filesystem(time, whole.filesystem),
            "runtime": {
                "imageFs": _filesystem(time, whole.image_filesystem),
                "containerFs": _filesystem(time, whole.image_filesystem),
            },
            "rlimit": {"time": time, "maxpid": whole.max_processes, "curproc": whole.processes},
            "swap": _swap(time, whole.usage, whole.swap_capacity),
        }
    return {"node": found, "pods": [_pod(time, each, sample, only_cpu_and_memory) for each in sample.pods]}


def _pod(time: str, pod: PodSample, sample: Sample, only_cpu_and_memory: bool) -> Obj:
    meta = pod.pod["metadata"]
    limit = pod.usage.memory_limit
    found: Obj = {
        "podRef": {"name": meta["name"], "namespace": meta.get("namespace", ""), "uid": meta["uid"]},
        "startTime": (pod.pod.get("status") or {}).get("startTime") or meta.get("creationTimestamp"),
        "containers": [_container(time, each, sample, only_cpu_and_memory) for each in pod.containers],
        "cpu": _cpu(time, pod.usage, pod.cpu_rate),
        "memory": _memory(time, pod.usage, limit),
    }
    if only_cpu_and_memory:
        return found
    if pod.interfaces:
        found["network"] = _network(time, pod.interfaces)
    if pod.volumes:
        found["volume"] = [_volume(time, each, meta.get("namespace", "")) for each in pod.volumes]
    found["ephemeral-storage"] = _filesystem(time, ephemeral_storage(pod, sample.node.filesystem))
    if io := _psi(pod.usage, "io"):
        found["io"] = {"time": time, **io}
    found["process_stats"] = {"process_count": pod.usage.processes}
    found["swap"] = _swap(time, pod.usage, pod.usage.swap_limit)
    return found


def ephemeral_storage(pod: PodSample, disk: Filesystem) -> Filesystem:
    """What a pod holds of the node's disk: writable layers, logs, and volumes that live there."""
    own = [each.filesystem for each in pod.volumes if each.ephemeral]
    return Filesystem(
        available=disk.available,
        capacity=disk.capacity,
        inodes_free=disk.inodes_free,
        inodes=disk.inodes,
        used=sum(each.rootfs_bytes + each.log_bytes for each in pod.containers) + sum(each.used for each in own),
        inodes_used=sum(each.rootfs_inodes + each.log_inodes for each in pod.containers)
        + sum(each.inodes_used for each in own),
    )


def _container(time: str, found: ContainerSample, sample: Sample, only_cpu_and_memory: bool) -> Obj:
    stats: Obj = {
        "name": found.container.name,
        "startTime": _time(found.container.started_at or found.container.created_at),
        "cpu": _cpu(time, found.usage, found.cpu_rate),
        "memory": _memory(time, found.usage, found.usage.memory_limit),
    }
    if only_cpu_and_memory:
        return stats
    images, disk = sample.node.image_filesystem, sample.node.filesystem
    stats["rootfs"] = _filesystem(time, _part(images, found.rootfs_bytes, found.rootfs_inodes))
    stats["logs"] = _filesystem(time, _part(disk, found.log_bytes, found.log_inodes))
    if io := _psi(found.usage, "io"):
        stats["io"] = {"time": time, **io}
    stats["swap"] = _swap(time, found.usage, found.usage.swap_limit)
    return stats


def _part(whole: Filesystem, used: int, inodes_used: int) -> Filesystem:
    return Filesystem(whole.available, whole.capacity, used, whole.inodes_free, whole.inodes, inodes_used)


def _volume(time: str, volume: VolumeSample, namespace: str) -> Obj:
    found = {**_filesystem(time, volume.filesystem), "name": volume.name}
    return found | {"pvcRef": {"name": volume.claim, "namespace": namespace}} if volume.claim else found


def _cpu(time: str, usage: CgroupUsage, rate: int | None) -> Obj:
    found: Obj = {"time": time, "usageCoreNanoSeconds": usage.cpu, **_psi(usage, "cpu")}
    return found if rate is None else {**found, "usageNanoCores": rate}


def _psi(usage: CgroupUsage, resource: str) -> Obj:
    stalls = usage.pressure.get(resource)
    return {} if stalls is None else {"psi": {"full": asdict(stalls.full), "some": asdict(stalls.some)}}


def _memory(time: str, usage: CgroupUsage, capacity: int) -> Obj:
    found: Obj = {
        "time": time,
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set,
        "rssBytes": usage.rss,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
        **_psi(usage, "memory"),
    }
    return {**found, "availableBytes": max(capacity - usage.working_set, 0)} if capacity else found


def _swap(time: str, usage: CgroupUsage, capacity: int) -> Obj:
    return {
        "time": time,
        "swapUsageBytes": usage.swap,
        "swapAvailableBytes": max(capacity - usage.swap, 0),
    }


def _filesystem(time: str, found: Filesystem) -> Obj:
    return {
        "time": time,
        "availableBytes": found.available,
        "capacityBytes": found.capacity,
        "usedBytes": found.used,
        "inodesFree": found.inodes_free,
        "inodes": found.inodes,
        "inodesUsed": found.inodes_used,
    }


def _network(time: str, interfaces: Any) -> Obj:
    shown = [_interface(each) for each in interfaces]
    first = shown[0] if shown else {"name": ""}
    return {"time": time, **first, "interfaces": shown}


def _interface(found: Interface) -> Obj:
    return {
        "name": found.name,
        "rxBytes": found.rx_bytes,
        "rxErrors": found.rx_errors,
        "txBytes": found.tx_bytes,
        "txErrors": found.tx_errors,
    }


def _time(nanoseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC))
