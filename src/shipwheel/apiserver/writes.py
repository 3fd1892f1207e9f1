"""POST, PUT, PATCH and DELETE as HTTP has them: options and bodies read, the registry asked, answers made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import orjson

from shipwheel.api import codec
from shipwheel.api.errors import (
    ApiError,
    bad_request,
    invalid,
    invalid_object,
    not_supported,
    required,
    too_large,
    unsupported_media_type,
)
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.patch.json_patch import apply_json_patch
from shipwheel.api.patch.merge_patch import apply_merge_patch
from shipwheel.api.patch.strategic import apply_strategic
from shipwheel.api.resource import Resource, Subresource, UserInfo, Version
from shipwheel.api.schema import Schema
from shipwheel.apiserver import ownership
from shipwheel.apiserver.intake import WriteOptions, report_strict
from shipwheel.apiserver.listoptions import list_options
from shipwheel.apiserver.metadata import precondition_failed
from shipwheel.apiserver.reads import Reader
from shipwheel.apiserver.registry import PATCH_ATTEMPTS, Registry
from shipwheel.apiserver.storing import Written
from shipwheel.client.httpserver import BodyTooLarge, Request
from shipwheel.kinds import wire

BODY_LIMIT = 3 * 1024 * 1024
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_VALIDATIONS = ("Ignore", "Strict", "Warn")


async def read_body(request: Request) -> bytes:
    """The whole body, at most `BODY_LIMIT`. ApiError 413 beyond."""
    try:
        return await request.body(BODY_LIMIT)
    except BodyTooLarge:
        raise too_large(f"Request entity too large: limit is {BODY_LIMIT}") from None


def write_options(request: Request, user: UserInfo, kind: str, **more: Any) -> WriteOptions:
    """Read and check what the query says of a write; `kind` is that of the options (`CreateOptions`)."""
    errors = []
    dry_run = [value for key, value in request.query if key == "dryRun"]
    for value in dry_run:
        if value != "All":
            errors.append(not_supported("dryRun", value, ["All"]))
    validation = request.parameter("fieldValidation")
    if validation and validation not in _VALIDATIONS:
        errors.append(not_supported("fieldValidation", validation, list(_VALIDATIONS)))
    manager = request.parameter("fieldManager")
    if len(manager) > 128:
        errors.append(invalid("fieldManager", manager, "may not be more than 128 bytes"))
    if errors:
        raise invalid_object("meta.k8s.io", kind, "", errors)
    return WriteOptions(
        user,
        dry_run=bool(dry_run),
        field_manager=manager or manager_of(request.header("user-agent")),
        field_validation=validation or "Warn",
        force=bool(request.flag("force")),
        **more,
    )


def manager_of(user_agent: str) -> str:
    """The field manager of a client that names none: its user agent up to the slash."""
    name = user_agent.split("/", 1)[0]
    return name[:128] if name.isprintable() else "unknown"


def decode_body(
    raw: bytes,
    content_type: str,
    expected: GroupVersionKind,
    options: WriteOptions,
    *,
    also: Collection[GroupVersionKind] = (),
) -> Obj:
    """A body as an object of the expected kind, or of one that says the same. Fields that it has twice are noted in
    `options.duplicates`. ApiError 400 for garbage, 415 for a format we do not know."""
    options.duplicates.clear()
    duplicates = options.duplicates if options.field_validation != "Ignore" else None
    try:
        obj = _decode(raw, content_type, duplicates)
    except ValueError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {expected.kind}): {error} ({_summary(raw)})"
        ) from None
    if any(obj.get("apiVersion") == str(each.group_version) for each in also):
        obj["apiVersion"] = str(expected.group_version)
    check_kind(obj, expected)
    return obj


def decode_any(raw: bytes, content_type: str) -> Obj:
    """A body as an object of whatever kind. ApiError 400 for garbage, 415 for a format we do not know."""
    try:
        return _decode(raw, content_type, None)
    except ValueError as error:
        raise bad_request(str(error)) from None


def _decode(raw: bytes, content_type: str, duplicates: list[str] | None) -> Obj:
    """ValueError for garbage, ApiError 415 for a format we do not know."""
    form = codec.content_format(content_type)
    try:
        if form == "yaml":
            return codec.decode_yaml(raw, strict_duplicates=duplicates)
        if form == "protobuf":
            return wire.decode_object(raw)
        return codec.decode_json(raw, strict_duplicates=duplicates)
    except KeyError as error:
        raise bad_request(f"no kind that has a protobuf form: {error}") from None


def _summary(raw: bytes, limit: int = 30) -> str:
    """The beginning of a body that nobody understood."""
    if not raw:
        return "<empty>"
    start, more = raw[:limit], " ..." if len(raw) > limit else ""
    return (start.decode(errors="replace") if raw[0] == ord("{") else start.hex()) + more


def check_kind(obj: Obj, expected: GroupVersionKind) -> None:
    """The kind an object says it is must be the one its URL says; what it leaves out is filled in."""
    kind, api_version = obj.get("kind"), obj.get("apiVersion")
    if not isinstance(kind, str | None) or not isinstance(api_version, str | None):
        raise bad_request("couldn't get version/kind; json parse error: kind and apiVersion must be strings")
    if api_version and api_version != str(expected.group_version):
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({expected.group_version})"
        )
    if kind and kind != expected.kind:
        raise bad_request(
            f'{kind} in version "{expected.version}" cannot be handled as a {expected.kind}: converting '
            f"({kind}) to ({expected.kind}): unknown conversion"
        )
    obj["kind"], obj["apiVersion"] = expected.kind, str(expected.group_version)


def _json_kind(value: Any) -> str:
    if isinstance(value, list):
        return "array"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "null"


class Writer:
    def __init__(self, registry: Registry, reader: Reader) -> None:
        self.registry = registry
        self.reader = reader

    async def create(
        self, request: Request, resource: Resource, version: Version, namespace: str, options: WriteOptions
    ) -> Written:
        gvk = GroupVersionKind(version.group, version.version, resource.kind)
        body = decode_body(await read_body(request), request.header("content-type"), gvk, options)
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
        body = decode_body(raw, request.header("content-type"), gvk, options)
        metadata = body.get("metadata")
        pinned = isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))
        first = [body]

        def produce(_old: Obj | None) -> Obj:
            # The registry changes what it is given: a second attempt decodes again.
            return first.pop() if first else decode_body(raw, request.header("content-type"), gvk, options)

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
        if media not in kinds and not media.startswith("application/apply-patch+"):
            raise unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: " + ", ".join(kinds)
            )
        raw = await read_body(request)
        if media.startswith("application/apply-patch+"):
            return await self._apply(raw, request, resource, version, namespace, name, subresource, options)
        if options.force:
            field_error = [invalid("force", True, "may not be specified for non-apply patch")]
            raise invalid_object("meta.k8s.io", "PatchOptions", "", field_error)
        produce = self._patcher(raw, media, gvk, schema, options)
        return await self.registry.update(
            resource,
            version,
            namespace,
            name,
            produce,
            options,
            subresource=subresource,
            attempts=PATCH_ATTEMPTS,
        )

    def _patcher(
        self, raw: bytes, media: str, gvk: GroupVersionKind, schema: Schema, options: WriteOptions
    ) -> Callable[[Obj | None], Obj]:
        duplicates: list[str] | None = [] if options.field_validation != "Ignore" else None
        try:
            patch = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"error decoding patch: {error}") from None
        if isinstance(patch, dict):
            try:
                codec.check_repeated(raw, patch, duplicates)
            except ValueError as error:
                raise bad_request(f"error decoding patch: {error}") from None
        if duplicates:
            report_strict(duplicates, options, "patch", gvk.kind)
        if media == JSON_PATCH:
            if not isinstance(patch, list):
                raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type "
                                  "jsonpatch.Patch")  # fmt: skip
        elif not isinstance(patch, dict):
            raise bad_request(f"json: cannot unmarshal {_json_kind(patch)} into Go value of type "
                              "map[string]interface {}")  # fmt: skip

        def produce(old: Obj | None) -> Obj:
            assert old is not None
            if media == JSON_PATCH:
                new = apply_json_patch(old, patch)
            elif media == MERGE_PATCH:
                new = apply_merge_patch(old, patch)
            else:
                new = apply_strategic(old, patch, schema)
            if not isinstance(new, dict):
                raise bad_request("the patched object is no object any more")
            check_kind(new, gvk)
            return new

        return produce

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
            raise bad_request(f"error decoding YAML: {error}") from None
        if not isinstance(config, dict):
            raise bad_request("error decoding YAML: the configuration is no object")
        if duplicates:
            report_strict(duplicates, options, "apply configuration", gvk.kind)
        if not config.get("kind") or not config.get("apiVersion"):
            raise bad_request("invalid object type: /, Kind=" if not config.get("kind") else "apiVersion must be set")
        check_kind(config, gvk)
        metadata = config.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise bad_request("metadata must be an object")
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        sub = subresource.name if subresource is not None else ""
        applied = _Kept(config)

        def produce(old: Obj | None) -> Obj:
            fresh = applied.copy()
            if old is not None:
                given = (fresh.get("metadata") or {}).get("uid")
                if given and given != old["metadata"].get("uid"):
                    raise precondition_failed(resource, name, "UID", given, old["metadata"].get("uid"))
            return ownership.apply(resource, version, old, fresh, options, self.registry.clock.now(), sub)

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
    ) -> list[Written]:
        """Delete whatever the selectors match; objects that others delete meanwhile are passed over."""
        body = delete_options(await read_body(request), request)
        if body.get("dryRun"):
            options = _with_dry_run(options)
        wanted = list_options(request, resource, version)
        selection = await self.reader.select(resource, namespace, wanted)
        body.pop("preconditions", None)
        gate = asyncio.Semaphore(16)
        written: list[Written | None] = [None] * len(selection.entries)

        async def remove(position: int) -> None:
            entry = selection.entries[position]
            async with gate:
                try:
                    written[position] = await self.registry.delete(
                        resource, version, entry.namespace, entry.name, dict(body), options
                    )
                except ApiError as error:
                    if error.reason != "NotFound":
                        raise

        async with asyncio.TaskGroup() as group:
            for position in range(len(selection.entries)):
                group.create_task(remove(position))
        return [each for each in written if each is not None]


class _Kept:
    """A decoded object that is handed out anew each time."""

    def __init__(self, obj: Obj) -> None:
        self._raw = orjson.dumps(obj)

    def copy(self) -> Obj:
        return orjson.loads(self._raw)


def _with_dry_run(options: WriteOptions) -> WriteOptions:
    return replace(options, dry_run=True)


def body_kind(resource: Resource, version: Version, subresource: Subresource | None) -> tuple[GroupVersionKind, Schema]:
    """The kind and schema of the bodies at a path."""
    if subresource is not None and subresource.kind is not None and subresource.schema is not None:
        return subresource.kind, subresource.schema
    return GroupVersionKind(version.group, version.version, resource.kind), version.schema


def delete_options(raw: bytes, request: Request) -> Obj:
    """DeleteOptions from the body, or from the query; ApiError 400 or 422 when they make no sense."""
    options: Obj = {}
    if raw:
        options = decode_any(raw, request.header("content-type"))
        if options.get("kind") not in (None, "", "DeleteOptions"):
            raise bad_request(f"decoded object cannot be converted to DeleteOptions: it is a {options['kind']}")
    else:
        for key, value in request.query:
            if key == "gracePeriodSeconds":
                try:
                    options[key] = int(value)
                except ValueError:
                    raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
            elif key == "propagationPolicy":
                options[key] = value
            elif key == "orphanDependents":
                options[key] = value in ("1", "t", "T", "true", "TRUE", "True")
            elif key == "dryRun":
                options.setdefault(key, []).append(value)
    errors = []
    propagation = options.get("propagationPolicy")
    if propagation is not None and options.get("orphanDependents") is not None:
        errors.append(invalid("propagationPolicy", propagation, "orphanDependents and deletionPropagation cannot be "
                              "both set"))  # fmt: skip
    if propagation not in (None, "Foreground", "Background", "Orphan"):
        errors.append(not_supported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan", "nil"]))
    for each in options.get("dryRun") or ():
        if each != "All":
            errors.append(not_supported("dryRun", each, ["All"]))
    if errors:
        raise invalid_object("meta.k8s.io", "DeleteOptions", "", errors)
    grace = options.get("gracePeriodSeconds")
    if grace is not None and grace < 0:
        options["gracePeriodSeconds"] = 1
    return options
