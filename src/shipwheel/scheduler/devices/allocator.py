"""The search for devices that meet a pod's claims on one node.

Claims are met one after the other, and their requests, device by device; each device that will do is tried in turn,
until all that is asked for is found or nothing is left to try. The first solution is taken. What is tried now is
marked as taken, and unmarked before the next is tried.

The places where there is a choice are generators on a stack: each takes the next thing that can be taken, yields where
to go on, and undoes it when it is asked again. So how deep the search goes is not how deep Python's stack is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api.meta import Obj, name_of, namespace_of
from shipwheel.api.quantity import ZERO, Quantity
from shipwheel.kinds.resource.expressions import ExpressionError, selector
from shipwheel.scheduler.devices import capacity
from shipwheel.scheduler.devices.capacity import Amounts
from shipwheel.scheduler.devices.pools import Device, DeviceId, Pool, PoolId, Reach, consumed_counters
from shipwheel.scheduler.devices.result import allocation
from shipwheel.scheduler.devices.wishes import (
    MAX_DEVICES,
    AllocationError,
    Constraint,
    Wish,
    constraints_of,
    wishes_of,
)

_PATIENCE = 64
"""Steps between two looks at the clock."""
Counters = dict[tuple[str, str], Quantity]
"""By (counter set, counter)."""


class NotHere(Exception):
    """There is no solution on this node; others may have one."""


class TimedOut(Exception):
    """The search has taken too long."""


@dataclass(frozen=True, slots=True)
class InUse:
    """What is given away already."""

    devices: Container[DeviceId] = frozenset()
    """Those that only one may have."""
    consumed: Mapping[DeviceId, Amounts] = field(default_factory=dict)
    """Of devices that are shared."""

    def has(self, device: DeviceId) -> bool:
        return device in self.devices or device in self.consumed


@dataclass(frozen=True, slots=True)
class Taken:
    """A device that is given to a request."""

    device: Device
    wish: Wish
    share: str = ""
    """Tells shares of one device from each other."""
    consumed: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the search is: a claim, a request of it, one of its alternatives (None: not chosen yet), which of its
    devices is to be found next, and where to begin to look."""

    claim: int = 0
    request: int = 0
    alternative: int | None = None
    number: int = 0
    start: int = 0


def allocate(
    claims: Sequence[Obj],
    classes: Mapping[str, Obj],
    pools: Sequence[Pool],
    in_use: InUse,
    reach: Reach,
    *,
    new_share: Callable[[], str] = lambda: str(uuid.uuid4()),
    expired: Callable[[], bool] = lambda: False,
) -> list[Obj] | None:
    """A `status.allocation` for each of the claims; None when there is no solution. NotHere when this node's pools
    are broken, AllocationError when something is wrong with a claim or class, TimedOut when time has `expired`."""
    search = _Search(claims, classes, pools, in_use, reach, new_share)
    if not search.run(expired):
        if any(pool.invalid for pool in pools):
            raise NotHere("invalid resource pools were encountered")
        return None
    return [allocation(claim, taken, reach.node) for claim, taken in zip(claims, search.taken, strict=True)]


