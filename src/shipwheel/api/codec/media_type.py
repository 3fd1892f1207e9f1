"""Which form of an answer a client wants, and which form its body has.

Kubernetes puts more than the encoding into media types: `application/json;as=Table;v=v1;g=meta.k8s.io` asks for
another kind altogether, `stream=watch` for frames, `profile` for a variant of discovery.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from shipwheel.api.errors import not_acceptable, unsupported_media_type
from shipwheel.api.meta import GroupVersionKind

Format = Literal["json", "yaml", "protobuf"]

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

_FORMATS: dict[str, Format] = {JSON: "json", YAML: "yaml", PROTOBUF: "protobuf"}
_CONTENT_TYPES: dict[Format, str] = {form: name for name, form in _FORMATS.items()}
_STREAMED: tuple[Format, ...] = ("json", "protobuf")
_STREAM_TYPES = [f"{_CONTENT_TYPES[form]};stream=watch" for form in _STREAMED]
_META_VERSIONS = ("v1", "v1beta1")
_LONGEST = 1024
"""A longer Accept header is nobody's."""

ALL: tuple[Format, ...] = ("json", "yaml", "protobuf")


@dataclass(frozen=True, slots=True)
class MediaType:
    """How to answer. `as_kind` is empty when the object itself is wanted; `group` and `version` are the kind's."""

    format: Format = "json"
    as_kind: str = ""
    group: str = ""
    version: str = ""
    stream: str = ""
    profile: str = ""
    pretty: bool = False

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self.format]

    @property
    def target(self) -> GroupVersionKind | None:
        return GroupVersionKind(self.group, self.version, self.as_kind) if self.as_kind else None


@dataclass(frozen=True, slots=True)
class _Clause:
    type: str
    subtype: str
    quality: float
    parameters: tuple[tuple[str, str], ...]

    def before(self, other: _Clause) -> bool:
        return (
            self.quality > other.quality
            or (self.type != "*" and other.type == "*")
            or (self.subtype != "*" and other.subtype == "*")
        )


def _clauses(header: str) -> list[_Clause]:
    """What the header asks for, best first; parts that cannot be read are passed over."""
    clauses: list[_Clause] = []
    for part in header.split(","):
        name, *rest = part.strip(" ").split(";")
        kind, _, subtype = (each.strip(" ") for each in name.partition("/"))
        if not subtype and kind == "*":
            subtype = "*"
        if not subtype or "/" in subtype:
            continue
        quality, parameters = 1.0, {}
        for each in rest:
            key, equals, value = each.partition("=")
            if not equals or not value or "=" in value:
                continue
            if key.strip(" ") == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
            else:
                parameters[key.strip(" ")] = value.strip(" ")
        clauses.append(_Clause(kind, subtype, quality, tuple(parameters.items())))
    ordered: list[_Clause] = []
    for clause in clauses:  # upstream's order is no total one, so its way of sorting (by insertion) matters
        place = len(ordered)
        while place > 0 and clause.before(ordered[place - 1]):
            place -= 1
        ordered.insert(place, clause)
    return ordered


def _is_meta(target: GroupVersionKind, form: Format) -> bool:
    """The kinds that every resource can be shown as."""
    if target.group != "meta.k8s.io" or target.version not in _META_VERSIONS:
        return False
    if target.kind == "Table":
        return form != "protobuf"
    return target.kind in ("PartialObjectMetadata", "PartialObjectMetadataList")


def negotiate(
    accept: str,
    *,
    formats: tuple[Format, ...] = ALL,
    targets: frozenset[GroupVersionKind] | None = None,
    stream: bool = False,
) -> MediaType:
    """The form of the answer to a request with this `Accept` header. Raises ApiError 406.

    `formats` are those of the object itself (custom resources have no protobuf). `targets` are the kinds it can
    be turned into; None: those of `meta.k8s.io`, in any form. `stream` is for a watch.
    """
    if len(accept) > _LONGEST:
        raise _refusal(stream=stream)
    return _negotiate(accept, formats, targets, stream)


@lru_cache(maxsize=512)
def _negotiate(
    accept: str, formats: tuple[Format, ...], targets: frozenset[GroupVersionKind] | None, stream: bool
) -> MediaType:
    if not accept:
        return MediaType()
    for clause in _clauses(accept):
        for name, form in _FORMATS.items():
            kind, _, subtype = name.partition("/")
            if clause.type not in ("*", kind) or clause.subtype not in ("*", subtype):
                continue
            if clause.type == "*" and clause.subtype != "*":
                continue
            found = _accept(clause, form, formats, targets)
            if found is None:
                continue
            if stream and form not in _STREAMED:
                raise _refusal(stream=True)
            return found
    raise _refusal(stream=stream)


def _accept(
    clause: _Clause, form: Format, formats: Collection[Format], targets: frozenset[GroupVersionKind] | None
) -> MediaType | None:
    parameters = dict(clause.parameters)
    wanted = parameters.get("stream", "")
    if wanted and (wanted != "watch" or form not in _STREAMED):
        return None
    if parameters.get("sv", "v1") != "v1":
        return None
    target: GroupVersionKind | None = None
    if parameters.keys() & {"as", "g", "v"}:
        target = GroupVersionKind(parameters.get("g", ""), parameters.get("v", ""), parameters.get("as", ""))
        if not (_is_meta(target, form) if targets is None else target in targets):
            return None
    elif form not in formats:
        return None
    return MediaType(
        format=form,
        as_kind=target.kind if target else "",
        group=target.group if target else "",
        version=target.version if target else "",
        stream=wanted,
        profile=parameters.get("profile", ""),
        pretty=parameters.get("pretty") == "1",
    )


OBJECT_ROUTE = (JSON, YAML, PROTOBUF)
"""What the routes of built-in kinds answer in, those of lists and watches apart."""
STREAM_ROUTE = (*OBJECT_ROUTE, *_STREAM_TYPES)


@lru_cache(maxsize=512)
def _is_routed(accept: str, route: tuple[str, ...]) -> bool:
    names = {each.partition(";")[0].strip(" ") for each in accept.split(",")}
    return not accept or "*/*" in names or not names.isdisjoint(route)


def check_route(accept: str, route: tuple[str, ...]) -> None:
    """Raises the 406 of a route that answers in none of what this `Accept` header asks for, before anybody looks
    closer. Upstream's router compares names as they are, and knows `*/*` but no `application/*`."""
    if not _is_routed(accept, route):
        raise not_acceptable(f"406: Not Acceptable\n\nAvailable representations: {', '.join(route)}", details={})


def takes_json(accept: str) -> bool:
    """Whether plain JSON is among what is asked for, as the documents of OpenAPI look at it; all the same to them is a
    header that nobody can read."""
    if not accept:
        return True
    clauses = _clauses(accept)
    return not clauses or any(each.type in ("*", "application") and each.subtype in ("*", "json") for each in clauses)


def _refusal(*, stream: bool) -> Exception:
    names = _STREAM_TYPES if stream else list(_FORMATS)
    return not_acceptable(f"only the following media types are accepted: {', '.join(names)}")


def content_format(content_type: str) -> Format:
    """The form of a body; JSON when it is not said. Raises ApiError 415."""
    if not content_type:
        return "json"
    form = _FORMATS.get(media_name(content_type))
    if form is None:
        raise unknown_format(list(_FORMATS))
    return form


def media_name(content_type: str) -> str:
    """`application/json` of `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def unknown_format(accepted: Sequence[str]) -> Exception:
    """The 415 that names what would have been taken."""
    return unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    )
