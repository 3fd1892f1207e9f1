"""The spec of a service: defaults, what belongs to which type, validation.

A service is a union by `type`, with fields that were added over the years and that depend on one another:
`clusterIP` and `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`, node ports. Clients that know only the older of
two fields are understood (KEP-563).
"""

from __future__ import annotations

import ipaddress
from typing import Any

from shipwheel.api.errors import duplicate, forbidden, invalid, not_supported, required
from shipwheel.api.ip import cidr_warnings, ip_warnings, is_valid_ip_for_legacy_field, parse_ip
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_subdomain, is_qualified_name, is_valid_port_num
from shipwheel.api.objectmeta import validate_labels
from shipwheel.kinds.checks import (
    Errors,
    check_cidr,
    check_enum,
    check_ip,
    check_label,
    check_one_of,
    check_port,
    check_range,
    check_rule,
)

PROTOCOLS = ("SCTP", "TCP", "UDP")
FAMILIES = ("IPv4", "IPv6")
NONE = "None"
"""As a cluster IP: the service is headless."""
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_TRAFFIC_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_MAX_AFFINITY_SECONDS = 86400
_DEFAULT_AFFINITY_SECONDS = 10800
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"


# Questions


def is_external_name(spec: Obj) -> bool:
    return spec.get("type") == "ExternalName"


def is_headless(spec: Obj) -> bool:
    return spec.get("clusterIPs") == [NONE]


def is_externally_accessible(spec: Obj) -> bool:
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_check(spec: Obj) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def has_node_ports(spec: Obj) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


# Defaults


def default_service(service: Obj) -> None:
    spec = service.setdefault("spec", {})
    affinity = spec.get("sessionAffinity") or "None"
    spec["sessionAffinity"] = affinity
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if config.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _DEFAULT_AFFINITY_SECONDS}}
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if not spec.get("externalTrafficPolicy") and is_externally_accessible(spec):
        spec["externalTrafficPolicy"] = "Cluster"
    if is_external_name(spec):
        spec.pop("internalTrafficPolicy", None)
    elif spec.get("internalTrafficPolicy") is None:
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        for point in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if point.get("ip") and point.get("ipMode") is None:
                point["ipMode"] = "VIP"


def normalize_cluster_ips(spec: Obj, old: Obj | None) -> None:
    """Understand a client that knows only `clusterIP`."""
    single, plural = spec.get("clusterIP"), spec.get("clusterIPs")
    if old is None:
        if single and not plural:
            spec["clusterIPs"] = [single]
        return
    old_single, old_plural = old.get("clusterIP"), old.get("clusterIPs")
    if old_plural and not plural and single == old_single:
        spec["clusterIPs"] = old_plural
    if single != old_single and plural == old_plural:
        if single:
            spec["clusterIPs"] = [single]
        else:
            spec.pop("clusterIPs", None)


def keep_allocated(spec: Obj, old: Obj) -> None:
    """What the server chose stays when a client sends again what it sent before, without it."""
    if not is_external_name(old) and not is_external_name(spec):
        for field in ("clusterIP", "clusterIPs"):
            if not spec.get(field) and old.get(field):
                spec[field] = old[field]
    if _keeps_node_ports(old) and _keeps_node_ports(spec):
        _keep_node_ports(spec, old)
    port = old.get("healthCheckNodePort")
    if port and needs_health_check(old) and needs_health_check(spec):
        spec["healthCheckNodePort"] = spec.get("healthCheckNodePort") or port


def _keeps_node_ports(spec: Obj) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def _keep_node_ports(spec: Obj, old: Obj) -> None:
    by_name = {port.get("name", ""): port.get("nodePort", 0) for port in old.get("ports") or ()}
    taken = set(by_name.values()) & {port.get("nodePort", 0) for port in spec.get("ports") or ()}
    for port in spec.get("ports") or ():
        kept = by_name.get(port.get("name", ""), 0)
        if not port.get("nodePort") and kept and kept not in taken:
            port["nodePort"] = kept


