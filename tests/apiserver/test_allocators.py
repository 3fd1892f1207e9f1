"""Cluster IPs and node ports: nobody gets what another has, and people's own choices stay free for long."""

from __future__ import annotations

import ipaddress

import pytest

from shipwheel.api.errors import AllocationError
from shipwheel.apiserver.allocators import AddressAllocator, PortAllocator


def addresses(*ranges: str) -> AddressAllocator:
    return AddressAllocator(ipaddress.ip_network(each) for each in ranges)


def all_of(allocator: AddressAllocator) -> list[str]:
    found = []
    with pytest.raises(AllocationError, match="range is full"):
        while True:
            found.append(allocator.allocate())
    return found


@pytest.mark.parametrize(
    ("cidr", "count"), [("10.0.0.0/24", 254), ("10.0.0.0/28", 14), ("10.0.0.0/30", 2), ("fd00::/124", 15)]
)
def test_every_address_once(cidr: str, count: int) -> None:
    """All but the network's own and, of IPv4, the broadcast address."""
    found = all_of(addresses(cidr))
    assert len(found) == len(set(found)) == count
    network = ipaddress.ip_network(cidr)
    assert all(ipaddress.ip_address(each) in network for each in found)
    assert str(network.network_address) not in found


def test_the_lower_part_comes_last() -> None:
    found = [int(ipaddress.ip_address(each)) & 0xFF for each in all_of(addresses("10.0.0.0/24"))]
    assert min(found[:-16]) == 17 and sorted(found[-16:]) == list(range(1, 17))


def test_a_second_range_when_the_first_is_full() -> None:
    found = all_of(addresses("10.0.0.0/30", "10.1.0.0/30"))
    assert [each.startswith("10.1.") for each in found] == [False, False, True, True]


def test_a_wanted_address() -> None:
    allocator = addresses("10.0.0.0/24")
    assert allocator.allocate("10.0.0.5") == "10.0.0.5"
    with pytest.raises(AllocationError, match="provided IP is already allocated"):
        allocator.allocate("10.0.0.5")
    allocator.release("10.0.0.5")
    allocator.mark("10.0.0.6")
    allocator.mark("10.0.0.6")
    allocator.allocate("10.0.0.5")
    with pytest.raises(AllocationError, match="already allocated"):
        allocator.allocate("10.0.0.6")


@pytest.mark.parametrize("wanted", ["10.0.1.1", "10.0.0.0", "10.0.0.255", "fd00::1"])
def test_what_is_not_in_the_range(wanted: str) -> None:
    with pytest.raises(AllocationError, match=r"is not in the valid range. The range of valid IPs is 10.0.0.0/24"):
        addresses("10.0.0.0/24").allocate(wanted)
    with pytest.raises(AllocationError, match="failed to parse"):
        addresses("10.0.0.0/24").allocate("ten")


def test_ports() -> None:
    ports = PortAllocator(30000, 30099)
    assert ports.allocate(30007) == 30007
    with pytest.raises(AllocationError, match="provided port is already allocated"):
        ports.allocate(30007)
    with pytest.raises(AllocationError, match="The range of valid ports is 30000-30099"):
        ports.allocate(29999)
    ports.mark(30008)
    found = [ports.allocate() for _ in range(98)]
    assert len({*found, 30007, 30008}) == 100
    assert min(found[:84]) >= 30016
    with pytest.raises(AllocationError, match="range is full"):
        ports.allocate()
    ports.release(30007)
    assert ports.allocate() == 30007
