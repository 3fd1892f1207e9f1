"""How objects of any kind are written: one road for built-in kinds and custom resources alike.

A create: conform to the schema, default, mutating admission, what the kind's strategy prepares, validation,
validating admission, ownership of fields, the store. An update is the same with the old object at hand, begun anew
when somebody else was faster. What is particular to a kind is its `Strategy`; nothing here names one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shipwheel.api.apply import revert_timestamps
from shipwheel.api.clock import Clock
from shipwheel.api.errors import (
    MODIFIED,
    ApiError,
    already_exists,
    conflict,
    invalid,
    invalid_object,
    not_found,
)
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.objectmeta import dedup_owner_references, validate_object_meta, validate_object_meta_update
from shipwheel.api.patch.values import clone
from shipwheel.api.resource import Resource, Subresource, Version, WriteContext
from shipwheel.api.schema import validate as validate_schema
from shipwheel.apiserver.admission.chain import Admission, Attempt
from shipwheel.apiserver.deletion import Deleter
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.intake import WriteOptions, present, put_view, take_in
from shipwheel.apiserver.listoptions import parse_uint
from shipwheel.apiserver.metadata import (
    count_generation,
    fill_new_metadata,
    generate_name,
    is_finished,
    keep_system_metadata,
    match_name,
    match_namespace,
    require_name,
)
from shipwheel.apiserver.ownership import record_update
from shipwheel.apiserver.requestmetrics import StoreRequestMetrics
from shipwheel.apiserver.storing import Storing, Written
from shipwheel.apiserver.watchcache import WatchCache
from shipwheel.kinds.apiextensions.rules import follow_rules
from shipwheel.store.base import ABSENT, Mismatch, OutcomeUnknown, Store

PATCH_ATTEMPTS = 5
NAME_ATTEMPTS = 8


Produce = Callable[[Obj | None], Obj]
"""From the current object in the request's version (None: there is none) to the wanted one. May be called again."""


