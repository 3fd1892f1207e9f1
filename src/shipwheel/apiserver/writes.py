"""POST, PUT, PATCH and DELETE as HTTP has them: options and bodies read, the registry asked, answers made."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson

from shipwheel.api import codec
from shipwheel.api.errors import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    forbidden,
    invalid,
    invalid_object,
    not_supported,
    required,
    too_long,
    unsupported_media_type,
)
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.resource import Resource, Subresource, UserInfo, Version
from shipwheel.apiserver import ownership
from shipwheel.apiserver.bodies import (
    body_kind,
    check_dry_run,
    decode_body,
    delete_options,
    read_body,
)
from shipwheel.apiserver.intake import Undecodable, WriteOptions, report_strict
from shipwheel.apiserver.listoptions import list_options
from shipwheel.apiserver.metadata import check_uid, require_name
from shipwheel.apiserver.patches import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Patcher
from shipwheel.apiserver.reads import Reader, Selection
from shipwheel.apiserver.registry import PATCH_ATTEMPTS, Registry
from shipwheel.apiserver.storing import Written
from shipwheel.client.httpserver import Request

DELETE_WORKERS = 64
"""How many of a collection's objects are deleted at once."""
_VERBS = {"CreateOptions": "create", "UpdateOptions": "update", "PatchOptions": "patch", "DeleteOptions": "delete"}
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")


def write_options(request: Request, user: UserInfo, kind: str, **more: Any) -> WriteOptions:
    """Read and check what the query says of a write; `kind` is that of the options (`CreateOptions`)."""
    errors: list[FieldError] = []
    dry_run = [value for key, value in request.query if key == "dryRun"]
    validation = manager = ""
    if kind != "DeleteOptions":
        errors += check_dry_run(dry_run)
        manager = request.parameter("fieldManager")
        errors += _check_manager(manager)
        validation = request.parameter("fieldValidation")
        if validation not in _VALIDATIONS:
            errors.append(not_supported("fieldValidation", validation, list(_VALIDATIONS)))
    if errors:
        raise invalid_object("meta.k8s.io", kind, "", errors)
    return WriteOptions(
        user,
        _VERBS.get(kind, "update"),
        dry_run=bool(dry_run) and kind != "DeleteOptions",
        field_manager=manager or manager_of(request.header("user-agent")),
        field_validation=validation or "Warn",
        force=bool(request.flag("force")),
        **more,
    )


def _check_manager(name: str) -> list[FieldError]:
    errors = []
    if len(name.encode()) > 128:
        errors.append(too_long("fieldManager", 128))
    for position, character in enumerate(name):
        if not character.isprintable():
            detail = f"invalid character U+{ord(character):04X} (at position {position})"
            errors.append(invalid("fieldManager", name, detail))
    return errors


def manager_of(user_agent: str) -> str:
    """The field manager of a client that names none: its user agent up to the slash."""
    name = user_agent.split("/", 1)[0]
    return name[:128] if name.isprintable() else "unknown"


