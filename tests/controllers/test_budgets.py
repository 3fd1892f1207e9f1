"""Quotas, disruption budgets and autoscalers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
)
from shipwheel.controllers.autoscaler import HorizontalPodAutoscalerController
from shipwheel.controllers.autoscaler.behavior import Memory, remember, tame
from shipwheel.controllers.autoscaler.replicas import (
    Groups,
    NoReplicas,
    PodMetric,
    Settings,
    Tolerances,
    by_average,
    by_utilization,
    by_value,
    by_value_per_pod,
    group,
    requests_of,
)
from shipwheel.controllers.disruption import DisruptionController, budget, stale_condition, still_disrupted
from shipwheel.controllers.resource_quota import ResourceQuotaController
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago
from tests.controllers.world import World, without_faults

LABELS = {"app": "web"}

# Disruption budgets


def pdb(**spec: object) -> Obj:
    return {"metadata": objects.meta("pdb"), "spec": {"selector": {"matchLabels": LABELS}, **spec}}


@pytest.mark.parametrize(
    ("spec", "pods", "scale", "expected"),
    [
        ({"minAvailable": 2}, 5, 0, (5, 2)),
        ({"minAvailable": "50%"}, 4, 5, (5, 3)),
        ({"maxUnavailable": 1}, 4, 5, (5, 4)),
        ({"maxUnavailable": "30%"}, 4, 10, (10, 7)),
        ({"maxUnavailable": "1%"}, 4, 10, (10, 9)),
        ({"maxUnavailable": 20}, 4, 10, (10, 0)),
        ({}, 5, 0, (5, 0)),
    ],
)
def test_how_many_must_be_healthy(spec, pods, scale, expected):
    found = budget(pdb(**spec), pods, scale)
    assert (found.expected, found.desired) == expected


def test_an_eviction_counts_until_the_pod_goes_or_proves_not_to():
    noted = {**pdb(), "status": {"disruptedPods": {"a": ago(60), "b": ago(121), "c": ago(1), "gone": ago(1)}}}
    pods = [objects.pod("a"), objects.pod("b"), objects.pod("c", deleted=True)]
    kept, forgotten, wait = still_disrupted(noted, pods, NOW)
    assert (kept, [pod["metadata"]["name"] for pod in forgotten], wait) == ({"a": ago(60)}, ["b"], 60)


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        ({"status": "True", "lastTransitionTime": ago(60)}, {}, 60),
        ({"status": "True", "lastTransitionTime": ago(600)}, {}, 0),
        ({"status": "False", "lastTransitionTime": ago(600)}, {}, None),
        ({"status": "True", "lastTransitionTime": ago(600), "reason": "TerminationByKubelet"}, {}, None),
        ({"status": "True", "lastTransitionTime": ago(600)}, {"deleted": True}, None),
    ],
)
def test_announcements_that_prove_wrong(entry, fields, expected):
    made = objects.pod("a", **fields)
    made["status"]["conditions"].append({"type": "DisruptionTarget", **entry})
    assert stale_condition(made, NOW) == expected


def add_workload(cluster: World, replicas: int) -> None:
    deployment = cluster.api.create(
        DEPLOYMENTS, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas}}
    )
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "uid": deployment["metadata"]["uid"],
        "controller": True,
    }
    rs = cluster.api.create(
        REPLICA_SETS,
        {"metadata": {"name": "web-1", "namespace": "default", "ownerReferences": [owner]}, "spec": {"replicas": 1}},
    )
    for index in range(replicas):
        reference = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "web-1",
            "uid": rs["metadata"]["uid"],
            "controller": True,
        }
        body = {
            "metadata": {"name": f"p{index}", "namespace": "default", "labels": LABELS, "ownerReferences": [reference]},
            "spec": {"containers": []},
        }
        cluster.start_pod(cluster.api.create(PODS, body))


def add_pdb(cluster: World, **spec: object) -> None:
    body = {"metadata": {"name": "pdb", "namespace": "default"}, "spec": {"selector": {"matchLabels": LABELS}, **spec}}
    cluster.api.create(POD_DISRUPTION_BUDGETS, body)


def allowed(cluster: World) -> int:
    return cluster.api.get(POD_DISRUPTION_BUDGETS, "pdb", "default")["status"].get("disruptionsAllowed", 0)


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_a_budget_follows_its_pods(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.1, conflict=0.1, break_watch=0.1, lag=0.2, seed=seed)
    cluster = World((DisruptionController,), faults)
    async with cluster.running():
        add_workload(cluster, 4)
        add_pdb(cluster, maxUnavailable=1)
        await cluster.until(lambda: allowed(cluster) == 1, within=120)
        cluster.start_pod(cluster.api.get(PODS, "p0", "default"), ready=False)
        await cluster.until(lambda: allowed(cluster) == 0, within=120)
        cluster.start_pod(cluster.api.get(PODS, "p0", "default"))
        await cluster.until(lambda: allowed(cluster) == 1, within=120)
        status = cluster.api.get(POD_DISRUPTION_BUDGETS, "pdb", "default")["status"]
        assert (status["expectedPods"], status["desiredHealthy"], status["currentHealthy"]) == (4, 3, 4)
        assert condition({"status": status}, "DisruptionAllowed")["reason"] == "SufficientPods"


async def test_pods_whose_owner_cannot_be_found_allow_nothing():
    cluster = World((DisruptionController,))
    async with cluster.running():
        add_workload(cluster, 2)
        cluster.api.delete(REPLICA_SETS, "web-1", "default")
        add_pdb(cluster, maxUnavailable=1)
        await cluster.settle(2)
        status = cluster.api.get(POD_DISRUPTION_BUDGETS, "pdb", "default")["status"]
        assert status["disruptionsAllowed"] == 0
        failed = condition({"status": status}, "DisruptionAllowed")
        assert failed["reason"] == "SyncFailed"
        assert failed["message"].startswith('found no controllers for pod "p')


async def test_an_evicted_pod_that_is_not_deleted_counts_again_after_two_minutes():
    cluster = World((DisruptionController,))
    async with cluster.running():
        add_workload(cluster, 3)
        add_pdb(cluster, minAvailable=2)
        await cluster.until(lambda: allowed(cluster) == 1)
        now = rfc3339(cluster.clock.now())
        cluster.api.change(
            POD_DISRUPTION_BUDGETS,
            "pdb",
            "default",
            lambda obj: obj["status"].update(disruptionsAllowed=0, disruptedPods={"p0": now}),
        )
        await cluster.pass_time(110, step=10)
        assert allowed(cluster) == 0
        await cluster.pass_time(20, step=5)
        assert allowed(cluster) == 1
        assert cluster.events("NotDeleted")


# Quotas


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_a_quota_is_counted_and_gives_back_what_has_gone(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.05, conflict=0.1, break_watch=0.1, lag=0.2, seed=seed)
    cluster = World((ResourceQuotaController,), faults)

    def used() -> Obj:
        return cluster.api.get(RESOURCE_QUOTAS, "q", "default")["status"].get("used", {})

    async with cluster.running():
        for index in range(3):
            cluster.api.create(CONFIG_MAPS, {"metadata": {"name": f"m{index}", "namespace": "default"}})
            cluster.api.create(
                PODS, {"metadata": {"name": f"p{index}", "namespace": "default"}, "spec": {"containers": []}}
            )
        hard = {"configmaps": "10", "pods": "5", "count/pods": "9"}
        cluster.api.create(RESOURCE_QUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})
        await cluster.until(lambda: used() == {"configmaps": "3", "pods": "3", "count/pods": "3"}, within=300)
        assert cluster.api.get(RESOURCE_QUOTAS, "q", "default")["status"]["hard"] == hard
        cluster.api.delete(CONFIG_MAPS, "m0", "default")
        cluster.end_pod(cluster.api.get(PODS, "p0", "default"))
        await cluster.until(lambda: used() == {"configmaps": "2", "pods": "2", "count/pods": "3"}, within=400)


async def test_what_admission_has_taken_is_not_given_back_by_a_cache_that_is_behind():
    """A creation does not make the controller count: only what has gone does, and the regular look."""
    cluster = World((ResourceQuotaController,))
    async with cluster.running():
        cluster.api.create(
            RESOURCE_QUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "5"}}}
        )
        await cluster.settle(1)
        cluster.api.change(RESOURCE_QUOTAS, "q", "default", lambda obj: obj["status"]["used"].update(pods="1"))
        await cluster.pass_time(60, step=10)
        assert cluster.api.get(RESOURCE_QUOTAS, "q", "default")["status"]["used"] == {"pods": "1"}
        await cluster.pass_time(300, step=30)
        assert cluster.api.get(RESOURCE_QUOTAS, "q", "default")["status"]["used"] == {"pods": "0"}


# Autoscaling: from metrics to replicas

TENTH = Tolerances(0.1, 0.1)
SETTINGS = Settings(300, 30)


def running(count: int) -> list[Obj]:
    return [objects.pod(f"p{index}", status={"startTime": ago(3600)}) for index in range(count)]


def metrics(*values: int) -> dict[str, PodMetric]:
    return {f"p{index}": PodMetric(value, NOW) for index, value in enumerate(values)}


def grouped(ready: int, unready: int = 0, missing: int = 0) -> Groups:
    names = [f"p{index}" for index in range(ready + unready + missing)]
    return Groups(ready, frozenset(names[ready : ready + unready]), frozenset(names[ready + unready :]), frozenset())


@pytest.mark.parametrize(
    ("values", "current", "unready", "missing", "expected"),
    [
        ((500, 500, 500), 3, 0, 0, 3),  # at its target
        ((540, 540, 540), 3, 0, 0, 3),  # within the tolerance
        ((800, 800, 800), 3, 0, 0, 5),
        ((100, 100, 100), 3, 0, 0, 1),
        ((900, 900), 3, 1, 0, 4),  # one that is not ready counts as idle: 60 %
        ((900, 900), 3, 0, 1, 4),  # one that is not known counts as idle on the way up
        ((100, 100), 3, 0, 1, 3),  # and as fully used on the way down
    ],
)
def test_by_utilization(values, current, unready, missing, expected):
    pods = running(current)
    requests = {pod["metadata"]["name"]: 1000 for pod in pods}
    found = by_utilization(pods, metrics(*values), requests, 50, current, TENTH, grouped(len(values), unready, missing))
    assert found.replicas == expected


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=20), st.integers(10, 90))
def test_more_use_never_means_fewer_pods(values, target):
    pods = running(len(values))
    requests = {pod["metadata"]["name"]: 1000 for pod in pods}
    groups = grouped(len(values))
    less = by_utilization(pods, metrics(*values), requests, target, len(values), TENTH, groups)
    more = by_utilization(pods, metrics(*(value * 2 for value in values)), requests, target, len(values), TENTH, groups)
    assert more.replicas >= less.replicas


def test_by_average():
    assert by_average(running(3), metrics(20000, 10000, 30000), 15000, 3, TENTH, grouped(3)).replicas == 4
    with pytest.raises(NoReplicas, match="did not receive metrics"):
        by_average(running(1), {}, 1, 1, TENTH, grouped(0, missing=1))


@pytest.mark.parametrize(
    ("usage", "ready", "current", "expected"), [(2000, 3, 3, 6), (1050, 3, 3, 3), (500, 4, 4, 2), (3500, 0, 0, 4)]
)
def test_by_one_value(usage, ready, current, expected):
    assert by_value(usage, 1000, ready, current, TENTH) == expected


@pytest.mark.parametrize(
    ("usage", "current", "expected"), [(9000, 4, 5), (8600, 4, 4), (8000, 4, 4), (1000, 4, 1), (5000, 0, 3)]
)
def test_by_one_value_shared_among_the_pods(usage, current, expected):
    assert by_value_per_pod(usage, 2000, current, TENTH).replicas == expected


def test_pods_are_sorted_by_what_is_known_of_them():
    pods = [
        *running(1),
        objects.pod("leaving", deleted=True),
        objects.pod("failed", "Failed"),
        objects.pod("pending", "Pending"),
        objects.pod("unknown"),
        objects.pod("starting", ready=False, ready_for=5, status={"startTime": ago(10)}),
    ]
    known = metrics(100) | {"starting": PodMetric(900, NOW)}
    found = group(pods, known, "cpu", SETTINGS, NOW)
    assert found == Groups(
        1, frozenset({"pending", "starting"}), frozenset({"unknown"}), frozenset({"leaving", "failed"})
    )
    assert group(pods, known, "memory", SETTINGS, NOW).ready == 2


def test_requests():
    def with_requests(**requests: str) -> Obj:
        return objects.pod("p", spec={"containers": [{"name": "c", "resources": {"requests": requests}}]})

    assert requests_of([with_requests(cpu="250m")], "cpu") == {"p": 250}
    with pytest.raises(NoReplicas, match="missing request for memory in container c of Pod p"):
        requests_of([with_requests(cpu="250m")], "memory")
    with pytest.raises(NoReplicas, match="container x not found in Pod p"):
        requests_of([with_requests(cpu="250m")], "cpu", "x")


# Autoscaling: how fast


def rules(
    up: list[tuple[str, int, int]] | None = None, down: list[tuple[str, int, int]] | None = None, **more: object
) -> Obj:
    def policies(entries: list[tuple[str, int, int]]) -> list[Obj]:
        return [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in entries]

    return {
        "scaleUp": {
            "policies": policies(up or [("Percent", 100, 15), ("Pods", 4, 15)]),
            "stabilizationWindowSeconds": 0,
            **more,
        },
        "scaleDown": {"policies": policies(down or [("Percent", 100, 15)]), "stabilizationWindowSeconds": 0, **more},
    }


@pytest.mark.parametrize(
    ("behavior", "current", "desired", "expected"),
    [
        (rules(), 10, 100, 20),
        (rules(), 1, 100, 5),
        (rules(selectPolicy="Min"), 10, 100, 14),
        (rules(selectPolicy="Disabled"), 10, 100, 10),
        (rules(up=[("Pods", 3, 60)]), 10, 100, 13),
        (rules(down=[("Percent", 10, 60)]), 50, 1, 45),
        (rules(down=[("Pods", 4, 60), ("Percent", 10, 60)]), 20, 1, 16),
        (rules(down=[("Pods", 4, 60), ("Percent", 10, 60)], selectPolicy="Min"), 20, 1, 18),
        (rules(), 10, 9, 9),
    ],
)
def test_policies_bound_the_change(behavior, current, desired, expected):
    assert tame(Memory(), behavior, current, desired, 1, 1000, 300, 0).replicas == expected


def test_what_was_added_in_the_period_counts():
    behavior, memory = rules(up=[("Pods", 4, 60)]), Memory()
    first = tame(memory, behavior, 10, 100, 1, 100, 300, 0).replicas
    remember(memory, behavior, 10, first, 0)
    assert first == 14
    assert tame(memory, behavior, 14, 100, 1, 100, 300, 30).replicas == 14
    assert tame(memory, behavior, 14, 100, 1, 100, 300, 61).replicas == 18


def test_going_down_waits_for_the_window():
    memory = Memory()
    assert tame(memory, None, 10, 10, 1, 100, 300, 0).replicas == 10
    held = tame(memory, None, 10, 2, 1, 100, 300, 200)
    assert (held.replicas, held.conditions[0].reason) == (10, "ScaleDownStabilized")
    assert tame(memory, None, 10, 2, 1, 100, 300, 301).replicas == 2


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60)), min_size=1, max_size=20),
    st.integers(1, 5),
    st.integers(5, 40),
)
def test_always_within_the_limits(wishes, minimum, maximum):
    memory, behavior, current, now = Memory(), rules(), 5, 0.0
    for desired, wait in wishes:
        now += wait
        after = tame(memory, behavior, current, desired, minimum, maximum, 300, now).replicas
        assert min(current, minimum) <= after <= max(current, maximum)
        remember(memory, behavior, current, after, now)
        current = after


# On the fake API


class Metered:
    """The scale and the metrics API of one Deployment."""

    def __init__(self, replicas: int, cpu: str) -> None:
        self.replicas = replicas
        self.cpu = cpu
        self.cluster: World

    def __call__(self, method: str, path: str, body: Obj | None) -> Obj | None:
        if path.endswith("/scale"):
            if method == "PUT":
                self.replicas = body["spec"]["replicas"]
            return {
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": self.replicas},
                "status": {"replicas": self.replicas, "selector": "app=web"},
            }
        if path.startswith("/apis/metrics.k8s.io"):
            now = rfc3339(self.cluster.clock.now())
            items = [
                {
                    "metadata": {"name": f"p{index}"},
                    "timestamp": now,
                    "window": "30s",
                    "containers": [{"name": "c", "usage": {"cpu": self.cpu}}],
                }
                for index in range(self.replicas)
            ]
            return {"kind": "PodMetricsList", "metadata": {}, "items": items}
        return None


async def test_an_autoscaler_follows_the_load():
    cluster = World((HorizontalPodAutoscalerController,))
    scale = Metered(2, "900m")
    scale.cluster = cluster
    cluster.api.intercept = scale
    target = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }

    def keep_pods() -> None:
        present = len(cluster.api.list(PODS))
        for index in range(present, scale.replicas):
            body = {
                "metadata": {"name": f"p{index}", "namespace": "default", "labels": LABELS},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            }
            cluster.start_pod(cluster.api.create(PODS, body))
            started = rfc3339(cluster.clock.now() - timedelta(hours=1))
            cluster.api.change(PODS, f"p{index}", "default", lambda pod, at=started: pod["status"].update(startTime=at))
        for index in range(scale.replicas, present):
            cluster.api.objects.pop((PODS, "default", f"p{index}"))

    keep_pods()
    async with cluster.running():
        cluster.api.create(
            HORIZONTAL_POD_AUTOSCALERS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
        )
        await cluster.settle(1)
        assert scale.replicas == 4, "90 % of 50 %: twice the pods, less a little"
        keep_pods()
        status = cluster.api.get(HORIZONTAL_POD_AUTOSCALERS, "web", "default")["status"]
        assert (status["currentReplicas"], status["desiredReplicas"]) == (2, 4)
        assert status["currentMetrics"][0]["resource"]["current"] == {"averageUtilization": 90, "averageValue": "900m"}
        assert condition({"status": status}, "AbleToScale")["reason"] == "SucceededRescale"
        assert cluster.events("SuccessfulRescale") == [
            ("SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target")
        ]


async def test_without_metrics_nothing_is_done_and_the_reason_told():
    cluster = World((HorizontalPodAutoscalerController,))
    scale = Metered(0, "0")
    scale.cluster = cluster
    cluster.api.intercept = lambda method, path, body: (
        None if path.startswith("/apis/metrics") else scale(method, path, body)
    )
    scale.replicas = 2
    target = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    async with cluster.running():
        cluster.api.create(
            HORIZONTAL_POD_AUTOSCALERS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
        )
        await cluster.settle(2)
        found = condition(cluster.api.get(HORIZONTAL_POD_AUTOSCALERS, "web", "default"), "ScalingActive")
        assert (found["status"], found["reason"]) == ("False", "FailedGetResourceMetric")
        assert scale.replicas == 2
        without_faults(cluster)
