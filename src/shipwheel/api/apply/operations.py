"""The two ways to write an object, and what each does to who owns its fields.

`apply` merges a configuration into an object: its manager owns exactly what the configuration mentions, gives up
what it no longer mentions (which goes away unless somebody else owns it), and may not change what others own unless
told to. `track_update` keeps account of every other write: who changes a field owns it from then on.

KEP-555; the behaviour is that of apimachinery's `managedfields`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from shipwheel.api.apply import fields as sets
from shipwheel.api.apply import last_applied
from shipwheel.api.apply.check import check_configuration
from shipwheel.api.apply.compiled import blank, merge_type
from shipwheel.api.apply.fields import Fields, Filter, Path, everything, field_step, path_text
from shipwheel.api.apply.managers import (
    Manager,
    Managers,
    ManagersError,
    Owned,
    applier,
    cap_updaters,
    is_reset,
    read_managers,
    updater,
    write_managers,
)
from shipwheel.api.apply.types import UNTYPED, MergeError, MergeType
from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError, bad_request
from shipwheel.api.memo import remembered
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.patch.values import clone
from shipwheel.api.schema.model import Schema

Convert = Callable[[Obj, str], tuple[Obj, Schema] | None]
"""(object, apiVersion) -> the object in that version's form and the version's schema; None when there is no such
version (any more). What it is given must not be changed."""

BEFORE_FIRST_APPLY: Final = "before-first-apply"

_BOOKKEEPING: Final = ("managedFields", "resourceVersion")
_NOT_OWNED: Final = frozenset(("apiVersion", "kind"))
_META_NOT_OWNED: Final = frozenset(
    (
        *("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation"),
        *("managedFields", "resourceVersion"),
    )
)
"""What nobody owns: it identifies the object, or is the system's."""
_STRIPPED: Final = sets.from_paths(
    [
        *((field_step(name),) for name in (*sorted(_NOT_OWNED), "metadata")),
        *((field_step("metadata"), field_step(name)) for name in sorted(_META_NOT_OWNED)),
    ]
)
"""The same as a set; `metadata` itself belongs to it, only what is in it does not."""


def track_update(
    new: Obj,
    old: Obj | None,
    *,
    schema: Schema,
    manager: str,
    api_version: str,
    now: datetime,
    subresource: str = "",
    reset_fields: Filter = everything,
    convert: Convert | None = None,
) -> None:
    """Set `new`'s managed fields after a write other than apply. `old` is None for a create.

    Both objects are in the form of `api_version`, `new` as it will be stored but for what the strategy resets:
    those fields are named by `reset_fields` and owned by nobody who sends them. A write that changes nothing
    leaves all entries as they are. The entries that `new` came with count if they make sense (a client may edit
    them, and empties the table by `[{}]`); those of a subresource's body never do.
    """
    entries = new["metadata"].pop("managedFields", None)
    managers = _managers_for_update(entries, old, ignore_new=bool(subresource))
    if old is not None and not managers:
        return
    try:
        if managers:
            versions = _Versions(schema, api_version, convert)
            before = old if old is not None else blank(schema)
            managers, changed = _update(managers, before, new, versions, reset_fields)
        else:
            changed = _created(new, schema, reset_fields)
    except MergeError:
        # A value that is not of its type will be refused by validation; until then nobody owns anything.
        return
    managers = _credit(managers, updater(manager, api_version, subresource), changed, api_version, now)
    if managers := cap_updaters(managers):
        new["metadata"]["managedFields"] = write_managers(managers)


def apply(
    live: Obj | None,
    patch: Obj,
    *,
    schema: Schema,
    manager: str,
    force: bool,
    api_version: str,
    now: datetime,
    kind: str = "",
    subresource: str = "",
    reset_fields: Filter = everything,
    convert: Convert | None = None,
) -> Obj:
    """`live` with the configuration `patch` merged in, and its managed fields set; `live` is None for a create.

    All are in the form of `api_version`. The result shares nothing with the arguments, and is yet to be brought
    into form and defaulted. Raises ApiError: 409 Conflict with the fields that others own, 400 for a
    configuration of another kind or version, 500 for one that does not fit the schema.
    """
    _check_target(patch, api_version, kind)
    before = live if live is not None else {"metadata": {}}
    try:
        entries = before["metadata"].get("managedFields")
        managers = read_managers(entries, entries or ())
    except ManagersError as error:
        raise ApiError(500, "", f"failed to decode managed fields: {error}") from None
    if fault := check_configuration(patch, schema):
        raise ApiError(500, "", f"failed to create typed patch object ({_described(patch)}): {fault}")

    mine = applier(manager, subresource)
    versions = _Versions(schema, api_version, convert)
    application = _Application(before, patch, versions, reset_fields, now)
    if not managers and live is not None:
        past = updater(BEFORE_FIRST_APPLY, api_version, subresource)
        try:
            _, fields = _update({}, blank(schema), before, versions, reset_fields)
        except MergeError as error:
            raise _untyped_live(before, error) from None
        managers = _credit({}, past, fields, api_version, now)
    try:
        result, managers = application.run(managers, mine, force=force)
    except MergeError as error:
        raise _untyped_live(before, error) from None
    except _Conflicts as conflicts:
        if manager != last_applied.MANAGER:
            raise conflicts.to_error() from None
        allowed = last_applied.owned_by_annotation(before, schema, api_version)
        left = [each for each in conflicts.found if not sets.has(allowed, each[1])]
        if left:
            raise _Conflicts(left).to_error() from None
        result, managers = application.run(managers, mine, force=True)

    if manager == last_applied.MANAGER:
        last_applied.keep_up(result, patch)
    if managers:
        result["metadata"]["managedFields"] = write_managers(managers)
    return result


