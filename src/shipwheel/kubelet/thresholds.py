"""Thresholds of eviction: how little of what the node may have left, as flags and files say it."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shipwheel.api import quantity
from shipwheel.api.quantity import BINARY_SI, Format, Quantity
from shipwheel.client.flags import parse_duration

log = logging.getLogger(__name__)

ALLOCATABLE = "allocatableMemory.available"
"""What is left of the memory that all pods together may have."""
CONDITIONS: Mapping[str, str] = {
    "memory.available": "MemoryPressure",
    ALLOCATABLE: "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "imagefs.inodesFree": "DiskPressure",
    "pid.available": "PIDPressure",
}
"""The condition that a signal raises."""
RESOURCES: Mapping[str, str] = {
    "memory.available": "memory",
    ALLOCATABLE: "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "imagefs.inodesFree": "inodes",
    "pid.available": "pids",
}
FOLLOWING = ("containerfs.available", "containerfs.inodesFree")
"""The file system of writable layers follows that of images, or the node's: its own thresholds are passed over."""
HARD_DEFAULTS: Mapping[str, str] = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}


class ThresholdError(ValueError):
    """A threshold that cannot be used; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Amount:
    """`share` of the capacity or, without it, `number` (bytes, inodes, processes)."""

    number: int = 0
    share: float = 0.0
    format: Format = BINARY_SI

    def of(self, capacity: int) -> int:
        return int(capacity * self.share) if self.share else self.number


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Threshold:
    signal: str
    amount: Amount
    grace: float | None = None
    """Seconds; None for a hard threshold."""
    reclaim: Amount = NOTHING
    """What must be free beyond the threshold once it has been crossed."""

    def limit(self, capacity: int, *, after: bool = False) -> int:
        return self.amount.of(capacity) + (self.reclaim.of(capacity) if after else 0)

    def shown(self, capacity: int) -> str:
        return str(Quantity.of(self.limit(capacity), BINARY_SI if self.amount.share else self.amount.format))


def parse_thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    soft_grace: Mapping[str, str],
    reclaim: Mapping[str, str],
    *,
    allocatable: bool = False,
) -> tuple[Threshold, ...]:
    """ThresholdError for a signal, an amount or a combination that makes no sense. `allocatable`: pods together are
    held to a part of the memory, which is watched like the whole."""
    reclaims = {signal: _reclaim(signal, text) for signal, text in reclaim.items()}
    graces = {signal: _grace(signal, text) for signal, text in soft_grace.items()}
    found = []
    for listed, is_soft in ((hard, False), (soft, True)):
        for signal, text in listed.items():
            _check(signal)
            amount = _amount(signal, text)
            if signal in FOLLOWING:
                log.warning("found %s for %s eviction. ignoring", signal, "soft" if is_soft else "hard")
            if amount is None or signal in FOLLOWING:
                continue
            if is_soft and signal not in graces:
                raise ThresholdError(f"grace period must be specified for the soft eviction threshold {signal}")
            # A grace period of zero makes a threshold hard.
            grace = (graces[signal] or None) if is_soft else None
            found.append(Threshold(signal, amount, grace, reclaims.get(signal, NOTHING)))
    if allocatable:
        found += [
            Threshold(ALLOCATABLE, each.amount, None, each.reclaim)
            for each in found
            if each.signal == "memory.available" and each.grace is None
        ]
    return tuple(found)


def _check(signal: str) -> None:
    if signal not in CONDITIONS and signal not in FOLLOWING:
        raise ThresholdError(f"unsupported eviction signal {signal}")


def _amount(signal: str, text: str) -> Amount | None:
    """None for a threshold that is never crossed: 0% and 100% mean that there is none."""
    if text.endswith("%"):
        if text in ("0%", "100%"):
            return None
        share = _share(text)
        if share < 0:
            raise ThresholdError(f"eviction percentage threshold {signal} must be >= 0%: {text}")
        if share > 1:
            raise ThresholdError(f"eviction percentage threshold {signal} must be <= 100%: {text}")
        return Amount(share=share)
    amount = _quantity(text)
    if amount.sign() <= 0:
        raise ThresholdError(f"eviction threshold {signal} must be positive: {amount}")
    return Amount(amount.value(), format=amount.format)


def _reclaim(signal: str, text: str) -> Amount:
    _check(signal)
    if text.endswith("%"):
        share = _share(text)
        if share <= 0:
            raise ThresholdError(f"eviction percentage minimum reclaim {signal} must be positive: {text}")
        return Amount(share=share)
    amount = _quantity(text)
    if amount.sign() < 0:
        raise ThresholdError(f"negative eviction minimum reclaim specified for {signal}")
    return Amount(amount.value(), format=amount.format)


def _share(text: str) -> float:
    """Of single precision, as upstream counts: it shows in the last digits of large thresholds."""
    try:
        number = float(text.rstrip("%")) / 100
    except ValueError as error:
        shown = text.rstrip("%")
        raise ThresholdError(f'strconv.ParseFloat: parsing "{shown}": invalid syntax') from error
    found: float = struct.unpack("f", struct.pack("f", number))[0]
    return found


def _quantity(text: str) -> Quantity:
    try:
        return quantity.parse(text)
    except quantity.QuantityError as error:
        raise ThresholdError(str(error)) from error


def _grace(signal: str, text: str) -> float:
    _check(signal)
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ThresholdError(str(error)) from error
    if seconds < 0:
        raise ThresholdError(f"invalid eviction grace period specified: {text}, must be a positive value")
    return seconds


def reserved_by(thresholds: Iterable[Threshold], capacity: Mapping[str, int]) -> dict[str, int]:
    """What hard thresholds keep from pods, by resource: it is no part of what can be allocated."""
    kept: dict[str, int] = {}
    for threshold in thresholds:
        resource = {"memory.available": "memory", "nodefs.available": "ephemeral-storage"}.get(threshold.signal)
        if threshold.grace is None and resource:
            kept[resource] = math.ceil(threshold.limit(capacity.get(resource, 0)))
    return kept