class Writer:
    def __init__(self, registry: Registry, reader: Reader) -> None:
        self.registry = registry
        self.reader = reader

    async def create(
        self, request: Request, resource: Resource, version: Version, namespace: str, options: WriteOptions
    ) -> Written:
        gvk = GroupVersionKind(version.group, version.version, resource.kind)
        raw = await read_body(request)
        body = decode_body(raw, request.header("content-type"), gvk, options, custom=resource.custom)
        return await self.registry.create(resource, version, namespace, body, options)

    async def update(
        self,
        request: Request,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        subresource: Subresource | None,
        options: WriteOptions,
    ) -> Written:
        gvk, _ = body_kind(resource, version, subresource)
        raw = await read_body(request)
        custom = resource.custom and (subresource is None or subresource.kind is None)

        def decode() -> Obj:
            return decode_body(raw, request.header("content-type"), gvk, options, custom=custom)

        body = decode()
        metadata = body.get("metadata")
        if isinstance(metadata, dict | None):
            require_name(metadata or {}, name)
        pinned = isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))
        first = [body]

        def produce(old: Obj | None) -> Obj:
            # The registry changes what it is given: a second attempt decodes again.
            new = first.pop() if first else decode()
            check_uid(resource, name, new, old)
            return new

        return await self.registry.update(
            resource,
            version,
            namespace,
            name,
            produce,
            options,
            subresource=subresource,
            may_create=subresource is None and resource.strategy.allow_create_on_update,
            attempts=1 if pinned else 0,
        )

    async def patch(
        self,
        request: Request,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        subresource: Subresource | None,
        options: WriteOptions,
    ) -> Written:
        media = request.header("content-type").split(";", 1)[0].strip().lower()
        gvk, schema = body_kind(resource, version, subresource)
        kinds = [JSON_PATCH, MERGE_PATCH] + ([] if resource.custom else [STRATEGIC_PATCH]) + [APPLY_PATCH]
        if media not in kinds:
            raise codec.unknown_format(kinds) if resource.custom else _unsupported_media_type()
        raw = await read_body(request)
        if media == APPLY_PATCH:
            return await self._apply(raw, request, resource, version, namespace, name, subresource, options)
        if options.force:
            field_error = [forbidden("force", "may not be specified for non-apply patch")]
            raise invalid_object("meta.k8s.io", "PatchOptions", "", field_error)
        custom = resource.custom and (subresource is None or subresource.kind is None)
        patcher = Patcher(raw, media, gvk, schema, options, custom=custom)
        try:
            return await self.registry.update(
                resource,
                version,
                namespace,
                name,
                patcher,
                options,
                subresource=subresource,
                attempts=PATCH_ATTEMPTS,
            )
        except Undecodable as error:
            raise patcher.explain(error.why) from None

    async def _apply(
        self,
        raw: bytes,
        request: Request,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        subresource: Subresource | None,
        options: WriteOptions,
    ) -> Written:
        if not request.parameter("fieldManager"):
            raise invalid_object(
                "meta.k8s.io", "PatchOptions", "", [required("fieldManager", "is required for apply patch")]
            )
        gvk, _ = body_kind(resource, version, subresource)
        duplicates: list[str] | None = [] if options.field_validation != "Ignore" else None
        try:
            config = codec.decode_yaml(raw, strict_duplicates=duplicates)
        except ValueError as error:
            converting = "error converting YAML to JSON: " if str(error).startswith("yaml: ") else ""
            raise bad_request(f"error decoding YAML: {converting}{error}") from None
        if (config.get("apiVersion"), config.get("kind")) != (str(gvk.group_version), gvk.kind):
            try:
                found = GroupVersionKind.of(config).in_full
            except ValueError as error:
                raise bad_request(str(error)) from None
            raise bad_request(f"invalid object type: {found}")
        metadata = config.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise bad_request("metadata must be an object")
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        sub = subresource.name if subresource is not None else ""
        applied = _Kept(config)

        def produce(old: Obj | None) -> Obj:
            fresh = applied.copy()
            if old is None:
                if given := (fresh.get("metadata") or {}).get("uid"):
                    why = f"the provided object specified uid {given}, and no existing object was found"
                    raise conflict(resource.group_resource, name, f"uid mismatch: {why}")
                require_name(fresh.get("metadata") or {}, name)
            if subresource is not None and subresource.applied is not None:
                about = {"apiVersion": str(version.group_version), "kind": resource.kind}
                fresh = {**about, "metadata": fresh.get("metadata") or {}, **subresource.applied(fresh)}
            merged = ownership.apply(resource, version, old, fresh, options, self.registry.clock.now(), sub)
            if duplicates:
                report_strict(duplicates, options, "apply configuration", gvk.kind)
            return merged

        return await self.registry.update(
            resource,
            version,
            namespace,
            name,
            produce,
            options,
            subresource=subresource,
            may_create=subresource is None,
            attempts=PATCH_ATTEMPTS,
            applying=True,
        )

    async def delete(
        self,
        request: Request,
        resource: Resource,
        version: Version,
        namespace: str,
        name: str,
        options: WriteOptions,
    ) -> Written:
        body = delete_options(await read_body(request), request)
        if body.get("dryRun"):
            options = _with_dry_run(options)
        return await self.registry.delete(resource, version, namespace, name, body, options)

    async def delete_collection(
        self, request: Request, resource: Resource, version: Version, namespace: str, options: WriteOptions
    ) -> Selection:
        """Delete whatever the selectors match, and tell what that was; objects that others delete meanwhile are passed
        over."""
        body = delete_options(await read_body(request), request)
        if body.get("dryRun"):
            options = _with_dry_run(options)
        wanted = list_options(request, resource, version)
        selection = await self.reader.select(resource, namespace, wanted)
        written: list[Written | None] = [None] * len(selection.entries)
        rest = iter(enumerate(selection.entries))

        async def remove() -> None:
            for position, entry in rest:
                try:
                    written[position] = await self.registry.delete(
                        resource, version, entry.namespace, entry.name, dict(body), options
                    )
                except ApiError as error:
                    if error.reason != "NotFound":
                        raise

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(DELETE_WORKERS):
                    group.create_task(remove())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        gone = [each.entry for each in written if each is not None]
        return Selection(gone, {"resourceVersion": selection.metadata["resourceVersion"]})


def _unsupported_media_type() -> ApiError:
    error = unsupported_media_type("415: Unsupported Media Type")
    error.details = {}
    return error


class _Kept:
    """A decoded object that is handed out anew each time."""

    def __init__(self, obj: Obj) -> None:
        self._raw = orjson.dumps(obj)

    def copy(self) -> Obj:
        return orjson.loads(self._raw)


def _with_dry_run(options: WriteOptions) -> WriteOptions:
    return replace(options, dry_run=True)
