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
from shipwheel.scheduler.devices.pools import DeviceId, Slices
from shipwheel.scheduler.listers import Listers

CLASS_RESOURCE = "deviceclass.resource.kubernetes.io/"
"""Every class can be asked for by an extended resource of this name."""


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
        self._in_use: tuple[object, InUse] | None = None
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
        """The devices that are given away."""
        state = (self._listers.resource_claims.version, self._changes)
        if self._in_use is None or self._in_use[0] != state:
            self._in_use = (state, self._count())
        return self._in_use[1]

    def _count(self) -> InUse:
        self._forget_deleted()
        claims = [*self.claims("")]
        there = {uid_of(each) for each in claims}
        # A claim that was made just now may be written before the watch shows it.
        unseen = [each for uid, each in self._written.items() if uid not in there]
        given = [allocation for each in (*claims, *unseen) if (allocation := allocation_of(each))]
        alone: set[DeviceId] = set()
        shared: dict[DeviceId, dict[str, Quantity]] = {}
        for allocation in (*given, *self._promised.values()):
            for result in allocation["devices"].get("results") or ():
                device = (result["driver"], result["pool"], result["device"])
                if result.get("adminAccess"):
                    continue
                if result.get("shareID"):
                    _add(shared.setdefault(device, {}), result.get("consumedCapacity") or {})
                else:
                    alone.add(device)
        consumed: dict[DeviceId, Amounts] = {**shared}
        return InUse(frozenset(alone), consumed)

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
