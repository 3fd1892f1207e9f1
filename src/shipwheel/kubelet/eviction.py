"""When the node runs short: which thresholds are crossed, and which pod has to go. All of it pure.

A signal falls below its threshold; the node reports a condition at once and keeps it for a while (`transition`) after
the signal has recovered. A hard threshold is acted on at once, a soft one after its grace period. At most one
pod ends at a time: first those that use more than they asked for, then by priority, then by how much more they use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import BINARY_SI, ZERO, Quantity
from shipwheel.client.flags import parse_duration
from shipwheel.kubelet import podspec
from shipwheel.kubelet.resources import pod_requests, requests_of

CONDITIONS: Mapping[str, str] = {
    "memory.available": "MemoryPressure",
    "allocatableMemory.available": "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "imagefs.inodesFree": "DiskPressure",
    "pid.available": "PIDPressure",
}
"""The condition that a signal raises."""
RESOURCES: Mapping[str, str] = {
    "memory.available": "memory",
    "allocatableMemory.available": "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "imagefs.inodesFree": "inodes",
    "pid.available": "pids",
}
HARD_DEFAULTS: Mapping[str, str] = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}
REASON = "Evicted"
IMMEDIATE_GRACE = 1
"""Seconds that a pod gets which must go at once."""


class ThresholdError(ValueError):
    """A threshold that cannot be used; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """`share` of the capacity or, without it, `amount` (bytes, inodes, processes)."""

    signal: str
    amount: int = 0
    share: float = 0.0
    grace: float | None = None
    """Seconds; None for a hard threshold."""
    reclaim_amount: int = 0
    reclaim_share: float = 0.0
    """What must be free beyond the threshold once it has been crossed."""

    def limit(self, capacity: int, *, after: bool = False) -> int:
        limit = int(capacity * self.share) if self.share else self.amount
        if after:
            limit += int(capacity * self.reclaim_share) if self.reclaim_share else self.reclaim_amount
        return limit

    @property
    def shown(self) -> str:
        return f"{self.share:.6g}" if self.share else str(Quantity.of(self.amount, BINARY_SI))


def parse_thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    soft_grace: Mapping[str, str],
    reclaim: Mapping[str, str],
) -> tuple[Threshold, ...]:
    """ThresholdError for a signal, an amount or a combination that makes no sense."""
    reclaims = {signal: _amount(signal, text) for signal, text in reclaim.items()}
    graces = {signal: _grace(signal, text) for signal, text in soft_grace.items()}
    found = []
    for listed, is_soft in ((hard, False), (soft, True)):
        for signal, text in listed.items():
            if signal not in CONDITIONS:
                raise ThresholdError(f"unsupported eviction signal {signal}")
            amount, share = _amount(signal, text)
            if not amount and not share:
                continue
            if is_soft and signal not in graces:
                raise ThresholdError(f"grace period must be specified for the soft eviction threshold {signal}")
            more_amount, more_share = reclaims.get(signal, (0, 0.0))
            grace = graces[signal] if is_soft else None
            found.append(Threshold(signal, amount, share, grace, more_amount, more_share))
    return tuple(found)


def _amount(signal: str, text: str) -> tuple[int, float]:
    """(amount, share)"""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 <= share <= 1:
                raise ThresholdError(f"eviction percentage threshold {signal} must be >= 0% and <= 100%: {text}")
            return 0, share
        amount = quantity.value(text)
    except (quantity.QuantityError, ValueError) as error:
        raise ThresholdError(f"eviction threshold {signal}: {error}") from error
    if amount < 0:
        raise ThresholdError(f"eviction threshold {signal} must be positive: {text}")
    return amount, 0.0


def _grace(signal: str, text: str) -> float:
    if signal not in CONDITIONS:
        raise ThresholdError(f"unsupported eviction signal {signal}")
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ThresholdError(str(error)) from error
    if seconds < 0:
        raise ThresholdError(f"invalid eviction grace period specified: {signal}, must be a positive value")
    return seconds


@dataclass(frozen=True, slots=True)
class Observation:
    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class PressureState:
    """What is remembered from one look to the next. Times are seconds."""

    first_seen: Mapping[Threshold, float] = field(default_factory=dict)
    """Since when a threshold is crossed."""
    last_pressed: Mapping[str, float] = field(default_factory=dict)
    """When a condition last had a cause."""
    acted_on: frozenset[Threshold] = frozenset()
    """Thresholds whose grace period was over at the last look: they hold until their minimum was reclaimed."""


def look(
    thresholds: Sequence[Threshold],
    state: PressureState,
    observations: Mapping[str, Observation],
    *,
    transition: float,
    now: float,
) -> tuple[PressureState, frozenset[str], list[Threshold]]:
    """(state, conditions that hold, thresholds to act on, the most urgent first)."""
    crossed = [
        each
        for each in thresholds
        if _is_crossed(each, observations) or (each in state.acted_on and _is_crossed(each, observations, after=True))
    ]
    first_seen = {each: state.first_seen.get(each, now) for each in crossed}
    pressed = {CONDITIONS[each.signal]: now for each in crossed}
    last_pressed = {**state.last_pressed, **pressed}
    held = frozenset(kind for kind, when in last_pressed.items() if kind in pressed or now - when < transition)
    due = [each for each in crossed if now - first_seen[each] >= (each.grace or 0.0)]
    due.sort(key=lambda each: (RESOURCES[each.signal] != "memory", each.grace is not None))
    kept = {kind: when for kind, when in last_pressed.items() if kind in held}
    return PressureState(first_seen, kept, frozenset(due)), held, due


