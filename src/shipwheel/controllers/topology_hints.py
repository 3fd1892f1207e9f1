"""Hints in EndpointSlices for which zone (or node) each endpoint is meant.

Two ways: `spec.trafficDistribution` keeps traffic where it is (KEP-4444); the older annotation
`service.kubernetes.io/topology-mode: Auto` gives each zone its share of endpoints by the CPU of its nodes, and
gives up where that would overload one (KEP-2433).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shipwheel.api import quantity
from shipwheel.api.meta import Obj, annotations_of, is_condition_true, labels_of

_ZONE = "topology.kubernetes.io/zone"
_OVERLOAD = 0.2
_EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

Note = tuple[Literal["Normal", "Warning"], str, str]
"""(type, reason, message) of an event."""


def wants_auto_hints(service: Obj) -> bool:
    annotations = annotations_of(service)
    mode = annotations.get("service.kubernetes.io/topology-aware-hints")
    if mode is None:
        mode = annotations.get("service.kubernetes.io/topology-mode")
    return mode in ("Auto", "auto")


def by_traffic_distribution(distribution: str | None, slices: Iterable[Obj]) -> list[Obj]:
    """The slices with the hints of a traffic distribution; without one, with none."""
    zones = distribution in ("PreferClose", "PreferSameZone", "PreferSameNode")
    nodes = distribution == "PreferSameNode"
    return [_map_endpoints(each, lambda entry: _near(entry, zones=zones, nodes=nodes)) for each in slices]


def _near(entry: Obj, *, zones: bool, nodes: bool) -> Obj:
    if zones and not _is_ready(entry):
        return entry
    hints: Obj = {}
    if zones and entry.get("zone"):
        hints["forZones"] = [{"name": entry["zone"]}]
    if nodes and entry.get("nodeName"):
        hints["forNodes"] = [{"name": entry["nodeName"]}]
    return _hinted(entry, hints or None)


def _hinted(entry: Obj, hints: Obj | None) -> Obj:
    bare = {key: value for key, value in entry.items() if key != "hints"}
    return {**bare, "hints": hints} if hints else bare


def _without_hints(slices: Iterable[Obj]) -> list[Obj]:
    return [_map_endpoints(each, lambda entry: _hinted(entry, None)) for each in slices]


def _map_endpoints(each: Obj, change: Callable[[Obj], Obj]) -> Obj:
    return {**each, "endpoints": [change(entry) for entry in each.get("endpoints") or ()]}


def _is_ready(entry: Obj) -> bool:
    return bool((entry.get("conditions") or {}).get("ready"))


@dataclass(frozen=True, slots=True)
class Allocation:
    """How many endpoints a zone should have."""

    minimum: int
    maximum: int
    desired: float


def zone_shares(nodes: Iterable[Obj]) -> dict[str, float]:
    """Each zone's share of all CPU; empty when that cannot be told, or there is only one zone."""
    cpu: dict[str, int] = {}
    for node in nodes:
        labels = labels_of(node)
        if any(label in labels for label in _EXCLUDED) or not is_condition_true(node, "Ready"):
            continue
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        amount = quantity.milli(allocatable.get("cpu", "0"))
        if not labels.get(_ZONE) or not amount:
            return {}
        cpu[labels[_ZONE]] = cpu.get(labels[_ZONE], 0) + amount
    total = sum(cpu.values())
    return {zone: amount / total for zone, amount in cpu.items()} if len(cpu) > 1 else {}


def allocate(shares: dict[str, float], endpoints: int) -> dict[str, Allocation] | str:
    """What each zone should get of so many endpoints, or why it cannot be done."""
    if not shares:
        return "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
    counts = f"({endpoints} endpoints, {len(shares)} zones)"
    if len(shares) > endpoints:
        return f"Insufficient number of endpoints {counts}"
    minimums = {zone: math.ceil(share * endpoints / (1 + _OVERLOAD)) for zone, share in shares.items()}
    spare = endpoints - sum(minimums.values())
    if spare < 0:
        return (
            f"Unable to allocate minimum required endpoints to each zone without exceeding overload threshold {counts}"
        )
    return {
        zone: Allocation(minimum, minimum + spare, max(shares[zone] * endpoints, float(minimum)))
        for zone, minimum in minimums.items()
    }


