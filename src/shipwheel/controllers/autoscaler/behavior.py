"""How fast the number of replicas may change (KEP-853).

What was recommended and done lately is remembered: going down follows the highest of the recommendations of the
last minutes, and policies bound how many replicas come or go in a period.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from shipwheel.api.meta import Obj

_UP_FACTOR = 2.0
_UP_MINIMUM = 4
_MAX = 2**31 - 1


@dataclass(slots=True)
class Memory:
    """Of one autoscaler: (when, how many) in monotonic seconds."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    removed: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tamed:
    replicas: int
    conditions: tuple[Condition, ...]


_STABLE_UP = "recent recommendations were lower than current one, applying the lowest recent recommendation"
_STABLE_DOWN = "recent recommendations were higher than current one, applying the highest recent recommendation"
_IN_RANGE = ("DesiredWithinRange", "the desired count is within the acceptable range")


def tame(
    memory: Memory,
    behavior: Obj | None,
    current: int,
    desired: int,
    minimum: int,
    maximum: int,
    window: float,
    now: float,
) -> Tamed:
    """What becomes of a recommendation; it is remembered. `window`: the default seconds of stabilization when
    scaling down."""
    if behavior is None:
        stable, reason, message = _stabilize_down(memory, desired, window, now)
        limited = _limit_plain(current, stable, minimum, maximum)
    else:
        stable, reason, message = _stabilize(memory, behavior, current, desired, window, now)
        limited = _limit_by_policies(memory, behavior, current, stable, minimum, maximum, now)
    if stable == desired:
        reason, message = "ReadyForNewScale", "recommended size matches current size"
    replicas, limit_reason, limit_message = limited
    return Tamed(
        replicas,
        (
            Condition("AbleToScale", "True", reason, message),
            Condition("ScalingLimited", "False" if replicas == stable else "True", limit_reason, limit_message),
        ),
    )


def _stabilize_down(memory: Memory, desired: int, window: float, now: float) -> tuple[int, str, str]:
    recent = [count for when, count in memory.recommendations if when >= now - window]
    memory.recommendations = [entry for entry in memory.recommendations if entry[0] >= now - window]
    memory.recommendations.append((now, desired))
    return max([desired, *recent]), "ScaleDownStabilized", _STABLE_DOWN


def _stabilize(
    memory: Memory, behavior: Obj, current: int, desired: int, window: float, now: float
) -> tuple[int, str, str]:
    up_window = (behavior.get("scaleUp") or {}).get("stabilizationWindowSeconds") or 0
    down_window = (behavior.get("scaleDown") or {}).get("stabilizationWindowSeconds")
    down_window = window if down_window is None else down_window
    lowest = min([desired, *(count for when, count in memory.recommendations if when > now - up_window)])
    highest = max([desired, *(count for when, count in memory.recommendations if when > now - down_window)])
    horizon = now - max(up_window, down_window)
    memory.recommendations = [entry for entry in memory.recommendations if entry[0] >= horizon]
    memory.recommendations.append((now, desired))
    if desired >= current:
        return min(max(current, lowest), highest), "ScaleUpStabilized", _STABLE_UP
    return min(max(current, lowest), highest), "ScaleDownStabilized", _STABLE_DOWN


def _limit_plain(current: int, desired: int, minimum: int, maximum: int) -> tuple[int, str, str]:
    up = int(max(_UP_FACTOR * current, _UP_MINIMUM))
    if desired < minimum:
        return minimum, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
    if maximum > up:
        if desired > up:
            message = "the desired replica count is increasing faster than the maximum scale rate"
            return up, "ScaleUpLimit", message
    elif desired > maximum:
        return maximum, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
    return desired, *_IN_RANGE


def _limit_by_policies(
    memory: Memory, behavior: Obj, current: int, desired: int, minimum: int, maximum: int, now: float
) -> tuple[int, str, str]:
    if desired > current:
        limit = max(_up_limit(memory, behavior["scaleUp"], current, now), current)
        if desired > min(limit, maximum):
            if maximum > limit:
                message = "the desired replica count is increasing faster than the maximum scale rate"
                return limit, "ScaleUpLimit", message
            message = "the desired replica count is more than the maximum replica count"
            return maximum, "TooManyReplicas", message
    elif desired < current:
        limit = min(_down_limit(memory, behavior["scaleDown"], current, now), current)
        if desired < max(limit, minimum):
            if minimum < limit:
                message = "the desired replica count is decreasing faster than the maximum scale rate"
                return limit, "ScaleDownLimit", message
            message = "the desired replica count is less than the minimum replica count"
            return minimum, "TooFewReplicas", message
    return desired, *_IN_RANGE


def _at_start_of(period: float, memory: Memory, current: int, now: float) -> int:
    """The number of replicas when the period began."""

    def changed(entries: Sequence[tuple[float, int]]) -> int:
        return sum(count for when, count in entries if when > now - period)

    return current - changed(memory.added) + changed(memory.removed)


def _up_limit(memory: Memory, rules: Obj, current: int, now: float) -> int:
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposals = []
    for policy in rules.get("policies") or ():
        start = _at_start_of(policy["periodSeconds"], memory, current, now)
        if policy["type"] == "Pods":
            proposals.append(start + policy["value"])
        else:
            proposals.append(math.ceil(start * (1 + policy["value"] / 100)))
    return (min if select == "Min" else max)(proposals, default=_MAX)


def _down_limit(memory: Memory, rules: Obj, current: int, now: float) -> int:
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposals = []
    for policy in rules.get("policies") or ():
        start = _at_start_of(policy["periodSeconds"], memory, current, now)
        if policy["type"] == "Pods":
            proposals.append(start - policy["value"])
        else:
            proposals.append(int(start * (1 - policy["value"] / 100)))
    # The least change leaves the most replicas.
    return (max if select == "Min" else min)(proposals, default=0)


def remember(memory: Memory, behavior: Obj | None, before: int, after: int, now: float) -> None:
    """Note a change that was made, as long as a policy may ask for it."""
    if behavior is None:
        return
    rules = behavior.get("scaleUp" if after > before else "scaleDown") or {}
    longest = max((policy["periodSeconds"] for policy in rules.get("policies") or ()), default=0)
    entries = memory.added if after > before else memory.removed
    entries[:] = [entry for entry in entries if entry[0] >= now - longest]
    entries.append((now, abs(after - before)))
