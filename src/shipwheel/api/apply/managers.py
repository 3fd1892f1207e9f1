"""`metadata.managedFields` as a table: who owns which fields, at which version, since when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from shipwheel.api.apply.fields import Fields, FieldsError, read_fields, union
from shipwheel.api.meta import Obj

Operation = Literal["Apply", "Update"]

MAX_UPDATERS: Final = 10
"""More managers that update are merged, oldest first, into one a version."""
ANCIENT: Final = "ancient-changes"


class ManagersError(ValueError):
    """The entries make no sense; the message is upstream's."""


class Manager(NamedTuple):
    """Whom an entry belongs to. One who applies is the same whatever version he applies at."""

    name: str
    operation: Operation
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        """As messages name him: `"kubectl" with subresource "status" using apps/v1`."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def updater(name: str, api_version: str, subresource: str = "") -> Manager:
    return Manager(name or "unknown", "Update", api_version, subresource)


def applier(name: str, subresource: str = "") -> Manager:
    return Manager(name or "unknown", "Apply", "", subresource)


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns. `time` is RFC 3339, or empty when it is not known."""

    fields: Fields
    api_version: str
    time: str = ""


Managers = dict[Manager, Owned]


def read_managers(entries: Iterable[Any] | None, known: Iterable[Any] = ()) -> Managers:
    """The table that `managedFields` holds; ManagersError when it makes no sense.

    `known` are entries that were written here, whose fields need not be read again when they are the same.
    """
    trusted = list(known or ())
    managers: Managers = {}
    for index, entry in enumerate(entries or ()):
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update"):
            raise ManagersError("operation must be `Apply` or `Update`")
        api_version = entry.get("apiVersion", "")
        if not api_version:
            raise ManagersError("apiVersion must not be empty")
        fields_type = entry.get("fieldsType", "")
        if not fields_type:
            raise ManagersError(f"missing fieldsType in managed fields entry {index}")
        if fields_type != "FieldsV1":
            raise ManagersError(f'invalid fieldsType "{fields_type}" in managed fields entry {index}')
        manager = Manager(
            entry.get("manager", ""),
            operation,
            api_version if operation == "Update" else "",
            entry.get("subresource", ""),
        )
        fields = entry.get("fieldsV1")
        if not any(fields == each.get("fieldsV1") for each in trusted):
            try:
                fields = read_fields(fields)
            except FieldsError as error:
                raise ManagersError(
                    f"error decoding versioned set from {manager.name}: error decoding set: {error}"
                ) from None
        managers[manager] = Owned(fields or {}, api_version, entry.get("time") or "")
    return managers


def write_managers(managers: Managers) -> list[Obj]:
    """The entries in upstream's order: those who apply first, then by time, name, version and subresource."""
    rows = sorted(
        managers.items(),
        key=lambda row: (
            row[0].operation, row[1].time, row[0].name, row[1].api_version, row[0].subresource,
        ),
    )  # fmt: skip
    return [_entry(manager, owned) for manager, owned in rows]


def _entry(manager: Manager, owned: Owned) -> Obj:
    entry: Obj = {}
    if manager.name:
        entry["manager"] = manager.name
    entry["operation"] = manager.operation
    entry["apiVersion"] = owned.api_version
    if owned.time:
        entry["time"] = owned.time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = owned.fields
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def is_reset(entries: Any) -> bool:
    """A client's way of saying that the table is to be emptied: no entries, or one that is empty."""
    return entries in ([], [{}])


def cap_updaters(managers: Managers) -> Managers:
    """Merge the oldest who update until no more than MAX_UPDATERS are left."""
    updaters = sorted(
        (manager for manager in managers if manager.operation == "Update"),
        key=lambda manager: (managers[manager].time, manager),
    )
    count = len(updaters)
    if count <= MAX_UPDATERS:
        return managers
    result = dict(managers)
    first: dict[str, Manager] = {}
    for manager in updaters:
        if count <= MAX_UPDATERS:
            break
        owned = result[manager]
        version = owned.api_version
        if version not in first:
            first[version] = manager
            continue
        bucket = Manager(ANCIENT, "Update", version)
        if bucket not in result:
            result[bucket] = result.pop(first[version])
        result[bucket] = replace(owned, fields=union(owned.fields, result[bucket].fields))
        if manager != bucket:
            del result[manager]
        count -= 1
    return result
