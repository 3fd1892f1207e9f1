"""How objects of any kind are written: one road for built-in kinds and custom resources alike.

A create: conform to the schema, default, mutating admission, what the kind's strategy prepares, validation,
validating admission, ownership of fields, the store. An update is the same with the old object at hand, begun anew
when somebody else was faster. What is particular to a kind is its `Strategy`; nothing here names one.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from shipwheel.api import codec
from shipwheel.api.apply import Filter, everything, excluding, only, revert_timestamps, track_update
from shipwheel.api.apply import apply as server_side_apply
from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import (
    MODIFIED,
    ApiError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_object,
    not_found,
)
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.objectmeta import validate_object_meta, validate_object_meta_update
from shipwheel.api.resource import Resource, Strategy, Subresource, UserInfo, Version, WriteContext
from shipwheel.api.schema import DecodeError, Schema, apply_defaults, conform, conform_metadata, drop_nulls, prune
from shipwheel.api.schema import validate as validate_schema
from shipwheel.apiserver.admission.chain import Admission, Attempt
from shipwheel.apiserver.watchcache import Entry, WatchCache, make_entry, storage_head
from shipwheel.kinds import catalog
from shipwheel.store.base import ABSENT, Mismatch, OutcomeUnknown, Store, StoreError

PATCH_ATTEMPTS = 5
NAME_ATTEMPTS = 8
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels, nor what looks like another character: what upstream generates names from."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What a client may say of a write beside the object itself."""

    user: UserInfo
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    """Texts for `Warning` headers, collected on the way."""
    check_access: Callable[[str], Awaitable[None]] | None = None
    """Asks whether the sender may also do another verb (create, for a PUT or an apply of what does not exist)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write came to. `gone`: it removed the object, and `entry` is its last state."""

    entry: Entry
    created: bool = False
    gone: bool = False


Produce = Callable[[Obj | None], Obj]
"""From the current object in the request's version (None: there is none) to the wanted one. May be called again."""