def drop_type_dependent(new: Obj, old: Obj) -> None:
    """Take out what the type changed to does not have, where the client did not touch it either."""
    spec, was = new["spec"], old["spec"]
    if is_external_name(spec) and not is_external_name(was):
        if all(spec.get(field) == was.get(field) for field in ("clusterIP", "clusterIPs")):
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if spec.get(field) == was.get(field):
                spec.pop(field, None)
    if has_node_ports(was) and not has_node_ports(spec) and _node_ports(spec) <= _node_ports(was):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    _drop_unchanged(spec, was, "healthCheckNodePort", needs_health_check)
    balancer = "LoadBalancer"
    for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
        _drop_unchanged(spec, was, field, lambda each: each.get("type") == balancer)
    _drop_unchanged(spec, was, "externalTrafficPolicy", is_externally_accessible)
    if spec.get("type") != balancer and (new.get("status") or {}).get("loadBalancer"):
        new["status"] = {**new["status"], "loadBalancer": {}}


def _node_ports(spec: Obj) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


def _drop_unchanged(spec: Obj, was: Obj, field: str, applies: Any) -> None:
    if applies(was) and not applies(spec) and spec.get(field) == was.get(field):
        spec.pop(field, None)


# Validation


def check_service(service: Obj, errors: Errors) -> None:
    spec = service["spec"]
    annotations = service["metadata"].get("annotations") or {}
    mode, hints = annotations.get(_TOPOLOGY_MODE), annotations.get(_TOPOLOGY_HINTS)
    if mode is not None and hints is not None and mode != hints:
        detail = f"must match annotations[{_TOPOLOGY_HINTS}] when both are specified"
        errors.append(invalid(f"metadata.annotations[{_TOPOLOGY_MODE}]", mode, detail))
    headless = is_headless(spec)
    kind = spec.get("type", "")
    ports = spec.get("ports") or ()
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        detail = f"may not be set to 'None' for {kind} services"
        errors.append(invalid("spec.clusterIPs[0]", NONE, detail))
    if kind == "ExternalName":
        _check_external_name(spec, errors)
    names: set[str] = set()
    for index, port in enumerate(ports):
        _check_port(port, len(ports) > 1, names, f"spec.ports[{index}]", errors)
    if spec.get("selector"):
        errors += validate_labels(spec["selector"], "spec.selector")
    _check_affinity(spec, errors)
    check_cluster_ips(spec, errors)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        before = len(errors)
        check_ip(address, path, errors)
        if len(errors) == before:
            check_endpoint_ip(address, path, errors)
    check_enum(kind, _TYPES, "spec.type", errors)
    _check_duplicate_ports(spec, kind, errors)
    _check_load_balancer(spec, annotations, errors)
    _check_load_balancer_class(spec, errors)
    _check_traffic(spec, errors)


def _check_external_name(spec: Obj, errors: Errors) -> None:
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            errors.append(forbidden(f"spec.{field}", "may not be set for ExternalName services"))
    name = spec.get("externalName", "").removesuffix(".")
    if not name:
        errors.append(required("spec.externalName"))
    else:
        check_rule(is_dns1123_subdomain, name, "spec.externalName", errors)


def _check_port(port: Obj, needs_name: bool, names: set[str], path: str, errors: Errors) -> None:
    name = port.get("name")
    if name:
        check_label(name, f"{path}.name", errors)
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
    elif needs_name:
        errors.append(required(f"{path}.name"))
    check_range(port.get("port", 0), 1, 65535, f"{path}.port", errors)
    check_enum(port.get("protocol"), PROTOCOLS, f"{path}.protocol", errors)
    check_port(port.get("targetPort"), f"{path}.targetPort", errors)
    if port.get("appProtocol") is not None:
        check_rule(is_qualified_name, port["appProtocol"], f"{path}.appProtocol", errors)


