"""The subsets of Endpoints in their canonical form: what is served at the same ports by the same addresses, in the same
state, is together, and everything is sorted. Whoever compares subsets, or makes them pod by pod, needs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shipwheel.api.meta import Obj

_STATES = (("addresses", True), ("notReadyAddresses", False))
_Port = tuple[Any, ...]
_Address = tuple[str, str]


def repack(subsets: Iterable[Obj]) -> list[Obj]:
    """Subsets that say the same in canonical form. An address that is said to be both ready and not at the same port is
    not; addresses without ports are kept as they are, without."""
    addresses: dict[_Address, Obj] = {}
    served: dict[_Port, dict[_Address, bool]] = {}
    for subset in subsets:
        ports = [_port_key(port) for port in subset.get("ports") or ()] or [()]
        for field, ready in _STATES:
            for address in subset.get(field) or ():
                key = _address_key(address)
                addresses.setdefault(key, address)
                for port in ports:
                    at_port = served.setdefault(port, {})
                    at_port[key] = ready and at_port.get(key, True)
    ports_of: dict[frozenset[tuple[_Address, bool]], list[_Port]] = {}
    for port, states in served.items():
        ports_of.setdefault(frozenset(states.items()), []).append(port)
    packed = [_subset(states, ports, addresses) for states, ports in ports_of.items()]
    return sorted(packed, key=lambda subset: [_port_key(port) for port in subset.get("ports") or ()])


def _subset(states: Iterable[tuple[_Address, bool]], ports: Iterable[_Port], addresses: dict[_Address, Obj]) -> Obj:
    subset: Obj = {}
    for field, wanted in _STATES:
        chosen = [addresses[key] for key, ready in sorted(states) if ready is wanted]
        if chosen:
            subset[field] = chosen
    shown = [_show_port(port) for port in sorted(ports) if port]
    if shown:
        subset["ports"] = shown
    return subset


def _address_key(address: Obj) -> _Address:
    """The same address may belong to several pods (on the node's network)."""
    return address["ip"], (address.get("targetRef") or {}).get("uid") or ""


def _port_key(port: Obj) -> _Port:
    return port.get("name") or "", port["port"], port.get("protocol") or "TCP", port.get("appProtocol") or ""


def _show_port(port: _Port) -> Obj:
    name, number, protocol, app = port
    shown: Obj = {"name": name} if name else {}
    shown |= {"port": number, "protocol": protocol}
    if app:
        shown["appProtocol"] = app
    return shown
