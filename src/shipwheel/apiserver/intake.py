"""Between what clients send and see, and the storage version that everything inside works on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import orjson

from shipwheel.api.apply import Convert
from shipwheel.api.errors import ApiError, invalid_object
from shipwheel.api.memo import Memo
from shipwheel.api.meta import Obj
from shipwheel.api.patch.values import clone
from shipwheel.api.resource import Resource, Subresource, UserInfo, Version
from shipwheel.api.schema import DecodeError, Schema, apply_defaults, conform, conform_metadata, drop_nulls, prune
from shipwheel.apiserver.metadata import match_name, match_namespace
from shipwheel.kinds import catalog


class Undecodable(ApiError):
    """400: a body does not fit its kind. `why` is the decoder's part of the message."""

    def __init__(self, what: str, kind: str, why: str) -> None:
        super().__init__(400, "BadRequest", f"{what} cannot be handled as a {kind}: {why}")
        self.why = why


@dataclass(slots=True)
class WriteOptions:
    """What a client may say of a write beside the object itself."""

    user: UserInfo
    verb: str = "update"
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    """Texts for `Warning` headers, collected on the way."""
    duplicates: list[str] = field(default_factory=list)
    """Fields that the body has twice, to be reported with those that nobody knows."""
    places: dict[str, int] = field(default_factory=dict)
    """Where in the body each complaint's field stands, known when there are duplicates."""
    sorted_fields: bool = False
    """The body was YAML."""
    check_access: Callable[[str], Awaitable[None]] | None = None
    """Asks whether the sender may also do another verb (create, for a PUT or an apply of what does not exist)."""


def take_in(resource: Resource, version: Version, body: Obj, options: WriteOptions, known: Obj | None = None) -> Obj:
    """From what a client sent to the storage version: types checked, unknown fields dropped (and reported as
    `fieldValidation` says), defaults filled in. `known` is the object as it was, in the form the client speaks."""
    unknown: list[str] | None = [] if options.field_validation != "Ignore" else None
    sent = body.get("metadata")
    resets_owners = isinstance(sent, dict) and sent.get("managedFields") == []
    if resource.custom:
        drop_nulls(version.schema, body)
        try:
            dropped = conform_metadata(version.schema, body, _object_meta())
        except DecodeError as error:
            raise Undecodable(f'{resource.kind} in version "{version.version}"', resource.kind, str(error)) from None
        dropped += prune(version.schema, body)
        if unknown is not None:
            unknown.extend(f'unknown field "{path}"' for path in dropped)
    else:
        try:
            body = (
                _in_form(version.schema, body, unknown, known) if known else _new_in_form(version.schema, body, unknown)
            )
        except DecodeError as error:
            raise Undecodable(f'{resource.kind} in version "{version.version}"', resource.kind, str(error)) from None
    if problems := order_problems(unknown or (), options):
        report_strict(problems, options, f'{resource.kind} in version "{version.version}"', resource.kind)
    if resource.custom:
        apply_defaults(version.schema, body)
    if not isinstance(body.get("metadata"), dict):
        body["metadata"] = {}
    if resets_owners:
        body["metadata"]["managedFields"] = []  # an empty list says something here
    obj = version.to_storage(body) if version.to_storage is not None else body
    obj["kind"], obj["apiVersion"] = resource.kind, resource.storage.api_version
    resource.strategy.default(obj)
    return obj


def _in_form(schema: Schema, body: Obj, unknown: list[str] | None, known: Obj | None) -> Obj:
    body = conform(schema, body, unknown=unknown, known=known)
    apply_defaults(schema, body)
    return body


def _new_in_form(schema: Schema, body: Obj, unknown: list[str] | None) -> Obj:
    """The same. Many objects are made with the same spec: what it came to is remembered, if it was all well formed."""
    spec = body.get("spec")
    if not spec:
        return _in_form(schema, body, unknown, None)
    content = orjson.dumps(spec)
    seen = _specs.get((schema, content), len(content))
    if seen is not None:
        rest = _in_form(schema, {name: value for name, value in body.items() if name != "spec"}, unknown, None)
        rest["spec"] = orjson.loads(seen)
        return {name: rest[name] for name in dict.fromkeys((*body, *rest)) if name in rest}  # in the body's order
    strange: list[str] = []
    body = _in_form(schema, body, strange, None)
    if strange and unknown is not None:
        unknown += strange
    if not strange and "spec" in body:
        _specs.put((schema, content), len(content), orjson.dumps(body["spec"]))
    return body


