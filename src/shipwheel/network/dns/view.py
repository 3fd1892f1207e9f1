"""What the DNS server knows of the cluster: Services and the endpoints behind them, found by name or address.

The informers' edge feeds objects in one at a time; the answering core only reads. Nothing but what DNS shows is
kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from shipwheel.api.meta import Obj, labels_of, name_of, namespace_of

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    protocol: str
    """`tcp`, `udp`, `sctp`"""
    number: int


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    """Cluster IPs; empty for headless services."""
    ports: tuple[Port, ...] = ()
    external_name: str = ""

    @property
    def headless(self) -> bool:
        return not self.addresses and not self.external_name

    @property
    def domain(self) -> str:
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ready address behind a Service."""

    address: str
    hostname: str
    """The pod's, or one made of its address (`10-244-0-7`)."""
    ports: tuple[Port, ...] = ()


class View:
    """Everything there is to answer from. Keys are (namespace, name)."""

    def __init__(self) -> None:
        self._services: dict[tuple[str, str], Service] = {}
        self._slices: dict[tuple[str, str], dict[str, tuple[Endpoint, ...]]] = {}
        self._namespaces: set[str] = set()
        self._by_address: dict[str, dict[tuple[str, str], None]] = {}
        self.generation = 0
        """Counts changes."""

    def service(self, namespace: str, name: str) -> Service | None:
        return self._services.get((namespace, name))

    def endpoints(self, namespace: str, name: str) -> Iterator[Endpoint]:
        """Each ready endpoint once, whatever number of slices it is in."""
        seen: set[tuple[str, str]] = set()
        for members in self._slices.get((namespace, name), {}).values():
            for each in members:
                if (each.address, each.hostname) not in seen:
                    seen.add((each.address, each.hostname))
                    yield each

    def has_namespace(self, namespace: str) -> bool:
        return namespace in self._namespaces

    def services_at(self, address: str) -> list[Service]:
        """The services that have an address, or an endpoint with it."""
        return [
            service for key in self._by_address.get(address, ()) if (service := self._services.get(key)) is not None
        ]

    def put_namespace(self, obj: Obj) -> None:
        self._namespaces.add(name_of(obj))

    def remove_namespace(self, obj: Obj) -> None:
        self._namespaces.discard(name_of(obj))

    def put_service(self, obj: Obj) -> None:
        service = _service(obj)
        key = (service.namespace, service.name)
        self._drop_service(key)
        self._services[key] = service
        self._index(service.addresses, key)
        self.generation += 1

    def remove_service(self, obj: Obj) -> None:
        self._drop_service((namespace_of(obj), name_of(obj)))
        self.generation += 1

    def put_slice(self, obj: Obj) -> None:
        key = _service_key(obj)
        if key is None:
            return
        slices = self._slices.setdefault(key, {})
        before = slices.pop(name_of(obj), ())
        slices[name_of(obj)] = after = _endpoints(obj)
        self._unindex((each.address for each in before), key)
        self._index((each.address for each in after), key)
        self.generation += 1

    def remove_slice(self, obj: Obj) -> None:
        key = _service_key(obj)
        if key is None:
            return
        slices = self._slices.get(key, {})
        before = slices.pop(name_of(obj), ())
        if not slices:
            self._slices.pop(key, None)
        self._unindex((each.address for each in before), key)
        self.generation += 1

    def _drop_service(self, key: tuple[str, str]) -> None:
        service = self._services.pop(key, None)
        if service is None:
            return
        self._unindex(service.addresses, key)

    def _index(self, addresses: Iterable[str], key: tuple[str, str]) -> None:
        for address in addresses:
            self._by_address.setdefault(address, {})[key] = None

    def _unindex(self, addresses: Iterable[str], key: tuple[str, str]) -> None:
        service = self._services.get(key)
        kept = {each.address for each in self.endpoints(*key)} | set(service.addresses if service else ())
        for address in addresses:
            if address in kept:
                continue
            keys = self._by_address.get(address, {})
            keys.pop(key, None)
            if not keys:
                self._by_address.pop(address, None)


def canonical(address: str) -> str:
    return str(ip_address(address))


def _service(obj: Obj) -> Service:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return Service(namespace_of(obj), name_of(obj), external_name=spec.get("externalName", ""))
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return Service(
        namespace_of(obj),
        name_of(obj),
        addresses=tuple(canonical(each) for each in addresses if each not in (None, "", "None")),
        ports=_ports(spec.get("ports")),
    )


def _endpoints(obj: Obj) -> tuple[Endpoint, ...]:
    ports = _ports(obj.get("ports"))
    return tuple(
        Endpoint(
            address=canonical(address),
            hostname=each.get("hostname") or canonical(address).replace(".", "-").replace(":", "-"),
            ports=ports,
        )
        for each in obj.get("endpoints") or ()
        if (each.get("conditions") or {}).get("ready", True) and obj.get("addressType") != "FQDN"
        for address in each.get("addresses") or ()
    )


def _ports(raw: Iterable[Obj] | None) -> tuple[Port, ...]:
    return tuple(
        Port(each.get("name") or "", each.get("protocol", "TCP").lower(), each.get("port") or 0) for each in raw or ()
    )


def _service_key(slice_: Obj) -> tuple[str, str] | None:
    name = labels_of(slice_).get(SERVICE_NAME_LABEL)
    return (namespace_of(slice_), name) if name else None
