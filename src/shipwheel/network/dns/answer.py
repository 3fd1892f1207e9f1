"""From a question to its answer: the Kubernetes DNS-Based Service Discovery specification, version 1.1.

A plain function of the question and what is known of the cluster. Where the specification leaves a choice,
it is CoreDNS's, as kubeadm configures it: a record lives 30 seconds, a pod's name is answered from the name itself,
and reverse lookups that are none of the cluster's go elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from shipwheel.network.dns.view import Endpoint, Port, Service, View

TTL = 30
SCHEMA_VERSION = "1.1.0"

Rcode = Literal["NOERROR", "NXDOMAIN"]


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    """Lower case, without the final dot."""
    type: str
    """`A`, `AAAA`, `SRV`, ..."""


@dataclass(frozen=True, slots=True)
class Srv:
    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Soa:
    primary: str
    mailbox: str
    serial: int
    refresh: int = 7200
    retry: int = 1800
    expire: int = 86400
    minimum: int = TTL


@dataclass(frozen=True, slots=True)
class Record:
    """`data` is text for every type but SRV and SOA; names are without the final dot."""

    name: str
    type: str
    data: str | Srv | Soa
    ttl: int = TTL


@dataclass(frozen=True, slots=True)
class Answer:
    rcode: Rcode = "NOERROR"
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    alias: str = ""
    """A name outside the cluster that the answer leads to; whoever can should add its records."""


def answer(question: Question, view: View, *, zone: str = "cluster.local") -> Answer | None:
    """The cluster's answer, or None when the name is none of the cluster's affair."""
    name = question.name
    if name == zone or name.endswith("." + zone):
        found = _find(name[: -len(zone)].rstrip("."), view, zone)
        if found is None:
            return Answer("NXDOMAIN", authority=(_soa(zone, view),))
        return _of_type(question, found, view, zone)
    if name.endswith((".in-addr.arpa", ".ip6.arpa")):
        return _reverse(question, view, zone)
    return None


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name stands for."""

    addresses: tuple[str, ...] = ()
    services: tuple[tuple[int, str], ...] = ()
    """(port, target below the zone) for SRV records."""
    targets: tuple[tuple[str, str], ...] = ()
    """(target below the zone, address) of those records."""
    external_name: str = ""
    text: str = ""
    name_server: str = ""


_EXISTS = _Found()


def _find(below: str, view: View, zone: str) -> _Found | None:
    """What a name below the zone stands for; None when it does not exist."""
    labels = below.split(".") if below else []
    match labels:
        case []:
            return _Found(name_server=f"ns.dns.{zone}")
        case ["dns-version"]:
            return _Found(text=SCHEMA_VERSION)
        case ["svc"] | ["pod"] | ["dns"]:
            return _EXISTS
        case ["ns", "dns"]:
            return _Found(addresses=tuple(_own_addresses(view)))
        case [namespace, "svc"] | [namespace, "pod"]:
            return _EXISTS if view.has_namespace(namespace) else None
        case [dashed, namespace, "pod"]:
            return _pod(dashed, namespace, view)
        case [name, namespace, "svc"]:
            return _service(view.service(namespace, name), view)
        case [port, protocol, name, namespace, "svc"] if port.startswith("_") and protocol.startswith("_"):
            return _port(view.service(namespace, name), port[1:], protocol[1:], view)
        case [hostname, name, namespace, "svc"]:
            return _endpoint(view.service(namespace, name), hostname, view)
    return None


def _service(service: Service | None, view: View) -> _Found | None:
    if service is None:
        return None
    if service.external_name:
        return _Found(external_name=service.external_name)
    if not service.headless:
        return _of_cluster_ip(service, service.ports)
    endpoints = list(view.endpoints(service.namespace, service.name))
    return _of_endpoints(service, ((each, each.ports) for each in endpoints)) if endpoints else None


def _port(service: Service | None, port: str, protocol: str, view: View) -> _Found | None:
    """`_http._tcp.web.default.svc`: one named port."""
    if service is None or service.external_name:
        return None

    def named(ports: Iterable[Port]) -> tuple[Port, ...]:
        return tuple(each for each in ports if each.name == port and each.protocol == protocol)

    if not service.headless:
        ports = named(service.ports)
        return _of_cluster_ip(service, ports) if ports else None
    endpoints = [
        (each, ports) for each in view.endpoints(service.namespace, service.name) if (ports := named(each.ports))
    ]
    return _of_endpoints(service, endpoints) if endpoints else None


def _endpoint(service: Service | None, hostname: str, view: View) -> _Found | None:
    """`web-0.web.default.svc`: one endpoint of a service."""
    if service is None:
        return None
    endpoints = [each for each in view.endpoints(service.namespace, service.name) if each.hostname == hostname]
    return _of_endpoints(service, ((each, each.ports) for each in endpoints)) if endpoints else None


