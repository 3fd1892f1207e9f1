"""How many seats each priority level has (KEP-1040).

Shares say how the server's seats are divided in the long run: the *nominal* limits. A level that needs few of its
seats lends some to those that need more, down to its *lower* and up to their *upper* limit. What a level needs is
looked at every ten seconds, and remembered for some minutes, so that seats go back slowly to levels that rest and at
once to those that wake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ADJUSTMENT_SECONDS = 10.0
_SMOOTHING = 0.977
"""How much of what was needed is remembered after a period: half of it after five minutes."""
_LEAST_TARGET = 0.001
_EPSILON = 1e-7
_MOST_OF_NOMINAL = 0.15
"""How much of a level's nominal limit one request may take."""


@dataclass(frozen=True, slots=True)
class Limits:
    nominal: int = 0
    lower: int = 0
    upper: int = 0


def limits_of(shares: int, lendable: int | None, borrowing: int | None, *, all_shares: float, seats: int) -> Limits:
    """A level's limits: its shares of all, and the percentages that it lends and borrows at most (None: without
    limit)."""
    nominal = math.ceil(seats * shares / all_shares) if all_shares else 0
    lends = rounded(nominal * (lendable or 0) / 100)
    borrows = seats if borrowing is None else rounded(nominal * borrowing / 100)
    return Limits(nominal, nominal - lends, nominal + borrows)


def widest(nominal: int, hand: int) -> int:
    """How many seats one request of a level with queues may take at most."""
    return max(1, min(math.ceil(nominal * _MOST_OF_NOMINAL), nominal // hand))


def rounded(value: float) -> int:
    """Halves upwards."""
    return math.floor(value + 0.5)


@dataclass(frozen=True, slots=True)
class Demand:
    """How many seats a level could have used over the last period, and, smoothed, over the last minutes."""

    average: float = 0.0
    deviation: float = 0.0
    high: int = 0
    smoothed: float = 0.0

    def next(self, occupied: Mapping[int, float], seconds: float, high: int) -> Demand:
        """The demand after another period of `seconds`: how many of them how many seats were wanted, and the most."""
        if seconds <= 0:
            return Demand(self.average, self.deviation, high, self.smoothed)
        average = sum(seats * span for seats, span in occupied.items()) / seconds
        squares = sum(seats * seats * span for seats, span in occupied.items()) / seconds
        deviation = math.sqrt(max(squares - average * average, 0.0))
        envelope = average + deviation
        smoothed = max(envelope, _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * envelope)
        return Demand(average, deviation, high, smoothed)


class Borrower(NamedTuple):
    exempt: bool
    limits: Limits
    demand: Demand
    current: int


class Allocation(NamedTuple):
    current: dict[str, int]
    """The new limits."""
    targets: dict[str, float]
    fair_fraction: float
    """How much of its target each level has, whose bounds leave it a choice."""


def adjust(levels: Mapping[str, Borrower]) -> Allocation:
    """New limits by level. Exempt levels take what they need; the others share what is left."""
    total = sum(level.limits.nominal for level in levels.values())
    current: dict[str, int] = {}
    targets: dict[str, float] = {}
    left = total
    items: dict[str, Item] = {}
    for name, level in levels.items():
        if level.exempt:
            current[name] = max(level.limits.lower, level.demand.high)
            targets[name] = max(current[name], level.demand.smoothed)
            left -= current[name]
        else:
            least = max(level.limits.lower, min(level.limits.nominal, level.demand.high))
            targets[name] = max(least, level.demand.smoothed)
            items[name] = Item(targets[name], least, level.limits.upper)
    lower = sum(levels[name].limits.lower for name in items)
    awake = sum(item.low for item in items.values())
    if left <= lower:
        current |= {name: levels[name].limits.lower for name in items}
        return Allocation(current, targets, 0.0)
    if left <= awake:
        part = (left - lower) / (awake - lower)
        for name, item in items.items():
            floor = levels[name].limits.lower
            current[name] = floor + rounded((item.low - floor) * part)
        return Allocation(current, targets, 0.0)
    try:
        shares, fraction = divide(total, list(items.values()))
    except ValueError:
        return Allocation(current | {name: levels[name].current for name in items}, targets, 0.0)
    current |= {name: rounded(share) for name, share in zip(items, shares, strict=True)}
    return Allocation(current, targets, fraction)


class Item(NamedTuple):
    target: float
    low: float
    high: float


def divide(total: int, items: Sequence[Item]) -> tuple[list[float], float]:
    """Divide `total` so that each item has the same fraction of its target, as far as its bounds let it; and that
    fraction. ValueError when the bounds cannot add up to `total`."""
    if sum(item.low for item in items) - total > _EPSILON:
        raise ValueError("lower bounds add up to more than there is")
    if total - sum(item.high for item in items) > _EPSILON:
        raise ValueError("upper bounds add up to less than there is")
    items = [item._replace(target=max(item.target, _LEAST_TARGET)) for item in items]

    def at(fraction: float) -> list[float]:
        return [max(item.low, min(item.high, fraction * item.target)) for item in items]

    # The sum grows with the fraction, along a straight line between any two of these.
    bends = sorted({bound / item.target for item in items for bound in (item.low, item.high)})
    before, below = 0.0, sum(item.low for item in items)
    for bend in bends:
        reached = sum(at(bend))
        if reached >= total - _EPSILON:
            part = (total - below) / (reached - below) if reached - below > _EPSILON else 1.0
            fraction = before + (bend - before) * part
            return at(fraction), fraction
        before, below = bend, reached
    return at(before), before