class _Search:
    def __init__(
        self,
        claims: Sequence[Obj],
        classes: Mapping[str, Obj],
        pools: Sequence[Pool],
        in_use: InUse,
        reach: Reach,
        new_share: Callable[[], str],
    ) -> None:
        self._claims = claims
        self._pools = pools
        self._in_use = in_use
        self._reach = reach
        self._new_share = new_share
        self._devices = [device for pool in pools if pool.usable for device in pool.devices]
        self._matches: dict[tuple[DeviceId, int], bool] = {}
        self._owners: dict[DeviceId, list[int]] = {}
        """Claims that a device is given to in this search."""
        self._consuming: dict[DeviceId, list[Amounts]] = {}
        self._left: dict[PoolId, Counters] = {}
        self._every: dict[int, list[Device]] = {}
        """Of wishes for all devices, by identity, those that are meant."""
        self.taken: list[list[Taken]] = [[] for _ in claims]
        self._wishes = [wishes_of(claim, classes) for claim in claims]
        self._constraints: list[list[Constraint]] = [constraints_of(claim) for claim in claims]
        for claim, wishes in zip(claims, self._wishes, strict=True):
            for wish in (each for alternatives in wishes for each in alternatives if each.all_devices):
                self._every[id(wish)] = self._all_for(claim, wish)
            least = sum(self._least(alternatives) for alternatives in wishes)
            if least > MAX_DEVICES:
                limit = f"number of requested devices {least} exceeds the claim limit of {MAX_DEVICES}"
                raise AllocationError(f"claim {_key(claim)}: {limit}")

    def run(self, expired: Callable[[], bool]) -> bool:
        """Whether there is a solution; `taken` has it then."""
        stack = [self._choices(_Place())]
        steps = 0
        while stack:
            steps += 1
            if steps % _PATIENCE == 0 and expired():
                raise TimedOut
            place = next(stack[-1], None)
            if place is None:
                stack.pop()
            elif place.claim == len(self._claims):
                return True
            else:
                stack.append(self._choices(place))
        return False

    def _choices(self, at: _Place) -> Iterator[_Place]:
        """What can be done at a place, one after the other."""
        if at.claim == len(self._claims):
            yield at  # nothing was asked for
            return
        requests = self._wishes[at.claim]
        if at.request == len(requests):
            yield _Place(at.claim + 1)
            return
        alternatives = requests[at.request]
        if at.alternative is None:
            for index in range(len(alternatives)):
                yield _Place(at.claim, at.request, index)
            return
        wish = alternatives[at.alternative]
        wanted = self._count(wish)
        if wanted and at.number == wanted:
            yield _Place(at.claim, at.request + 1)
            return
        later = sum(self._least(each) for each in requests[at.request + 1 :])
        if not wanted or len(self.taken[at.claim]) + wanted - at.number + later > MAX_DEVICES:
            return
        for index, device in self._candidates(at, wish):
            if self._take(at.claim, wish, device):
                # The order of a request's devices does not matter, so only those behind this one come next.
                yield _Place(at.claim, at.request, at.alternative, at.number + 1, index + 1)
                self._give_back(at.claim)

    def _candidates(self, at: _Place, wish: Wish) -> Iterator[tuple[int, Device]]:
        if wish.all_devices:
            yield at.number, self._every[id(wish)][at.number]
            return
        for index in range(at.start, len(self._devices)):
            device = self._devices[index]
            if self._is_free(at.claim, wish, device) and self._suits(self._claims[at.claim], wish, device):
                yield index, device

    def _count(self, wish: Wish) -> int:
        return len(self._every[id(wish)]) if wish.all_devices else wish.count

    def _least(self, alternatives: Sequence[Wish]) -> int:
        return min((self._count(each) for each in alternatives), default=0)

    def _all_for(self, claim: Obj, wish: Wish) -> list[Device]:
        found = []
        for pool in self._pools:
            if not pool.usable:
                state = "being updated" if pool.incomplete else "invalid"
                asks = f"asks for all devices, but resource pool {pool} is currently {state}"
                raise AllocationError(f"claim {_key(claim)}, request {wish.name}: {asks}")
            found += [device for device in pool.devices if self._suits(claim, wish, device)]
        return found

    # One device

    def _is_free(self, claim: int, wish: Wish, device: Device) -> bool:
        """Administrators may have devices that are in use, but each only once for a claim."""
        owners = self._owners.get(device.id, ())
        return claim not in owners if wish.admin_access else not owners and device.id not in self._in_use.devices

    def _suits(self, claim: Obj, wish: Wish, device: Device) -> bool:
        """The device is of the kind that is wished for, and this node can reach it; whoever has it now."""
        key = (device.id, id(wish))
        known = self._matches.get(key)
        if known is None:
            known = self._matches[key] = (
                selected(device, wish.device_class, f"class {name_of(wish.device_class)}")
                and selected(device, {"spec": wish.obj}, f"claim {_key(claim)}")
                and (not device.spec.get("perDeviceNodeSelection") or self._reach.of(device.obj))
                and capacity.consumption(device.obj, wish.capacities) is not None
            )
        return known

    def _take(self, claim: int, wish: Wish, device: Device) -> bool:
        """Give a device to a request, if that can be."""
        shared = bool(device.obj.get("allowMultipleAllocations"))
        consumption = capacity.consumption(device.obj, wish.capacities)
        if consumption is None or not self._is_free(claim, wish, device) or not wish.tolerates_taints_of(device.obj):
            return False
        before = [self._in_use.consumed.get(device.id, {}), *self._consuming.get(device.id, ())]
        if not capacity.fits(device.obj, consumption, *before):
            return False
        if self._counts(device) and not self._counters_suffice(device):
            return False
        constraints = self._constraints[claim]
        for index, constraint in enumerate(constraints):
            if not constraint.add(wish, device):
                if wish.all_devices:
                    detail = (
                        f"cannot add device {'/'.join(device.id)} because a claim constraint would not be satisfied"
                    )
                    raise AllocationError(f"claim {_key(self._claims[claim])}, request {wish.name}: {detail}")
                for done in constraints[:index]:
                    done.remove(wish)
                return False
        if self._counts(device):
            self._change_counters(device, -1)
        if shared:
            self._consuming.setdefault(device.id, []).append(consumption)
        else:
            self._owners.setdefault(device.id, []).append(claim)
        share = self._new_share() if shared else ""
        self.taken[claim].append(Taken(device, wish, share, consumption if shared else {}))
        return True

    def _give_back(self, claim: int) -> None:
        """Undo the last `_take`."""
        last = self.taken[claim].pop()
        if last.share:
            self._consuming[last.device.id].pop()
        else:
            self._owners[last.device.id].pop()
        if self._counts(last.device):
            self._change_counters(last.device, 1)
        for constraint in self._constraints[claim]:
            constraint.remove(last.wish)

    # Counters of a pool, which its devices share (KEP-4815)

    def _counts(self, device: Device) -> bool:
        """A shared device takes its counters once, whoever is the first to have it."""
        if not device.obj.get("consumesCounters"):
            return False
        return device.id not in self._in_use.consumed and not self._consuming.get(device.id)

    def _counters_suffice(self, device: Device) -> bool:
        left = self._counters_left(device.pool)
        needed: Counters = {}
        for key, amount in consumed_counters(device):
            needed[key] = needed.get(key, ZERO) + amount
        return all(left[key] >= amount for key, amount in needed.items())

    def _change_counters(self, device: Device, sign: int) -> None:
        left = self._counters_left(device.pool)
        for key, amount in consumed_counters(device):
            left[key] = left[key] + amount * sign

    def _counters_left(self, pool: Pool) -> Counters:
        left = self._left.get(pool.id)
        if left is None:
            left = self._left[pool.id] = {
                (name, counter): amount
                for name, counters in pool.counters.items()
                for counter, amount in counters.items()
            }
            for device in (*pool.devices, *pool.others):
                if self._in_use.has(device.id):
                    for key, amount in consumed_counters(device):
                        left[key] = left[key] - amount
        return left


def selected(device: Device, holder: Obj, what: str) -> bool:
    """Whether the selectors of a class or request select the device."""
    for index, each in enumerate((holder.get("spec") or {}).get("selectors") or ()):
        try:
            expression = selector(each["cel"]["expression"])
        except ExpressionError as error:
            raise AllocationError(f"{what}: selector #{index}: CEL compile error: {error}") from error
        try:
            if not expression.matches(device.id[0], device.obj):
                return False
        except ExpressionError as error:
            raise AllocationError(f"{what}: selector #{index}: CEL runtime error: {error}") from error
    return True


def _key(claim: Obj) -> str:
    return f"{namespace_of(claim)}/{name_of(claim)}"