def _pod(dashed: str, namespace: str, view: View) -> _Found | None:
    """`10-244-0-7.default.pod`: the address that the name says, in a namespace that exists."""
    if not view.has_namespace(namespace):
        return None
    for separator, kind in ((".", IPv4Address), (":", IPv6Address)):
        try:
            return _Found(addresses=(str(kind(dashed.replace("-", separator))),))
        except AddressValueError:
            continue
    return None


def _of_cluster_ip(service: Service, ports: Iterable[Port]) -> _Found:
    return _Found(
        addresses=service.addresses,
        services=tuple((each.number, service.domain) for each in ports),
        targets=tuple((service.domain, each) for each in service.addresses),
    )


def _of_endpoints(service: Service, endpoints: Iterable[tuple[Endpoint, Iterable[Port]]]) -> _Found:
    addresses: list[str] = []
    services: list[tuple[int, str]] = []
    targets: list[tuple[str, str]] = []
    for endpoint, ports in endpoints:
        target = f"{endpoint.hostname}.{service.domain}"
        addresses.append(endpoint.address)
        targets.append((target, endpoint.address))
        services += [(each.number, target) for each in ports]
    return _Found(tuple(dict.fromkeys(addresses)), tuple(dict.fromkeys(services)), tuple(dict.fromkeys(targets)))


def _of_type(question: Question, found: _Found, view: View, zone: str) -> Answer:
    """The records of the type asked for; a name without any is answered with the zone's SOA (RFC 2308)."""
    name = question.name
    if found.external_name:
        alias = found.external_name.rstrip(".").lower()
        return Answer(answers=(Record(name, "CNAME", alias),), alias="" if question.type == "CNAME" else alias)
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    match question.type:
        case "A" | "AAAA" as kind:
            records = tuple(_addresses(name, kind, found.addresses))
        case "SRV":
            weight = max(1, 100 // max(1, len(found.services)))
            records = tuple(
                Record(name, "SRV", Srv(0, weight, port, f"{target}.{zone}")) for port, target in found.services
            )
            additional = tuple(Record(f"{target}.{zone}", _kind(address), address) for target, address in found.targets)
        case "TXT" if found.text:
            records = (Record(name, "TXT", found.text),)
        case "NS" if found.name_server:
            records = (Record(name, "NS", found.name_server),)
        case "SOA" if found.name_server:
            records = (_soa(zone, view),)
    if not records:
        return Answer(authority=(_soa(zone, view),))
    return Answer(answers=records, additional=additional if records else ())


def _reverse(question: Question, view: View, zone: str) -> Answer | None:
    address = _address_of_reverse(question.name)
    names = list(dict.fromkeys(_names_of(address, view, zone))) if address else []
    if not names:
        return None
    if question.type != "PTR":
        return Answer(authority=(_soa(zone, view),))
    return Answer(answers=tuple(Record(question.name, "PTR", name) for name in names))


def _names_of(address: str, view: View, zone: str) -> Iterator[str]:
    """The names that lead to an address: a service's own, or its endpoints' where the pod has a hostname."""
    for service in view.services_at(address):
        if address in service.addresses:
            yield f"{service.domain}.{zone}"
        for endpoint in view.endpoints(service.namespace, service.name):
            if endpoint.address == address:
                yield f"{endpoint.hostname}.{service.domain}.{zone}"


def _address_of_reverse(name: str) -> str | None:
    """`7.0.244.10.in-addr.arpa` -> `10.244.0.7`"""
    labels = name.split(".")[:-2]
    try:
        if name.endswith(".in-addr.arpa"):
            return str(IPv4Address(".".join(reversed(labels))))
        nibbles = "".join(reversed(labels))
        if len(nibbles) != 32 or any(len(label) != 1 for label in labels):
            return None
        return str(IPv6Address(":".join(nibbles[i : i + 4] for i in range(0, 32, 4))))
    except AddressValueError:
        return None


def _own_addresses(view: View) -> Iterator[str]:
    """The DNS service's."""
    service = view.service("kube-system", "kube-dns")
    if service is not None:
        yield from service.addresses


def _addresses(name: str, kind: str, addresses: Iterable[str]) -> Iterator[Record]:
    for address in addresses:
        if _kind(address) == kind:
            yield Record(name, kind, address)


def _kind(address: str) -> str:
    return "AAAA" if ":" in address else "A"


def _soa(zone: str, view: View) -> Record:
    """The serial number counts what has changed since the server started."""
    return Record(zone, "SOA", Soa(f"ns.dns.{zone}", f"hostmaster.{zone}", view.generation))
