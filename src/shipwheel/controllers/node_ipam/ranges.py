"""A cluster's pod range cut into equal ranges for nodes, and which of them are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network


class RangesExhausted(Exception):
    """No range is left for another node."""


def parse_network(text: str) -> Network:
    """ValueError when it is no CIDR without host bits."""
    return ip_network(text)


@dataclass(slots=True)
class NodeRanges:
    """Ranges are handed out in turn, so that one just given back is not used again at once."""

    cluster: Network
    mask: int
    """Prefix length of a node's range."""
    _taken: set[int] = field(default_factory=set)
    _next: int = 0

    def __post_init__(self) -> None:
        if self.mask < self.cluster.prefixlen:
            raise ValueError(
                "invalid node CIDR mask size: mask size must not be smaller than the cluster's "
                f"({self.mask} < {self.cluster.prefixlen})"
            )
        if self.mask - self.cluster.prefixlen > 16:
            raise ValueError("New CIDR set failed; the node CIDR size is too big")

    @property
    def size(self) -> int:
        """How many ranges there are."""
        return 1 << (self.mask - self.cluster.prefixlen)

    @property
    def used(self) -> int:
        return len(self._taken)

    def allocate(self) -> Network:
        """The next free range; RangesExhausted."""
        for offset in range(self.size):
            index = (self._next + offset) % self.size
            if index not in self._taken:
                self._taken.add(index)
                self._next = (index + 1) % self.size
                return self._at(index)
        raise RangesExhausted(
            f"CIDR allocation failed; there are no remaining CIDRs left to allocate in {self.cluster}"
        )

    def occupy(self, taken: Network) -> None:
        """Whatever overlaps `taken` is not to be handed out."""
        self._taken |= set(self._overlapping(taken))

    def release(self, given: Network) -> None:
        self._taken -= set(self._overlapping(given))

    def covers(self, other: Network) -> bool:
        return other.version == self.cluster.version and other.overlaps(self.cluster)

    def _at(self, index: int) -> Network:
        address = int(self.cluster.network_address) + (index << (self.cluster.max_prefixlen - self.mask))
        make = IPv4Network if self.cluster.version == 4 else IPv6Network
        return make((address, self.mask))

    def _overlapping(self, other: Network) -> range:
        if not self.covers(other):
            return range(0)
        width = self.cluster.max_prefixlen - self.mask
        base = int(self.cluster.network_address)
        first = max(int(other.network_address) - base, 0) >> width
        last = min(int(other.broadcast_address) - base, self.cluster.num_addresses - 1) >> width
        return range(first, last + 1)
