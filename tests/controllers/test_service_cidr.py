"""Ranges of Service addresses: ready at once, and kept while an address depends on them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import IP_ADDRESSES, SERVICE_CIDRS
from shipwheel.controllers.service_cidr import FINALIZER, ServiceCidrController, can_go, holds
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults


def cidr(name: str, *ranges: str) -> Obj:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(ranges)}}


def address(text: str) -> Obj:
    return {"metadata": {"name": text, "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}}


@pytest.mark.parametrize(
    ("others", "addresses", "expected"),
    [
        ([], [], True),
        ([], ["10.0.0.5"], False),
        ([cidr("wide", "10.0.0.0/16")], ["10.0.0.5"], True),
        ([cidr("part", "10.0.0.0/25")], ["10.0.0.5"], True),
        ([cidr("part", "10.0.0.0/25")], ["10.0.0.200"], False),
        ([cidr("far", "10.9.0.0/24")], ["10.0.0.5"], False),
        ([], ["10.9.0.5"], True),
    ],
)
def test_when_a_range_may_go(others, addresses, expected):
    mine = cidr("mine", "10.0.0.0/24")
    assert can_go(mine, [mine, *others], [address(each) for each in addresses]) is expected


def test_the_ends_of_a_range_are_not_given_out():
    mine = cidr("mine", "10.0.0.0/24")
    assert [holds(mine, ip_address(f"10.0.0.{last}")) for last in (0, 1, 254, 255)] == [False, True, True, False]


async def test_a_range_waits_for_its_last_address():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        cluster.api.create(IP_ADDRESSES, address("10.0.0.5"))
        await cluster.until(lambda: bool(condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")))
        assert (
            condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")["message"] == "Kubernetes Service CIDR is ready"
        )
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.pass_time(30, step=5)
        ready = condition(cluster.api.get(SERVICE_CIDRS, "mine"), "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "Terminating")
        cluster.api.delete(IP_ADDRESSES, "10.0.0.5")
        await cluster.until(lambda: not cluster.api.get(SERVICE_CIDRS, "mine"))


async def test_a_range_being_deleted_waits_until_all_servers_know():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        await cluster.settle(1)
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.pass_time(9)
        assert cluster.api.get(SERVICE_CIDRS, "mine")
        await cluster.pass_time(3)
        assert not cluster.api.get(SERVICE_CIDRS, "mine")


networks = st.builds(
    lambda third, mask: str(ip_network(f"10.0.{third}.0/{mask}", strict=False)), st.integers(0, 7), st.integers(20, 26)
)


@given(networks, st.lists(networks, max_size=4), st.lists(st.integers(1, 2046), max_size=5))
def test_no_address_loses_its_last_range(mine, others, offsets):
    base = int(ip_address("10.0.0.0"))
    present = [address(str(ip_address(base + offset))) for offset in offsets]
    ranges = [cidr("mine", mine), *(cidr(f"other{index}", each) for index, each in enumerate(others))]
    if not can_go(ranges[0], ranges, present):
        return
    for each in present:
        known = ip_address(each["metadata"]["name"])
        held_by = [each["metadata"]["name"] for each in ranges if holds(each, known)]
        inside = any(ip_network(mine).subnet_of(ip_network(other)) for other in others)
        assert held_by != ["mine"] or inside


async def test_addresses_of_others_do_not_count():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        cluster.api.create(IP_ADDRESSES, {"metadata": {"name": "10.0.0.5"}})
        await cluster.settle(1)
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.until(lambda: not cluster.api.get(SERVICE_CIDRS, "mine"))


async def test_another_range_that_takes_over_sets_it_free():
    cluster = World((ServiceCidrController,))
    async with cluster.running():
        cluster.api.create(SERVICE_CIDRS, cidr("mine", "10.0.0.0/24"))
        cluster.api.create(IP_ADDRESSES, address("10.0.0.5"))
        await cluster.settle(1)
        cluster.api.delete(SERVICE_CIDRS, "mine")
        await cluster.pass_time(20, step=5)
        assert cluster.api.get(SERVICE_CIDRS, "mine")
        cluster.api.create(SERVICE_CIDRS, cidr("wide", "10.0.0.0/16"))
        await cluster.until(lambda: not cluster.api.get(SERVICE_CIDRS, "mine"))


@pytest.mark.parametrize("seed", range(4))
async def test_every_range_is_ready_and_held_in_the_end_whatever_fails(seed):
    faults = Faults(fail_before=0.2, fail_after=0.1, conflict=0.2, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    cluster = World((ServiceCidrController,), faults)

    def is_ready(found: Obj) -> bool:
        ready = condition(found, "Ready")
        return FINALIZER in (found["metadata"].get("finalizers") or ()) and bool(ready) and ready["status"] == "True"

    async with cluster.running():
        for number in range(4):
            cluster.api.create(SERVICE_CIDRS, cidr(f"c{number}", f"10.{number}.0.0/24"))
        await cluster.pass_time(20, step=2)
        without_faults(cluster)
        await cluster.until(lambda: all(map(is_ready, cluster.api.list(SERVICE_CIDRS))), within=2000, step=10)
