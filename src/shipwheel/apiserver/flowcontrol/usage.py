"""How busy a priority level has been, second by second: what its histograms over time are made of."""

from __future__ import annotations

from bisect import bisect_left

from shipwheel.apiserver.flowcontrol.queueset import Occupancy
from shipwheel.client.histogram import Series

_SEAT_UTILIZATION = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_REQUEST_UTILIZATION = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1)
_DEMAND = (0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 6)
_NANOSECONDS = 1e9


class Timed(Series):
    """Observations that last: each counts for as long as it did."""

    __slots__ = ()

    def add(self, value: float, weight: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += weight
        self.sum += value * weight


class Usage:
    """`demand`, `seats`, `executing` and `waiting` as parts of what a level has of each, by the nanosecond."""

    def __init__(self) -> None:
        self.demand = Timed(_DEMAND)
        self.seats = Timed(_SEAT_UTILIZATION)
        self.executing = Timed(_REQUEST_UTILIZATION)
        self.waiting = Timed(_REQUEST_UTILIZATION)

    def add(self, occupied: Occupancy, *, idle: float, seats: int, room: int) -> None:
        """A time in which the level had `seats` seats and `room` for waiting requests."""
        for (in_use, wanted, executing, waiting), span in ((((0, 0, 0, 0), idle)), *occupied.items()):
            weight = round(span * _NANOSECONDS)
            self.demand.add((in_use + wanted) / seats, weight)
            self.seats.add(in_use / seats, weight)
            self.executing.add(executing / seats, weight)
            self.waiting.add(waiting / room, weight)