def _check_affinity(spec: Obj, errors: Errors) -> None:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    check_enum(affinity, ("ClientIP", "None"), "spec.sessionAffinity", errors)
    path = "spec.sessionAffinityConfig"
    if affinity == "None" and config is not None:
        errors.append(forbidden(path, "must not be set when session affinity is None"))
    elif affinity == "ClientIP":
        detail = "when session affinity type is ClientIP"
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if config is None:
            errors.append(required(path, detail))
        elif config.get("clientIP") is None:
            errors.append(required(f"{path}.clientIP", detail))
        elif seconds is None:
            errors.append(required(f"{path}.clientIP.timeoutSeconds", detail))
        elif not 0 < seconds <= _MAX_AFFINITY_SECONDS:
            detail = f"must be greater than 0 and less than {_MAX_AFFINITY_SECONDS}"
            errors.append(invalid(f"{path}.clientIP.timeoutSeconds", seconds, detail))


def check_cluster_ips(spec: Obj, errors: Errors) -> None:
    """Cluster IPs and families agree with one another."""
    if is_external_name(spec):
        return
    single, plural = spec.get("clusterIP"), spec.get("clusterIPs") or []
    path = "spec.clusterIPs"
    if single and not plural:
        errors.append(required(path))
    elif single and plural[0] != single:
        errors.append(invalid(path, plural, "first value must match `clusterIP`"))
    elif not single and plural:
        errors.append(invalid(path, plural, "must be empty when `clusterIP` is not specified"))
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        check_one_of(family, FAMILIES, f"spec.ipFamilies[{index}]", errors)
        if family in families[:index]:
            errors.append(duplicate(f"spec.ipFamilies[{index}]", family))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None:
        check_one_of(policy, _FAMILY_POLICIES, "spec.ipFamilyPolicy", errors)
    before = len(errors)
    for index, address in enumerate(plural):
        if index == 0 and address == NONE:
            if len(plural) > 1:
                errors.append(invalid(path, plural, "'None' must be the first and only value"))
            continue
        check_rule(is_valid_ip_for_legacy_field, address, f"{path}[{index}]", errors)
    wrong = len(errors) > before
    if len(plural) > 2:
        errors.append(invalid(path, plural, "may only hold up to 2 values"))
    if wrong:
        return
    if len(plural) > 1 and len({family_of(address) for address in plural}) != 2:
        errors.append(invalid(path, plural, "may specify no more than one IP for each IP family"))
    if not is_headless(spec):
        for index, (address, family) in enumerate(zip(plural, families, strict=False)):
            if family in FAMILIES and family_of(address) != family:
                detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
                errors.append(invalid(f"{path}[{index}]", address, detail))


def check_endpoint_ip(address: str, path: str, errors: Errors) -> None:
    """An address that traffic may be sent to: none of the machine's own."""
    ip = parse_ip(address)
    if ip is None:
        errors.append(invalid(path, address, "must be a valid IP address"))
        return
    if ip.is_unspecified:
        errors.append(invalid(path, address, f"may not be unspecified ({address})"))
    if ip.is_loopback:
        errors.append(invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if ip.is_link_local:
        errors.append(invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if any(ip in network for network in _LINK_LOCAL_MULTICAST if network.version == ip.version):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errors.append(invalid(path, address, detail))


_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


def _check_duplicate_ports(spec: Obj, kind: str, errors: Errors) -> None:
    node_ports, ports = set(), set()
    for index, port in enumerate(spec.get("ports") or ()):
        path = f"spec.ports[{index}]"
        node_port, protocol = port.get("nodePort"), port.get("protocol", "")
        if node_port:
            if kind == "ClusterIP":
                detail = "may not be used when `type` is 'ClusterIP'"
                errors.append(forbidden(f"{path}.nodePort", detail))
            if (protocol, node_port) in node_ports:
                errors.append(duplicate(f"{path}.nodePort", node_port))
            node_ports.add((protocol, node_port))
        key = (protocol, port.get("port"))
        if key in ports:
            errors.append(duplicate(path, {"protocol": protocol, "port": port.get("port")}))
        ports.add(key)


def _check_load_balancer(spec: Obj, annotations: Obj, errors: Errors) -> None:
    balancer = spec.get("type") == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges:
        path = "spec.LoadBalancerSourceRanges"
        if not balancer:
            errors.append(forbidden(path, _ONLY_LOAD_BALANCER))
        for index, text in enumerate(ranges):
            check_cidr(text.strip(), f"{path}[{index}]", errors)
    elif _SOURCE_RANGES in annotations:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not balancer:
            errors.append(forbidden(path, _ONLY_LOAD_BALANCER))
        text = annotations[_SOURCE_RANGES].strip()
        for each in text.split(",") if text else ():
            check_cidr(each.strip(), path, errors)
    allocate = spec.get("allocateLoadBalancerNodePorts")
    if allocate is not None and not balancer:
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_LOAD_BALANCER))
    if balancer and allocate is None:
        errors.append(required("allocateLoadBalancerNodePorts"))