_specs: Memo[bytes] = Memo()
"""By schema and JSON as it was sent."""


def take_in_call(resource: Resource, version: Version, namespace: str, body: Obj, options: WriteOptions) -> Obj:
    """The body of a kind that is only answered (a review): in the storage version, checked and defaulted."""
    obj = take_in(resource, version, body, options)
    match_namespace(resource, obj["metadata"], namespace)
    errors = resource.strategy.validate(obj)
    if errors:
        raise invalid_object(resource.group, resource.kind, obj["metadata"].get("name", ""), errors)
    return obj


def take_in_view(schema: Schema, kind: str, body: Obj, options: WriteOptions) -> Obj:
    """The body of a subresource of a kind of its own, checked and defaulted."""
    unknown: list[str] | None = [] if options.field_validation != "Ignore" else None
    try:
        body = conform(schema, body, unknown=unknown)
    except DecodeError as error:
        raise Undecodable(kind, kind, str(error)) from None
    if problems := order_problems(unknown or (), options):
        report_strict(problems, options, kind, kind)
    apply_defaults(schema, body)
    return body


def put_view(resource: Resource, subresource: Subresource, view: Obj, old: Obj, options: WriteOptions) -> Obj:
    """A subresource's own body (Scale, Eviction, ...) put into the object it is a view of."""
    if subresource.schema is not None:
        kind = subresource.kind.kind if subresource.kind is not None else resource.kind
        view = take_in_view(subresource.schema, kind, view, options)
    assert subresource.update is not None
    sent = view.get("metadata") or {}
    if sent.get("name"):
        match_name(sent, old["metadata"]["name"])
    new = subresource.update(view, clone(old))
    for key in ("resourceVersion", "uid"):
        if sent.get(key):
            new["metadata"][key] = sent[key]
    return new


def present(resource: Resource, version: Version, obj: Obj, subresource: Subresource | None = None) -> Obj:
    """An object of the storage version in the form a request speaks. It is the caller's to give: it is not copied."""
    if subresource is not None and subresource.read is not None:
        return subresource.read(obj)
    view = obj if version.from_storage is None else version.from_storage(obj)
    view["kind"], view["apiVersion"] = resource.kind, version.api_version
    return view


def converter(resource: Resource, version: Version) -> Convert | None:
    """For managed fields of several versions: how an object of `version` looks in another one of its kind."""
    if len(resource.versions) == 1:
        return None

    def convert(obj: Obj, api_version: str) -> tuple[Obj, Schema] | None:
        wanted = next((each for each in resource.versions if each.api_version == api_version), None)
        if wanted is None:
            return None
        stored = clone(obj)
        if version.to_storage is not None:
            stored = version.to_storage(stored)
        return present(resource, wanted, stored), wanted.schema

    return convert


def report_strict(problems: list[str], options: WriteOptions, what: str, kind: str) -> None:
    """Unknown and duplicate fields: an error under `Strict`, warnings under `Warn`."""
    if options.field_validation == "Strict":
        raise Undecodable(what, kind, f"strict decoding error: {', '.join(problems)}")
    if options.field_validation == "Warn":
        for problem in problems:
            lines = problem.removeprefix("yaml: unmarshal errors:\n").split("\n")
            options.warnings.extend(line.strip() for line in lines)


def order_problems(unknown: Sequence[str], options: WriteOptions) -> list[str]:
    """Unknown and repeated fields in upstream's order: that of the document, or by name when it came as YAML (which
    is turned into sorted JSON before anybody looks for fields; repeated ones are found before)."""
    if options.sorted_fields:
        return [*options.duplicates, *sorted(unknown, key=_by_name)]
    problems = [*unknown, *options.duplicates]
    if options.places:
        problems.sort(key=lambda problem: options.places.get(problem, 0))
    return problems


def _by_name(problem: str) -> list[tuple[int, str]]:
    steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", problem)
    return [(int(index), "") if index else (-1, name) for index, name in steps]


@cache
def _object_meta() -> Schema:
    return catalog.schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
