"""Cluster IPs and node ports: who has which.

The objects themselves are the record. What is taken is read from the watch cache when a server starts and follows
every change since, so that a crash leaks nothing. A choice made for a write that is still under way is held until it
ends, and a loser of a race is refused by the check when its object arrives in the cache (several API servers).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable

from shipwheel.api.errors import AllocationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressAllocator:
    """Addresses of one or more service ranges of a family. Like upstream, a choice of its own comes from the upper part
    of the range, so that what people choose themselves (the lower part) stays free as long as possible (KEP-3070)."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = list(networks)
        self._taken: dict[int, int] = {}

    def allocate(self, wanted: str | None = None) -> str:
        """Reserve the wanted address, or any. AllocationError when it cannot be had."""
        if wanted is None:
            return self._next()
        self._take(wanted)
        return wanted

    def _take(self, wanted: str) -> None:
        """Reserve this address. AllocationError when it is taken or not ours."""
        try:
            address = ipaddress.ip_address(wanted)
        except ValueError:
            raise AllocationError(f"failed to parse {wanted!r} as an IP address") from None
        if not any(self._inside(address, network) for network in self.networks):
            shown = ", ".join(str(network) for network in self.networks)
            raise AllocationError(
                f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {shown}"
            )
        if int(address) in self._taken:
            raise AllocationError("provided IP is already allocated")
        self._taken[int(address)] = 1

    def _inside(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> bool:
        return (
            address in network
            and address != network.network_address
            and not (address.version == 4 and address == network.broadcast_address)
        )

    def _next(self) -> str:
        """Reserve any address. AllocationError when the range is full."""
        for network in self.networks:
            first = int(network.network_address) + 1
            count = network.num_addresses - (2 if network.version == 4 else 1)
            offset = _dynamic_offset(count)
            for low, size in ((first + offset, count - offset), (first, offset)):
                found = self._free(low, size)
                if found is not None:
                    self._taken[found] = 1
                    kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
                    return str(kind(found))
        raise AllocationError("range is full")

    def _free(self, low: int, size: int) -> int | None:
        if size <= 0:
            return None
        for _ in range(8):
            candidate = low + random.randrange(size)
            if candidate not in self._taken:
                return candidate
        return next((each for each in range(low, low + min(size, 1 << 16)) if each not in self._taken), None)

    def mark(self, address: str) -> None:
        """Note that an object has this address."""
        self._taken[int(ipaddress.ip_address(address))] = 1

    def release(self, address: str) -> None:
        self._taken.pop(int(ipaddress.ip_address(address)), None)

    def taken(self) -> list[str]:
        """All addresses that somebody has, or has reserved."""
        kind = ipaddress.IPv6Address if any(each.version == 6 for each in self.networks) else ipaddress.IPv4Address
        return [str(kind(each)) for each in self._taken]


def _dynamic_offset(size: int) -> int:
    """How many addresses at the start are left to people: min(max(16, size / 16), 256)."""
    return min(max(16, size // 16), 256) if size > 16 else 0


class PortAllocator:
    """Node ports. One port can serve several protocols of one service."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high
        self._taken: set[int] = set()

    def allocate(self, wanted: int | None = None) -> int:
        """Reserve the wanted port, or any. AllocationError when it cannot be had."""
        if wanted is None:
            return self._next()
        self._take(wanted)
        return wanted

    def _take(self, wanted: int) -> None:
        if not self.low <= wanted <= self.high:
            raise AllocationError(
                f"provided port is not in the valid range. The range of valid ports is {self.low}-{self.high}"
            )
        if wanted in self._taken:
            raise AllocationError("provided port is already allocated")
        self._taken.add(wanted)

    def _next(self) -> int:
        size = self.high - self.low + 1
        offset = min(max(16, size // 32), 128) if size >= 16 else 0
        for low, count in ((self.low + offset, size - offset), (self.low, offset)):
            free = [port for port in range(low, low + count) if port not in self._taken]
            if free:
                chosen = random.choice(free)
                self._taken.add(chosen)
                return chosen
        raise AllocationError("range is full")

    def mark(self, port: int) -> None:
        self._taken.add(port)

    def release(self, port: int) -> None:
        self._taken.discard(port)

    def taken(self) -> list[int]:
        """All ports that somebody has, or has reserved."""
        return list(self._taken)
