"""Pod ranges of nodes: never two alike, none lost."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.client.resources import NODES
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.node_ipam import NodeIpamController
from shipwheel.controllers.node_ipam.controller import ranges_of
from shipwheel.controllers.node_ipam.ranges import NodeRanges, RangesExhausted
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

CONFIG = ControllerManagerConfig(cluster_cidr=("10.244.0.0/21",), allocate_node_cidrs=True)


def test_ranges_come_in_order_and_go_round():
    ranges = NodeRanges(ip_network("10.0.0.0/22"), 24)
    first = [str(ranges.allocate()) for _ in range(4)]
    assert first == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    with pytest.raises(RangesExhausted):
        ranges.allocate()
    ranges.release(ip_network("10.0.2.0/24"))
    assert str(ranges.allocate()) == "10.0.2.0/24"


def test_a_range_just_given_back_is_not_used_at_once():
    ranges = NodeRanges(ip_network("10.0.0.0/22"), 24)
    given_out = ranges.allocate()
    ranges.release(given_out)
    assert ranges.allocate() != given_out


def test_six_too():
    assert str(NodeRanges(ip_network("fd00::/56"), 64).allocate()) == "fd00::/64"


@pytest.mark.parametrize(("cluster", "mask"), [("10.0.0.0/16", 8), ("fd00::/40", 64)])
def test_sizes_that_make_no_sense(cluster, mask):
    with pytest.raises(ValueError, match="size"):
        NodeRanges(ip_network(cluster), mask)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60))
def test_what_is_given_out_never_overlaps(steps):
    ranges = NodeRanges(ip_network("10.0.0.0/20"), 24)
    held: list = []
    for give_back, which in steps:
        if give_back and held:
            ranges.release(held.pop(which % len(held)))
        elif len(held) < ranges.size:
            new = ranges.allocate()
            assert not any(new.overlaps(other) for other in held)
            held.append(new)
    assert ranges.used == len(held)


def test_the_services_range_is_left_out():
    config = replace(CONFIG, service_cluster_ip_range=("10.244.1.0/24", "192.168.0.0/16"))
    (ranges,) = ranges_of(config)
    assert ranges.used == 1


def test_two_families_at_most():
    with pytest.raises(ValueError, match="one range of each IP family"):
        ranges_of(replace(CONFIG, cluster_cidr=("10.0.0.0/16", "10.1.0.0/16")))


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_every_node_gets_its_own_range(seed):
    faults = (
        Faults()
        if seed is None
        else Faults(fail_before=0.1, fail_after=0.2, conflict=0.1, break_watch=0.1, lag=0.2, seed=seed)
    )
    cluster = World((NodeIpamController,), faults, config=CONFIG)
    taken = {"metadata": {"name": "old"}, "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}
    cluster.api.create(NODES, taken)
    async with cluster.running():
        for index in range(5):
            cluster.add_node(f"n{index}")
        await cluster.kill()
        await cluster.start()

        def ranges() -> list[str]:
            return [node["spec"].get("podCIDR", "") for node in cluster.api.list(NODES)]

        await cluster.until(lambda: all(ranges()), within=300)
        assert len(set(ranges())) == 6
        cluster.api.delete(NODES, "n0")
        cluster.api.delete(NODES, "n1")
        await cluster.settle(2)
        for index in range(10, 14):
            cluster.add_node(f"n{index}")
        without_faults(cluster)
        await cluster.until(lambda: all(ranges()), within=300)
        assert len(set(ranges())) == 8, "all eight ranges are in use, those given back among them"


async def test_a_node_too_many_waits_for_a_range():
    cluster = World((NodeIpamController,), config=replace(CONFIG, cluster_cidr=("10.244.0.0/24",)))
    cluster.add_node("n1")
    async with cluster.running():
        await cluster.until(lambda: bool(cluster.api.get(NODES, "n1")["spec"].get("podCIDR")))
        cluster.add_node("n2")
        await cluster.settle(2)
        assert cluster.events("CIDRNotAvailable")[0] == ("CIDRNotAvailable", "Node n2 status is now: CIDRNotAvailable")
        cluster.api.delete(NODES, "n1")
        await cluster.until(lambda: bool(cluster.api.get(NODES, "n2")["spec"].get("podCIDR")), within=1200, step=5)
