"""ResourceQuota usage on the fake API: counted once, given back when something goes, right in the end."""

from __future__ import annotations

import random

import pytest

from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.api.quantity import parse
from shipwheel.client.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_QUOTAS,
    SERVICES,
)
from shipwheel.controllers.resource_quota import ResourceQuotaController
from tests.controllers.fakeapi import Faults
from tests.controllers.fakekinds import FakeKind
from tests.controllers.world import World, template, without_faults

WIDGETS = GroupVersionResource("x.dev", "v1", "widgets")


def cluster(faults: Faults | None = None) -> World:
    return World((ResourceQuotaController,), faults or Faults())


def add_quota(world: World, hard: dict[str, str], name: str = "q", **spec: object) -> None:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"hard": hard, **spec}}
    world.api.create(RESOURCE_QUOTAS, body)


def status(world: World, name: str = "q") -> Obj:
    return world.api.get(RESOURCE_QUOTAS, name, "default")["status"]


def used(world: World, name: str = "q") -> dict[str, str]:
    return status(world, name).get("used") or {}


def add(world: World, gvr: GroupVersionResource, name: str, spec: Obj | None = None, **meta: object) -> Obj:
    return world.api.create(gvr, {"metadata": {"name": name, "namespace": "default", **meta}, "spec": spec or {}})


def pod_spec(cpu: str = "100m", **spec: object) -> Obj:
    return {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "x.dev/gpu": "1"}}}], **spec}


def claim_spec(storage_class: str, storage: str) -> Obj:
    return {"storageClassName": storage_class, "resources": {"requests": {"storage": storage}}}


async def test_everything_that_can_be_counted_is():
    world = cluster()
    add(world, PODS, "a", pod_spec())
    add(world, PODS, "b", pod_spec("1"))
    world.end_pod(add(world, PODS, "over", pod_spec("5")))
    add(world, SERVICES, "s", {"type": "LoadBalancer", "ports": [{}, {}]})
    add(world, PERSISTENT_VOLUME_CLAIMS, "c", claim_spec("gold", "5Gi"))
    add(world, PERSISTENT_VOLUME_CLAIMS, "d", claim_spec("silver", "3Gi"))
    add(world, DEPLOYMENTS, "web", {"template": template({})})
    world.api.create(PODS, {"metadata": {"name": "x", "namespace": "elsewhere"}, "spec": pod_spec()})
    hard = {
        "pods": "10",
        "count/pods": "10",
        "requests.cpu": "4",
        "requests.x.dev/gpu": "4",
        "services": "5",
        "services.loadbalancers": "1",
        "services.nodeports": "9",
        "requests.storage": "1Ti",
        "gold.storageclass.storage.k8s.io/requests.storage": "6Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "6",
        "count/deployments.apps": "2",
        "secrets": "3",
    }
    add_quota(world, hard)
    async with world.running():
        await world.settle(1)
        assert status(world)["hard"] == hard
        assert used(world) == {
            "pods": "2",
            "count/pods": "3",
            "requests.cpu": "1100m",
            "requests.x.dev/gpu": "2",
            "services": "1",
            "services.loadbalancers": "1",
            "services.nodeports": "2",
            "requests.storage": "8Gi",
            "gold.storageclass.storage.k8s.io/requests.storage": "5Gi",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "count/deployments.apps": "1",
            "secrets": "0",
        }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda world: world.api.delete(PODS, "p", "default"), "0"),
        (lambda world: world.end_pod(world.api.get(PODS, "p", "default")), "0"),
        (lambda world: world.start_pod(world.api.get(PODS, "p", "default")), "1"),
    ],
)
async def test_what_goes_is_given_back_at_once(change, expected):
    world = cluster()
    add(world, PODS, "p", pod_spec())
    add_quota(world, {"pods": "1"})
    async with world.running():
        await world.settle(1)
        assert used(world) == {"pods": "1"}
        change(world)
        await world.settle(1)
        assert used(world) == {"pods": expected}


async def test_a_creation_is_left_to_admission_until_everything_is_counted_anew():
    world = cluster()
    add_quota(world, {"configmaps": "5"})
    async with world.running():
        await world.settle(1)
        add(world, CONFIG_MAPS, "a")
        await world.settle(1)
        assert used(world) == {"configmaps": "0"}
        await world.pass_time(301, step=60)
        assert used(world) == {"configmaps": "1"}


async def test_what_admission_has_taken_is_not_given_back_by_a_cache_that_is_behind():
    world = cluster()
    add_quota(world, {"pods": "5"})
    async with world.running():
        await world.settle(1)
        world.api.change(RESOURCE_QUOTAS, "q", "default", lambda obj: obj["status"]["used"].update(pods="1"))
        await world.pass_time(60, step=10)
        assert used(world) == {"pods": "1"}
        await world.pass_time(300, step=30)
        assert used(world) == {"pods": "0"}


