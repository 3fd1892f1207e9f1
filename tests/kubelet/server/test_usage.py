"""What is read of the kernel's files, and what is told of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shipwheel.kubelet.runtime.base import Container
from shipwheel.kubelet.server import cgroup_stats
from shipwheel.kubelet.server.cgroup_stats import CgroupUsage, Stalled, Stalls
from shipwheel.kubelet.server.exposition import Family, cadvisor_metrics, render, resource_metrics, volume_metrics
from shipwheel.kubelet.server.sampling import (
    ContainerSample,
    Filesystem,
    Interface,
    NodeSample,
    PodSample,
    Sample,
    VolumeSample,
    interfaces,
    with_rates,
)
from shipwheel.kubelet.server.summary import ephemeral_storage, summary

SECOND = 10**9


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_version_1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cpuacct/pod/c/cpuacct.usage": "5000000000\n",
            "cpuacct/pod/c/cpuacct.stat": "user 300\nsystem 100\n",
            "cpu/pod/c/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 77\n",
            "cpu/pod/c/cpu.shares": "512\n",
            "cpu/pod/c/cpu.cfs_quota_us": "-1\n",
            "cpu/pod/c/cpu.cfs_period_us": "100000\n",
            "memory/pod/c/memory.usage_in_bytes": "1000\n",
            "memory/pod/c/memory.stat": "total_inactive_file 300\ntotal_rss 400\ntotal_pgfault 9\n"
            "hierarchical_memory_limit 2000\n",
            "memory/pod/c/memory.memsw.limit_in_bytes": "9223372036854771712\n",
            "pids/pod/c/pids.current": "3\n",
            "blkio/pod/c/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
        },
    )
    text = "4:cpu,cpuacct:/pod/c\n3:memory:/pod/c\n2:pids:/pod/c\n1:blkio:/pod/c\n0::/\n"
    found = cgroup_stats.read(cgroup_stats.paths_of(text), tmp_path)
    assert found == CgroupUsage(
        cpu=5 * SECOND,
        cpu_user=3 * SECOND,
        cpu_system=SECOND,
        periods=10,
        throttled_periods=4,
        throttled=77,
        memory=1000,
        working_set=700,
        inactive_file=300,
        rss=400,
        page_faults=9,
        processes=3,
        cpu_shares=512,
        cpu_period=100000,
        memory_limit=2000,
        io={"8:0": {"rbytes": 10, "wbytes": 20}},
    )


def test_version_2(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pod/c/cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 1\n",
            "pod/c/cpu.max": "50000 100000\n",
            "pod/c/cpu.weight": "39\n",
            "pod/c/memory.current": "1000\n",
            "pod/c/memory.stat": "anon 400\nfile 500\ninactive_file 300\n",
            "pod/c/memory.max": "max\n",
            "pod/c/memory.events": "max 2\noom_kill 1\n",
            "pod/c/io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
            "pod/c/cpu.pressure": "some avg10=1.50 avg60=0.20 avg300=0.00 total=7000000\n"
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
        },
    )
    found = cgroup_stats.read(cgroup_stats.paths_of("0::/pod/c\n"), tmp_path)
    assert (found.cpu, found.cpu_user, found.periods) == (5 * SECOND, 3 * SECOND, 1)
    assert (found.memory, found.working_set, found.rss, found.memory_limit) == (1000, 700, 400, 0)
    assert (found.cpu_quota, found.cpu_period, 990 < found.cpu_shares < 1030) == (50000, 100000, True)
    assert (found.memory_failures, found.oom_kills, found.io["8:0"]["wbytes"]) == (2, 1, 20)
    assert found.pressure == {"cpu": Stalls(Stalled(7_000_000, 1.5, 0.2), Stalled(2_000_000))}


def test_a_container_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    assert cgroup_stats.read({"memory": "/gone", "cpuacct": "/gone"}, tmp_path) == CgroupUsage()
    assert cgroup_stats.read({"": "/gone"}, tmp_path) == CgroupUsage()


def test_interfaces_of_a_process() -> None:
    text = """Inter-|   Receive                                      |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  10   1 0 0 0 0 0 0   10  1 0 0 0 0 0 0
  net1:   1   0 0 0 0 0 0 0    2  0 0 0 0 0 0 0
  eth0:1500  12 1 2 0 0 0 0  700  8 3 4 0 0 0 0
