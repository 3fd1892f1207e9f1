"""What drivers offer: slices, put together to the pools that a node can reach.

A driver publishes a pool in several slices and replaces them one by one, so a pool may be incomplete for a while, or
say things that contradict each other; then nothing is taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api.meta import Obj, name_of
from shipwheel.api.quantity import Quantity, parse

DeviceId = tuple[str, str, str]
"""(driver, pool, device)"""
PoolId = tuple[str, str]
CounterSets = Mapping[str, Mapping[str, Quantity]]
"""By counter set and counter."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A node as slices and devices speak of nodes."""

    node: str
    selected: Callable[[Obj], bool]
    """Whether a node selector selects it."""

    def of(self, holder: Obj) -> bool:
        """Whether the `nodeName`, `allNodes` or `nodeSelector` of a slice's spec, or of a device, means this node."""
        if holder.get("nodeName"):
            return bool(holder["nodeName"] == self.node)
        if holder.get("allNodes"):
            return True
        return holder.get("nodeSelector") is not None and self.selected(holder["nodeSelector"])


@dataclass(frozen=True, slots=True)
class Device:
    """A device with where it comes from."""

    id: DeviceId
    obj: Obj
    spec: Obj
    """Of its slice."""
    pool: Pool

    @property
    def where(self) -> Obj:
        """What says which nodes reach it."""
        return self.obj if self.spec.get("perDeviceNodeSelection") else self.spec


@dataclass(eq=False, slots=True)
class Pool:
    """`devices` are those of slices that the node can reach, in the order they are given out; `others` are the rest."""

    id: PoolId
    devices: Sequence[Device] = ()
    others: Sequence[Device] = ()
    counters: CounterSets = field(default_factory=dict)
    incomplete: bool = False
    invalid: str = ""

    @property
    def usable(self) -> bool:
        return not (self.incomplete or self.invalid)

    def __str__(self) -> str:
        return "/".join(self.id)


class Slices:
    """All slices, by node and by pool."""

    def __init__(self, slices: Iterable[Obj]) -> None:
        self._local: dict[str, list[Obj]] = {}
        self._shared: list[Obj] = []
        self._pools: dict[PoolId, list[Obj]] = {}
        self._found: dict[str, list[Pool]] = {}
        """Of nodes that reach nothing but what is theirs alone."""
        for each in slices:
            spec = each["spec"]
            self._pools.setdefault(_pool_of(spec), []).append(each)
            if spec.get("nodeName") and not spec.get("sharedCounters"):
                self._local.setdefault(spec["nodeName"], []).append(each)
            else:
                self._shared.append(each)

    def anything_for(self, node: str) -> bool:
        """Whether there may be devices that a node can reach."""
        return bool(self._shared) or node in self._local

    def nodes_of(self, pool: PoolId) -> set[str] | None:
        """The nodes that reach a pool; None: that cannot be said without looking at them all."""
        slices = [each["spec"] for each in self._pools.get(pool, ())]
        if any(not each.get("nodeName") or each.get("sharedCounters") for each in slices):
            return None
        return {each["nodeName"] for each in slices}

    def pools(self, reach: Reach) -> list[Pool]:
        """The pools that a node can reach: by name, but those whose devices must be made ready first come last."""
        found = self._found.get(reach.node)
        if found is None:
            found = self._reached(reach)
            if not self._shared:
                self._found[reach.node] = found
        return found

    def _reached(self, reach: Reach) -> list[Pool]:
        newest: dict[PoolId, list[Obj]] = {}
        for each in (*self._local.get(reach.node, ()), *self._shared):
            spec = each["spec"]
            if not _is_for(spec, reach):
                continue
            known = newest.setdefault(_pool_of(spec), [])
            generation = _generation(spec)
            if known and generation < _generation(known[0]["spec"]):
                continue
            if known and generation > _generation(known[0]["spec"]):
                known.clear()
            known.append(each)
        found = (self._pool(ident, slices) for ident, slices in newest.items())
        return sorted((each for each in found if each is not None), key=lambda each: (_must_wait(each), each.id))

    def _pool(self, ident: PoolId, here: Sequence[Obj]) -> Pool | None:
        """None: the driver is about to replace it by one that the node cannot reach."""
        generation = _generation(here[0]["spec"])
        count = here[0]["spec"]["pool"].get("resourceSliceCount")
        everywhere: Sequence[Obj] = here
        if len(here) != count:
            everywhere = [each for each in self._pools[ident] if _generation(each["spec"]) >= generation]
            if any(_generation(each["spec"]) > generation for each in everywhere):
                return None
            if len(everywhere) != count:
                return Pool(ident, incomplete=True)
        return _built(ident, here, everywhere)


def _pool_of(spec: Obj) -> PoolId:
    return spec["driver"], spec["pool"]["name"]


def _generation(spec: Obj) -> int:
    return int(spec["pool"].get("generation") or 0)


def _is_for(spec: Obj, reach: Reach) -> bool:
    if spec.get("sharedCounters"):
        return True  # without the counters nothing of the pool can be used, wherever it is
    if spec.get("perDeviceNodeSelection"):
        return any(reach.of(device) for device in spec.get("devices") or ())
    return reach.of(spec)


def _must_wait(pool: Pool) -> bool:
    return any(device.obj.get("bindingConditions") for device in pool.devices)


def _built(ident: PoolId, here: Sequence[Obj], everywhere: Sequence[Obj]) -> Pool:
    pool = Pool(ident)
    near = sorted(here, key=name_of)
    names = {name_of(each) for each in near}
    far = [each for each in everywhere if name_of(each) not in names]
    pool.devices = [*_devices(pool, near)]
    pool.others = [*_devices(pool, far)]
    try:
        _check_names(pool.devices)
        pool.counters = _counter_sets(near)
        _check_counters((*pool.devices, *pool.others), pool.counters)
    except ValueError as error:
        return Pool(ident, invalid=str(error))
    return pool


def _devices(pool: Pool, slices: Iterable[Obj]) -> Iterable[Device]:
    for each in slices:
        spec = each["spec"]
        for device in spec.get("devices") or ():
            yield Device((*pool.id, device["name"]), device, spec, pool)


def _check_names(devices: Iterable[Device]) -> None:
    seen = set()
    for device in devices:
        name = device.obj["name"]
        if name in seen:
            raise ValueError(f"duplicate device name {name}")
        seen.add(name)


def _counter_sets(slices: Iterable[Obj]) -> CounterSets:
    found: dict[str, Mapping[str, Quantity]] = {}
    for each in slices:
        for counters in each["spec"].get("sharedCounters") or ():
            if counters["name"] in found:
                raise ValueError(f"duplicate counter set name {counters['name']}")
            found[counters["name"]] = {
                name: parse(counter["value"]) for name, counter in (counters.get("counters") or {}).items()
            }
    return found


def _check_counters(devices: Iterable[Device], sets: CounterSets) -> None:
    for device in devices:
        for consumption in device.obj.get("consumesCounters") or ():
            known = sets.get(consumption["counterSet"])
            if known is None:
                raise ValueError(f"counter set {consumption['counterSet']} not found")
            for name in consumption.get("counters") or ():
                if name not in known:
                    raise ValueError(f"counter {name} not found in counter set {consumption['counterSet']}")


def consumed_counters(device: Device) -> Iterable[tuple[tuple[str, str], Quantity]]:
    """((counter set, counter), amount) of what a device takes of its pool."""
    for consumption in device.obj.get("consumesCounters") or ():
        for name, counter in (consumption.get("counters") or {}).items():
            yield (consumption["counterSet"], name), parse(counter["value"])