class TopologyCache:
    """What the automatic hints need to remember: the zones' shares, and which Services have hints."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}
        self._hinted: set[tuple[str, str]] = set()

    def nodes_changed(self, new: Obj | None, old: Obj | None, nodes: Iterable[Obj]) -> bool:
        """Take a change of nodes in; tells whether the shares are other ones now."""
        if new is not None and old is not None and _node_facts(new) == _node_facts(old):
            return False
        shares = zone_shares(nodes)
        changed = shares != self._shares
        self._shares = shares
        return changed

    def forget(self, key: str) -> None:
        self._hinted = {entry for entry in self._hinted if entry[0] != key}

    def removed(self, key: str, family: str) -> list[Note]:
        """The Service no longer asks for hints; the event to tell of it."""
        if (key, family) not in self._hinted:
            return []
        self._hinted.discard((key, family))
        return [_disabled("Topology Aware Hints has been disabled", family)]

    def hints(self, key: str, family: str, slices: Sequence[Obj]) -> tuple[list[Obj], list[Note]]:
        """All slices of a Service and family with hints, and what to say about it."""
        ready = [entry for each in slices for entry in each.get("endpoints") or () if _is_ready(entry)]
        allocations = allocate(self._shares, len(ready))
        if isinstance(allocations, str):
            self._hinted.discard((key, family))
            return _without_hints(slices), [_disabled(allocations, family)]
        if any(not entry.get("zone") for entry in ready):
            self._hinted.discard((key, family))
            why = "One or more endpoints do not have a zone specified"
            return _without_hints(slices), [_disabled(why, family)]
        hinted = assign(slices, allocations)
        notes: list[Note] = []
        if (key, family) not in self._hinted:
            self._hinted.add((key, family))
            message = f"Topology Aware Hints has been enabled, addressType: {family}"
            notes.append(("Normal", "TopologyAwareHintsEnabled", message))
        return hinted, notes


def assign(slices: Sequence[Obj], allocations: dict[str, Allocation]) -> list[Obj]:
    """Hints for every ready endpoint. Hints that fit the allocations stay as they are; the others begin with
    the endpoint's own zone, and zones that have too many give to those that have too few."""
    counts = dict.fromkeys(allocations, 0)
    chosen: list[list[str | None]] = []
    open_places: list[tuple[int, int]] = []
    for index, each in enumerate(slices):
        zones: list[str | None] = []
        for place, entry in enumerate(each.get("endpoints") or ()):
            present = _present_zone(entry)
            if not _is_ready(entry):
                zones.append(None)
            elif present in allocations and counts[present] < allocations[present].maximum:
                counts[present] += 1
                zones.append(present)
            else:
                zones.append(entry["zone"])
                counts[entry["zone"]] = counts.get(entry["zone"], 0) + 1
                open_places.append((index, place))
        chosen.append(zones)
    everything = [(index, place) for index, zones in enumerate(chosen) for place, zone in enumerate(zones) if zone]
    giving, receiving = _exchange(allocations, counts)
    for index, place in (*open_places, *everything):
        zone = chosen[index][place]
        if zone and giving.get(zone, 0) > 0:
            taker = next((name for name in sorted(receiving) if receiving[name] > 0), None)
            if taker is None:
                break
            giving[zone] -= 1
            receiving[taker] -= 1
            chosen[index][place] = taker
    return [
        {
            **each,
            "endpoints": [
                _hinted(entry, {"forZones": [{"name": zone}]} if zone else None)
                for entry, zone in zip(each.get("endpoints") or (), zones, strict=True)
            ],
        }
        for each, zones in zip(slices, chosen, strict=True)
    ]


def _present_zone(entry: Obj) -> str:
    zones = (entry.get("hints") or {}).get("forZones") or []
    return zones[0]["name"] if len(zones) == 1 else ""


def _exchange(allocations: dict[str, Allocation], counts: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Whole numbers of endpoints that zones give and receive to come closer to what they should have."""
    surplus = {zone: counts.get(zone, 0) - each.desired for zone, each in allocations.items()}
    giving: dict[str, int] = {}
    receiving: dict[str, int] = {}
    while True:
        giver = max(surplus, key=lambda zone: (surplus[zone], zone))
        taker = min(surplus, key=lambda zone: (surplus[zone], zone))
        most, least = surplus[giver], -surplus[taker]
        if (most < 1 and least < 1) or most < 0.5 or least < 0.5:
            return giving, receiving
        giving[giver] = giving.get(giver, 0) + 1
        receiving[taker] = receiving.get(taker, 0) + 1
        surplus[giver] -= 1
        surplus[taker] += 1


def _node_facts(node: Obj) -> tuple[Any, ...]:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return labels_of(node), allocatable.get("cpu"), is_condition_true(node, "Ready")


def _disabled(why: str, family: str) -> Note:
    return "Warning", "TopologyAwareHintsDisabled", f"{why}, addressType: {family}"
