"""QoS classes, sums and the kernel's numbers."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet import resources, swap
from shipwheel.kubelet.container_config import NodeSettings, linux_resources
from tests.kubelet.builders import container, pod

GI = 1 << 30


def needing(name: str = "c", requests: Obj | None = None, limits: Obj | None = None, **fields: object) -> Obj:
    listed = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return container(name, resources=listed, **fields)


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([needing()], "BestEffort"),
        ([needing(requests={"cpu": "1"})], "Burstable"),
        (
            [needing(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1Gi"})],
            "Guaranteed",
        ),
        (
            [needing(limits={"cpu": "1000m", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1024Mi"})],
            "Guaranteed",
        ),
        (
            [needing(limits={"cpu": "2", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1Gi"})],
            "Burstable",
        ),
        ([needing(limits={"memory": "1Gi"}, requests={"memory": "1Gi"})], "Burstable"),
        (
            [
                needing(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1Gi"}),
                needing("d"),
            ],
            "Burstable",
        ),
        ([needing(requests={"ephemeral-storage": "1Gi"})], "BestEffort"),
        ([needing(requests={"cpu": "0"})], "BestEffort"),
    ],
)
def test_qos_class(containers: list[Obj], expected: str) -> None:
    assert resources.qos_class(pod(*containers)) == expected


def test_resources_of_the_pod_as_a_whole_decide_its_class() -> None:
    whole = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    assert resources.qos_class(pod(needing(), resources=whole)) == "Guaranteed"


def test_sums_take_sidecars_and_init_containers_into_account() -> None:
    owner = pod(
        needing("a", {"cpu": "100m"}),
        needing("b", {"cpu": "200m", "memory": "1Gi"}),
        init=(
            needing("i", {"cpu": "250m"}),
            needing("side", {"cpu": "50m"}, restartPolicy="Always"),
            needing("j", {"cpu": "400m"}),
        ),
        overhead={"cpu": "10m"},
    )
    total = resources.pod_requests(owner)
    # max(100 + 200 + 50, 250, 50, 50 + 400) + 10
    assert total["cpu"].milli_value() == 460
    assert total["memory"].value() == GI


@pytest.mark.parametrize(("milli", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (500_000, 262_144)])
def test_cpu_shares(milli: int, shares: int) -> None:
    assert resources.cpu_shares(milli) == shares


@pytest.mark.parametrize(("milli", "quota"), [(0, 0), (1, 1000), (10, 1000), (500, 50_000), (2000, 200_000)])
def test_cpu_quota(milli: int, quota: int) -> None:
    assert resources.cpu_quota(milli) == quota


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000)])
def test_cpu_weight(shares: int, weight: int) -> None:
    assert resources.cpu_weight(shares) == weight


def test_a_pods_cgroup_is_limited_only_if_every_container_is() -> None:
    limited = needing("a", {"cpu": "100m"}, {"cpu": "1", "memory": "1Gi"})
    values = resources.pod_cgroup(pod(limited))
    assert (values.cpu_shares, values.cpu_quota, values.memory) == (102, 100_000, GI)
    values = resources.pod_cgroup(pod(limited, needing("b")))
    assert (values.cpu_shares, values.cpu_quota, values.memory) == (102, None, None)
    assert resources.pod_cgroup(pod(needing())).cpu_shares == 2


@pytest.mark.parametrize(
    ("owner", "score"),
    [
        (pod(needing()), 1000),
        (pod(needing(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1Gi"})), -997),
        (pod(needing(requests={"memory": "1Gi"})), 900),
        (pod(needing(requests={"memory": "100Gi"})), 3),
        (pod(needing(requests={"memory": "1"})), 999),
        (pod(needing(), priority=2_000_001_000, priorityClassName="system-node-critical"), -997),
    ],
)
def test_oom_scores(owner: Obj, score: int) -> None:
    assert resources.oom_score(owner, owner["spec"]["containers"][0], 10 * GI) == score


def test_a_sidecar_outlives_the_containers_it_serves() -> None:
    side = needing("side", {"memory": "1"}, restartPolicy="Always")
    owner = pod(needing("a", {"memory": "1Gi"}), init=(side,))
    assert resources.oom_score(owner, side, 10 * GI) == 900


def test_a_containers_share_comes_from_its_limit_without_a_request() -> None:
    owner = pod(needing("a", limits={"cpu": "500m"}))
    assert resources.container_cpu(owner, owner["spec"]["containers"][0]) == (512, 50_000, 100_000)
    assert resources.container_cpu(owner, owner["spec"]["containers"][0], enforce=False) == (512, 0, 0)


@pytest.mark.parametrize(
    ("asked", "limit", "priority", "allowed"),
    [
        ("1Gi", "2Gi", 0, 256 << 20),
        ("1Gi", None, 0, 256 << 20),
        ("1Gi", "1Gi", 0, 0),
        (None, None, 0, 0),
        ("1Gi", "2Gi", 2_000_000_000, 0),
        ("9Gi", None, 0, 0),
    ],
)
def test_swap_is_shared_by_the_memory_asked_for(
    asked: str | None, limit: str | None, priority: int, allowed: int
) -> None:
    own = container(
        resources={
            "requests": {"memory": asked} if asked else {},
            "limits": {"memory": limit} if limit else {},
        }
    )
    assert swap.allowance(pod(own, priority=priority), own, memory=8 << 30, swap=2 << 30) == allowed
    settings = NodeSettings(memory_capacity=8 << 30, cgroup_v2=True, swap=2 << 30)
    wanted = linux_resources(pod(own, priority=priority), own, settings)
    assert wanted.unified == {"memory.swap.max": str(allowed)}