async def test_a_pod_that_moves_between_scopes():
    world = cluster()
    add(world, PODS, "p", pod_spec())
    add_quota(world, {"pods": "1"}, "ends", scopes=["Terminating"])
    add_quota(world, {"pods": "1"}, "stays", scopes=["NotTerminating"])
    async with world.running():
        await world.settle(1)
        assert (used(world, "ends"), used(world, "stays")) == ({"pods": "0"}, {"pods": "1"})
        world.api.change(PODS, "p", "default", lambda pod: pod["spec"].update(activeDeadlineSeconds=9))
        await world.settle(1)
        assert (used(world, "ends"), used(world, "stays")) == ({"pods": "1"}, {"pods": "0"})


async def test_a_claim_that_changes_its_attributes_class():
    world = cluster()
    add(world, PERSISTENT_VOLUME_CLAIMS, "c", {**claim_spec("gold", "1Gi"), "volumeAttributesClassName": "slow"})
    selector = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["slow"]}
    add_quota(world, {"requests.storage": "9Gi"}, scopeSelector={"matchExpressions": [selector]})
    async with world.running():
        await world.settle(1)
        assert used(world) == {"requests.storage": "1Gi"}
        world.api.change(
            PERSISTENT_VOLUME_CLAIMS, "c", "default", lambda obj: obj["spec"].update(volumeAttributesClassName="fast")
        )
        await world.settle(1)
        assert used(world) == {"requests.storage": "0"}


async def test_changed_limits_are_taken_over():
    world = cluster()
    add(world, CONFIG_MAPS, "a")
    add_quota(world, {"configmaps": "5", "pods": "1"})
    async with world.running():
        await world.settle(1)
        world.api.change(RESOURCE_QUOTAS, "q", "default", lambda obj: obj["spec"].update(hard={"configmaps": "9"}))
        await world.settle(1)
        assert status(world) == {"hard": {"configmaps": "9"}, "used": {"configmaps": "1"}}


async def test_nothing_is_written_that_is_so_already():
    world = cluster()
    add(world, PODS, "p", pod_spec("1"))
    add_quota(world, {"requests.cpu": "2"})
    async with world.running():
        await world.settle(1)
        world.api.change(
            RESOURCE_QUOTAS, "q", "default", lambda obj: obj["status"]["used"].update({"requests.cpu": "1000m"})
        )
        before = world.api.writes
        await world.pass_time(301, step=60)
        assert world.api.writes == before


async def test_a_kind_that_the_server_only_has_later():
    world = cluster()
    add_quota(world, {"count/widgets.x.dev": "2"})
    async with world.running():
        await world.settle(1)
        world.api.kinds[WIDGETS] = FakeKind("Widget")
        add(world, WIDGETS, "w")
        await world.pass_time(65, step=5)
        assert used(world) == {"count/widgets.x.dev": "1"}
        world.api.delete(WIDGETS, "w", "default")
        await world.settle(1)
        assert used(world) == {"count/widgets.x.dev": "0"}


@pytest.mark.parametrize("seed", range(8))
async def test_the_count_is_right_in_the_end_whatever_fails(seed):
    """Objects come and go while requests fail and caches lag; at the latest when all is counted anew, what is said to
    be used is what is there."""
    faults = Faults(fail_before=0.1, fail_after=0.1, conflict=0.1, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    world, dice = cluster(faults), random.Random(seed)
    add_quota(world, {"configmaps": "99", "pods": "99", "requests.cpu": "99", "count/deployments.apps": "9"})
    async with world.running():
        for number in range(40):
            gvr = dice.choice([PODS, CONFIG_MAPS, DEPLOYMENTS])
            present = world.api.list(gvr)
            if present and dice.random() < 0.5:
                chosen = dice.choice(present)
                if gvr == PODS and dice.random() < 0.3:
                    world.end_pod(chosen, dice.choice(["Succeeded", "Failed"]))
                else:
                    world.api.delete(gvr, chosen["metadata"]["name"], "default")
            else:
                add(world, gvr, f"n{number}", pod_spec() if gvr == PODS else {})
            if dice.random() < 0.4:
                await world.settle(dice.random())
        without_faults(world)
        alive = sum(pod["status"]["phase"] == "Pending" for pod in world.api.list(PODS))
        expected = {
            "configmaps": len(world.api.list(CONFIG_MAPS)),
            "pods": alive,
            "requests.cpu": alive * 100 / 1000,
            "count/deployments.apps": len(world.api.list(DEPLOYMENTS)),
        }
        await world.until(
            lambda: {name: float(parse(value)) for name, value in used(world).items()} == expected, within=4000, step=20
        )
