"""Endpoint slices: the addresses behind a service, a hundred at a time."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, duplicate, invalid, required, too_many
from shipwheel.api.ip import ip_warnings, is_valid_ip, is_valid_ip_for_legacy_field
from shipwheel.api.meta import Obj, labels_of
from shipwheel.api.names import (
    is_dns1123_label,
    is_fully_qualified_domain_name,
    is_qualified_name,
    is_valid_label_value,
    name_is_dns_subdomain,
)
from shipwheel.api.objectmeta import validate_labels
from shipwheel.api.resource import Column, Resource, Strategy, WriteContext
from shipwheel.kinds.checks import Errors, Rule, check_enum, check_immutable, check_label, check_one_of, check_rule
from shipwheel.kinds.columns import AGE, NAME, text, with_more
from shipwheel.kinds.core.endpoints import check_endpoint_ip
from shipwheel.kinds.declare import older, served

_SHOWN = 3
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MAX_ENDPOINTS = 1000
_MAX_ADDRESSES = 100
_MAX_PORTS = 20000
_MAX_TOPOLOGY = 16
_MAX_HINTS = 8
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
_HOST_NAME = "kubernetes.io/hostname"
_ZONE = "topology.kubernetes.io/zone"


class EndpointSliceStrategy(Strategy):
    def default(self, endpoint_slice: Obj) -> None:
        for port in endpoint_slice.get("ports") or ():
            if port.get("name") is None:
                port["name"] = ""
            if port.get("protocol") is None:
                port["protocol"] = "TCP"

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        """Labels count as well: they say which service the slice is of."""
        if labels_of(new) != labels_of(old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def validate(self, endpoint_slice: Obj) -> list[FieldError]:
        return self._validate(endpoint_slice, None)

    def _validate(self, endpoint_slice: Obj, old: Obj | None) -> list[FieldError]:
        errors: Errors = []
        check_enum(endpoint_slice.get("addressType"), _ADDRESS_TYPES, "addressType", errors)
        _check_ports(endpoint_slice.get("ports") or [], errors)
        if old is None or old.get("endpoints") != endpoint_slice.get("endpoints"):
            _check_endpoints(endpoint_slice, errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self._validate(new, old)
        check_immutable(new.get("addressType"), old.get("addressType"), "addressType", errors)
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        warnings = []
        if old is None and new.get("addressType") == "FQDN":
            warnings.append("spec.addressType: FQDN endpoints are deprecated")
        if labels_of(new).get(_MANAGED_BY) in _CONTROLLERS:
            return warnings
        for index, endpoint in enumerate(new.get("endpoints") or ()):
            for position, address in enumerate(endpoint.get("addresses") or ()):
                warnings += ip_warnings(address, f"endpoints[{index}].addresses[{position}]")
        return warnings


def _check_ports(ports: list[Obj], errors: Errors) -> None:
    if len(ports) > _MAX_PORTS:
        errors.append(too_many("ports", len(ports), _MAX_PORTS))
    names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            check_label(name, f"{path}.name", errors)
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        check_one_of(port.get("protocol"), _PROTOCOLS, f"{path}.protocol", errors)
        if port.get("appProtocol") is not None:
            check_rule(is_qualified_name, port["appProtocol"], f"{path}.appProtocol", errors)


def _check_endpoints(endpoint_slice: Obj, errors: Errors) -> None:
    endpoints = endpoint_slice.get("endpoints") or []
    if len(endpoints) > _MAX_ENDPOINTS:
        errors.append(too_many("endpoints", len(endpoints), _MAX_ENDPOINTS))
    for index, endpoint in enumerate(endpoints):
        path = f"endpoints[{index}]"
        _check_addresses(endpoint, endpoint_slice.get("addressType", ""), f"{path}.addresses", errors)
        if endpoint.get("nodeName") is not None:
            check_rule(name_is_dns_subdomain, endpoint["nodeName"], f"{path}.nodeName", errors)
        topology = endpoint.get("deprecatedTopology") or {}
        if len(topology) > _MAX_TOPOLOGY:
            errors.append(too_many(f"{path}.deprecatedTopology", len(topology), _MAX_TOPOLOGY))
        if topology:
            errors += validate_labels(topology, f"{path}.deprecatedTopology")
        if endpoint.get("hostname") is not None:
            check_rule(is_dns1123_label, endpoint["hostname"], f"{path}.hostname", errors)
        hints = endpoint.get("hints") or {}
        _check_hints(hints.get("forZones") or [], is_valid_label_value, f"{path}.hints.forZones", errors)
        _check_hints(hints.get("forNodes") or [], name_is_dns_subdomain, f"{path}.hints.forNodes", errors)


def _check_addresses(endpoint: Obj, kind: str, path: str, errors: Errors) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errors.append(required(path, "must contain at least 1 address"))
    elif len(addresses) > _MAX_ADDRESSES:
        errors.append(too_many(path, len(addresses), _MAX_ADDRESSES))
    for index, address in enumerate(addresses):
        here = f"{path}[{index}]"
        if kind == "FQDN":
            errors += is_fully_qualified_domain_name(address, here)
            continue
        if kind not in _ADDRESS_TYPES:
            continue
        complaints = is_valid_ip_for_legacy_field(address) if kind == "IPv4" else is_valid_ip(address)
        if complaints:
            errors += [invalid(here, address, complaint) for complaint in complaints]
            continue
        if (":" in address) != (kind == "IPv6"):
            errors.append(invalid(path, address, f"must be an {kind} address"))
        check_endpoint_ip(address, here, errors)


def _check_hints(hints: list[Obj], rule: Rule, path: str, errors: Errors) -> None:
    if len(hints) > _MAX_HINTS:
        errors.append(too_many(path, len(hints), _MAX_HINTS))
    seen: set[str] = set()
    for index, hint in enumerate(hints):
        name, here = hint.get("name", ""), f"{path}[{index}].name"
        if name in seen:
            errors.append(duplicate(here, name))
        seen.add(name)
        check_rule(rule, name, here, errors)


def _ports(endpoint_slice: Obj, now: datetime) -> str:
    return with_more([_port(port) for port in endpoint_slice.get("ports") or ()], _SHOWN)


def _port(port: Obj) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return port["name"] if port.get("name") is not None else "*"


def _endpoints(endpoint_slice: Obj, now: datetime) -> str:
    endpoints = endpoint_slice.get("endpoints") or ()
    return with_more([address for each in endpoints for address in each.get("addresses") or ()], _SHOWN)


# Topology was a field of v1beta1's; v1 has names of nodes and zones instead.


def _without_topology(endpoint_slice: Obj) -> Obj:
    for endpoint in endpoint_slice.get("endpoints") or ():
        topology = endpoint.pop("deprecatedTopology", None) or {}
        if topology.get(_HOST_NAME) and endpoint.get("nodeName") is None:
            endpoint["nodeName"] = topology[_HOST_NAME]
    return endpoint_slice


def _of_v1beta1(endpoint_slice: Obj) -> Obj:
    for endpoint in endpoint_slice.get("endpoints") or ():
        topology = endpoint.pop("topology", None) or {}
        zone = topology.pop(_ZONE, None)
        if zone is not None:
            endpoint["zone"] = zone
        if _HOST_NAME in topology and topology[_HOST_NAME] == endpoint.get("nodeName"):
            del topology[_HOST_NAME]
        if topology:
            endpoint["deprecatedTopology"] = topology
    return endpoint_slice


def _to_v1beta1(endpoint_slice: Obj) -> Obj:
    endpoints = [_with_topology(endpoint) for endpoint in endpoint_slice.get("endpoints") or ()]
    return {**endpoint_slice, "endpoints": endpoints}


def _with_topology(endpoint: Obj) -> Obj:
    plain = {key: value for key, value in endpoint.items() if key not in ("deprecatedTopology", "zone")}
    topology = dict(endpoint.get("deprecatedTopology") or {})
    if endpoint.get("zone") is not None:
        topology[_ZONE] = endpoint["zone"]
    if endpoint.get("nodeName") is not None:
        topology.setdefault(_HOST_NAME, endpoint["nodeName"])
    return {**plain, "topology": topology} if topology else plain


RESOURCES = (
    Resource(
        kind="EndpointSlice",
        plural="endpointslices",
        singular="endpointslice",
        versions=(
            served("discovery.k8s.io", "v1", "EndpointSlice", to_storage=_without_topology),
            older(
                "discovery.k8s.io",
                "v1beta1",
                "EndpointSlice",
                since="1.21",
                until="1.25",
                replacement="discovery.k8s.io/v1",
                to_storage=_of_v1beta1,
                from_storage=_to_v1beta1,
            ),
        ),
        strategy=EndpointSliceStrategy(),
        columns=(
            NAME,
            Column("AddressType", text("addressType")),
            Column("Ports", _ports),
            Column("Endpoints", _endpoints),
            AGE,
        ),
    ),
)