def _check_load_balancer_class(spec: Obj, errors: Errors) -> None:
    name = spec.get("loadBalancerClass")
    if name is None:
        return
    if spec.get("type") == "LoadBalancer":
        check_rule(is_qualified_name, name, "spec.loadBalancerClass", errors)
    else:
        errors.append(forbidden("spec.loadBalancerClass", _ONLY_LOAD_BALANCER))


def _check_traffic(spec: Obj, errors: Errors) -> None:
    outer, inner = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    if is_externally_accessible(spec):
        check_enum(outer, _TRAFFIC_POLICIES, "spec.externalTrafficPolicy", errors)
    elif outer:
        detail = "may only be set for externally-accessible services"
        errors.append(invalid("spec.externalTrafficPolicy", outer, detail))
    port = spec.get("healthCheckNodePort")
    if port and not needs_health_check(spec):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid("spec.healthCheckNodePort", port, detail))
    elif port:
        for complaint in is_valid_port_num(port):
            errors.append(invalid("spec.healthCheckNodePort", port, complaint))
    if inner is None:
        if not is_external_name(spec):
            errors.append(required("spec.internalTrafficPolicy"))
    else:
        check_one_of(inner, _TRAFFIC_POLICIES, "spec.internalTrafficPolicy", errors)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))


# Updates


def check_service_update(spec: Obj, old: Obj, errors: Errors) -> None:
    if not is_external_name(spec) and not is_external_name(old):
        if not (is_headless(spec) and is_headless(old)):
            _check_address_changes(spec, old, errors)
        if not is_headless(spec) and not is_headless(old):
            _check_family_changes(spec, old, errors)
    both_balance = spec.get("type") == old.get("type") == "LoadBalancer"
    if both_balance and spec.get("loadBalancerClass") != old.get("loadBalancerClass"):
        detail = "may not change once set"
        errors.append(invalid("spec.loadBalancerClass", spec.get("loadBalancerClass"), detail))
    moved = spec.get("healthCheckNodePort") != old.get("healthCheckNodePort")
    if moved and needs_health_check(old) and needs_health_check(spec):
        errors.append(forbidden("spec.healthCheckNodePort", "field is immutable"))


def _check_address_changes(spec: Obj, old: Obj, errors: Errors) -> None:
    new_list, old_list = spec.get("clusterIPs") or [], old.get("clusterIPs") or []
    path, changed = "spec.clusterIPs", "may not change once set"
    if len(new_list) == len(old_list):
        for index, (address, was) in enumerate(zip(new_list, old_list, strict=True)):
            if address != was:
                errors.append(invalid(f"{path}[{index}]", new_list, changed))
        return
    if old_list and not new_list:
        errors.append(invalid(f"{path}[0]", new_list, "primary clusterIP can not be unset"))
    elif old_list and new_list[0] != old_list[0]:
        errors.append(invalid(f"{path}[0]", new_list, changed))
    policy = spec.get("ipFamilyPolicy")
    if len(new_list) == 1 and len(old_list) == 2 and policy != "SingleStack":
        detail = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid("spec.ipFamilyPolicy", policy, detail))


