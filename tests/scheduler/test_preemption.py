"""Preemption against exhaustive search on small clusters, and what it says when it does not help."""

from __future__ import annotations

import itertools
import random

import pytest

from shipwheel.scheduler.framework import Diagnosis
from shipwheel.scheduler.plugins import preemption

from . import worlds
from .build import SHAPES, entry, handle_of, profile_of
from .model import Obj, World, refusals


def crowded(rng: random.Random, *, plain: bool) -> tuple[World, Obj]:
    """A cluster where most of the room is taken by pods of different priorities, and a pod that wants some."""
    world = worlds.world(rng, nodes=3, pods=9)
    for index, (pod, _) in enumerate(world.placed):
        pod["spec"]["priority"] = rng.choice((0, 1, 5))
        pod["status"] = {"startTime": f"2026-01-01T00:{index:02}:00Z"}
    pod = worlds.pod(rng, "new", priority=3)
    if plain:
        for each in (*(each for each, _ in world.placed), pod):
            for name in ("affinity", "topologySpreadConstraints"):
                each["spec"].pop(name, None)
    return world, pod


def attempt(world: World, pod: Obj, budgets: list[Obj] = []):  # noqa: B006 - never changed
    handle = handle_of(world)
    for each in budgets:
        handle.listers.budgets.put(each)
    handle.rng.seed(1)
    profile = profile_of(handle)
    cycle = profile.cycle(pod, SHAPES.of(pod))
    diagnosis = Diagnosis(handle.table.count)
    if profile.feasible(cycle, diagnosis).any():
        return None
    before = set(handle.table.entries)
    result = profile.at("postFilter")[-1].post_filter(cycle, diagnosis, profile)
    assert set(handle.table.entries) == before, "trying leaves no trace"
    return result


def without(world: World, victims: set[str]) -> World:
    return World(
        world.nodes, [each for each in world.placed if each[0]["metadata"]["name"] not in victims], world.namespaces
    )


@pytest.mark.parametrize("plain", [True, False])
def test_against_exhaustive_search(plain: bool) -> None:
    """It finds a node exactly when taking all lower pods of some node away helps; its victims are enough and each of
    them is needed; and no node has a better best victim set by the first criterion."""
    rng = random.Random(11)
    helped = 0
    for case in range(400):
        world, pod = crowded(rng, plain=plain)
        result = attempt(world, pod)
        if result is None:
            continue
        lower = {
            node["metadata"]["name"]: [
                other["metadata"]["name"]
                for other, name in world.placed
                if name == node["metadata"]["name"] and other["spec"]["priority"] < 3
            ]
            for node in world.nodes
        }
        possible = {
            name
            for name, names in lower.items()
            if names and not refusals(without(world, set(names)), pod, _node(world, name))
        }
        assert bool(result.node) == bool(possible), f"case {case}"
        if not result.node:
            continue
        helped += 1
        victims = {each["metadata"]["name"] for each in result.victims}
        assert result.node in possible and victims <= set(lower[result.node])
        node = _node(world, result.node)
        assert not refusals(without(world, victims), pod, node), f"case {case}: too few victims"
        for each in victims:
            if plain:
                assert refusals(without(world, victims - {each}), pod, node), f"case {case}: {each} went in vain"
        if plain:
            highest = max(each["spec"]["priority"] for each in result.victims)
            assert highest == min(_lowest_highest(world, pod, name, lower[name]) for name in possible), f"case {case}"
    assert helped > 40


def _node(world: World, name: str) -> Obj:
    return next(each for each in world.nodes if each["metadata"]["name"] == name)


def _lowest_highest(world: World, pod: Obj, node: str, names: list[str]) -> int:
    """Of all sets of victims that would do on a node, the lowest of their highest priorities."""
    priority = {each["metadata"]["name"]: each["spec"]["priority"] for each, _ in world.placed}
    return min(
        max(priority[each] for each in chosen)
        for size in range(1, len(names) + 1)
        for chosen in itertools.combinations(names, size)
        if not refusals(without(world, set(chosen)), pod, _node(world, node))
    )