"""
    assert interfaces(text) == [
        Interface("eth0", 1500, 12, 1, 2, 700, 8, 3, 4),
        Interface("net1", 1, 0, 0, 0, 2, 0, 0, 0),
    ]


CONTAINER = Container(
    id="c1",
    sandbox_id="s",
    name='ma"in',
    attempt=0,
    image="web:1",
    image_ref="",
    state="RUNNING",
    started_at=5 * SECOND,
)
DISK = Filesystem(available=1000, capacity=5000, used=4000, inodes_free=10, inodes=50, inodes_used=40)
SAMPLE = Sample(
    taken_at=100 * SECOND,
    node=NodeSample(
        usage=CgroupUsage(cpu=50 * SECOND, memory=600, working_set=500),
        memory_capacity=1000,
        interfaces=[Interface("eth0", rx_bytes=7)],
        filesystem=DISK,
        image_filesystem=DISK,
        booted_at=1.0,
    ),
    pods=[
        PodSample(
            pod={"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "status": {"startTime": "then"}},
            usage=CgroupUsage(cpu=3 * SECOND, working_set=70, memory_limit=100),
            containers=[
                ContainerSample(
                    CONTAINER,
                    CgroupUsage(cpu=2 * SECOND, working_set=60, io={"8:0": {"rbytes": 5}}),
                    cgroup="/pod/c",
                    rootfs_bytes=11,
                    log_bytes=13,
                    log_inodes=1,
                )
            ],
            interfaces=[Interface("eth0", rx_bytes=3, tx_bytes=4)],
            volumes=[
                VolumeSample("scratch", Filesystem(used=17, inodes_used=2)),
                VolumeSample("claimed", Filesystem(used=1000), claim="pvc", ephemeral=False),
            ],
            cgroup="/pod",
        )
    ],
)


def test_rates_are_taken_between_samples() -> None:
    later = with_rates(
        replace(
            SAMPLE,
            taken_at=110 * SECOND,
            node=replace(SAMPLE.node, usage=CgroupUsage(cpu=55 * SECOND)),
            pods=[replace(SAMPLE.pods[0], usage=CgroupUsage(cpu=4 * SECOND))],
        ),
        SAMPLE,
    )
    assert (later.node.cpu_rate, later.pods[0].cpu_rate) == (SECOND // 2, SECOND // 10)
    assert later.pods[0].containers[0].cpu_rate == 0
    assert SAMPLE.node.cpu_rate is None


def test_the_summary() -> None:
    found = summary("n", SAMPLE)
    assert found["node"]["memory"]["availableBytes"] == 500
    assert found["node"]["startTime"] == "1970-01-01T00:00:01Z"
    [pod] = found["pods"]
    assert pod["startTime"] == "then"
    assert pod["cpu"] == {"time": "1970-01-01T00:01:40Z", "usageCoreNanoSeconds": 3 * SECOND}
    assert (pod["memory"]["availableBytes"], pod["network"]["rxBytes"]) == (30, 3)
    assert pod["containers"][0]["logs"]["usedBytes"] == 13
    assert pod["volume"][1]["pvcRef"] == {"name": "pvc", "namespace": "ns"}
    assert pod["ephemeral-storage"]["usedBytes"] == 11 + 13 + 17
    assert "ephemeral-storage" not in summary("n", SAMPLE, only_cpu_and_memory=True)["pods"][0]


def test_claims_are_not_the_nodes_disk() -> None:
    assert ephemeral_storage(SAMPLE.pods[0], DISK).inodes_used == 3


def test_resource_metrics() -> None:
    text = resource_metrics(SAMPLE).decode()
    labels = r'{container="ma\"in",namespace="ns",pod="p"}'
    assert f"container_cpu_usage_seconds_total{labels} 2 100000\n" in text
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="p"} 70 100000\n' in text
    assert "node_cpu_usage_seconds_total 50 100000\n" in text
    assert text.endswith("resource_scrape_error 0\n")
    assert resource_metrics(None).decode().endswith("resource_scrape_error 1\n")


@pytest.mark.parametrize("text", [resource_metrics(SAMPLE), cadvisor_metrics(SAMPLE, cpus=2)])
def test_the_text_format(text: bytes) -> None:
    """Every family once, with its help and kind before its values; every value with labels that can be parsed."""
    seen: set[str] = set()
    family = ""
    for line in text.decode().splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen
            seen.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in ([family, "gauge"], [family, "counter"])
        else:
            pattern = rf'{family}(\{{([a-zA-Z_]+="([^"\\]|\\.)*",?)+\}})? -?[0-9.e+-]+( \d+)?'
            assert re.fullmatch(pattern, line), line


def test_volumes_of_claims() -> None:
    disk = Filesystem(available=70, capacity=100, used=30, inodes_free=7, inodes=10, inodes_used=3)
    volumes = [VolumeSample("v", disk, "data", ephemeral=False), VolumeSample("scratch", disk)]
    sample = replace(SAMPLE, pods=[replace(SAMPLE.pods[0], volumes=volumes)])
    text = volume_metrics(sample).decode()
    labels = '{namespace="ns",persistentvolumeclaim="data"}'
    assert f"kubelet_volume_stats_used_bytes{labels} 30\n" in text
    assert f"kubelet_volume_stats_inodes_free{labels} 7\n" in text
    assert text.count("persistentvolumeclaim") == 6
    assert volume_metrics(None) == b""


def test_waiting_is_told_where_the_kernel_does() -> None:
    waited = replace(CgroupUsage(), pressure={"cpu": Stalls(Stalled(3_000_000, 1.5), Stalled(1_000_000))})
    sample = replace(SAMPLE, pods=[replace(SAMPLE.pods[0], usage=waited)])
    text = cadvisor_metrics(sample, cpus=2).decode()
    assert re.search(r"container_pressure_cpu_waiting_seconds_total\{.*\} 3 ", text)
    assert re.search(r"container_pressure_cpu_stalled_seconds_total\{.*\} 1 ", text)
    assert "container_pressure_io" not in text
    assert summary("n", sample)["pods"][0]["cpu"]["psi"] == {
        "some": {"total": 3_000_000, "avg10": 1.5, "avg60": 0.0, "avg300": 0.0},
        "full": {"total": 1_000_000, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0},
    }


def test_a_network_is_counted_by_pod() -> None:
    text = cadvisor_metrics(SAMPLE, cpus=2).decode()
    labels = '{id="/pod",image="",interface="eth0",name="",namespace="ns",pod="p"}'
    assert f"container_network_receive_bytes_total{labels} 3 100000" in text
    assert 'container_fs_reads_bytes_total{container="ma\\"in",device="8:0",id="/pod/c"' in text


def test_families_without_values_are_left_out() -> None:
    assert render([Family("x", "", "gauge", ())], 0) == b""