def _untyped_live(live: Obj, why: MergeError) -> ApiError:
    """The object as it is does not fit its schema: an update let in what apply cannot work with."""
    return ApiError(500, "", f"failed to create typed live object ({_described(live)}): {why}")


def revert_timestamps(new: Obj, old: Obj) -> None:
    """Where a write changed nothing but times in managed fields, let those be as they were: no event comes of it."""
    was, now = old["metadata"].get("managedFields"), new["metadata"].get("managedFields")
    if not was or not now or len(was) != len(now) or was == now:
        return
    if [_without(entry, "time") for entry in was] == [_without(entry, "time") for entry in now] and (
        _same_but_managed(old, new)
    ):
        new["metadata"]["managedFields"] = was


def _without(obj: Obj, *names: str) -> Obj:
    return {key: value for key, value in obj.items() if key not in names}


# What both ways share.


def _managers_for_update(entries: Any, old: Obj | None, *, ignore_new: bool) -> Managers:
    known = old["metadata"].get("managedFields") if old is not None else None
    if not ignore_new:
        if is_reset(entries):
            return {}
        try:
            if managers := read_managers(entries, known or ()):
                return managers
        except ManagersError:
            pass  # as if the client had sent none
    try:
        return read_managers(known, known or ())
    except ManagersError:
        return {}


def _tracked(obj: Obj) -> Obj:
    """The object without what nobody owns."""
    result = {name: value for name, value in obj.items() if name not in _NOT_OWNED}
    metadata = result.get("metadata")
    if metadata:
        result["metadata"] = {name: value for name, value in metadata.items() if name not in _META_NOT_OWNED}
    return result


def _differing(old: Obj, new: Obj) -> tuple[Obj, Obj]:
    """Both without what nobody owns, and without what they have in common: most writes change little."""
    before, after = _unlike(old, new, _NOT_OWNED)
    if "metadata" in before and "metadata" in after:
        was, now = _unlike(before.pop("metadata"), after.pop("metadata"), _META_NOT_OWNED)
        if was or now:
            before["metadata"], after["metadata"] = was, now
    return before, after


def _unlike(old: Obj, new: Obj, aside: Collection[str]) -> tuple[Obj, Obj]:
    changed = [name for name, value in new.items() if not (name in old and old[name] == value) and name not in aside]
    gone = [name for name in old if name not in new and name not in aside]
    return {name: old[name] for name in (*changed, *gone) if name in old}, {name: new[name] for name in changed}


class _Versions:
    """The versions an object is served in. Fields are judged in the version that their owner names them in."""

    def __init__(self, schema: Schema, api_version: str, convert: Convert | None) -> None:
        self.current = api_version
        self._convert = convert
        self._kinds: dict[str, MergeType | None] = {api_version: merge_type(schema)}

    @property
    def kind(self) -> MergeType:
        return self.kind_at(self.current, {}) or UNTYPED

    def kind_at(self, version: str, sample: Obj) -> MergeType | None:
        """The type in a version, found by converting `sample` of the current one; None: not served any more."""
        if version not in self._kinds:
            if self._convert is None:
                self._kinds[version] = self._kinds[self.current]
            else:
                converted = self._convert(sample, version)
                self._kinds[version] = merge_type(converted[1]) if converted else None
        return self._kinds[version]

    def form(self, obj: Obj, version: str, *, at: str) -> Obj | None:
        """An object of version `at` in the form of another; None when that is not served any more."""
        if version == at or self._convert is None:
            return obj
        converted = self._convert(obj, version)
        return converted[0] if converted else None


