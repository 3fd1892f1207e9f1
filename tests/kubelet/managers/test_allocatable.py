"""What is reserved, and which cgroups are held to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from shipwheel.kubelet.cgroups import CgroupTree
from shipwheel.kubelet.node_allocatable import (
    enforcements,
    overcommitted,
    pods_cgroup,
    problems,
    reservations,
    reserved_cpus,
)
from shipwheel.kubelet.resources import CgroupValues
from shipwheel.kubelet.settings import KubeletConfig

GIB = 1 << 30
CAPACITY = {"cpu": "4", "memory": "8Gi", "pods": "110", "hugepages-2Mi": "64Mi"}


def config(**changes: Any) -> KubeletConfig:
    return dataclasses.replace(KubeletConfig(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology_manager_policy": "x"}, 'topologyManagerPolicy (--topology-manager-policy) "x" must be one of'),
        ({"topology_manager_scope": "x"}, 'topologyManagerScope (--topology-manager-scope) "x" must be one of'),
        ({"swap_behavior": "x"}, 'memorySwap.swapBehavior "x" must be one of: "", "LimitedSwap" or "NoSwap"'),
        ({"enforce_node_allocatable": ("pods", "pods")}, 'duplicated enforcements "pods"'),
        ({"enforce_node_allocatable": ("none", "pods")}, 'may not contain additional enforcements when "none"'),
        ({"enforce_node_allocatable": ("x",)}, 'option "x" specified for enforceNodeAllocatable'),
        ({"cgroups_per_qos": False}, 'cgroupsPerQOS (--cgroups-per-qos) must be set to true when "pods"'),
        ({"enforce_node_allocatable": ("system-reserved",)}, "systemReservedCgroup (--system-reserved-cgroup) must be"),
        ({"reserved_system_cpus": "0", "kube_reserved_cgroup": "/k"}, "can't use reservedSystemCPUs (--reserved-cpus)"),
        ({"reserved_system_cpus": "a"}, "unable to parse reservedSystemCPUs (--reserved-cpus) a"),
        ({"system_reserved": {"pods": "1"}}, 'cannot reserve "pods" resource'),
        ({"kube_reserved": {"cpu": "-1"}}, 'resource quantity for "cpu" cannot be negative: -1'),
        ({"kube_reserved": {"cpu": "much"}}, '--kube-reserved value failed to parse: failed to parse quantity "much"'),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    assert any(message in each for each in problems(config(**changes))), problems(config(**changes))
    assert problems(config()) == []


def test_what_pods_may_have_together() -> None:
    reserved = config(system_reserved={"memory": "1Gi", "pid": "100"}, kube_reserved={"cpu": "500m"})
    assert pods_cgroup(reserved, CAPACITY, pids=1000) == CgroupValues(
        3584, memory=7 * GIB, hugepages={"hugepages-2Mi": 64 << 20}, pids=900
    )
    free = dataclasses.replace(reserved, enforce_node_allocatable=("none",))
    assert pods_cgroup(free, CAPACITY, pids=1000).memory == 8 * GIB


def test_named_cpus_override_numbers_of_them() -> None:
    named = config(
        reserved_system_cpus="0,1", system_reserved={"cpu": "3"}, kube_reserved={"cpu": "1", "memory": "1Gi"}
    )
    assert str(reservations(named).of("cpu")) == "2" and str(reservations(named).of("memory")) == "1Gi"
    assert reserved_cpus(named, frozenset(range(4))) == {0, 1}
    with pytest.raises(ValueError, match="reserved-cpus: 0,1 is not a subset of online-cpus: 0"):
        reserved_cpus(named, frozenset({0}))


def test_cgroups_of_others() -> None:
    asked = config(
        enforce_node_allocatable=("pods", "system-reserved", "kube-reserved-compressible"),
        system_reserved={"cpu": "1", "memory": "1Gi", "pid": "50"},
        kube_reserved={"cpu": "2", "memory": "1Gi"},
        system_reserved_cgroup="/system",
        kube_reserved_cgroup="/kube",
    )
    system, kube = enforcements(asked)
    assert (system.kind, system.cgroup, system.values) == ("system", "/system", CgroupValues(1024, memory=GIB, pids=50))
    assert (kube.kind, kube.cgroup, kube.values) == ("kube", "/kube", CgroupValues(2048))


def test_more_is_reserved_than_there_is() -> None:
    assert overcommitted(CAPACITY, reservations(config(system_reserved={"memory": "9Gi"}))) == (
        'invalid Node Allocatable configuration. Resource "memory" has a reservation of 9Gi but capacity of 8Gi. '
        "Expected capacity >= reservation."
    )
    assert overcommitted(CAPACITY, reservations(config())) == ""


def test_held_to_it(tmp_path: Path) -> None:
    """On a directory that looks like cgroup v2."""
    tree = CgroupTree("/root", mount=tmp_path, v2=True)
    with pytest.raises(FileNotFoundError):
        tree.hold("/system", CgroupValues(1024))
    place = tmp_path / "system"
    place.mkdir()
    for name in ("cpu.weight", "memory.max", "pids.max"):
        (place / name).touch()
    tree.hold("/system", CgroupValues(1024, memory=GIB, pids=50))
    assert [(place / name).read_text() for name in ("cpu.weight", "memory.max", "pids.max")] == [
        "39", str(GIB), "50",
    ]  # fmt: skip