class Registry:
    def __init__(self, store: Store, cache: WatchCache, admission: Admission, clock: Clock, server: Any) -> None:
        self.store = store
        self.cache = cache
        self.admission = admission
        self.clock = clock
        self.server = server

    # Reading, for the writes.

    async def current(self, resource: Resource, namespace: str, name: str) -> Entry:
        """The newest state; ApiError NotFound."""
        await self.cache.freshen()
        entry = self.cache.of(resource).get(namespace, name)
        if entry is None:
            raise not_found(resource.group_resource, name)
        return entry

    # Creating.

    async def create(
        self,
        resource: Resource,
        version: Version,
        namespace: str,
        body: Obj,
        options: WriteOptions,
        *,
        name: str = "",
        applied: bool = False,
    ) -> Written:
        """Write a new object. `name` is the one in the URL, where there is one; `applied` says that the body came
        from an apply, with its managed fields."""
        obj = self._take_in(resource, version, body, options)
        metadata = obj["metadata"]
        _match_namespace(resource, metadata, namespace)
        if name:
            _match_name(metadata, name)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        generated = not metadata.get("name") and bool(metadata.get("generateName"))
        for attempt in range(NAME_ATTEMPTS):
            candidate = _deep_copy(obj) if generated else obj
            if generated:
                candidate["metadata"]["name"] = _generate_name(resource, metadata["generateName"])
            try:
                return await self._create(resource, version, namespace, candidate, options, applied)
            except ApiError as error:
                if not (generated and error.reason == "AlreadyExists" and attempt + 1 < NAME_ATTEMPTS):
                    if generated and error.reason == "AlreadyExists":
                        error.message = error.message + ", the server was not able to generate a unique name"
                    raise
        raise AssertionError("unreachable")

    async def _create(
        self, resource: Resource, version: Version, namespace: str, obj: Obj, options: WriteOptions, applied: bool
    ) -> Written:
        now = self.clock.now()
        strategy = resource.strategy
        metadata = obj["metadata"]
        ctx = WriteContext(options.user, now, resource, dry_run=options.dry_run)
        _fill_new_metadata(metadata, now)
        if not applied:
            self._own(resource, version, obj, None, options, now, "")
        attempt = Attempt("CREATE", resource, version, namespace, metadata.get("name", ""), options.user, obj, None, "",
                          options.dry_run, options.warnings)  # fmt: skip
        await self.admission.mutate(attempt)
        metadata = obj["metadata"]
        strategy.prepare_for_create(obj, ctx)
        metadata["generation"] = 1
        if not strategy.tracks_generation:
            del metadata["generation"]
        self._validate_new(resource, version, obj)
        await self.admission.validate(attempt)
        options.warnings.extend(strategy.warnings(obj, None))
        undo = await strategy.before_create(obj, self.server, ctx)
        try:
            if options.dry_run:
                _call(undo)
                return Written(self._imagined(resource, obj, None), created=True)
            return Written(await self._put(resource, obj, ABSENT), created=True)
        except Mismatch:
            _call(undo)
            raise already_exists(resource.group_resource, metadata["name"]) from None
        except OutcomeUnknown:
            raise
        except BaseException:
            _call(undo)
            raise

    def _validate_new(self, resource: Resource, version: Version, obj: Obj) -> None:
        strategy = resource.strategy
        errors = validate_object_meta(
            obj["metadata"], namespaced=resource.namespaced, name_rule=strategy.name_rule or name_is_dns_subdomain
        )
        if resource.custom:
            errors += validate_schema(resource.storage.schema, obj)
        errors += strategy.validate(obj)
        if version.check is not None:
            errors += version.check(obj, None)
        if errors:
            raise invalid_object(resource.group, resource.kind, obj["metadata"].get("name", ""), errors)

    # Changing.

    async def update(
        self,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        produce: Produce,
        options: WriteOptions,
        *,
        subresource: Subresource | None = None,
        may_create: bool = False,
        attempts: int = 0,
        applying: bool = False,
        admit: bool = True,
    ) -> Written:
        """Replace an object by what `produce` makes of it.

        When somebody else writes in between, it is begun anew: `attempts` times (0: as often as it takes), unless
        the wanted object names a resource version, which then is a conflict. `may_create`: an object that does not
        exist is created from `produce(None)`.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await self._update(
                    resource, version, namespace, name, produce, options, subresource, may_create, applying, admit
                )
            except Mismatch as mismatch:
                if mismatch.current is not None:
                    await self.cache.reach(mismatch.current.mod_revision)
                else:
                    await self.cache.freshen()
                if attempts and tries >= attempts:
                    raise conflict(resource.group_resource, name, MODIFIED) from None

    async def _update(
        self,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        produce: Produce,
        options: WriteOptions,
        subresource: Subresource | None,
        may_create: bool,
        applying: bool,
        admit: bool,
    ) -> Written:
        await self.cache.freshen()
        entry = self.cache.of(resource).get(namespace, name)
        if entry is None:
            if not may_create:
                raise not_found(resource.group_resource, name)
            body = produce(None)
            if body.get("metadata", {}).get("resourceVersion"):
                raise not_found(resource.group_resource, name)
            if options.check_access is not None:
                await options.check_access("create")
            try:
                return await self.create(resource, version, namespace, body, options, name=name, applied=applying)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    raise Mismatch(name, None) from None
                raise
        old = entry.decode()
        old_view = self.present(resource, version, old, subresource)
        wanted = produce(old_view)
        if subresource is not None and subresource.update is not None:
            new = self._put_view(resource, subresource, wanted, old, options)
        else:
            new = self._take_in(resource, version, wanted, options)
        return await self._replace(resource, version, entry, old, new, options, subresource, applying, admit)

    async def _replace(
        self,
        resource: Resource,
        version: Version,
        entry: Entry,
        old: Obj,
        new: Obj,
        options: WriteOptions,
        subresource: Subresource | None,
        applying: bool,
        admit: bool,
    ) -> Written:
        now = self.clock.now()
        metadata, old_metadata = new["metadata"], old["metadata"]
        namespace, name = entry.namespace, entry.name
        sub = subresource.name if subresource is not None else ""
        strategy = resource.strategy
        ctx = WriteContext(options.user, now, resource, sub, options.dry_run)
        _match_namespace(resource, metadata, namespace)
        _match_name(metadata, name)
        expected_version = metadata.get("resourceVersion")
        if expected_version:
            if expected_version != old_metadata["resourceVersion"]:
                raise conflict(resource.group_resource, name, MODIFIED)
        elif not strategy.allow_unconditional_update and not applying:
            field_error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid_object(resource.group, resource.kind, name, [field_error])
        if metadata.get("uid") and metadata["uid"] != old_metadata["uid"]:
            raise precondition_failed(resource, name, "UID", metadata["uid"], old_metadata["uid"])
        _keep_system_metadata(metadata, old_metadata)
        if not applying:
            self._own(resource, version, new, old, options, now, sub)
        attempt = Attempt("UPDATE", resource, version, namespace, name, options.user, new, old, sub,
                          options.dry_run, options.warnings)  # fmt: skip
        if admit:
            await self.admission.mutate(attempt)
        self._prepare_update(resource, subresource, new, old, ctx)
        _count_generation((subresource and subresource.strategy) or strategy, new, old)
        self._validate_update(resource, version, subresource, new, old)
        if admit:
            await self.admission.validate(attempt)
        options.warnings.extend(strategy.warnings(new, old))
        undo = await strategy.before_update(new, old, self.server, ctx)
        try:
            metadata = new["metadata"]
            metadata["resourceVersion"] = old_metadata["resourceVersion"]
            revert_timestamps(new, old)
            if new == old:
                return Written(entry)
            if options.dry_run:
                _call(undo)
                return Written(self._imagined(resource, new, entry.revision))
            if _is_finished(strategy, new):
                return await self._remove(resource, entry, new, int(metadata["resourceVersion"]))
            written = Written(await self._put(resource, new, entry.revision))
        except OutcomeUnknown:
            raise
        except BaseException:
            _call(undo)
            raise
        await strategy.after_update(new, old, self.server)
        return written

    def _prepare_update(
        self, resource: Resource, subresource: Subresource | None, new: Obj, old: Obj, ctx: WriteContext
    ) -> None:
        if subresource is None:
            resource.strategy.prepare_for_update(new, old, ctx)
        elif subresource.strategy is not None:
            subresource.strategy.prepare_for_update(new, old, ctx)
        elif subresource.name == "status":
            resource.strategy.prepare_for_status_update(new, old, ctx)
        else:
            resource.strategy.prepare_for_update(new, old, ctx)

    def _validate_update(
        self, resource: Resource, version: Version, subresource: Subresource | None, new: Obj, old: Obj
    ) -> None:
        strategy = resource.strategy
        errors = validate_object_meta_update(new["metadata"], old["metadata"])
        if resource.custom:
            errors += validate_schema(resource.storage.schema, new)
        if subresource is not None and subresource.strategy is not None:
            errors += subresource.strategy.validate_update(new, old)
        elif subresource is not None and subresource.name == "status":
            errors += strategy.validate_status_update(new, old)
        else:
            errors += strategy.validate_update(new, old)
            if version.check is not None:
                errors += version.check(new, old)
        if errors:
            raise invalid_object(resource.group, resource.kind, new["metadata"].get("name", ""), errors)

    # Deleting.

    async def delete(
        self, resource: Resource, version: Version, namespace: str, name: str, body: Obj, options: WriteOptions,
        *, admit: bool = True,
    ) -> Written:  # fmt: skip
        """Delete an object as `DeleteOptions` say: at once, after a grace period, or when its finalizers are gone."""
        while True:
            entry = await self.current(resource, namespace, name)
            old = entry.decode()
            _check_preconditions(resource, old, body.get("preconditions") or {})
            if admit:
                attempt = Attempt("DELETE", resource, version, namespace, name, options.user, None, old, "",
                                  options.dry_run, options.warnings)  # fmt: skip
                await self.admission.mutate(attempt)
                await self.admission.validate(attempt)
            refusal = resource.strategy.refuse_deletion(old)
            if refusal:
                raise ApiError(403, "Forbidden", refusal)
            try:
                return await self._delete(resource, version, entry, old, body, options)
            except Mismatch as mismatch:
                if mismatch.current is not None:
                    await self.cache.reach(mismatch.current.mod_revision)
                else:
                    await self.cache.freshen()

    async def _delete(
        self, resource: Resource, version: Version, entry: Entry, old: Obj, body: Obj, options: WriteOptions
    ) -> Written:
        now = self.clock.now()
        strategy = resource.strategy
        new = _deep_copy(old)
        metadata = new["metadata"]
        finalizers = _deletion_finalizers(version, metadata.get("finalizers") or [], body)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        requested = body.get("gracePeriodSeconds")
        grace = strategy.grace_period(old, requested)
        already = metadata.get("deletionTimestamp")
        if already and grace is not None:
            # A second deletion may only shorten the wait.
            known = metadata.get("deletionGracePeriodSeconds") or 0
            grace = min(grace, known)
        waits = bool(finalizers) or strategy.holds_deletion(new) or bool(grace)
        if waits and not already:
            metadata["deletionTimestamp"] = rfc3339(_after(now, grace or 0))
            metadata["deletionGracePeriodSeconds"] = grace or 0
            if strategy.tracks_generation and "generation" in metadata:
                metadata["generation"] += 1
            strategy.mark_deleted(new, WriteContext(options.user, now, resource, dry_run=options.dry_run))
        elif waits and grace is not None and grace < (metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = rfc3339(_after(now, grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if options.dry_run:
            return Written(self._imagined(resource, new, entry.revision), gone=not waits)
        if not waits:
            return await self._remove(resource, entry, new, entry.revision)
        if new == old:
            return Written(entry)
        return Written(await self._put(resource, new, entry.revision))

    async def _remove(self, resource: Resource, entry: Entry, last: Obj, expected: int) -> Written:
        removed = await self._guard(
            resource, entry.name, self.store.delete(self._key(resource, entry.key), expected=expected)
        )
        revision = removed.mod_revision if removed is not None else entry.revision
        await self._seen(revision)
        await resource.strategy.after_delete(last, self.server)
        return Written(self._imagined(resource, last, revision), gone=True)

    # The pieces both share.

    def _take_in(self, resource: Resource, version: Version, body: Obj, options: WriteOptions) -> Obj:
        """From what a client sent to the storage version: types checked, unknown fields dropped (and reported as
        `fieldValidation` says), defaults filled in."""
        unknown: list[str] | None = [] if options.field_validation != "Ignore" else None
        if resource.custom:
            drop_nulls(version.schema, body)
            try:
                dropped = conform_metadata(version.schema, body, _object_meta())
            except DecodeError as error:
                raise bad_request(f"{resource.kind} cannot be handled as a {resource.kind}: {error}") from None
            dropped += prune(version.schema, body)
            if unknown is not None:
                unknown.extend(f'unknown field "{path}"' for path in dropped)
        else:
            try:
                body = conform(version.schema, body, unknown=unknown)
            except DecodeError as error:
                raise bad_request(
                    f'{resource.kind} in version "{version.version}" cannot be handled as a {resource.kind}: {error}'
                ) from None
        if unknown:
            report_strict(unknown, options, f'{resource.kind} in version "{version.version}"', resource.kind)
        apply_defaults(version.schema, body)
        if not isinstance(body.get("metadata"), dict):
            body["metadata"] = {}
        obj = version.to_storage(body) if version.to_storage is not None else body
        gvk = resource.gvk
        obj["kind"], obj["apiVersion"] = gvk.kind, str(gvk.group_version)
        resource.strategy.default(obj)
        return obj

    def take_in_call(
        self, resource: Resource, version: Version, namespace: str, body: Obj, options: WriteOptions
    ) -> Obj:
        """The body of a kind that is only answered (a review): in the storage version, checked and defaulted."""
        obj = self._take_in(resource, version, body, options)
        _match_namespace(resource, obj["metadata"], namespace)
        errors = resource.strategy.validate(obj)
        if errors:
            raise invalid_object(resource.group, resource.kind, obj["metadata"].get("name", ""), errors)
        return obj

    def take_in_view(self, schema: Schema, kind: str, body: Obj, options: WriteOptions) -> Obj:
        """The body of a subresource of a kind of its own, checked and defaulted."""
        unknown: list[str] | None = [] if options.field_validation != "Ignore" else None
        try:
            body = conform(schema, body, unknown=unknown)
        except DecodeError as error:
            raise bad_request(f"{kind} cannot be handled as a {kind}: {error}") from None
        if unknown:
            report_strict(unknown, options, kind, kind)
        apply_defaults(schema, body)
        return body

    def _put_view(
        self, resource: Resource, subresource: Subresource, view: Obj, old: Obj, options: WriteOptions
    ) -> Obj:
        """A subresource's own body (Scale, Eviction, ...) put into the object it is a view of."""
        if subresource.schema is not None:
            kind = subresource.kind.kind if subresource.kind is not None else resource.kind
            view = self.take_in_view(subresource.schema, kind, view, options)
        assert subresource.update is not None
        new = subresource.update(view, _deep_copy(old))
        sent = view.get("metadata") or {}
        for key in ("resourceVersion", "uid"):
            if sent.get(key):
                new["metadata"][key] = sent[key]
        return new

    def present(self, resource: Resource, version: Version, obj: Obj, subresource: Subresource | None = None) -> Obj:
        """A fresh object of the storage version in the form a request speaks."""
        if subresource is not None and subresource.read is not None:
            return subresource.read(_deep_copy(obj))
        view = _deep_copy(obj)
        if version.from_storage is not None:
            view = version.from_storage(view)
        view["kind"], view["apiVersion"] = resource.kind, str(version.group_version)
        return view

    def apply(
        self, resource: Resource, version: Version, live: Obj | None, config: Obj, options: WriteOptions, sub: str
    ) -> Obj:
        """Server-side apply, in the request's version."""
        return server_side_apply(
            live,
            config,
            schema=version.schema,
            manager=options.field_manager,
            force=options.force,
            api_version=str(version.group_version),
            now=self.clock.now(),
            subresource=sub,
            reset_fields=_settable(resource, sub),
        )

    def _own(
        self,
        resource: Resource,
        version: Version,
        new: Obj,
        old: Obj | None,
        options: WriteOptions,
        now: datetime,
        sub: str,
    ) -> None:
        """Record in managedFields who set what: the client, not what admission and strategy make of it."""
        if version.from_storage is not None:
            view = self.present(resource, version, new)
            old_view = self.present(resource, version, old) if old is not None else None
        else:
            view, old_view = new, old
        track_update(
            view,
            old_view,
            schema=version.schema,
            manager=options.field_manager,
            api_version=str(version.group_version),
            now=now,
            subresource=sub,
            reset_fields=_settable(resource, sub),
        )
        if view is not new:
            new["metadata"]["managedFields"] = view["metadata"].get("managedFields") or []

    async def _put(self, resource: Resource, obj: Obj, expected: int) -> Entry:
        metadata = obj["metadata"]
        metadata.pop("resourceVersion", None)
        metadata.pop("selfLink", None)
        gvk = resource.gvk
        obj["kind"], obj["apiVersion"] = gvk.kind, str(gvk.group_version)
        value = codec.encode(obj)
        key = resource.key(metadata.get("namespace", ""), metadata["name"])
        ttl = resource.ttl(obj) if resource.ttl is not None else 0
        written = await self._guard(resource, metadata["name"], self.store.put(key, value, expected=expected, ttl=ttl))
        await self._seen(written.mod_revision)
        below = key[len("/registry/") + len(resource.prefix) + 1 :]
        cached = self.cache.of(resource).entries.get(below)
        if cached is not None and cached.revision == written.mod_revision:
            return cached
        return make_entry(resource, storage_head(resource), below, value, written.mod_revision)

    async def _seen(self, revision: int) -> None:
        """A write is answered when this server's own readers see it."""
        if revision > self.cache.revision:
            await self.cache.reach(revision)

    async def _guard(self, resource: Resource, name: str, write: Awaitable[Any]) -> Any:
        try:
            return await write
        except OutcomeUnknown as error:
            raise ApiError(504, "Timeout", f"request timed out: {error}") from error
        except StoreError as error:
            raise ApiError(500, "InternalError", f"Internal error occurred: {error}") from error

    def _key(self, resource: Resource, below: str) -> str:
        return f"/registry/{resource.prefix}/{below}"

    def _imagined(self, resource: Resource, obj: Obj, revision: int | None) -> Entry:
        """An entry for an object that is not (or no longer) stored."""
        metadata = obj["metadata"]
        metadata.pop("resourceVersion", None)
        below = f"{metadata.get('namespace', '')}/{metadata['name']}" if resource.namespaced else metadata["name"]
        if revision is None:
            tail = codec.encode({"metadata": metadata, **{k: v for k, v in obj.items() if k not in _TYPE}})[1:]
            return Entry(resource, below, tail, 0)
        gvk = resource.gvk
        value = codec.encode({**obj, "kind": gvk.kind, "apiVersion": str(gvk.group_version)})
        return make_entry(resource, storage_head(resource), below, value, revision)