def _check_family_changes(spec: Obj, old: Obj, errors: Errors) -> None:
    new_list, old_list = spec.get("ipFamilies") or [], old.get("ipFamilies") or []
    path, changed = "spec.ipFamilies[0]", "may not change once set"
    if len(new_list) == len(old_list):
        for family, was in zip(new_list, old_list, strict=True):
            if family != was:
                errors.append(invalid(path, new_list, changed))
        return
    if len(new_list) < len(old_list) and not spec.get("clusterIPs"):
        errors.append(invalid(path, new_list, "primary ipFamily can not be unset"))
    if new_list and old_list and new_list[0] != old_list[0]:
        errors.append(invalid(path, spec.get("clusterIPs"), changed))
    policy = spec.get("ipFamilyPolicy")
    if len(new_list) == 1 and len(old_list) == 2 and policy != "SingleStack":
        detail = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid("spec.ipFamilyPolicy", policy, detail))


def check_load_balancer_status(status: Obj, spec: Obj, errors: Errors) -> None:
    points = (status.get("loadBalancer") or {}).get("ingress") or ()
    path = "status.loadBalancer.ingress"
    if points and spec.get("type") != "LoadBalancer":
        errors.append(forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'"))
        return
    for index, point in enumerate(points):
        here = f"{path}[{index}]"
        address, mode = point.get("ip"), point.get("ipMode")
        if address:
            check_ip(address, f"{here}.ip", errors)
        if mode is None:
            if address:
                errors.append(required(f"{here}.ipMode", "must be specified when `ip` is set"))
        elif not address:
            errors.append(forbidden(f"{here}.ipMode", "may not be specified when `ip` is not set"))
        else:
            check_one_of(mode, ("Proxy", "VIP"), f"{here}.ipMode", errors)
        check_host_name(point, here, errors)


def check_host_name(point: Obj, path: str, errors: Errors) -> None:
    """A load balancer's name in DNS."""
    name = point.get("hostname")
    if name:
        check_rule(is_dns1123_subdomain, name, f"{path}.hostname", errors)
        if parse_ip(name) is not None:
            errors.append(invalid(f"{path}.hostname", name, "must be a DNS name, not an IP address"))


# Warnings


def service_warnings(service: Obj) -> list[str]:
    spec = service["spec"]
    warnings = []
    if _TOPOLOGY_HINTS in (service["metadata"].get("annotations") or {}):
        warnings.append(f"annotation {_TOPOLOGY_HINTS} is deprecated, please use {_TOPOLOGY_MODE} instead")
    external, kind = spec.get("externalIPs") or (), spec.get("type")
    headless = kind == "ClusterIP" and spec.get("clusterIP") == NONE
    if not headless:
        for index, address in enumerate(spec.get("clusterIPs") or ()):
            warnings += ip_warnings(address, f"spec.clusterIPs[{index}]")
    else:
        if spec.get("loadBalancerIP"):
            warnings.append("spec.loadBalancerIP is ignored for headless services")
        if external:
            warnings.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity") != "None":
            warnings.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(external):
        warnings += ip_warnings(address, f"spec.externalIPs[{index}]")
    if external and not headless and kind != "ExternalName":
        warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("loadBalancerIP"):
        warnings += ip_warnings(spec["loadBalancerIP"], "spec.loadBalancerIP")
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        warnings += cidr_warnings(text, f"spec.loadBalancerSourceRanges[{index}]")
    if kind == "ExternalName" and external:
        warnings.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        warnings.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return warnings
