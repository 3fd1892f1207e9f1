"""Room: whether what a pod asks for is left on a node, and how full or uneven the node would be with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, key_of, name_of
from shipwheel.scheduler.devices.census import Census
from shipwheel.scheduler.devices.ledger import CLASS_RESOURCE
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import MAX_SCORE, Cycle, Handle, Refusal, some
from shipwheel.scheduler.plugins.basics import is_itself
from shipwheel.scheduler.pods import Shape, Shapes, amounts
from shipwheel.scheduler.rowcache import RowCache, Rows
from shipwheel.scheduler.table import Floats, Mask

NATIVE = ("cpu", "memory", "ephemeral-storage")
DEFAULT_RESOURCES: tuple[Mapping[str, Any], ...] = ({"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1})
MAX_UTILIZATION = 100
_RECENT = 10_000


class Columns:
    """What nodes have of a resource, and what of it is taken. Where a node has none itself, devices of the resource's
    class count, if there is one (KEP-5004)."""

    def __init__(self, handle: Handle) -> None:
        self._table = handle.table
        self._ledger = handle.ledger
        self._census = Census(handle)

    def of(self, resource: str) -> tuple[Floats, Floats] | None:
        """(there, taken) by row; None: no node has ever had it."""
        there, taken = self._table.allocatable.get(resource), self._table.requested.get(resource)
        device_class = self._ledger.class_of(resource) if resource not in NATIVE else None
        if device_class is None:
            return None if there is None or taken is None else (there, taken)
        devices, given = self._census.of(device_class)
        if there is None or taken is None:
            return devices, given
        own = there[: self._table.size]
        return np.where(own > 0, own, devices), np.where(own > 0, taken[: self._table.size], given)

    def of_devices(self, shape: Shape, resources: Iterable[str]) -> bool:
        """Whether devices count for a pod: they change without their nodes being touched."""
        return any(
            shape.requests.get(each) and self._ledger.class_of(each) is not None
            for each in resources
            if each not in NATIVE
        )


class NodeResourcesFit:
    """Room for the pod's requests. Scores by the strategy of its arguments."""

    name = "NodeResourcesFit"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._ignored = frozenset(args.get("ignoredResources") or ())
        self._ignored_groups = frozenset(args.get("ignoredResourceGroups") or ())
        strategy = args.get("scoringStrategy") or {}
        resources = strategy.get("resources") or DEFAULT_RESOURCES
        self._weights: dict[str, int] = {each["name"]: each.get("weight") or 1 for each in resources}
        self._strategy = _strategy(strategy)
        self._skip_empty = strategy.get("type") == "RequestedToCapacityRatio"
        self._shapes = Shapes(256)
        self._recent: dict[tuple[Any, Any], Shape] = {}
        self._asked: ClusterEvent | None = None
        self._answers: dict[Shape, bool] = {}
        self._kept = RowCache()
        self._handle = handle
        self._ledger = handle.ledger
        self._there = Columns(handle)
        self.events = (
            Interest("AssignedPod", Action.DELETE | Action.SCALE_DOWN, self._pod_may_help),
            Interest("DeviceClass", Action.ADD | Action.UPDATE, self._class_may_help),
            Interest("UnschedulablePod", Action.SCALE_DOWN, is_itself),
            Interest("Node", Action.ADD | Action.UPDATE_ALLOCATABLE, self._node_may_help),
        )

    def _pod_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        """The node where a pod has gone, or needs less, has room now. Who has gone of many that leave one after the
        other helps nobody but the one whose turn it is."""
        table = self._handle.table
        about = (event.new or event.old or {}).get("spec") or {}
        if not about.get("nodeName"):
            return True
        row = table.rows.get(about["nodeName"])
        if row is None:
            return False
        shape = self._recent_shape(pod)
        if (pod.get("status") or {}).get("nominatedNodeName") == about["nodeName"]:
            return table.room_for(key_of(pod), shape, row, self._is_elsewhere)
        # Of the many that wait most are alike. What happens after the event is an event of its own.
        if self._asked is not event:
            self._asked, self._answers = event, {}
        answer = self._answers.get(shape)
        if answer is None:
            answer = self._answers[shape] = table.room_for("", shape, row, self._is_elsewhere)
        return answer

    def _recent_shape(self, pod: Obj) -> Shape:
        """The shape of a pod that waits; it is asked for at every event."""
        meta = pod["metadata"]
        key = (meta.get("uid"), meta.get("resourceVersion"))
        shape = self._recent.get(key)
        if shape is None:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            shape = self._recent[key] = self._shapes.of(pod)
        return shape

    def _is_elsewhere(self, resource: str) -> bool:
        """Others look after a resource."""
        return self._is_ignored(resource) or self._ledger.class_of(resource) is not None

    def _node_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        """The node, were it empty, has room for the pod, and more of something than before."""
        assert event.new is not None
        now = amounts((event.new.get("status") or {}).get("allocatable"))
        wanted = {"pods": 1, **self._shapes.of(pod).requests}
        lacking = [name for name, amount in wanted.items() if amount > now.get(name, 0) and not self._is_ignored(name)]
        if any(now.get(name, 0) or self._ledger.class_of(name) is None for name in lacking):
            return False
        if event.old is None:
            return True
        before = amounts((event.old.get("status") or {}).get("allocatable"))
        return any(now.get(name, 0) > before.get(name, 0) for name in wanted)

    def _class_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        """Devices of the class may stand for what the pod asks for."""
        assert event.new is not None
        wanted = self._shapes.of(pod).requests
        extended = (event.new.get("spec") or {}).get("extendedResourceName")
        return extended in wanted or CLASS_RESOURCE + name_of(event.new) in wanted

    def _is_ignored(self, resource: str) -> bool:
        group, slash, _ = resource.partition("/")
        return resource in self._ignored or (bool(slash) and group in self._ignored_groups)

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        table, rows = cycle.table, cycle.rows
        full = table.pod_count[rows] + 1 > table.pods_allowed[rows]
        if some(full):
            yield Refusal(full, "Too many pods")
        for resource, amount in cycle.shape.requests.items():
            if self._is_ignored(resource):
                continue
            devices = self._ledger.class_of(resource) is not None  # where the node has none itself
            if resource not in table.allocatable:
                if not devices:
                    yield Refusal(cycle.all(), f"Insufficient {resource}", True)
                continue
            there = table.allocatable[resource][rows]
            lacking = there - table.requested[resource][rows] < amount
            if devices:
                lacking &= there > 0
            if some(lacking):
                yield Refusal(lacking, f"Insufficient {resource}", there < amount)

    def score(self, cycle: Cycle, feasible: Mask) -> Floats:
        there = self._columns(cycle)
        if self._there.of_devices(cycle.shape, self._weights):
            return self._score(cycle, there, cycle.rows)
        states = [column for _, _, capacity, used in there for column in (capacity, used)]
        return self._kept.get(cycle.table, cycle.shape, states, lambda rows: self._score(cycle, there, rows))

    def _columns(self, cycle: Cycle) -> list[tuple[int, int, Floats, Floats]]:
        """Of each resource that is scored: its weight, what the pod asks for, what nodes have and what is taken."""
        found = []
        for resource, weight in self._weights.items():
            wanted = _scored_request(cycle.shape, resource)
            columns = self._there.of(resource) if wanted or resource in NATIVE else None
            if columns is not None:
                capacity, used = columns
                found.append((weight, wanted, capacity, cycle.table.nonzero.get(resource, used)))
        return found

    def _score(self, cycle: Cycle, there: Sequence[tuple[int, int, Floats, Floats]], rows: Rows) -> Floats:
        total: Any = 0.0
        weights: Any = 0.0
        for weight, wanted, capacities, taken in there:
            capacity, used = capacities[rows], taken[rows] + wanted
            score, counts = self._strategy(used, capacity), capacity > 0
            if self._skip_empty:
                counts = counts & (score > 0)
            total = total + np.where(counts, score, 0) * weight
            weights = weights + counts * weight
        if isinstance(weights, float):
            return np.zeros(len(cycle.table.alive[rows]))
        mean = np.divide(total, weights, out=np.zeros_like(weights, np.float64), where=weights > 0)
        return np.floor(mean + 0.5) if self._skip_empty else np.floor(mean)


