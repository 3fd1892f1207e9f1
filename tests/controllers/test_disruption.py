"""Disruption budgets."""

from __future__ import annotations

import pytest

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
)
from shipwheel.controllers.disruption import DisruptionController, budget, stale_condition, still_disrupted
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago
from tests.controllers.world import World

LABELS = {"app": "web"}


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
