"""Endpoints: the addresses behind a service, in the form that EndpointSlices replaced."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.errors import FieldError, invalid, required
from shipwheel.api.ip import ip_warnings, parse_ip
from shipwheel.api.meta import Obj, labels_of
from shipwheel.api.names import is_qualified_name, name_is_dns_subdomain
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_enum, check_ip, check_label, check_range, check_rule
from shipwheel.kinds.columns import AGE, NAME, NONE, with_more
from shipwheel.kinds.declare import deprecated, served

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MANAGED_BY = "endpoints.kubernetes.io/managed-by"
_CONTROLLER = "endpoint-controller"


class EndpointsStrategy(Strategy):
    allow_create_on_update = True
    tracks_generation = False

    def default(self, endpoints: Obj) -> None:
        for subset in endpoints.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def validate(self, endpoints: Obj) -> list[FieldError]:
        errors: Errors = []
        for index, subset in enumerate(endpoints.get("subsets") or ()):
            _check_subset(subset, f"subsets[{index}]", errors)
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return [] if new.get("subsets") == old.get("subsets") else self.validate(new)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if labels_of(new).get(_MANAGED_BY) == _CONTROLLER:
            return []
        return [
            warning
            for index, subset in enumerate(new.get("subsets") or ())
            for field in ("addresses", "notReadyAddresses")
            for position, address in enumerate(subset.get(field) or ())
            for warning in ip_warnings(address.get("ip", ""), f"subsets[{index}].{field}[{position}].ip")
        ]


def _check_subset(subset: Obj, path: str, errors: Errors) -> None:
    if not subset.get("addresses") and not subset.get("notReadyAddresses"):
        errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
    for field in ("addresses", "notReadyAddresses"):
        for index, address in enumerate(subset.get(field) or ()):
            _check_address(address, f"{path}.{field}[{index}]", errors)
    ports = subset.get("ports") or ()
    for index, port in enumerate(ports):
        _check_port(port, f"{path}.ports[{index}]", errors, name_required=len(ports) > 1)


def _check_address(address: Obj, path: str, errors: Errors) -> None:
    ip = address.get("ip", "")
    check_ip(ip, f"{path}.ip", errors)
    if address.get("hostname"):
        check_label(address["hostname"], f"{path}.hostname", errors)
    if address.get("nodeName") is not None:
        check_rule(name_is_dns_subdomain, address["nodeName"], f"{path}.nodeName", errors)
    check_endpoint_ip(ip, f"{path}.ip", errors)


def check_endpoint_ip(text: str, path: str, errors: Errors) -> None:
    """An address that can be somebody else's: not this machine's own, nor one of the link only."""
    address = parse_ip(text)
    if address is None:
        errors.append(invalid(path, text, "must be a valid IP address"))
        return
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        errors.append(invalid(path, text, f"may not be unspecified ({text})"))
    if address.is_loopback:
        errors.append(invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local and not address.is_multicast:
        errors.append(invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if _is_link_local_multicast(str(address)):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errors.append(invalid(path, text, detail))


def _is_link_local_multicast(canonical: str) -> bool:
    if canonical.startswith("224.0.0."):
        return True
    first = canonical.partition(":")[0]
    return len(first) == 4 and first[:2] == "ff" and first[3] == "2"


def _check_port(port: Obj, path: str, errors: Errors, *, name_required: bool) -> None:
    if port.get("name"):
        check_label(port["name"], f"{path}.name", errors)
    elif name_required:
        errors.append(required(f"{path}.name"))
    check_range(port.get("port", 0), 1, 65535, f"{path}.port", errors)
    check_enum(port.get("protocol"), _PROTOCOLS, f"{path}.protocol", errors)
    if port.get("appProtocol") is not None:
        check_rule(is_qualified_name, port["appProtocol"], f"{path}.appProtocol", errors)


def _endpoints(obj: Obj, now: datetime) -> str:
    addresses = [
        address["ip"] if port is None else _host_port(address["ip"], port["port"])
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or (None,)
        for address in subset.get("addresses") or ()
    ]
    if not obj.get("subsets"):
        return NONE
    return with_more(addresses, 3, empty="")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


RESOURCES = (
    Resource(
        kind="Endpoints",
        plural="endpoints",
        singular="endpoints",
        short_names=("ep",),
        versions=(
            served(
                "",
                "v1",
                "Endpoints",
                deprecation=deprecated("v1", "Endpoints", "1.33", replacement="discovery.k8s.io/v1 EndpointSlice"),
            ),
        ),
        strategy=EndpointsStrategy(),
        columns=(NAME, Column("Endpoints", _endpoints), AGE),
        storage_prefix="services/endpoints",
    ),
)
