"""Pods that nobody else would remove."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import NODES, PODS
from shipwheel.controllers.pod_gc import PodGarbageCollector, is_out_of_service, too_many_terminated
from tests.controllers import objects
from tests.controllers.world import CONFIG, World

OUT = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}


def test_the_evicted_and_the_oldest_go_first():
    pods = [
        objects.pod("young", "Succeeded", created=10),
        objects.pod("old", "Succeeded", created=100),
        objects.pod("evicted", "Failed", created=1, status={"reason": "Evicted"}),
        objects.pod("running"),
        objects.pod("pending", "Pending"),
    ]
    found = [pod["metadata"]["name"] for pod in too_many_terminated(pods, 1)]
    assert found == ["evicted", "old"]
    assert too_many_terminated(pods, 3) == too_many_terminated(pods, 0) == []


@pytest.mark.parametrize(
    ("ready", "taints", "expected"), [("Unknown", [OUT], True), ("True", [OUT], False), ("Unknown", [], False)]
)
def test_out_of_service(ready, taints, expected):
    assert is_out_of_service(objects.node(ready=ready, taints=taints)) is expected


def add_pod(cluster: World, name: str, node: str = "n1", phase: str = "Running", **meta: object) -> Obj:
    body = {
        "metadata": {"name": name, "namespace": "default", **meta},
        "spec": {"containers": []},
        "status": {"phase": phase},
    }
    if node:
        body["spec"]["nodeName"] = node
    return cluster.api.create(PODS, body)


def exists(cluster: World, name: str) -> bool:
    return cluster.api.get(PODS, name, "default") is not None


async def test_pods_of_a_node_that_has_gone_go_after_a_while():
    cluster = World((PodGarbageCollector,))
    cluster.add_node("n1")
    seen: list[Obj] = []

    def note(method: str, path: str, body: Obj | None) -> None:
        if method == "PATCH":
            seen.append(body["status"])

    cluster.api.before_write = note
    async with cluster.running():
        add_pod(cluster, "a")
        cluster.api.delete(NODES, "n1")
        await cluster.pass_time(50, step=5)
        assert exists(cluster, "a")
        await cluster.pass_time(20, step=5)
        assert not exists(cluster, "a")
    assert seen[0]["phase"] == "Failed"
    assert condition({"status": seen[0]}, "DisruptionTarget")["message"] == "PodGC: node no longer exists"


async def test_a_node_that_comes_back_in_time_keeps_them():
    cluster = World((PodGarbageCollector,))
    async with cluster.running():
        add_pod(cluster, "a")
        await cluster.pass_time(30, step=5)
        cluster.add_node("n1")
        await cluster.pass_time(120, step=10)
        assert exists(cluster, "a")


async def test_pods_that_never_had_a_node_and_are_being_deleted():
    cluster = World((PodGarbageCollector,))
    async with cluster.running():
        add_pod(
            cluster, "stuck", "", "Pending", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30
        )
        add_pod(cluster, "waiting", "", "Pending")
        await cluster.pass_time(25, step=5)
        assert not exists(cluster, "stuck")
        assert exists(cluster, "waiting")


async def test_pods_on_a_node_marked_out_of_service():
    cluster = World((PodGarbageCollector,))
    cluster.api.create(NODES, objects.node("n1", ready="Unknown", taints=[OUT]))
    async with cluster.running():
        add_pod(cluster, "leaving", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
        add_pod(cluster, "staying")
        await cluster.pass_time(25, step=5)
        assert not exists(cluster, "leaving")
        assert exists(cluster, "staying")


async def test_only_so_many_terminated_pods_are_kept():
    cluster = World((PodGarbageCollector,), config=replace(CONFIG, terminated_pod_gc_threshold=3))
    cluster.add_node("n1")
    async with cluster.running():
        for index in range(8):
            add_pod(cluster, f"p{index}", phase="Succeeded")
        await cluster.pass_time(25, step=5)
        assert len(cluster.api.list(PODS)) == 3