def _scored_request(shape: Shape, resource: str) -> int:
    found = shape.nonzero_requests if resource in ("cpu", "memory") else shape.requests
    return found.get(resource, 0)


Strategy = Callable[[Floats, Floats], Floats]
"""(used, capacity) -> score of one resource; what comes out for a capacity of 0 is not used."""


def _strategy(given: Mapping[str, Any]) -> Strategy:
    match given.get("type") or "LeastAllocated":
        case "MostAllocated":
            return _most_allocated
        case "RequestedToCapacityRatio":
            shape = (given.get("requestedToCapacityRatio") or {}).get("shape") or ()
            return _broken_line([(each["utilization"], (each.get("score") or 0) * 10) for each in shape])
        case _:
            return _least_allocated


def _share(part: Floats, capacity: Floats) -> Floats:
    return np.floor(np.divide(part * MAX_SCORE, capacity, out=np.zeros_like(part), where=capacity > 0))


def _least_allocated(used: Floats, capacity: Floats) -> Floats:
    return _share(np.maximum(capacity - used, 0), capacity)


def _most_allocated(used: Floats, capacity: Floats) -> Floats:
    return _share(np.minimum(used, capacity), capacity)


def _broken_line(points: Sequence[tuple[int, int]]) -> Strategy:
    """Between the points of a shape, in whole numbers rounded towards zero."""
    table = np.array([_on_line(points, utilization) for utilization in range(MAX_UTILIZATION + 1)], np.float64)

    def score(used: Floats, capacity: Floats) -> Floats:
        utilization = np.where(used > capacity, MAX_UTILIZATION, _share(used, capacity))
        return table[utilization.astype(np.int64)]

    return score


