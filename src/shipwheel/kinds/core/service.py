"""Services: a name and an address for a set of pods."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shipwheel.api.ages import UNKNOWN
from shipwheel.api.errors import FieldError, unavailable
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.names import name_is_dns_label
from shipwheel.api.resource import Call, Column, Resource, Server, WriteContext, keep
from shipwheel.kinds.columns import AGE, NAME, NONE, dig, format_labels, text
from shipwheel.kinds.core.proxy import proxy_subresource, target_of
from shipwheel.kinds.core.serviceallocation import Allocation, addresses_of, ports_of
from shipwheel.kinds.core.servicespec import (
    check_load_balancer_status,
    check_service,
    check_service_update,
    default_service,
    drop_type_dependent,
    keep_allocated,
    normalize_cluster_ips,
    service_warnings,
)
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.strategies import BuiltinStrategy

_SERVICES = GroupResource("", "services")
_ENDPOINTS = GroupResource("", "endpoints")
_PODS = GroupResource("", "pods")


# Columns


def load_balancer_addresses(obj: Obj) -> list[str]:
    """The addresses (or host names) that a load balancer gave to a service or an ingress."""
    points = dig(obj, "status", "loadBalancer", "ingress") or ()
    return sorted({each.get("ip") or each.get("hostname") or "" for each in points} - {""})


def _cluster_ip(service: Obj, now: datetime) -> str:
    addresses = service["spec"].get("clusterIPs")
    return addresses[0] if addresses else NONE


def _external_ip(service: Obj, now: datetime) -> str:
    spec = service["spec"]
    external = spec.get("externalIPs") or []
    kind = spec.get("type")
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(external) or NONE
    if kind == "LoadBalancer":
        return ",".join(load_balancer_addresses(service) + external) or "<pending>"
    if kind == "ExternalName":
        return spec.get("externalName", "")
    return UNKNOWN


def _ports(service: Obj, now: datetime) -> str:
    return ",".join(_port(port) for port in service["spec"].get("ports") or ()) or NONE


def _port(port: Obj) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', '')}"


COLUMNS = (
    NAME,
    Column("Type", text("spec", "type")),
    Column("Cluster-IP", _cluster_ip),
    Column("External-IP", _external_ip),
    Column("Port(s)", _ports),
    AGE,
    Column("Selector", lambda service, now: format_labels(service["spec"].get("selector")), priority=1),
)


# Proxy


async def _proxy(server: Server, call: Call) -> Any:
    """HTTP to one of the service's ready pods. Endpoints that are no pods are not proxied to: whoever may write
    Endpoints could otherwise send the API server anywhere."""
    scheme, name, port = target_of(call, "service")
    if port.isdigit():
        service = await server.get(_SERVICES, call.namespace, name)
        port = _port_name(service, int(port))
    endpoints = await server.get(_ENDPOINTS, call.namespace, name)
    candidates = [
        (address["ip"], each["port"])
        for subset in endpoints.get("subsets") or ()
        for each in subset.get("ports") or ()
        if each.get("name", "") == port
        for address in subset.get("addresses") or ()
        if _is_pod(server, call.namespace, address)
    ]
    if not candidates:
        raise unavailable(f'no endpoints available for service "{call.name}"')
    address, number = random.choice(candidates)
    return await server.to_address(scheme or "http", address, number, call.target, call)


def _port_name(service: Obj, number: int) -> str:
    for port in service["spec"].get("ports") or ():
        if port["port"] == number:
            return port.get("name", "")
    raise unavailable(f'no service port {number} found for service "{service["metadata"]["name"]}"')


def _is_pod(server: Server, namespace: str, address: Obj) -> bool:
    reference = address.get("targetRef")
    if not reference or reference.get("namespace") != namespace:
        return False
    pod = server.peek(_PODS, namespace, reference.get("name", ""))
    return pod is not None and any(
        each.get("ip") == address["ip"] for each in (pod.get("status") or {}).get("podIPs") or ()
    )


class ServiceStrategy(BuiltinStrategy):
    returns_deleted = True
    allow_create_on_update = True
    tracks_generation = False
    name_rule = staticmethod(name_is_dns_label)

    def default(self, service: Obj) -> None:
        default_service(service)

    def prepare_for_create(self, service: Obj, ctx: WriteContext) -> None:
        super().prepare_for_create(service, ctx)
        normalize_cluster_ips(service["spec"], None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        keep_allocated(new["spec"], old["spec"])
        normalize_cluster_ips(new["spec"], old["spec"])
        drop_type_dependent(new, old)

    def validate(self, service: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        check_service(service, errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        check_service_update(new["spec"], old["spec"], errors)
        check_service(new, errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        check_load_balancer_status(new.get("status") or {}, new["spec"], errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        return service_warnings(new)

    async def before_create(self, service: Obj, server: Server, ctx: WriteContext) -> Callable[[], None]:
        return self._allocate(service, None, server)

    async def before_update(self, new: Obj, old: Obj, server: Server, ctx: WriteContext) -> Callable[[], None] | None:
        return self._allocate(new, old, server) if new["spec"] != old["spec"] else None

    def _allocate(self, service: Obj, old: Obj | None, server: Server) -> Callable[[], None]:
        means = server.means("service-ips"), server.means("node-ports")
        allocation = Allocation(*means, service["metadata"].get("name", ""))
        allocation.fill(service["spec"], old["spec"] if old is not None else None)
        return allocation.undo

    async def after_update(self, new: Obj, old: Obj, server: Server) -> None:
        _release(server, old["spec"], kept=new["spec"])

    async def after_delete(self, service: Obj, server: Server) -> None:
        _release(server, service["spec"], kept={})


def _release(server: Server, spec: Obj, *, kept: Obj) -> None:
    addresses, ports = server.means("service-ips"), server.means("node-ports")
    for address in set(addresses_of(spec)) - set(addresses_of(kept)):
        addresses.release(address)
    for port in ports_of(spec) - ports_of(kept):
        ports.release(port)


RESOURCES = (
    Resource(
        kind="Service",
        plural="services",
        singular="service",
        short_names=("svc",),
        categories=("all",),
        versions=(served("", "v1", "Service"),),
        strategy=ServiceStrategy(),
        columns=COLUMNS,
        subresources=(STATUS, proxy_subresource("ServiceProxyOptions", _proxy)),
        selectable={
            "spec.clusterIP": lambda service: service["spec"].get("clusterIP", ""),
            "spec.type": lambda service: service["spec"].get("type", ""),
        },
        storage_prefix="services/specs",
    ),
)