_TYPE = ("kind", "apiVersion", "metadata")


def report_strict(problems: list[str], options: WriteOptions, what: str, kind: str) -> None:
    """Unknown and duplicate fields: an error under `Strict`, warnings under `Warn`."""
    if options.field_validation == "Strict":
        raise bad_request(f"{what} cannot be handled as a {kind}: strict decoding error: {', '.join(problems)}")
    if options.field_validation == "Warn":
        options.warnings.extend(problems)


_EXCEPT_STATUS = excluding("status")
_ONLY_STATUS = only("status")


def _settable(resource: Resource, sub: str) -> Filter:
    """Which fields a write can set at all; nobody owns others because of it."""
    if sub == "status":
        return _ONLY_STATUS
    return _EXCEPT_STATUS if resource.has_status else everything


@cache
def _object_meta() -> Schema:
    return catalog.schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def _call(undo: Callable[[], None] | None) -> None:
    if undo is not None:
        undo()


def _deep_copy(obj: Any) -> Any:
    if isinstance(obj, dict):
        return {key: _deep_copy(value) if isinstance(value, dict | list) else value for key, value in obj.items()}
    if isinstance(obj, list):
        return [_deep_copy(value) if isinstance(value, dict | list) else value for value in obj]
    return obj


def _generate_name(resource: Resource, base: str) -> str:
    room = resource.strategy.generate_name_max - 5
    return base[:room] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def _match_namespace(resource: Resource, metadata: Obj, namespace: str) -> None:
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return
    sent = metadata.get("namespace")
    if sent and sent != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def _match_name(metadata: Obj, name: str) -> None:
    sent = metadata.get("name")
    if sent and sent != name:
        raise bad_request(f"the name of the object ({sent}) does not match the name on the URL ({name})")
    metadata["name"] = name


