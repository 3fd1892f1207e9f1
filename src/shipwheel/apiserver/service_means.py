"""What services draw on: the cluster's addresses and node ports, with what is taken read from the services.

Addresses come from the ranges of the flag and, of the same families, from those of ServiceCIDRs (KEP-1880) that are
ready and not being deleted.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from shipwheel.api.errors import AllocationError
from shipwheel.api.meta import Obj, is_being_deleted, is_condition_true
from shipwheel.apiserver.allocators import AddressAllocator, Network, PortAllocator
from shipwheel.apiserver.config import ApiServerConfig
from shipwheel.apiserver.watchcache import Change, ResourceCache, WatchCache

SERVICES_PREFIX = "services/specs"
RANGES_PREFIX = "servicecidrs"


class ServiceAddresses:
    """The address pools of each IP family; the first family is the cluster's own."""

    def __init__(self, networks: list[Network]) -> None:
        self.families: tuple[str, ...] = tuple(dict.fromkeys(f"IPv{network.version}" for network in networks))
        self._pools = {
            family: AddressAllocator([network for network in networks if f"IPv{network.version}" == family])
            for family in self.families
        }

    def allocate(self, wanted: str | None = None, *, family: str = "") -> str:
        """Reserve an address. AllocationError when it cannot be had."""
        family = family or (self.families[0] if wanted is None else ("IPv6" if ":" in wanted else "IPv4"))
        pool = self._pools.get(family)
        if pool is None:
            raise AllocationError(f"the cluster has no {family} addresses for services")
        return pool.allocate(wanted)

    def release(self, address: str) -> None:
        self._pool(address).release(address)

    def mark(self, address: str) -> None:
        self._pool(address).mark(address)

    def taken(self) -> list[str]:
        """All addresses that somebody has, or has reserved."""
        return [address for pool in self._pools.values() for address in pool.taken()]

    def use(self, networks: list[Network]) -> None:
        """Give out addresses of these ranges from now on; what is taken stays so."""
        for family, pool in self._pools.items():
            pool.networks = [network for network in networks if f"IPv{network.version}" == family]

    def _pool(self, address: str) -> AddressAllocator:
        return self._pools.get("IPv6" if ":" in address else "IPv4") or AddressAllocator([])


class ServiceMeans:
    def __init__(self, config: ApiServerConfig, cache: WatchCache) -> None:
        self.networks = [ipaddress.ip_network(each) for each in config.service_cluster_ip_range]
        self.addresses = ServiceAddresses(self.networks)
        self.ports = PortAllocator(*config.service_node_port_range)
        self.first_address = str(self.networks[0].network_address + 1)
        self._cache = cache
        cache.on_change(self._changed)

    def means(self, name: str) -> Any:
        return {"service-ips": self.addresses, "node-ports": self.ports}[name]

    def load(self) -> None:
        """Note what the services in the cache have."""
        for entry in self._cache.caches[SERVICES_PREFIX].entries.values():
            self._mark(entry.decode())
        self.addresses.use(self.ranges())

    def ranges(self) -> list[Network]:
        """All ranges to give addresses out of."""
        found = list(self.networks)
        for entry in self._cache.caches[RANGES_PREFIX].entries.values():
            found += [each for each in ready_networks(entry.decode()) if each not in found]
        return found

    def address_use(self) -> list[tuple[str, int, int]]:
        """For each range how many addresses are taken, and how many there are to be had."""
        taken = [ipaddress.ip_address(each) for each in self.addresses.taken()]
        return [
            (str(network), sum(each in network for each in taken), usable_addresses(network))
            for network in self.ranges()
        ]

    def port_use(self) -> tuple[int, int]:
        """How many node ports are taken, and how many there are."""
        return len(self.ports.taken()), self.ports.high - self.ports.low + 1

    def _changed(self, cache: ResourceCache, change: Change) -> None:
        """Follow changes that others made (another API server); our own are noted already."""
        if cache.resource.prefix == RANGES_PREFIX:
            self.addresses.use(self.ranges())
        if cache.resource.prefix != SERVICES_PREFIX:
            return
        if change.before is not None and change.deleted:
            addresses, ports = taken_by(change.before.decode())
            for address in addresses:
                self.addresses.release(address)
            for port in ports:
                self.ports.release(port)
        elif not change.deleted:
            self._mark(change.after.decode())

    def _mark(self, service: Obj) -> None:
        addresses, ports = taken_by(service)
        for address in addresses:
            self.addresses.mark(address)
        for port in ports:
            self.ports.mark(port)


def usable_addresses(network: Network) -> int:
    """Neither the network's own address nor, with IPv4, that of broadcasts is given out."""
    return max(network.num_addresses - (2 if network.version == 4 else 1), 0)


def ready_networks(service_cidr: Obj) -> list[Network]:
    """The ranges of a ServiceCIDR that may be used."""
    if is_being_deleted(service_cidr) or not is_condition_true(service_cidr, "Ready"):
        return []
    return [ipaddress.ip_network(each) for each in service_cidr["spec"].get("cidrs") or ()]


def taken_by(service: Obj) -> tuple[list[str], list[int]]:
    """The cluster IPs and node ports that a service has."""
    spec = service.get("spec") or {}
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return [each for each in addresses if each != "None"], ports
