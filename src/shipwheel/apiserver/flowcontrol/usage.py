"""How busy a priority level has been, second by second: what its histograms over time are made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from shipwheel.apiserver.flowcontrol.queueset import Occupancy

_SEAT_UTILIZATION = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_REQUEST_UTILIZATION = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1)
_DEMAND = (0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 6)
_NANOSECONDS = 1e9


class Histogram:
    """Counts by upper bound; `weight` lets an observation count for more than one."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: list[float] = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, weight: float = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulated, as Prometheus wants them."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Usage:
    """`demand`, `seats`, `executing` and `waiting` as parts of what a level has of each, by the nanosecond."""

    def __init__(self) -> None:
        self.demand = Histogram(_DEMAND)
        self.seats = Histogram(_SEAT_UTILIZATION)
        self.executing = Histogram(_REQUEST_UTILIZATION)
        self.waiting = Histogram(_REQUEST_UTILIZATION)

    def add(self, occupied: Occupancy, *, idle: float, seats: int, room: int) -> None:
        """A time in which the level had `seats` seats and `room` for waiting requests."""
        for (in_use, wanted, executing, waiting), span in ((((0, 0, 0, 0), idle)), *occupied.items()):
            weight = round(span * _NANOSECONDS)
            self.demand.observe((in_use + wanted) / seats, weight)
            self.seats.observe(in_use / seats, weight)
            self.executing.observe(executing / seats, weight)
            self.waiting.observe(waiting / room, weight)