def _fill_new_metadata(metadata: Obj, now: datetime) -> None:
    metadata["uid"] = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
    metadata["creationTimestamp"] = rfc3339(now)
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(key, None)


def _keep_system_metadata(metadata: Obj, old: Obj) -> None:
    """What a client may leave out of an update, and what it can never take back."""
    for key in ("uid", "creationTimestamp"):
        if not metadata.get(key) and key in old:
            metadata[key] = old[key]
    metadata.pop("selfLink", None)
    if "deletionTimestamp" in old:
        metadata["deletionTimestamp"] = old["deletionTimestamp"]
        if "deletionGracePeriodSeconds" in old:
            metadata.setdefault("deletionGracePeriodSeconds", old["deletionGracePeriodSeconds"])
    else:
        metadata.pop("deletionTimestamp", None)
        metadata.pop("deletionGracePeriodSeconds", None)
    if "generateName" in old:
        metadata.setdefault("generateName", old["generateName"])
    if "generation" in old:
        metadata["generation"] = old["generation"]
    else:
        metadata.pop("generation", None)


def _count_generation(strategy: Strategy, new: Obj, old: Obj) -> None:
    if not strategy.tracks_generation:
        return
    for key in new.keys() | old.keys():
        if key not in ("metadata", "status", "kind", "apiVersion") and new.get(key) != old.get(key):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            return


