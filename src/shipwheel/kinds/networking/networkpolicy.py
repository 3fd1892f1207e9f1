"""Network policies: who may talk to whom."""

from __future__ import annotations

from collections.abc import Iterator

from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.ip import Address, cidr_warnings, parse_cidr
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_valid_port_name
from shipwheel.api.objectmeta import validate_label_selector
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.checks import Errors, check_cidr, check_range, check_rule
from shipwheel.kinds.columns import AGE, NAME, label_selector
from shipwheel.kinds.declare import older, served

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))


class NetworkPolicyStrategy(Strategy):
    def default(self, policy: Obj) -> None:
        spec = policy.setdefault("spec", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for _, rule, _ in _rules(spec):
            for port in rule.get("ports") or ():
                if port.get("protocol") is None:
                    port["protocol"] = "TCP"

    def validate(self, policy: Obj) -> list[FieldError]:
        spec = policy.get("spec") or {}
        errors: Errors = validate_label_selector(spec.get("podSelector"), "spec.podSelector")
        for path, rule, peers in _rules(spec):
            for index, port in enumerate(rule.get("ports") or ()):
                _check_port(port, f"{path}.ports[{index}]", errors)
            for index, peer in enumerate(rule.get(peers) or ()):
                _check_peer(peer, f"{path}.{peers}[{index}]", errors)
        types = spec.get("policyTypes") or []
        if len(types) > len(_TYPES):
            errors.append(invalid("spec.policyTypes", types, "may not specify more than two policyTypes"))
        for index, kind in enumerate(types):
            if kind not in _TYPES:
                errors.append(not_supported(f"spec.policyTypes[{index}]", kind, _TYPES))
        return errors

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        warnings = []
        for path, rule, peers in _rules(new.get("spec") or {}):
            for index, peer in enumerate(rule.get(peers) or ()):
                block, here = peer.get("ipBlock"), f"{path}.{peers}[{index}].ipBlock"
                if block is None:
                    continue
                warnings += cidr_warnings(block.get("cidr", ""), f"{here}.cidr")
                for position, network in enumerate(block.get("except") or ()):
                    warnings += cidr_warnings(network, f"{here}.except[{position}]")
        return warnings


def _rules(spec: Obj) -> Iterator[tuple[str, Obj, str]]:
    """Each rule with its path, and what its peers are called."""
    for direction, peers in _DIRECTIONS:
        for index, rule in enumerate(spec.get(direction) or ()):
            yield f"spec.{direction}[{index}]", rule, peers


def _check_port(port: Obj, path: str, errors: Errors) -> None:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        errors.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    if isinstance(number, int):
        check_range(number, 1, 65535, f"{path}.port", errors)
        if end is not None:
            if end < number:
                errors.append(invalid(f"{path}.endPort", number, "must be greater than or equal to `port`"))
            check_range(end, 1, 65535, f"{path}.endPort", errors)
        return
    if end is not None:
        why = "non-numeric" if number is not None else "not specified"
        errors.append(invalid(f"{path}.endPort", end, f"may not be specified when `port` is {why}"))
    if number is not None:
        check_rule(is_valid_port_name, number, f"{path}.port", errors)


def _check_peer(peer: Obj, path: str, errors: Errors) -> None:
    block = peer.get("ipBlock")
    selectors = [field for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    for field in selectors:
        errors += validate_label_selector(peer[field], f"{path}.{field}")
    if block is not None:
        _check_block(block, f"{path}.ipBlock", errors)
    if block is None and not selectors:
        errors.append(required(path, "must specify a peer"))
    elif block is not None and selectors:
        errors.append(forbidden(path, "may not specify both ipBlock and another peer"))


def _check_block(block: Obj, path: str, errors: Errors) -> None:
    network = block.get("cidr", "")
    if not network:
        errors.append(required(f"{path}.cidr"))
        return
    check_cidr(network, f"{path}.cidr", errors)
    parsed = parse_cidr(network)
    if parsed is None:
        return
    for index, text in enumerate(block.get("except") or ()):
        here = f"{path}.except[{index}]"
        check_cidr(text, here, errors)
        hole = parse_cidr(text)
        if hole is not None and not _is_strict_part(hole, parsed):
            errors.append(invalid(here, text, "must be a strict subset of `cidr`"))


def _is_strict_part(part: tuple[Address, int], whole: tuple[Address, int]) -> bool:
    (address, length), (network, bits) = part, whole
    if address.version != network.version or length <= bits:
        return False
    shift = address.max_prefixlen - bits
    return int(address) >> shift == int(network) >> shift


RESOURCES = (
    Resource(
        kind="NetworkPolicy",
        plural="networkpolicies",
        singular="networkpolicy",
        short_names=("netpol",),
        versions=(
            served("networking.k8s.io", "v1", "NetworkPolicy"),
            older(
                "extensions", "v1beta1", "NetworkPolicy", since="1.9", until="1.16", replacement="networking.k8s.io/v1"
            ),
        ),
        strategy=NetworkPolicyStrategy(),
        columns=(NAME, Column("Pod-Selector", label_selector("spec", "podSelector")), AGE),
    ),
)
