"""What an ingress says: rules of hosts and paths, and the backends behind them."""

from __future__ import annotations

from shipwheel.api.errors import invalid, not_supported, required
from shipwheel.api.ip import parse_ip
from shipwheel.api.meta import Obj
from shipwheel.api.names import (
    is_dns1123_subdomain,
    is_path_segment_name,
    is_valid_port_name,
    is_wildcard_dns1123_subdomain,
    name_is_dns_label,
    name_is_dns_subdomain,
)
from shipwheel.kinds.checks import Errors, Rule, check_ip, check_range, check_required, check_rule

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_NOT_AN_ADDRESS = "must be a DNS name, not an IP address"


def check_ingress_spec(spec: Obj, old: Obj | None, errors: Errors) -> None:
    """`old`: names of secrets and wildcard rules that were wrong before may stay so."""
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        detail = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid("spec", rules or None, detail))
    if backend is not None:
        _check_backend(backend, "spec.defaultBackend", errors)
    lenient = old is not None and _had_bad_wildcard_rule(old)
    for index, rule in enumerate(rules):
        _check_rule(rule, f"spec.rules[{index}]", errors, any_wildcard=lenient)
    _check_tls(spec, old, errors)
    if spec.get("ingressClassName") is not None:
        check_rule(name_is_dns_subdomain, spec["ingressClassName"], "spec.ingressClassName", errors)


def _check_rule(rule: Obj, path: str, errors: Errors, *, any_wildcard: bool) -> None:
    host = rule.get("host", "")
    if host:
        if parse_ip(host) is not None:
            errors.append(invalid(f"{path}.host", host, _NOT_AN_ADDRESS))
        check_rule(_host_rule(host), host, f"{path}.host", errors)
    if "*" not in host or not any_wildcard:
        _check_http(rule, path, errors)


def _host_rule(host: str) -> Rule:
    return is_wildcard_dns1123_subdomain if "*" in host else is_dns1123_subdomain


def _had_bad_wildcard_rule(old: Obj) -> bool:
    wrong: Errors = []
    for rule in old.get("rules") or ():
        if "*" in rule.get("host", ""):
            _check_http(rule, "", wrong)
    return bool(wrong)


def _check_http(rule: Obj, path: str, errors: Errors) -> None:
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        errors.append(required(f"{path}.http.paths"))
    for index, each in enumerate(http.get("paths") or ()):
        _check_path(each, f"{path}.http.paths[{index}]", errors)


def _check_path(each: Obj, path: str, errors: Errors) -> None:
    kind, text = each.get("pathType"), each.get("path", "")
    if kind is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(invalid(f"{path}.path", text, "must be an absolute path"))
        for sequence in _BAD_SEQUENCES:
            if sequence in text:
                errors.append(invalid(f"{path}.path", text, f"must not contain '{sequence}'"))
        for ending in _BAD_ENDINGS:
            if text.endswith(ending):
                errors.append(invalid(f"{path}.path", text, f"cannot end with '{ending}'"))
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            errors.append(invalid(f"{path}.path", text, "must be an absolute path"))
    else:
        errors.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    _check_backend(each.get("backend") or {}, f"{path}.backend", errors)


def _check_backend(backend: Obj, path: str, errors: Errors) -> None:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        errors.append(invalid(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        check_typed_reference(resource, f"{path}.resource", errors)
    elif service is not None:
        check_required(name_is_dns_label, service.get("name"), f"{path}.service.name", errors)
        _check_port(service.get("port") or {}, path, errors)
    else:
        errors.append(invalid(path, "", "resource or service backend is required"))


def _check_port(port: Obj, path: str, errors: Errors) -> None:
    name, number = port.get("name"), port.get("number")
    if name and number:
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif name:
        check_rule(is_valid_port_name, name, f"{path}.service.port.name", errors)
    elif number:
        check_range(number, 1, 65535, f"{path}.service.port.number", errors)
    else:
        errors.append(required(path, "port name or number is required"))


def check_typed_reference(reference: Obj, path: str, errors: Errors) -> None:
    if reference.get("apiGroup") is not None:
        check_rule(is_dns1123_subdomain, reference["apiGroup"], f"{path}.apiGroup", errors)
    for field in ("kind", "name"):
        check_required(is_path_segment_name, reference.get(field), f"{path}.{field}", errors)


def _check_tls(spec: Obj, old: Obj | None, errors: Errors) -> None:
    lenient = any(_is_bad_secret(tls) for tls in (old or {}).get("tls") or ())
    for index, tls in enumerate(spec.get("tls") or ()):
        for position, host in enumerate(tls.get("hosts") or ()):
            check_rule(_host_rule(host), host, f"spec.tls[{index}].hosts[{position}]", errors)
        if not lenient and _is_bad_secret(tls):
            check_rule(name_is_dns_subdomain, tls["secretName"], f"spec.tls[{index}].secretName", errors)


def _is_bad_secret(tls: Obj) -> bool:
    return bool(tls.get("secretName") and name_is_dns_subdomain(tls["secretName"]))


def check_ingress_status(status: Obj, errors: Errors) -> None:
    for index, point in enumerate((status.get("loadBalancer") or {}).get("ingress") or ()):
        path = f"status.loadBalancer.ingress[{index}]"
        host = point.get("hostname")
        if point.get("ip"):
            check_ip(point["ip"], f"{path}.ip", errors)
        if host:
            check_rule(is_dns1123_subdomain, host, f"{path}.hostname", errors)
            if parse_ip(host) is not None:
                errors.append(invalid(f"{path}.hostname", host, _NOT_AN_ADDRESS))
