"""Addresses for simulated sandboxes, out of the node's ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from shipwheel.kubelet.runtime.base import RuntimeFault


class AddressPool:
    """One range. The first two addresses are the network's and the gateway's, the last an IPv4 network's
    broadcast; an address is given out again as late as possible."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.ip_network(cidr, strict=False)
        self._base = int(network.network_address)
        self._size = min(network.num_addresses - (3 if network.version == 4 else 2), 1 << 20)
        self._version = network.version
        self._taken: set[int] = set()
        self._next = 0

    def take(self) -> str:
        """Raises RuntimeFault when all are taken."""
        if len(self._taken) >= self._size:
            raise RuntimeFault("UNKNOWN", "failed to setup network for sandbox: no IP addresses available in range set")
        while self._next in self._taken:
            self._next = (self._next + 1) % self._size
        offset = self._next
        self._taken.add(offset)
        self._next = (offset + 1) % self._size
        number = self._base + 2 + offset
        return str(ipaddress.IPv4Address(number) if self._version == 4 else ipaddress.IPv6Address(number))

    def claim(self, address: str) -> None:
        """Take an address that somebody has already; one of another range is none of ours."""
        offset = self._offset(address)
        if 0 <= offset < self._size:
            self._taken.add(offset)

    def _offset(self, address: str) -> int:
        return int(ipaddress.ip_address(address)) - self._base - 2

    def give_back(self, address: str) -> bool:
        """False when the address is not of this range."""
        offset = self._offset(address)
        if offset not in self._taken:
            return False
        self._taken.discard(offset)
        return True


class Addresses:
    """One address of each range for every sandbox. Ranges can change; who has an address keeps it."""

    def __init__(self, cidrs: Sequence[str]) -> None:
        self._pools: list[AddressPool] = []
        self._old: list[AddressPool] = []
        self.use(cidrs)

    def use(self, cidrs: Sequence[str]) -> None:
        self._old += self._pools
        self._pools = [AddressPool(each) for each in cidrs]

    def take(self) -> tuple[str, ...]:
        return tuple(pool.take() for pool in self._pools)

    def claim(self, addresses: Sequence[str]) -> None:
        """Take those that somebody has already."""
        for address in addresses:
            for pool in self._pools:
                pool.claim(address)

    def give_back(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            version = ipaddress.ip_address(address).version
            for pool in (*self._pools, *self._old):
                if pool._version == version and pool.give_back(address):
                    break