def _on_line(points: Sequence[tuple[int, int]], utilization: int) -> int:
    previous: tuple[int, int] | None = None
    for x, y in points:
        if utilization <= x:
            if previous is None:
                return y
            rise = (y - previous[1]) * (utilization - previous[0])
            return previous[1] + int(rise / (x - previous[0]))
        previous = (x, y)
    return points[-1][1]


class NodeResourcesBalancedAllocation:
    """Better where the pod makes the use of the resources more even."""

    name = "NodeResourcesBalancedAllocation"
    events: Sequence[Interest] = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._resources = tuple(each["name"] for each in args.get("resources") or DEFAULT_RESOURCES)
        self._there = Columns(handle)
        self._kept = RowCache()

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        requests = cycle.shape.requests
        if not any(requests.get(resource) for resource in self._resources):
            return None
        there = self._columns(cycle)
        if self._there.of_devices(cycle.shape, self._resources):
            return self._score(cycle, there, cycle.rows)
        states = [column for _, capacity, used in there for column in (capacity, used)]
        return self._kept.get(cycle.table, cycle.shape, states, lambda rows: self._score(cycle, there, rows))

    def _columns(self, cycle: Cycle) -> list[tuple[int, Floats, Floats]]:
        """Of each resource that counts: what the pod asks for, what nodes have and what is taken."""
        found = []
        for resource in self._resources:
            wanted = cycle.shape.requests.get(resource, 0)
            columns = self._there.of(resource) if wanted or resource in NATIVE else None
            if columns is not None:
                found.append((wanted, *columns))
        return found

    def _score(self, cycle: Cycle, there: Sequence[tuple[int, Floats, Floats]], rows: Rows) -> Floats:
        with_pod: list[tuple[Floats, Mask]] = []
        without: list[tuple[Floats, Mask]] = []
        for wanted, capacities, taken in there:
            capacity, used = capacities[rows], taken[rows]
            counts = capacity > 0
            for amount, found in ((used + wanted, with_pod), (used, without)):
                share = np.divide(amount, capacity, out=np.zeros_like(amount), where=counts)
                found.append((np.minimum(share, 1.0), counts))
        # Half of what is scored is how even it is, half how much the pod has to do with that.
        size = len(cycle.table.alive[rows])
        gain = _evenness(with_pod, size) - _evenness(without, size)
        half = MAX_SCORE // 2
        return half + np.trunc((half + gain) / 2)


def _evenness(shares: Sequence[tuple[Floats, Mask]], size: int) -> Floats:
    """100 where all resources are used to the same extent."""
    if len(shares) < 2:
        return np.full(size, float(MAX_SCORE))
    number = sum(counts.astype(np.float64) for _, counts in shares)
    if len(shares) == 2:
        (first, _), (second, _) = shares
        deviation = np.where(number == 2, np.abs((first - second) / 2), 0.0)
    else:
        divisor = np.maximum(number, 1)
        mean = sum(share for share, _ in shares) / divisor
        spread = sum(np.where(counts, (share - mean) ** 2, 0.0) for share, counts in shares)
        deviation = np.where(number > 2, np.sqrt(spread / divisor), np.where(number == 2, _half_gap(shares), 0.0))
    return np.trunc((1 - deviation) * MAX_SCORE)


def _half_gap(shares: Sequence[tuple[Floats, Mask]]) -> Floats:
    """Half the distance between the two that count."""
    highest = np.max([np.where(counts, share, -np.inf) for share, counts in shares], axis=0)
    lowest = np.min([np.where(counts, share, np.inf) for share, counts in shares], axis=0)
    with np.errstate(invalid="ignore"):
        return (highest - lowest) / 2