class Registry:
    def __init__(
        self, store: Store, cache: WatchCache, admission: Admission, clock: Clock, server: Any, *, event_ttl: float
    ) -> None:
        self.cache = cache
        self.admission = admission
        self.clock = clock
        self.server = server
        self.storing = Storing(
            store, cache, event_ttl=event_ttl, clock=clock, requests=StoreRequestMetrics(server.metrics)
        )
        self.deleter = Deleter(self.storing, admission, clock, server)
        self.delete = self.deleter.delete

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
        obj = take_in(resource, version, body, options)
        metadata = obj["metadata"]
        match_namespace(resource, metadata, namespace)
        if name:
            match_name(metadata, name)
        generated = not metadata.get("name") and bool(metadata.get("generateName"))
        for attempt in range(NAME_ATTEMPTS):
            candidate = clone(obj) if generated else obj
            if generated:
                candidate["metadata"]["name"] = generate_name(resource, metadata["generateName"])
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
        ctx = WriteContext(options.user, now, resource, dry_run=options.dry_run, verb="create")
        of_version = _names_version(metadata.get("resourceVersion"))
        fill_new_metadata(metadata, now)
        _dedup_owners(metadata, options)
        if not applied:
            record_update(resource, version, obj, None, options, now, "")
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
        if of_version and not options.dry_run:
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        undo = await strategy.before_create(obj, self.server, ctx)
        try:
            if options.dry_run:
                _call(undo)
                if self.cache.of(resource).get(namespace, metadata["name"]) is not None:
                    raise already_exists(_called(resource, version), metadata["name"])
                return Written(self.storing.imagined(resource, obj, None), created=True)
            return Written(await self.storing.put(resource, obj, ABSENT), created=True)
        except Mismatch:
            _call(undo)
            raise already_exists(_called(resource, version), metadata["name"]) from None
        except OutcomeUnknown:
            raise
        except BaseException:
            _call(undo)
            raise

    def _validate_new(self, resource: Resource, version: Version, obj: Obj) -> None:
        strategy = resource.strategy
        errors = validate_object_meta(
            obj["metadata"],
            namespaced=resource.namespaced,
            name_rule=strategy.name_rule or name_is_dns_subdomain,
            qualified_finalizers=not resource.custom,
        )
        if resource.custom:
            errors += validate_schema(resource.storage.schema, obj)
            errors += follow_rules(resource.storage.schema, obj, errors).errors
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
                await self.storing.catch_up(mismatch)
                if attempts and tries >= attempts:
                    raise conflict(_called(resource, version), name, MODIFIED) from None

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
                raise not_found(_called(resource, version), name)
            body = produce(None)
            metadata = body.get("metadata")
            if isinstance(metadata, dict) and metadata.get("resourceVersion"):
                raise not_found(_called(resource, version), name)
            if options.check_access is not None:
                await options.check_access("create")
            try:
                return await self.create(resource, version, namespace, body, options, name=name, applied=applying)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    raise Mismatch(name, None) from None
                raise
        old = entry.decode()
        if not admit and version is resource.storage and (subresource is None or subresource.update is None):
            # What the server itself changes in a stored object has the object's form.
            new = produce(entry.decode())
            return await self._replace(resource, version, entry, old, new, options, subresource, applying, admit)
        applied = applying and subresource is not None and subresource.applied is not None
        old_view = present(resource, version, entry.decode(), None if applied else subresource)
        wanted = produce(old_view)
        if subresource is not None and subresource.update is not None and not applied:
            new = put_view(resource, subresource, wanted, old, options)
        else:
            known = old_view if wanted is not old_view else present(resource, version, entry.decode())
            new = take_in(resource, version, wanted, options, known)
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
        ctx = WriteContext(options.user, now, resource, sub, options.dry_run, options.verb)
        match_namespace(resource, metadata, namespace)
        require_name(metadata, name)
        expected_version = metadata.get("resourceVersion")
        if expected_version and expected_version != "0":  # 0 is none at all
            if expected_version != old_metadata["resourceVersion"]:
                _require_number(expected_version)
                raise conflict(_called(resource, version), name, MODIFIED)
        elif not strategy.allow_unconditional_update and not applying:
            field_error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid_object(resource.group, resource.kind, name, [field_error])
        metadata["resourceVersion"] = old_metadata["resourceVersion"]
        keep_system_metadata(metadata, old_metadata)
        _dedup_owners(metadata, options)
        if not applying:
            record_update(resource, version, new, old, options, now, sub)
        attempt = Attempt("UPDATE", resource, version, namespace, name, options.user, new, old, sub,
                          options.dry_run, options.warnings)  # fmt: skip
        if admit:
            await self.admission.mutate(attempt)
        self._prepare_update(resource, subresource, new, old, ctx)
        count_generation((subresource and subresource.strategy) or strategy, new, old)
        self._validate_update(resource, version, subresource, new, old, options.warnings)
        if admit:
            await self.admission.validate(attempt)
        if sub in ("", "scale"):
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
                return Written(self.storing.imagined(resource, new, entry.revision))
            if is_finished(strategy, new):
                return await self.deleter.finish(resource, entry, new)
            written = Written(await self.storing.put(resource, new, entry.revision))
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
        self,
        resource: Resource,
        version: Version,
        subresource: Subresource | None,
        new: Obj,
        old: Obj,
        warnings: list[str],
    ) -> None:
        strategy = resource.strategy
        errors = validate_object_meta_update(new["metadata"], old["metadata"], qualified_finalizers=not resource.custom)
        errors *= 2  # upstream's strategies look at it once more, and clients count causes
        if resource.custom:
            errors += validate_schema(resource.storage.schema, new, old=old)
            followed = follow_rules(resource.storage.schema, new, errors, old)
            errors += followed.errors
            warnings += followed.warnings
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


def _dedup_owners(metadata: Obj, options: WriteOptions) -> None:
    repeated = dedup_owner_references(metadata)
    if repeated:
        options.warnings.append(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and "
            "may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
            f"[{' '.join(repeated)}]"
        )


def _call(undo: Callable[[], None] | None) -> None:
    if undo is not None:
        undo()


def _require_number(resource_version: str) -> None:
    """500, as upstream has it, for the resource version of an update that never was one."""
    try:
        parse_uint(resource_version)
    except ValueError as error:
        raise ApiError(500, "", str(error)) from None


def _names_version(resource_version: str | None) -> bool:
    """Whether it means a version; 0 and what is no number mean none."""
    try:
        return bool(resource_version) and parse_uint(resource_version or "") != 0
    except ValueError:
        return False


def _called(resource: Resource, version: Version) -> GroupResource:
    """What refusals call the resource: by the group that was asked for (events are in two)."""
    return GroupResource(version.group, resource.plural)
