"""How many replicas each ReplicaSet of a Deployment should have next.

The law of a rolling update: never more than `replicas + maxSurge` pods wanted, never fewer than
`replicas - maxUnavailable` available on our account.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipwheel.api.intstr import scaled_value
from shipwheel.api.meta import Obj, annotations_of, name_of

DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"


@dataclass(frozen=True, slots=True)
class Fenceposts:
    """The absolute numbers that a strategy means for the present number of replicas."""

    surge: int
    unavailable: int


def is_rolling(deployment: Obj) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"


def replicas_of(obj: Obj) -> int:
    """`spec.replicas`, which defaults to 1."""
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else replicas


def fenceposts(deployment: Obj) -> Fenceposts:
    """Percentages round up for surge and down for unavailable; both zero would never move, so one pod may then
    be unavailable."""
    if not is_rolling(deployment):
        return Fenceposts(0, 0)
    wanted = replicas_of(deployment)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = scaled_value(rolling.get("maxSurge", 0), wanted, round_up=True)
    unavailable = scaled_value(rolling.get("maxUnavailable", 0), wanted, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Fenceposts(surge, min(unavailable, wanted) if wanted else 0)


def total(sets: Iterable[Obj]) -> int:
    """Replicas wanted of all sets together."""
    return sum(replicas_of(rs) for rs in sets)


def reported(sets: Iterable[Obj], number: str) -> int:
    """The sum of a number in the status of all sets."""
    return sum((rs.get("status") or {}).get(number) or 0 for rs in sets)


def new_set_size(deployment: Obj, sets: Iterable[Obj], current: int) -> int:
    """What the new ReplicaSet may grow to; `current` is its size, `sets` are all, itself included."""
    wanted = replicas_of(deployment)
    if not is_rolling(deployment):
        return wanted
    room = wanted + fenceposts(deployment).surge - total(sets)
    if room <= 0:
        return current
    return current + min(room, wanted - current)


def old_set_sizes(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[tuple[Obj, int]]:
    """The old ReplicaSets that can shrink now, with their new sizes: first by what is not available anyway, then
    as far as enough pods stay available. `old` are those with replicas."""
    if total(old) == 0:
        return []
    least = replicas_of(deployment) - fenceposts(deployment).unavailable
    new_unavailable = replicas_of(new) - reported([new], "availableReplicas")
    can_go = total([*old, new]) - least - new_unavailable
    if can_go <= 0:
        return []
    by_age = sorted(old, key=_age)
    sizes = {name_of(rs): replicas_of(rs) for rs in by_age}
    gone = 0
    for rs in by_age:
        dead = min(can_go - gone, replicas_of(rs) - reported([rs], "availableReplicas"))
        if dead > 0:
            sizes[name_of(rs)] -= dead
            gone += dead
    # A set that was told to shrink may not have said so yet: no more of its pods count than it is to keep.
    staying = sum(min(replicas_of(rs), reported([rs], "availableReplicas")) for rs in (*old, new))
    spare = staying - least
    for rs in by_age:
        step = min(sizes[name_of(rs)], spare)
        if step > 0:
            sizes[name_of(rs)] -= step
            spare -= step
    return [(rs, sizes[name_of(rs)]) for rs in by_age if sizes[name_of(rs)] != replicas_of(rs)]


def proportional_sizes(deployment: Obj, active: Sequence[Obj]) -> list[tuple[Obj, int]]:
    """The sizes of all active ReplicaSets when a Deployment is scaled in the middle of a roll-out: each gets its
    share, so that a bad template does not gain from it."""
    wanted = replicas_of(deployment)
    allowed = wanted + fenceposts(deployment).surge if wanted > 0 else 0
    to_add = allowed - total(active)
    ordered = list(active)
    if to_add > 0:
        ordered.sort(key=lambda rs: (replicas_of(rs), *_age(rs)), reverse=True)
    elif to_add < 0:
        ordered.sort(key=lambda rs: (-replicas_of(rs), *_age(rs)))
    added = 0
    sizes: list[int] = []
    for rs in ordered:
        share = _share(deployment, rs, to_add, added)
        sizes.append(replicas_of(rs) + share)
        added += share
    if sizes and to_add:
        sizes[0] = max(sizes[0] + to_add - added, 0)
    return list(zip(ordered, sizes, strict=True))


def _share(deployment: Obj, rs: Obj, to_add: int, added: int) -> int:
    """A set's part of `to_add` replicas, `added` of which have been given out."""
    size = replicas_of(rs)
    if size == 0 or to_add in (0, added):
        return 0
    wanted = replicas_of(deployment)
    if wanted == 0:
        fraction = -size
    else:
        before = annotated_number(rs, MAX_REPLICAS) or (deployment.get("status") or {}).get("replicas") or 0
        if before == 0:
            return 0
        fraction = _round(size * (wanted + fenceposts(deployment).surge), before) - size
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def _round(dividend: int, divisor: int) -> int:
    """The nearest integer, halves up."""
    return (2 * dividend + divisor) // (2 * divisor)


def annotated_number(rs: Obj, annotation: str) -> int | None:
    """A non-negative number in an annotation, None when there is none that makes sense."""
    text = annotations_of(rs).get(annotation, "")
    return int(text) if text.isdecimal() and int(text) < 2**31 else None


def is_saturated(deployment: Obj, rs: Obj | None) -> bool:
    """The set carries the whole Deployment by itself."""
    if rs is None:
        return False
    wanted = replicas_of(deployment)
    return (
        replicas_of(rs) == wanted
        and annotated_number(rs, DESIRED_REPLICAS) == wanted
        and reported([rs], "availableReplicas") == wanted
    )


def only_active_or_newest(new: Obj | None, old: Sequence[Obj]) -> Obj | None:
    """The one set to scale when at most one has replicas; None when several have."""
    active = [rs for rs in (*old, *([new] if new else [])) if replicas_of(rs) > 0]
    if len(active) == 1:
        return active[0]
    if active:
        return None
    return new or (max(old, key=_age) if old else None)


def _age(rs: Obj) -> tuple[str, str]:
    """Sorts the oldest first."""
    return rs["metadata"].get("creationTimestamp") or "", name_of(rs)
