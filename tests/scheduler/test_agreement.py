"""The arrays and the slow model must agree: which nodes will do, for which reasons others will not, and every score."""

from __future__ import annotations

import random

import pytest

from shipwheel.scheduler.framework import Diagnosis

from . import worlds
from .build import SHAPES, entry, handle_of, profile_of
from .model import refusals, scores

CASES = 10_000
BATCHES = 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_clusters(batch: int) -> None:
    """Each world is asked about several pods, and changes in between, so that what is remembered is tried as well."""
    seed = batch * CASES
    rng = random.Random(seed)
    done = 0
    while done < CASES // BATCHES:
        world = worlds.world(rng)
        handle = handle_of(world)
        profile = profile_of(handle)
        for step in range(5):
            pod = worlds.pod(rng, f"new-{step}")
            _agree(world, profile, pod, f"batch {batch}, case {done}")
            _change(rng, world, profile, step)
            done += 1


def _change(rng: random.Random, world, profile, step: int) -> None:
    """Something happens to the cluster, by way of the table's increments."""
    table = profile.handle.table
    kind = rng.random()
    if kind < 0.4:
        pod = worlds.pod(rng, f"added-{step}")
        node = rng.choice(world.nodes)["metadata"]["name"]
        world.placed.append((pod, node))
        table.add(entry(pod, node))
    elif kind < 0.6 and world.placed:
        pod, _ = world.placed.pop(rng.randrange(len(world.placed)))
        table.remove(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    elif kind < 0.8:
        index = rng.randrange(len(world.nodes))
        world.nodes[index] = worlds.node(rng, world.nodes[index]["metadata"]["name"])
        table.set_node(world.nodes[index])
    elif len(world.nodes) > 1:
        gone = world.nodes.pop(rng.randrange(len(world.nodes)))
        name = gone["metadata"]["name"]
        world.placed = [(pod, node) for pod, node in world.placed if node != name]
        for key in list(table.pods[table.rows[name]]):
            table.remove(key)
        table.remove_node(name)
        world.nodes.append(worlds.node(rng, f"fresh-{step}"))
        table.set_node(world.nodes[-1])


def _agree(world, profile, pod, what: str) -> None:
    table = profile.handle.table
    cycle = profile.cycle(pod, SHAPES.of(pod))
    diagnosis = Diagnosis(table.count)
    feasible = profile.feasible(cycle, diagnosis)
    expected = {node["metadata"]["name"]: refusals(world, pod, node) for node in world.nodes}
    found: dict[str, list[str]] = {name: [] for name in expected}
    for _, refusal in diagnosis.refusals:
        for row in refusal.mask.nonzero()[0]:
            found[table.name(int(row))].append(refusal.reason)
    assert {name: sorted(each) for name, each in found.items()} == {
        name: sorted(each) for name, each in expected.items()
    }, what
    good = [node for node in world.nodes if not expected[node["metadata"]["name"]]]
    assert {table.name(int(row)) for row in feasible.nonzero()[0]} == {node["metadata"]["name"] for node in good}
    if not good:
        return
    ours = profile.scores(cycle, feasible)
    for name, theirs in scores(world, pod, good).items():
        mine = ours.get(name)
        got = [0 if mine is None else mine[table.rows[node["metadata"]["name"]]] for node in good]
        assert got == theirs, f"{what}: {name}"


def test_one_row_is_judged_as_among_all() -> None:
    """Preemption asks about one node at a time; the verdict must be that of asking about all."""
    rng = random.Random(7)
    for _ in range(200):
        world = worlds.world(rng)
        profile = profile_of(handle_of(world))
        pod = worlds.pod(rng, "new")
        cycle = profile.cycle(pod, SHAPES.of(pod))
        feasible = profile.feasible(cycle)
        assert [profile.fits(cycle.of_row(row)) for row in range(len(feasible))] == feasible.tolist()
