"""How long kubelets may keep secrets: by the size of the cluster, without going back and forth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.client.resources import NODES
from shipwheel.controllers.node_ttl import NodeTtlController, next_step, seconds
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

TTL = "node.alpha.kubernetes.io/ttl"


@pytest.mark.parametrize(
    ("step", "nodes", "expected"),
    [
        (0, 1, 0),
        (0, 100, 0),
        (0, 101, 15),
        (1, 91, 15),
        (1, 89, 0),
        (1, 501, 30),
        (2, 451, 30),
        (2, 449, 15),
        (2, 1001, 60),
        (3, 2001, 300),
        (4, 1801, 300),
        (4, 1799, 60),
        (0, 5000, 300),
        (4, 1, 0),
    ],
)
def test_steps(step, nodes, expected):
    assert seconds(next_step(step, nodes)) == expected


@given(st.lists(st.integers(0, 3000)))
def test_one_node_more_and_less_changes_nothing(sizes):
    step = 0
    for nodes in sizes:
        step = next_step(step, nodes)
        assert next_step(step, nodes) == step
        bigger = next_step(step, nodes + 1)
        assert next_step(bigger, nodes) == bigger


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_all_nodes_are_told(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.1, conflict=0.1, break_watch=0.1, lag=0.2, seed=seed)
    world = World((NodeTtlController,), faults)

    def told() -> set[str]:
        return {(node["metadata"].get("annotations") or {}).get(TTL) for node in world.api.list(NODES)}

    async with world.running():
        for number in range(100):
            world.add_node(f"n{number}")
        await world.until(lambda: told() == {"0"}, within=2000, step=5)
        world.add_node("one-more")
        await world.until(lambda: told() == {"15"}, within=2000, step=5)
        without_faults(world)
        world.api.change(NODES, "n1", "", lambda node: node["metadata"].update(annotations={TTL: "9"}))
        await world.until(lambda: told() == {"15"}, within=2000, step=5)
        for number in range(12):
            world.api.delete(NODES, f"n{number}")
        await world.until(lambda: told() == {"0"}, within=2000, step=5)