class _Changes:
    """What differs between two objects of the current version, in any version."""

    def __init__(self, old: Obj, new: Obj, versions: _Versions, reset: Filter) -> None:
        self._old = old
        self._new = new
        self._versions = versions
        self._reset = reset
        self._known: dict[str, tuple[Fields, Fields] | None] = {}

    def at(self, version: str) -> tuple[Fields, Fields] | None:
        """(added or modified, removed); None when the version is not served any more."""
        if version not in self._known:
            self._known[version] = self._compare(version)
        return self._known[version]

    def _compare(self, version: str) -> tuple[Fields, Fields] | None:
        current = self._versions.current
        old = self._versions.form(self._old, version, at=current)
        new = self._versions.form(self._new, version, at=current)
        kind = self._versions.kind_at(version, self._new)
        if old is None or new is None or kind is None:
            return None
        changed, removed = kind.compare(*_differing(old, new))
        return self._reset(changed or {}), self._reset(removed or {})


def _update(managers: Managers, old: Obj, new: Obj, versions: _Versions, reset: Filter) -> tuple[Managers, Fields]:
    """Everybody without what changed or went away; and what changed, which is now the writer's."""
    managers = _reconcile(managers, versions, new)
    changes = _Changes(old, new, versions, reset)
    changed, _ = changes.at(versions.current) or ({}, {})
    kept: Managers = {}
    for manager, owned in managers.items():
        if (change := changes.at(owned.api_version)) is None:
            continue
        left = owned.fields
        for taken in change:
            left = sets.difference(left, taken) if taken else left
        if left:
            kept[manager] = owned if left is owned.fields else replace(owned, fields=left)
    return kept, sets.difference(reset(changed), _STRIPPED)


def _created(new: Obj, schema: Schema, reset: Filter) -> Fields:
    """What the writer of a new object owns. Specs come again and again: what is in one is remembered."""
    fields = _tracked(new)
    spec = fields.pop("spec", None)
    found = _created_fields(fields, schema, reset)
    return sets.union(found, _created_spec({"spec": spec}, schema, reset)) if spec else found


def _created_fields(fields: Obj, schema: Schema, reset: Filter) -> Fields:
    before = {name: value for name, value in blank(schema).items() if name in fields}
    changed, _ = merge_type(schema).compare(before, fields)
    return sets.difference(reset(changed or {}), _STRIPPED)


_created_spec = remembered(_created_fields)


def _reconcile(managers: Managers, versions: _Versions, sample: Obj) -> Managers:
    """Entries written under an older schema, in the terms of today's."""
    result: Managers = {}
    for manager, owned in managers.items():
        kind = versions.kind_at(owned.api_version, sample)
        if kind is not None:
            fields = _reconciled(owned.fields, kind)
            result[manager] = owned if fields is None else replace(owned, fields=fields)
    return result


@remembered
def _reconciled(fields: Fields, kind: MergeType) -> Fields | None:
    """None where nothing changes, which is nearly always."""
    reconciled = kind.reconcile(fields)
    return None if reconciled is fields else reconciled


def _credit(managers: Managers, manager: Manager, changed: Fields, api_version: str, now: datetime) -> Managers:
    """Enter what a write changed; one that changed nothing leaves no trace."""
    if not changed:
        return managers
    before = managers.get(manager)
    fields = sets.union(before.fields, changed) if before else changed
    return {**managers, manager: Owned(fields, api_version, rfc3339(now))}


# Applying.


class _Conflicts(Exception):
    """Fields that the configuration would change and others own."""

    def __init__(self, found: list[tuple[Manager, Path]]) -> None:
        super().__init__(found)
        self.found = found

    def to_error(self) -> ApiError:
        by_manager: dict[Manager, list[str]] = {}
        for manager, path in sorted(self.found, key=lambda each: each[0]):
            by_manager.setdefault(manager, []).append(path_text(path))
        causes = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
            for manager, paths in by_manager.items()
            for path in paths
        ]
        if len(causes) == 1:
            message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
        else:
            lines = []
            for manager, paths in by_manager.items():
                lines += [f"conflicts with {manager}:", *(f"- {path}" for path in paths)]
            message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
        return ApiError(409, "Conflict", message, details={"causes": causes})


