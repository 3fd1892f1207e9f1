"""Eviction by NoExecute taints: who goes, when, and who is spared in time."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import NODES, PODS
from shipwheel.controllers.taint_eviction import TaintEvictionController
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

TAINT = {"key": "k", "value": "v", "effect": "NoExecute"}
OTHER = {"key": "other", "effect": "NoExecute"}


def cluster(faults: Faults | None = None) -> World:
    world = World((TaintEvictionController,), faults or Faults())
    world.add_node("n1")
    return world


def tolerating(seconds: float | None = None, key: str = "k") -> Obj:
    toleration: Obj = {"key": key, "operator": "Exists", "effect": "NoExecute"}
    return toleration if seconds is None else {**toleration, "tolerationSeconds": seconds}


def add(world: World, *tolerations: Obj, name: str = "p", node: str = "n1") -> None:
    spec = {"containers": [], "nodeName": node, "tolerations": list(tolerations)}
    world.start_pod(world.api.create(PODS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec}), node)


def taint(world: World, *taints: Obj) -> None:
    world.api.change(NODES, "n1", "", lambda node: node["spec"].update(taints=list(taints)))


def is_evicted(world: World, name: str = "p") -> bool:
    pod = world.api.get(PODS, name, "default")
    return pod is None or bool(pod["metadata"].get("deletionTimestamp"))


@pytest.mark.parametrize(
    ("tolerations", "taints", "seconds"),
    [
        ([], [TAINT], 0),
        ([], [{**TAINT, "effect": "NoSchedule"}], None),
        ([tolerating()], [TAINT], None),
        ([tolerating()], [TAINT, OTHER], 0),
        ([tolerating(30)], [TAINT], 30),
        ([tolerating(0)], [TAINT], 0),
        ([tolerating(-5)], [TAINT], 0),
        ([tolerating(30), tolerating(10, "other")], [TAINT, OTHER], 10),
        ([tolerating(30), tolerating(None, "other")], [TAINT, OTHER], 30),
        ([{"operator": "Exists"}], [TAINT, OTHER], None),
        ([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}], [TAINT], None),
        ([{"key": "k", "operator": "Equal", "value": "w", "effect": "NoExecute"}], [TAINT], 0),
        ([{**tolerating(), "effect": "NoSchedule"}], [TAINT], 0),
    ],
)
async def test_who_goes_and_when(tolerations, taints, seconds):
    world = cluster()
    async with world.running():
        add(world, *tolerations)
        await world.settle()
        taint(world, *taints)
        await world.settle()
        if seconds:
            await world.pass_time(seconds - 1)
            assert not is_evicted(world)
            await world.pass_time(2)
            assert is_evicted(world)
        else:
            await world.pass_time(60, step=10)
            assert is_evicted(world) is (seconds == 0)


async def test_an_evicted_pod_says_why():
    world = cluster()
    async with world.running():
        add(world)
        taint(world, TAINT)
        await world.settle()
        entry = condition(world.api.get(PODS, "p", "default"), "DisruptionTarget")
        assert (entry["status"], entry["reason"], entry["message"]) == (
            "True",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        )
        assert world.events("TaintManagerEviction") == [("TaintManagerEviction", "Marking for deletion Pod default/p")]


def tolerate(world: World) -> None:
    world.api.change(PODS, "p", "default", lambda pod: pod["spec"].update(tolerations=[tolerating()]))


@pytest.mark.parametrize("rescue", [taint, tolerate])
async def test_a_pod_that_is_spared_in_time(rescue):
    world = cluster()
    async with world.running():
        add(world, tolerating(30))
        taint(world, TAINT)
        await world.pass_time(20)
        rescue(world)
        await world.pass_time(60, step=10)
        assert not is_evicted(world)
        assert world.events("TaintManagerEviction") == [
            ("TaintManagerEviction", "Cancelling deletion of Pod default/p")
        ]


async def test_its_time_begins_anew_with_a_new_taint():
    world = cluster()
    async with world.running():
        add(world, tolerating(30))
        taint(world, TAINT)
        await world.pass_time(20)
        taint(world)
        await world.settle()
        taint(world, TAINT)
        await world.pass_time(20)
        assert not is_evicted(world)
        await world.pass_time(12)
        assert is_evicted(world)


async def test_a_pod_that_comes_to_a_tainted_node():
    world = cluster()
    async with world.running():
        taint(world, TAINT)
        await world.settle()
        add(world)
        add(world, tolerating(), name="q")
        await world.settle()
        assert is_evicted(world)
        assert not is_evicted(world, "q")


async def test_a_pod_made_anew_under_its_name_has_all_its_time():
    world = cluster()
    async with world.running():
        add(world, tolerating(30))
        taint(world, TAINT)
        await world.pass_time(20)
        world.api.objects.pop((PODS, "default", "p"))
        add(world, tolerating(30))
        await world.pass_time(20)
        assert not is_evicted(world)


async def test_other_nodes_are_left_alone():
    world = cluster()
    world.add_node("n2")
    async with world.running():
        add(world, name="q", node="n2")
        taint(world, TAINT)
        await world.pass_time(30, step=10)
        assert not is_evicted(world, "q")


@pytest.mark.parametrize("seed", range(5))
async def test_all_that_must_go_go_and_no_others_whatever_fails(seed):
    faults = Faults(fail_before=0.2, fail_after=0.1, conflict=0.1, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    world = cluster(faults)
    async with world.running():
        for number in range(8):
            add(world, *([tolerating()] if number % 2 else []), name=f"p{number}")
        taint(world, TAINT)
        await world.pass_time(60, step=5)
        without_faults(world)
        going = [f"p{number}" for number in range(0, 8, 2)]
        await world.until(lambda: all(is_evicted(world, name) for name in going), within=2000, step=10)
        assert not any(is_evicted(world, f"p{number}") for number in range(1, 8, 2))
