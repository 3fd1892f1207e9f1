"""Looks at all addresses and node ports of services every few minutes, and says what is wrong with them.

What is allocated is read from the services, so nothing can be lost. But services written past the allocators (restored
from a backup, made while the ranges were other ones, by two servers at the same moment) may share an address or a port,
or have one that is in no range: only a person can mend that, who is told by events. A reservation for a write that
never came is given back when it has been seen so three times.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, Obj, key_of
from shipwheel.apiserver.allocators import Network
from shipwheel.apiserver.bootstrap import LOOPBACK
from shipwheel.apiserver.service_means import taken_by
from shipwheel.client.events import involved_object, make_event

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

SERVICES = GroupResource("", "services")
EVENTS = GroupResource("", "events")
_PERIOD = 180.0
_LOOKS_BEFORE_CLEANUP = 3
_ADDRESSES_BY = "ipallocator-repair-controller"
_PORTS_BY = "portallocator-repair-controller"


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something wrong with a service, as an event tells it."""

    service: str
    """Its key."""
    reason: str
    message: str
    component: str


def complaints(services: Iterable[Obj], networks: Sequence[Network], ports: tuple[int, int]) -> list[Complaint]:
    """What is wrong with services' addresses and node ports; of several that share one, the oldest has it."""
    found: list[Complaint] = []
    addresses_taken: set[str] = set()
    ports_taken: set[int] = set()
    for service in sorted(services, key=_age):
        addresses, node_ports = taken_by(service)
        for address in addresses:
            found += _about_address(service, address, networks, addresses_taken)
        for port in dict.fromkeys(node_ports):
            found += _about_port(service, port, ports, ports_taken)
    return found


def _age(service: Obj) -> tuple[str, str]:
    return service["metadata"].get("creationTimestamp") or "", key_of(service)


def _about_address(service: Obj, text: str, networks: Sequence[Network], taken: set[str]) -> list[Complaint]:
    def complain(reason: str, message: str) -> list[Complaint]:
        return [Complaint(key_of(service), reason, message, _ADDRESSES_BY)]

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return complain("ClusterIPNotValid", f"Cluster IP {text} is not a valid IP; please recreate Service")
    family, shown = f"IPv{address.version}", str(address)
    if not any(address in network for network in networks):
        return complain(
            "ClusterIPOutOfRange",
            f"Cluster IP [{family}]: {shown} is not within any configured Service CIDR; please recreate service",
        )
    if shown in taken:
        message = f"Cluster IP [{family}]:{shown} was assigned to multiple services; please recreate service"
        return complain("ClusterIPAlreadyAllocated", message)
    taken.add(shown)
    return []


def _about_port(service: Obj, port: int, ports: tuple[int, int], taken: set[int]) -> list[Complaint]:
    def complain(reason: str, message: str) -> list[Complaint]:
        return [Complaint(key_of(service), reason, message, _PORTS_BY)]

    low, high = ports
    if not low <= port <= high:
        return complain(
            "PortOutOfRange", f"Port {port} is not within the port range {low}-{high}; please recreate service"
        )
    if port in taken:
        return complain(
            "PortAlreadyAllocated", f"Port {port} was assigned to multiple services; please recreate service"
        )
    taken.add(port)
    return []


class ServiceRepair:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._told: set[Complaint] = set()
        self._idle: Counter[str | int] = Counter()

    async def run(self) -> None:
        """Look now and again until cancelled."""
        while True:
            await self.look()
            await self._server.clock.sleep(_PERIOD)

    async def look(self) -> None:
        services = {key_of(each): each for each in self._server.peek_all(SERVICES)}
        means = self._server.services
        found = complaints(services.values(), means.ranges(), (means.ports.low, means.ports.high))
        for complaint in found:
            if complaint not in self._told:
                await self._tell(services[complaint.service], complaint)
        self._told = set(found)
        self._give_back(services.values())

    def _give_back(self, services: Iterable[Obj]) -> None:
        """Release what is reserved for longer than any write can take, and no service has."""
        held: set[str | int] = set()
        for service in services:
            addresses, ports = taken_by(service)
            held |= {*addresses, *ports}
        means = self._server.services
        taken: set[str | int] = {*means.addresses.taken(), *means.ports.taken()}
        self._idle = Counter({each: self._idle[each] + 1 for each in taken - held})
        for each, looks in self._idle.items():
            if looks > _LOOKS_BEFORE_CLEANUP:
                log.warning("%s appears to have leaked: cleaning up", each)
                if isinstance(each, int):
                    means.ports.release(each)
                else:
                    means.addresses.release(each)

    async def _tell(self, service: Obj, complaint: Complaint) -> None:
        log.error("service %s: %s", complaint.service, complaint.message)
        event = make_event(
            involved_object({"apiVersion": "v1", "kind": "Service", **service}),
            "Warning",
            complaint.reason,
            complaint.message,
            component=complaint.component,
            host="",
            now=self._server.clock.now(),
        )
        try:
            await self._server.create(EVENTS, event["metadata"]["namespace"], event, user=LOOPBACK)
        except ApiError as error:
            log.warning("event about service %s: %s", complaint.service, error)