def node(name: str, cpu: str = "2") -> Obj:
    return {
        "metadata": {"name": name, "labels": {worlds.HOST: name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}},
    }


def pod(name: str, priority: int = 0, cpu: str = "1", started: str = "2026-01-01T00:00:00Z", **spec) -> Obj:
    container = {"name": "main", "image": "a", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": name}},
        "spec": {"containers": [container], "priority": priority, **spec},
        "status": {"startTime": started},
    }


def test_a_budget_is_worth_more_than_priority() -> None:
    world = World([node("one"), node("two")], [(pod("a", 0, "2"), "one"), (pod("b", 5, "2"), "two")])
    budget = {
        "metadata": {"name": "keep", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}},
        "status": {"disruptionsAllowed": 0},
    }
    assert attempt(world, pod("new", 9)).node == "one"
    assert attempt(world, pod("new", 9), [budget]).node == "two"


def test_the_youngest_go_first() -> None:
    old, young = pod("old", 0, "2"), pod("young", 0, "2", "2026-02-01T00:00:00Z")
    world = World([node("one"), node("two")], [(old, "one"), (young, "two")])
    assert attempt(world, pod("new", 9)).node == "two"


@pytest.mark.parametrize(
    ("incoming", "message"),
    [
        (pod("new", 9, preemptionPolicy="Never"), "preemption: not eligible due to preemptionPolicy=Never."),
        (
            pod("new", 0),
            "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
        ),
        (
            pod("new", 9, cpu="3"),
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
    ],
)
def test_words(incoming: Obj, message: str) -> None:
    world = World([node("one"), node("two")], [(pod("a", 0, "2"), "one"), (pod("b", 0, "2"), "two")])
    result = attempt(world, incoming)
    assert (result.node, result.message) == ("", message)


def test_whoever_is_leaving_already_is_waited_for() -> None:
    leaving = pod("a", 0, "2")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    leaving["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": preemption.PREEMPTION_BY_SCHEDULER}
    ]
    incoming = pod("new", 9)
    incoming["status"]["nominatedNodeName"] = "one"
    result = attempt(World([node("one")], [(leaving, "one")]), incoming)
    assert result.message == "preemption: not eligible due to a terminating pod on the nominated node."


def test_what_is_remembered_is_what_would_be_found_anew() -> None:
    """Nodes where nothing has changed are not asked again: the verdicts must be those of one who remembers nothing."""
    rng = random.Random(3)
    changed = 0
    for _ in range(40):
        world, incoming = crowded(rng, plain=True)
        handle = handle_of(world)
        profile = profile_of(handle)
        remembering = profile.at("postFilter")[-1]
        for step in range(8):
            fresh = profile_of(handle).at("postFilter")[-1]
            cycle = profile.cycle(incoming, SHAPES.of(incoming))
            verdicts = [
                (
                    remembering._remembered(cycle, row, [], profile),
                    fresh.victims_on(cycle, row, [], profile, only_room=True),
                )
                for row in handle.table.rows.values()
            ]
            assert all(ours == anew for ours, anew in verdicts)
            where = rng.choice(world.nodes)["metadata"]["name"]
            kind = rng.random()
            if kind < 0.5:
                added = worlds.pod(rng, f"added-{step}", priority=rng.choice((0, 1, 5)))
                added["status"] = {"startTime": f"2026-01-02T00:00:{step:02}Z"}
                handle.table.add(entry(added, where))
            elif handle.table.entries and kind < 0.8:
                handle.table.remove(rng.choice(sorted(handle.table.entries)))
            elif handle.table.entries:
                known = handle.table.entries[rng.choice(sorted(handle.table.entries))]
                handle.table.renew(known, {**known.obj, "status": {"startTime": "2027-01-01T00:00:00Z"}})
            changed += len(verdicts)
    assert changed > 100
