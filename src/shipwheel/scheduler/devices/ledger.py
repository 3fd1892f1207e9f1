"""What of the devices is given away: by claims as the API shows them, and by decisions that are on their way there.

All profiles share one ledger. A decision is *promised* from the moment it is taken until it is written, and what was
written is known from then on, although the watch may show it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shipwheel.api.meta import Obj, name_of, namespace_of, uid_of
from shipwheel.api.quantity import Quantity, parse
from shipwheel.scheduler.devices.allocator import InUse
from shipwheel.scheduler.devices.capacity import Amounts
from shipwheel.scheduler.devices.pools import DeviceId, PoolId, Slices
from shipwheel.scheduler.listers import Listers

CLASS_RESOURCE = "deviceclass.resource.kubernetes.io/"
"""Every class can be asked for by an extended resource of this name."""
_TOUCHED = 4096


def allocation_of(claim: Obj) -> Obj | None:
    return (claim.get("status") or {}).get("allocation")


class Ledger:
    def __init__(self, listers: Listers) -> None:
        self._listers = listers
        self._promised: dict[str, Obj] = {}
        """Allocations by the uid of their claim."""
        self._written: dict[str, Obj] = {}
        """Claims that are newer than the watch shows, by uid."""
        self._unshown: set[str] = set()
        """Of those, the ones that the watch did not show when they were written: they were made just now, or have
        gone."""
        self._changes = 0
        self._counted: dict[str, Obj] = {}
        """Allocations that count, by who has them: claims by their uids, and promises."""
        self._state: object = None
        """Of claims and promises when they were counted."""
        self._alone: dict[DeviceId, int] = {}
        self._shares: dict[DeviceId, dict[str, dict[str, Quantity]]] = {}
        self._consumed: dict[DeviceId, Amounts] = {}
        self._in_use = InUse(self._alone, self._consumed)
        self.touched: list[PoolId] = []
        """Pools of which something was given or given back, in order; begun anew with each `touched_epoch`."""
        self.touched_epoch = 0
        self._slices: tuple[int, Slices] | None = None
        self._by_resource: tuple[int, Mapping[str, Obj]] | None = None

    # Claims

    def claim(self, namespace: str, name: str) -> Obj | None:
        """The newest that is known of a claim."""
        shown = self._listers.resource_claims.get(namespace, name)
        return self._newest(shown) if shown is not None else None

    def claims(self, namespace: str) -> Iterable[Obj]:
        return map(self._newest, self._listers.resource_claims.list(namespace))

    def _newest(self, shown: Obj) -> Obj:
        written = self._written.get(uid_of(shown))
        if written is None:
            return shown
        if _version(shown) >= _version(written):
            self._forget(uid_of(shown))
            return shown
        return written

    def written(self, claim: Obj) -> None:
        """A claim was written to the API."""
        shown = self._listers.resource_claims.get(namespace_of(claim), name_of(claim))
        if shown is None:
            self._unshown.add(uid_of(claim))
        if shown is None or _version(shown) < _version(claim):
            self._written[uid_of(claim)] = claim
        self._changes += 1

    def _forget(self, uid: str) -> None:
        self._written.pop(uid, None)
        self._unshown.discard(uid)

    def _forget_deleted(self) -> None:
        """A claim that was shown and is not any more has gone, and so has one that the watch has passed by."""
        if not self._written:
            return
        shown = self._listers.resource_claims.list()
        there = {uid_of(each) for each in shown}
        reached = max(map(_version, shown), default=0)
        for uid, claim in [*self._written.items()]:
            if uid in there:
                self._unshown.discard(uid)
            elif uid not in self._unshown or _version(claim) < reached:
                self._forget(uid)

    def promise(self, uid: str, allocation: Obj) -> None:
        """Keep the devices of an allocation for a claim."""
        self._promised[uid] = allocation
        self._changes += 1

    def release(self, uid: str) -> None:
        """The promise is kept, or given up."""
        if self._promised.pop(uid, None) is not None:
            self._changes += 1

    def is_promised(self, uid: str) -> bool:
        return uid in self._promised

    def in_use(self) -> InUse:
        """The devices that are given away; what is returned changes with them, when this is called."""
        state = (self._listers.resource_claims.version, self._changes)
        if self._state != state:
            self._state = state
            self._recount()
        return self._in_use

    def _recount(self) -> None:
        """Count what has come or gone since the last time."""
        given = self._given()
        for holder in [each for each, allocation in self._counted.items() if given.get(each) is not allocation]:
            self._count(holder, self._counted.pop(holder), -1)
        for holder in given.keys() - self._counted.keys():
            self._counted[holder] = given[holder]
            self._count(holder, given[holder], 1)

    def _given(self) -> dict[str, Obj]:
        self._forget_deleted()
        given: dict[str, Obj] = {}
        for shown in self._listers.resource_claims.list():
            claim = self._newest(shown) if self._written else shown
            if allocation := allocation_of(claim):
                given[uid_of(claim)] = allocation
        for uid, claim in self._written.items():
            # A claim that was made just now may be written before the watch shows it.
            if uid not in given and (allocation := allocation_of(claim)):
                given[uid] = allocation
        return given | {f"promised to {uid}": allocation for uid, allocation in self._promised.items()}

    def _count(self, holder: str, allocation: Obj, sign: int) -> None:
        for result in allocation["devices"].get("results") or ():
            device = (result["driver"], result["pool"], result["device"])
            if result.get("adminAccess"):
                continue
            if result.get("shareID"):
                self._count_share(device, holder, result.get("consumedCapacity") or {}, sign)
            else:
                number = self._alone.pop(device, 0) + sign
                if number:
                    self._alone[device] = number
            self._touch(device[:2])

    def _count_share(self, device: DeviceId, holder: str, amounts: Mapping[str, str], sign: int) -> None:
        shares = self._shares.setdefault(device, {})
        if sign > 0:
            _add(shares.setdefault(holder, {}), amounts)
        else:
            shares.pop(holder, None)  # with all of the holder's shares
        if not shares:
            del self._shares[device]
            self._consumed.pop(device, None)
            return
        total: dict[str, Quantity] = {}
        for share in shares.values():
            for name, amount in share.items():
                total[name] = total[name] + amount if name in total else amount
        self._consumed[device] = total

    def touched_since(self, epoch: int, seen: int) -> set[str] | None:
        """The nodes of whose devices some were given or given back since there were `seen` in `touched`, in that epoch;
        None: it may be all."""
        if epoch != self.touched_epoch:
            return None
        found: set[str] = set()
        for pool in dict.fromkeys(self.touched[seen:]):
            nodes = self.slices().nodes_of(pool)
            if nodes is None:
                return None
            found |= nodes
        return found

    def _touch(self, pool: PoolId) -> None:
        if len(self.touched) >= _TOUCHED:
            self.touched = []
            self.touched_epoch += 1
        self.touched.append(pool)

    # Slices and classes

    def slices(self) -> Slices:
        store = self._listers.resource_slices
        if self._slices is None or self._slices[0] != store.version:
            self._slices = (store.version, Slices(store.list()))
        return self._slices[1]

    def classes(self) -> Mapping[str, Obj]:
        """By name."""
        return {name_of(each): each for each in self._listers.device_classes.list()}

    def class_of(self, resource: str) -> Obj | None:
        """The class whose devices an extended resource stands for (KEP-5004)."""
        store = self._listers.device_classes
        if not len(store):
            return None
        if self._by_resource is None or self._by_resource[0] != store.version:
            self._by_resource = (store.version, _by_resource(store.list()))
        return self._by_resource[1].get(resource)


def _by_resource(classes: Iterable[Obj]) -> Mapping[str, Obj]:
    """Of several classes for one resource the newest counts, among equals the first by name."""
    found: dict[str, Obj] = {}
    by_name = sorted(classes, key=name_of, reverse=True)
    for each in sorted(by_name, key=lambda each: str(each["metadata"].get("creationTimestamp") or "")):
        found[CLASS_RESOURCE + name_of(each)] = each
        if resource := (each.get("spec") or {}).get("extendedResourceName"):
            found[resource] = each
    return found


def _add(total: dict[str, Quantity], more: Mapping[str, str]) -> None:
    for name, text in more.items():
        amount = parse(text)
        total[name] = total[name] + amount if name in total else amount


def _version(obj: Obj) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)