class _Application:
    """One configuration and the object it is applied to. It can be run twice: once asking, once forcing."""

    def __init__(self, live: Obj, config: Obj, versions: _Versions, reset: Filter, now: datetime) -> None:
        self._live = live
        self._config = config
        self._versions = versions
        self._reset = reset
        self._now = now

    def run(self, managers: Managers, mine: Manager, *, force: bool) -> tuple[Obj, Managers]:
        """The merged object without managed fields, and who owns what. Raises _Conflicts."""
        live, kind, version = self._live, self._versions.kind, self._versions.current
        managers = _reconcile(managers, self._versions, live)
        last = managers.get(mine)
        try:
            merged = kind.merge(live, self._config)
        except MergeError as error:
            raise ApiError(500, "", f"failed to merge config: {error}") from None
        mentioned = self._reset(kind.mentioned(self._config) or {})
        managers = {**managers, mine: Owned(mentioned, version, last.time if last else "")}
        merged = self._prune(merged, managers, last)
        managers = self._take(managers, mine, merged, force=force)

        if left := sets.difference(mentioned, _STRIPPED):
            changed = not _same_but_managed(live, merged)
            time = rfc3339(self._now) if changed else managers[mine].time
            managers[mine] = Owned(left, version, time)
        else:
            managers.pop(mine, None)
        result = clone(merged)
        result["metadata"].pop("managedFields", None)
        return result, managers

    def _take(self, managers: Managers, mine: Manager, merged: Obj, *, force: bool) -> Managers:
        """Take what changes from others, if they let go or `force` says so."""
        changes = _Changes(self._live, merged, self._versions, self._reset)
        conflicts: list[tuple[Manager, Path]] = []
        kept = {mine: managers[mine]}
        for manager, owned in managers.items():
            if manager == mine or (change := changes.at(owned.api_version)) is None:
                continue
            changed, removed = change
            contested = sets.intersection(owned.fields, changed)
            conflicts += [(manager, path) for path in sets.members(contested)]
            left = sets.difference(sets.difference(owned.fields, contested), removed)
            if left:
                kept[manager] = replace(owned, fields=left)
        if conflicts and not force:
            raise _Conflicts(conflicts)
        return kept

    def _prune(self, merged: Obj, managers: Managers, last: Owned | None) -> Obj:
        """Take away what the manager applied last time, does not now, and nobody else owns.

        First all he applied last time goes, then what anybody owns comes back, and then what did not belong to
        him in the first place.
        """
        if last is None or not last.fields:
            return merged
        current, there = self._versions.current, last.api_version
        whole = self._versions.form(merged, there, at=current)
        kind = self._versions.kind_at(there, merged)
        if whole is None or kind is None:
            return merged
        his = kind.with_named(last.fields)
        pruned = self._with_owned(whole, _remove(kind, whole, his), there, managers)
        gone = sets.difference(_mentioned(kind, whole), _mentioned(kind, pruned))
        pruned = _remove(kind, whole, sets.intersection(gone, his))
        return self._versions.form(pruned, current, at=there) or merged

    def _with_owned(self, whole: Obj, pruned: Obj, at: str, managers: Managers) -> Obj:
        """`pruned` and all of `whole` that somebody owns, in whatever version; all are of version `at`."""
        owned_in: dict[str, Fields] = {at: {}}
        for owned in managers.values():
            version = owned.api_version
            owned_in[version] = sets.union(owned_in.get(version, {}), owned.fields)
        here = at
        for version, owned_fields in owned_in.items():
            whole_there = self._versions.form(whole, version, at=here)
            pruned_there = self._versions.form(pruned, version, at=here)
            kind = self._versions.kind_at(version, self._live)
            if whole_there is None or pruned_there is None or kind is None:
                continue
            whole, here = whole_there, version
            kept = sets.union(_mentioned(kind, pruned_there), kind.with_named(owned_fields))
            pruned = _remove(kind, whole, sets.difference(_mentioned(kind, whole), kept))
        return self._versions.form(pruned, at, at=here) or pruned


def _mentioned(kind: MergeType, obj: Obj) -> Fields:
    return kind.with_named(kind.mentioned(obj) or {})


def _remove(kind: MergeType, obj: Obj, fields: Fields) -> Obj:
    return kind.remove(obj, fields) or {"metadata": {}}


def _same_but_managed(left: Obj, right: Obj) -> bool:
    return _without(left, "metadata") == _without(right, "metadata") and (
        _without(left["metadata"], *_BOOKKEEPING) == _without(right["metadata"], *_BOOKKEEPING)
    )


def _check_target(patch: Obj, api_version: str, kind: str) -> None:
    given = patch.get("apiVersion", "")
    if kind and (given, patch.get("kind", "")) != (api_version, kind):
        raise bad_request(f"invalid object type: {GroupVersionKind.of(patch).in_full}")
    if given != api_version:
        raise bad_request(
            f"Incorrect version specified in apply patch. Specified patch version: {given}, expected: {api_version}"
        )
    if (patch.get("metadata") or {}).get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")


def _described(obj: Obj) -> str:
    metadata = obj.get("metadata") or {}
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {GroupVersionKind.of(obj).in_full}"
