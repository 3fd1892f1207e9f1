"""What clients send: bodies read, decoded, and found to be of the kind that their URL speaks of."""

from __future__ import annotations

from collections.abc import Collection

from shipwheel.api import codec
from shipwheel.api.errors import FieldError, bad_request, invalid, invalid_object, not_supported, too_large
from shipwheel.api.meta import GroupVersion, GroupVersionKind, Obj
from shipwheel.api.resource import Resource, Subresource, Version
from shipwheel.api.schema import DecodeError, Schema, conform
from shipwheel.api.schema.conform import kind_of
from shipwheel.apiserver.intake import WriteOptions
from shipwheel.client.httpserver import BodyTooLarge, Request
from shipwheel.kinds import catalog, wire

BODY_LIMIT = 3 * 1024 * 1024
_DELETE_OPTIONS = GroupVersionKind("", "v1", "DeleteOptions")
_PROPAGATION = ("Foreground", "Background", "Orphan")


async def read_body(request: Request) -> bytes:
    """The whole body, at most `BODY_LIMIT`. ApiError 413 beyond."""
    try:
        return await request.body(BODY_LIMIT)
    except BodyTooLarge:
        raise too_large(f"Request entity too large: limit is {BODY_LIMIT}") from None


def body_kind(resource: Resource, version: Version, subresource: Subresource | None) -> tuple[GroupVersionKind, Schema]:
    """The kind and schema of the bodies at a path."""
    if subresource is not None and subresource.kind is not None and subresource.schema is not None:
        return subresource.kind, subresource.schema
    return GroupVersionKind(version.group, version.version, resource.kind), version.schema


def decode_body(
    raw: bytes,
    content_type: str,
    expected: GroupVersionKind,
    options: WriteOptions,
    *,
    also: Collection[GroupVersionKind] = (),
    custom: bool = False,
) -> Obj:
    """A body as an object of the expected kind, or of one that says the same. Fields that it has twice are noted in
    `options`. ApiError 400 for garbage, 415 for a format we do not know."""
    options.duplicates.clear()
    options.places.clear()
    duplicates = options.duplicates if options.field_validation != "Ignore" else None
    try:
        obj = _decode(raw, content_type, duplicates)
        if custom and not obj.get("kind"):
            raise DecodeError(f"Object 'Kind' is missing in '{raw.decode(errors='replace')}'")
    except ValueError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {expected.kind}): {error} ({_summary(raw)})"
        ) from None
    options.sorted_fields = codec.content_format(content_type) == "yaml"
    if duplicates and not options.sorted_fields:
        options.places.update(codec.places(raw))
    if any(obj.get("apiVersion") == str(each.group_version) for each in also):
        obj["apiVersion"] = str(expected.group_version)
    (check_custom_kind if custom else check_kind)(obj, expected)
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
    if obj.get("kind") == expected.kind and obj.get("apiVersion") == str(expected.group_version):
        return
    for field in ("kind", "apiVersion"):
        if not isinstance(value := obj.get(field), str | None):
            raise bad_request(
                f"couldn't get version/kind; json parse error: json: cannot unmarshal {kind_of(value)} into Go struct "
                f"field .{field} of type string"
            )
    kind = obj.get("kind") or expected.kind
    try:
        spoken = GroupVersion.parse(obj.get("apiVersion") or str(expected.group_version))
    except ValueError as error:
        raise bad_request(str(error)) from None
    if (kind, spoken) != (expected.kind, expected.group_version):
        raise bad_request(_other_kind(GroupVersionKind(spoken.group, spoken.version, kind), expected))
    obj["kind"], obj["apiVersion"] = expected.kind, str(expected.group_version)


def cannot_handle(kind: str | None, expected: GroupVersionKind) -> str:
    """How a refusal begins of a body that is no object of the expected kind."""
    return f'{kind or expected.kind} in version "{expected.version}" cannot be handled as a {expected.kind}: '


def _other_kind(found: GroupVersionKind, expected: GroupVersionKind) -> str:
    """Why a body cannot be what it should be, in the words of upstream's scheme."""
    if (found.kind, found.group) == (expected.kind, expected.group) and _is_known(found):
        return (
            f"the API version in the data ({found.group_version}) does not match the expected API version "
            f"({expected.group_version})"
        )
    cannot = cannot_handle(found.kind, expected)
    if not _is_known(found):
        return (
            f'{cannot}no kind "{found.kind}" is registered for version "{found.group_version}" in scheme '
            '"pkg/api/legacyscheme/scheme.go:30"'
        )
    package = expected.group.split(".")[0] or "core"
    return f"{cannot}converting ({found.version}.{found.kind}) to ({package}.{expected.kind}): unknown conversion"


def _is_known(gvk: GroupVersionKind) -> bool:
    try:
        catalog.schema_for(gvk)
    except KeyError:
        return False
    return True


def check_custom_kind(obj: Obj, expected: GroupVersionKind) -> None:
    """The same for custom objects, which leave nothing out."""
    if obj.get("apiVersion", "") != str(expected.group_version):
        raise bad_request(
            f"the API version in the data ({obj.get('apiVersion', '')}) does not match the expected API version "
            f"({expected.group_version})"
        )
    if obj["kind"] != expected.kind:
        metadata = obj.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, dict) else ""
        wrong = invalid("kind", obj["kind"], f"must be {expected.kind}")
        raise invalid_object(expected.group, obj["kind"], name, [wrong])


def delete_options(raw: bytes, request: Request) -> Obj:
    """DeleteOptions from the body or, when there is none, from the query. ApiError 400 or 422 when they make no
    sense."""
    options = _options_from_body(raw, request) if raw else _options_from_query(request)
    errors = []
    propagation = options.get("propagationPolicy")
    if propagation is not None and options.get("orphanDependents") is not None:
        errors.append(invalid("propagationPolicy", propagation, "orphanDependents and deletionPropagation cannot be "
                              "both set"))  # fmt: skip
    if propagation is not None and propagation not in _PROPAGATION:
        errors.append(not_supported("propagationPolicy", propagation, [*_PROPAGATION, "nil"]))
    errors += check_dry_run(options.get("dryRun") or [])
    if errors:
        raise invalid_object("meta.k8s.io", "DeleteOptions", "", errors)
    grace = options.get("gracePeriodSeconds")
    if grace is not None and grace < 0:
        options["gracePeriodSeconds"] = 1
    return options


def check_dry_run(given: list[str]) -> list[FieldError]:
    return [] if all(each == "All" for each in given) else [not_supported("dryRun", given, ["All"])]


def _options_from_body(raw: bytes, request: Request) -> Obj:
    options = decode_any(raw, request.header("content-type"))
    kind = options.get("kind") or _DELETE_OPTIONS.kind
    if kind != _DELETE_OPTIONS.kind:
        raise bad_request(
            f'no kind "{kind}" is registered for version "{options.get("apiVersion") or "v1"}" in scheme '
            '"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"'
        )
    try:
        return conform(catalog.schema_for(_DELETE_OPTIONS), options)
    except DecodeError as error:
        raise bad_request(str(error)) from None


def _options_from_query(request: Request) -> Obj:
    options: Obj = {}
    for key, value in request.query:
        if key == "gracePeriodSeconds":
            try:
                options[key] = int(value)
            except ValueError:
                raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
        elif key == "propagationPolicy":
            options[key] = value
        elif key == "orphanDependents":
            options[key] = request.flag(key)
        elif key == "dryRun":
            options.setdefault(key, []).append(value)
    return options