def _is_finished(strategy: Strategy, obj: Obj) -> bool:
    """Whether the last thing that kept a deleted object has gone with this update."""
    metadata = obj["metadata"]
    return (
        bool(metadata.get("deletionTimestamp"))
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not strategy.holds_deletion(obj)
    )


def precondition_failed(resource: Resource, name: str, what: str, wanted: object, found: object) -> ApiError:
    why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
    return conflict(resource.group_resource, name, why)


def _check_preconditions(resource: Resource, obj: Obj, wanted: Obj) -> None:
    metadata = obj["metadata"]
    for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        expected = wanted.get(key)
        if expected is not None and expected != metadata.get(key):
            raise precondition_failed(resource, metadata["name"], label, expected, metadata.get(key))


def _deletion_finalizers(version: Version, finalizers: list[str], body: Obj) -> list[str]:
    """The finalizers an object has once its deletion with these options has begun."""
    propagation = body.get("propagationPolicy")
    orphan = body.get("orphanDependents")
    wants_orphan = propagation == "Orphan" or orphan is True
    wants_foreground = propagation == "Foreground"
    if propagation is None and orphan is None:
        wants_orphan = "orphan" in finalizers or version.orphans
        wants_foreground = "foregroundDeletion" in finalizers and not wants_orphan
    kept = [each for each in finalizers if each not in ("orphan", "foregroundDeletion")]
    if wants_orphan:
        kept.append("orphan")
    elif wants_foreground:
        kept.append("foregroundDeletion")
    return kept


def _after(moment: datetime, seconds: int) -> datetime:
    return moment + timedelta(seconds=seconds)
