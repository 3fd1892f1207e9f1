"""What claims ask for, in the form that devices are looked for: requests, their alternatives, and constraints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api.meta import Obj, name_of, namespace_of
from shipwheel.scheduler.devices.pools import Device

MAX_DEVICES = 32
"""That one claim can be given."""


class AllocationError(Exception):
    """Something is wrong with a claim, its class or a pool, so that nothing can be said about any node."""


@dataclass(frozen=True, slots=True)
class Wish:
    """So many devices of a class; a whole request, or one of its alternatives (`parent` is the request's name)."""

    obj: Obj
    name: str
    device_class: Obj
    parent: str = ""

    @property
    def reference(self) -> str:
        """As results and configurations call it."""
        return f"{self.parent}/{self.name}" if self.parent else self.name

    @property
    def references(self) -> tuple[str, ...]:
        """The names by which constraints and configurations may mean it."""
        return (self.parent, self.reference) if self.parent else (self.name,)

    @property
    def all_devices(self) -> bool:
        return bool(self.obj.get("allocationMode") == "All")

    @property
    def count(self) -> int:
        return int(self.obj.get("count") or 1)

    @property
    def admin_access(self) -> bool:
        return bool(self.obj.get("adminAccess"))

    @property
    def capacities(self) -> Mapping[str, str]:
        return (self.obj.get("capacity") or {}).get("requests") or {}

    @property
    def tolerations(self) -> Sequence[Obj]:
        return self.obj.get("tolerations") or ()

    def tolerates_taints_of(self, device: Obj) -> bool:
        """No taint of the device keeps the request away."""
        return all(
            any(_tolerates(each, taint) for each in self.tolerations)
            for taint in device.get("taints") or ()
            if taint["effect"] in ("NoSchedule", "NoExecute")
        )


def _tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    return operator == "Exists" or (
        operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or "")
    )


def requests_of(claim: Obj) -> Sequence[Obj]:
    return ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ()


def classes_of(claim: Obj) -> Iterable[tuple[str, str]]:
    """(request, class) of everything a claim asks for."""
    for request in requests_of(claim):
        if request.get("exactly") is not None:
            yield request["name"], request["exactly"].get("deviceClassName", "")
        for each in request.get("firstAvailable") or ():
            yield f"{request['name']}/{each['name']}", each.get("deviceClassName", "")


def wishes_of(claim: Obj, classes: Mapping[str, Obj]) -> list[tuple[Wish, ...]]:
    """For each request its alternatives, the most wanted first. AllocationError when it asks for what cannot be."""
    where = f"claim {namespace_of(claim)}/{name_of(claim)}"
    found = []
    for request in requests_of(claim):
        if request.get("exactly") is not None:
            given = [(request["exactly"], request["name"], "")]
        else:
            given = [(each, each["name"], request["name"]) for each in request.get("firstAvailable") or ()]
        wishes = []
        for obj, name, parent in given:
            for index, selector in enumerate(obj.get("selectors") or ()):
                if selector.get("cel") is None:
                    detail = f"selector #{index}: CEL expression empty (unsupported selector type?)"
                    raise AllocationError(f"{where}, request {name}, {detail}")
            named = obj.get("deviceClassName", "")
            if named not in classes:
                missing = f'deviceclass.resource.k8s.io "{named}" not found'
                raise AllocationError(f"{where}, request {name}: could not retrieve device class {named}: {missing}")
            wishes.append(Wish(obj, name, classes[named], parent))
        found.append(tuple(wishes))
    return found


@dataclass(slots=True)
class Constraint:
    """Devices that must have the same value of an attribute (`alike`), or each another one."""

    attribute: str
    alike: bool
    requests: frozenset[str]
    """Those it is about; none: all."""
    values: list[Any] = field(default_factory=list)
    """Of the devices chosen so far."""

    def concerns(self, wish: Wish) -> bool:
        return not self.requests or not self.requests.isdisjoint(wish.references)

    def add(self, wish: Wish, device: Device) -> bool:
        """Take a device in, if that can be."""
        if not self.concerns(wish):
            return True
        value = _attribute(device, self.attribute)
        if value is None:
            return False
        fine = value not in self.values if not self.alike else not self.values or value == self.values[0]
        if fine:
            self.values.append(value)
        return fine

    def remove(self, wish: Wish) -> None:
        """Let the last one go again."""
        if self.concerns(wish):
            self.values.pop()


def constraints_of(claim: Obj) -> list[Constraint]:
    """A claim's constraints. AllocationError for one that is not known."""
    found = []
    for index, each in enumerate(((claim.get("spec") or {}).get("devices") or {}).get("constraints") or ()):
        attribute = each.get("matchAttribute") or each.get("distinctAttribute")
        if not attribute:
            where = f"claim {namespace_of(claim)}/{name_of(claim)}, constraint #{index}"
            raise AllocationError(f"{where}: empty constraint (unsupported constraint type?)")
        requests = frozenset(each.get("requests") or ())
        found.append(Constraint(attribute, bool(each.get("matchAttribute")), requests))
    return found


def _attribute(device: Device, name: str) -> Any:
    """The value with its type; a name without a domain is the driver's own."""
    attributes = device.obj.get("attributes") or {}
    value = attributes.get(name)
    if value is None:
        domain, _, key = name.partition("/")
        value = attributes.get(key) if domain == device.id[0] else None
    return value