def _is_crossed(threshold: Threshold, observations: Mapping[str, Observation], *, after: bool = False) -> bool:
    seen = observations.get(threshold.signal)
    return seen is not None and seen.available < threshold.limit(seen.capacity, after=after)


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod uses. Bytes and counts; by container name in `containers`."""

    memory: int = 0
    disk: int = 0
    inodes: int = 0
    processes: int = 0
    containers: Mapping[str, int] = field(default_factory=dict)
    """Of the memory."""
    container_disks: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Bytes in volumes on the node's disk, by name."""


def rank(pods: Iterable[Obj], usage: Mapping[str, PodUsage], resource: str) -> list[Obj]:
    """The pods, the first to go first. Those of whose usage nothing is known come before all others."""

    def key(pod: Obj) -> tuple[bool, bool, int, float]:
        used = usage.get(pod["metadata"]["uid"])
        priority = pod["spec"].get("priority") or 0
        if used is None:
            return False, False, priority, 0.0
        if resource == "pids":
            return True, True, priority, -float(used.processes)
        requests = pod_requests(pod)
        if resource == "memory":
            asked, uses = requests.get("memory", ZERO).value(), used.memory
        elif resource == "inodes":
            asked, uses = 0, used.inodes
        else:
            asked, uses = requests.get("ephemeral-storage", ZERO).value(), used.disk
        return True, not uses > asked, priority, float(asked - uses)

    return sorted((pod for pod in pods if not podspec.is_critical(pod)), key=key)


def message(pod: Obj, threshold: Threshold, seen: Observation | None, used: PodUsage | None) -> str:
    """What the pod's status and its event tell."""
    resource = RESOURCES[threshold.signal]
    text = f"The node was low on resource: {resource}. "
    if seen is not None:
        limit = str(Quantity.of(threshold.limit(seen.capacity), BINARY_SI))
        available = str(Quantity.of(seen.available, BINARY_SI))
        text += f"Threshold quantity: {limit}, available: {available}. "
    if used is None:
        return text
    by_container = used.containers if resource == "memory" else used.container_disks
    if resource not in ("memory", "ephemeral-storage"):
        return text
    for container in (*podspec.containers(pod), *podspec.init_containers(pod)):
        uses = by_container.get(container["name"])
        asked = requests_of(container).get(resource, ZERO)
        if uses is not None and uses > asked.value():
            shown = Quantity.of(uses, BINARY_SI)
            text += (
                f"Container {container['name']} was using {shown}, request is {asked}, "
                f"has larger consumption of {resource}. "
            )
    return text


def over_storage_limit(pod: Obj, used: PodUsage) -> tuple[str, str] | None:
    """(what is metered, why): for what it stores on the node a pod must go, whatever room there is. None when it may
    stay."""
    for volume in pod["spec"].get("volumes") or ():
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is None:
            continue
        size = quantity.parse(limit)
        if size.sign() > 0 and used.volumes.get(volume["name"], 0) > size.value():
            why = f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{size}". '
            return "emptydirfs.limit", why
    every = podspec.containers(pod)
    limits = {
        each["name"]: quantity.parse(limit)
        for each in every
        if (limit := ((each.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")) is not None
    }
    if limits and len(limits) == len(every):
        total = Quantity(sum(each.nanos for each in limits.values()), next(iter(limits.values())).format)
        if used.disk > total.value():
            why = f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
            return "ephemeralpodfs.limit", why
    for name, size in limits.items():
        if used.container_disks.get(name, 0) > size.value():
            why = f'Container {name} exceeded its local ephemeral storage limit "{size}". '
            return "ephemeralcontainerfs.limit", why
    return None


def stores_with_limits(pod: Obj) -> bool:
    """Whether anything limits what the pod may store on the node."""
    return any(
        (each.get("emptyDir") or {}).get("sizeLimit") is not None for each in pod["spec"].get("volumes") or ()
    ) or any(
        "ephemeral-storage" in ((each.get("resources") or {}).get("limits") or {}) for each in podspec.containers(pod)
    )


def refuses(conditions: frozenset[str], pod: Obj, qos: str) -> str:
    """Why a node under pressure does not take a new pod; empty when it does."""
    if not conditions or podspec.is_critical(pod):
        return ""
    if conditions == {"MemoryPressure"}:
        tolerated = any(
            each.get("key") in (None, "", "node.kubernetes.io/memory-pressure")
            and each.get("effect") in (None, "", "NoSchedule")
            and (each.get("operator") == "Exists" or each.get("key"))
            for each in pod["spec"].get("tolerations") or ()
        )
        if qos != "BestEffort" or tolerated:
            return ""
    return f"The node had condition: [{' '.join(sorted(conditions))}]. "


def grace_for(pod: Obj, threshold: Threshold, maximum: int) -> int:
    """Seconds that an evicted pod gets."""
    if threshold.grace is None:
        return IMMEDIATE_GRACE
    declared = pod["spec"].get("terminationGracePeriodSeconds")
    return maximum if declared is None else min(maximum, declared)


def reserved_by(thresholds: Iterable[Threshold], capacity: Mapping[str, int]) -> dict[str, int]:
    """What hard thresholds keep from pods, by resource: it is no part of what can be allocated."""
    kept: dict[str, int] = {}
    for threshold in thresholds:
        resource = {"memory.available": "memory", "nodefs.available": "ephemeral-storage"}.get(threshold.signal)
        if threshold.grace is None and resource:
            kept[resource] = math.ceil(threshold.limit(capacity.get(resource, 0)))
    return kept
