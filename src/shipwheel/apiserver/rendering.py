"""From cached bytes to what a client asked for: JSON as it is, YAML, protobuf, Tables, metadata alone.

A `Rendering` belongs to a kind, a version and a negotiated form, and is kept as long as these. The plain JSON one,
which nearly all traffic uses, only joins bytes. What the others make of an object is kept with it (`forms`), so that
it is made once for GETs, LISTs and WATCHes together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import orjson

from shipwheel.api import codec, table
from shipwheel.api.clock import SystemClock
from shipwheel.api.codec import MediaType
from shipwheel.api.errors import not_acceptable
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.resource import Column, Resource, Version
from shipwheel.api.scheme import Scheme
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.forms import Forms
from shipwheel.apiserver.turns import SLICE, slices
from shipwheel.apiserver.watchcache import Change
from shipwheel.client.httpserver import Request, Response, frame
from shipwheel.kinds import wire

PLAIN_TEXT = "text/plain; charset=utf-8"

_WITHOUT_PROTOBUF: tuple[codec.Format, ...] = ("json", "yaml")
"""Custom resources have no protobuf, nor have versions that today's release lacks."""


def head_of(kind: str, api_version: str) -> bytes:
    return b'{"kind":"%b","apiVersion":"%b",' % (kind.encode(), api_version.encode())


class Rendering:
    """The plain JSON form. Subclasses override `one`, or what is made of an entry to be kept, `make`."""

    content_type = "application/json"
    watch_content_type = "application/json"
    slice = SLICE
    """How many bytes of stored objects are dealt with in a turn."""

    def __init__(self, resource: Resource, version: Version, form: MediaType, forms: Forms) -> None:
        self.resource = resource
        self.version = version
        self.form = form
        self.forms = forms
        self.head = head_of(resource.kind, version.api_version)
        self.item_kind = resource.kind
        self.list_kind = resource.list_kind or f"{resource.kind}List"
        self.list_version = version.api_version
        self.convert = version.from_storage
        self.key = f"{form.format} {form.as_kind}.{form.version} {version.api_version}"
        """What the forms that are kept and the frames of events go by: one text for lists and watches alike."""

    def one(self, entry: Entry) -> bytes:
        """The object by itself."""
        if self.convert is None:
            return self.head + entry.tail
        return codec.encode(self.view(entry))

    def view(self, entry: Entry) -> Obj:
        """The object decoded, in the version asked for."""
        obj = entry.decode()
        if self.convert is not None:
            obj = self.convert(obj)
        obj["kind"], obj["apiVersion"] = self.resource.kind, self.list_version
        return obj

    def kept(self, entry: Entry) -> bytes:
        """What `make` makes of an entry: once, whoever asks."""
        forms = entry.forms
        made: bytes | None = forms.get(self.key) if forms is not None else None
        if made is None:
            made = self.make(entry)
            self.forms.keep(entry, self.key, made, len(made))
        return made

    def make(self, entry: Entry) -> bytes:
        return self.one(entry)

    def list(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> bytes:
        """The objects as a list, whole."""
        return b"".join(self.pieces(entries, metadata, now))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        """The same piece by piece, so that a long list neither blocks others nor is in memory twice."""
        piece = self.opening(metadata, now)
        for run in slices(entries, self.slice):
            yield piece + self.joined(run, now)
            piece = b","
        yield b"]}" if entries else piece + b"]}"

    def opening(self, metadata: Obj, now: datetime) -> bytes:
        return head_of(self.list_kind, self.list_version) + b'"metadata":%b,"items":[' % orjson.dumps(metadata)

    def joined(self, entries: Sequence[Entry], now: datetime) -> bytes:
        """Some items, with commas between. Those of built-in kinds do not say their kind."""
        if self.resource.custom:
            return b",".join([self.one(entry) for entry in entries])
        if self.convert is None:
            return b"{" + b",{".join([entry.tail for entry in entries])
        return b",".join([_without_type(self.view(entry)) for entry in entries])

    def frame(self, kind: str, change: Change) -> bytes:
        """A watch event, framed as a chunk; made once for all watchers of this form."""
        key = (kind, self.key)
        made = change.frames.get(key)
        if made is None:
            made = change.frames[key] = frame(self.event(kind, change.after))
        return made

    def event(self, kind: str, entry: Entry) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self.one(entry))

    def first_event(self, kind: str, entry: Entry) -> bytes:
        """The event that a watch begins with, where that says more than others."""
        return self.event(kind, entry)

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        return frame(b'{"type":"BOOKMARK","object":%b}\n' % self._bookmark(revision, initial_end))

    def _bookmark(self, revision: int, initial_end: bool) -> bytes:
        metadata: Obj = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        return orjson.dumps({"kind": self.item_kind, "apiVersion": self.list_version, "metadata": metadata})

    def error(self, status: Obj) -> bytes:
        return frame(b'{"type":"ERROR","object":%b}\n' % orjson.dumps(status))


def _without_type(obj: Obj) -> bytes:
    obj.pop("kind", None)
    obj.pop("apiVersion", None)
    return orjson.dumps(obj)


class YamlRendering(Rendering):
    content_type = "application/yaml"
    watch_content_type = "application/yaml;stream=watch"
    slice = SLICE // 16

    def one(self, entry: Entry) -> bytes:
        return codec.encode_yaml(self.view(entry))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        """Keys are in alphabetical order, so the items come before the kind."""
        yield codec.encode_yaml({"apiVersion": self.list_version}) + (b"items:\n" if entries else b"items: []\n")
        for run in slices(entries, self.slice):
            yield codec.encode_yaml([self._item(entry) for entry in run])
        yield codec.encode_yaml({"kind": self.list_kind, "metadata": metadata})

    def _item(self, entry: Entry) -> Obj:
        view = self.view(entry)
        if not self.resource.custom:
            del view["kind"], view["apiVersion"]
        return view

    def event(self, kind: str, entry: Entry) -> bytes:
        return b"---\n" + codec.encode_yaml({"type": kind, "object": self.view(entry)})


class YamlOf(Rendering):
    """YAML of what another rendering has as JSON: Tables, metadata alone."""

    content_type = "application/yaml"

    def __init__(self, other: Rendering) -> None:
        super().__init__(other.resource, other.version, other.form, other.forms)
        self._other = other

    def one(self, entry: Entry) -> bytes:
        return codec.encode_yaml(orjson.loads(self._other.one(entry)))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        yield codec.encode_yaml(orjson.loads(self._other.list(entries, metadata, now)))


class TableRendering(Rendering):
    """`as=Table`: what kubectl prints."""

    def __init__(self, resource: Resource, version: Version, form: MediaType, forms: Forms, include: str) -> None:
        super().__init__(resource, version, form, forms)
        self.include = include or "Metadata"
        self.columns = (version.columns if version.columns is not None else resource.columns) or table.DEFAULT_COLUMNS
        self.key += f" {self.include}"

    def one(self, entry: Entry) -> bytes:
        return self.list([entry], {"resourceVersion": str(entry.revision)}, SystemClock().now())

    def opening(self, metadata: Obj, now: datetime) -> bytes:
        empty = table.table(
            [], self.columns, now=now, include=self.include, metadata=metadata, version=self.form.version
        )
        return orjson.dumps(empty).removesuffix(b"]}")

    def joined(self, entries: Sequence[Entry], now: datetime) -> bytes:
        seconds = now.timestamp()
        return b",".join([self._row(entry, now, seconds) for entry in entries])

    def _row(self, entry: Entry, now: datetime, seconds: float) -> bytes:
        kept: table.KeptRow | None = entry.forms.get(self.key) if entry.forms is not None else None
        if kept is not None:
            return kept.at(seconds)
        stored, view = self._seen(entry)
        version, include, say = self.form.version, self.include, self.resource.row_conditions
        conditions = say(stored if self.version.columns is None else entry.decode()) if say is not None else ()
        kept = table.keep_row(
            stored, self.columns, include=include, version=version, beside=view, conditions=conditions
        )
        if kept is not None:
            self.forms.keep(entry, self.key, kept, kept.size)
            return kept.at(seconds)
        made = table.row(
            stored, self.columns, now=now, include=include, version=version, beside=view, conditions=conditions
        )
        return orjson.dumps(made)

    def first_event(self, kind: str, entry: Entry) -> bytes:
        return super().event(kind, entry)

    def event(self, kind: str, entry: Entry) -> bytes:
        rows = self.joined([entry], SystemClock().now())
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self._headless(str(entry.revision), rows))

    def _headless(self, revision: str, rows: bytes) -> bytes:
        """A Table of rows alone: whoever watches has been told of the columns."""
        empty = table.table(
            [], self.columns, now=SystemClock().now(), include=self.include, metadata={"resourceVersion": revision},
            version=self.form.version, headers=False,
        )  # fmt: skip
        return orjson.dumps(empty).removesuffix(b"]}") + rows + b"]}"

    def _bookmark(self, revision: int, initial_end: bool) -> bytes:
        """A row without content, which shows metadata alone whatever was asked for."""
        mark = orjson.loads(super()._bookmark(revision, initial_end))
        mark = table.partial_metadata(mark, version=self.form.version)
        return self._headless(str(revision), orjson.dumps({"cells": [""] * len(self.columns), "object": mark}))

    def _seen(self, entry: Entry) -> tuple[Obj, Obj]:
        """What columns read, and what is shown. Columns read the stored form, unless the version brings its own."""
        view = self.view(entry)
        if self.convert is None or self.version.columns is not None:
            return view, view
        return entry.decode(), view


class PartialRendering(Rendering):
    """`as=PartialObjectMetadata` and its list: metadata alone."""

    def __init__(self, resource: Resource, version: Version, form: MediaType, forms: Forms) -> None:
        super().__init__(resource, version, form, forms)
        self.item_kind = "PartialObjectMetadata"
        self.list_kind = "PartialObjectMetadataList"
        self.list_version = f"meta.k8s.io/{form.version}"

    def one(self, entry: Entry) -> bytes:
        return self.kept(entry)

    def make(self, entry: Entry) -> bytes:
        metadata = orjson.loads(b"{" + entry.tail)["metadata"]
        # Joined, since what the encoder returns has room for several times as much.
        return b"".join((head_of(self.item_kind, self.list_version), b'"metadata":', orjson.dumps(metadata), b"}"))

    def joined(self, entries: Sequence[Entry], now: datetime) -> bytes:
        return b",".join([self.kept(entry) for entry in entries])


class ProtobufRendering(Rendering):
    """What client-go and controller-runtime speak for built-in kinds."""

    content_type = "application/vnd.kubernetes.protobuf"
    watch_content_type = "application/vnd.kubernetes.protobuf;stream=watch"

    def __init__(self, resource: Resource, version: Version, form: MediaType, forms: Forms) -> None:
        super().__init__(resource, version, form, forms)
        self.gvk = GroupVersionKind(version.group, version.version, resource.kind)

    def one(self, entry: Entry) -> bytes:
        return wire.envelope(self.list_version, self.item_kind, self.kept(entry))

    def make(self, entry: Entry) -> bytes:
        """The message as it stands in a list, and in an envelope by itself."""
        return wire.encode_item(self.gvk, self.view(entry))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        begin = wire.list_metadata(metadata)
        pieces: list[bytes] = []
        size = len(begin)
        for run in slices(entries, self.slice):
            pieces.append(b"".join([wire.list_item(self.kept(entry)) for entry in run]))
            size += len(pieces[-1])
            yield b""  # its length comes first, so nothing can be sent yet; but others may have their turn
        yield wire.opening(self.list_version, self.list_kind) + wire.announce(size) + begin
        yield from pieces
        yield wire.CLOSING

    def event(self, kind: str, entry: Entry) -> bytes:
        return wire.watch_frame(kind, self.one(entry))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        obj = orjson.loads(self._bookmark(revision, initial_end))
        return frame(wire.watch_frame("BOOKMARK", wire.encode_object(obj)))

    def error(self, status: Obj) -> bytes:
        return frame(wire.watch_frame("ERROR", wire.encode_object(status)))


class PartialProtobufRendering(ProtobufRendering):
    """Metadata alone, in protobuf; custom resources have this form too."""

    def __init__(self, resource: Resource, version: Version, form: MediaType, forms: Forms) -> None:
        super().__init__(resource, version, form, forms)
        self.item_kind = "PartialObjectMetadata"
        self.list_kind = "PartialObjectMetadataList"
        self.list_version = f"meta.k8s.io/{form.version}"
        self.gvk = GroupVersionKind("meta.k8s.io", form.version, self.item_kind)

    def view(self, entry: Entry) -> Obj:
        metadata = orjson.loads(b"{" + entry.tail)["metadata"]
        return {"kind": self.item_kind, "apiVersion": self.list_version, "metadata": metadata}


def rendering(resource: Resource, version: Version, form: MediaType, include: str, forms: Forms) -> Rendering:
    """The rendering for a negotiated form."""
    if form.as_kind and form.format == "yaml":
        return YamlOf(rendering(resource, version, replace(form, format="json"), include, forms))
    if form.as_kind == "Table":
        return TableRendering(resource, version, form, forms, include)
    if form.as_kind in _PARTIAL:
        by_format: dict[str, type[Rendering]] = {"protobuf": PartialProtobufRendering}
        return by_format.get(form.format, PartialRendering)(resource, version, form, forms)
    by_format = {"yaml": YamlRendering, "protobuf": ProtobufRendering}
    return by_format.get(form.format, Rendering)(resource, version, form, forms)


_PARTIAL = ("PartialObjectMetadata", "PartialObjectMetadataList")
_SHOWING_ONE = ("get", "create", "update", "patch")


def _check_partial(wanted: str, resource: Resource, verb: str) -> None:
    """Refuse the metadata of one object where the answer is a list, and the reverse. A deletion may answer either."""
    package = resource.group.partition(".")[0] or "core"
    if verb in ("list", "deletecollection") and wanted == "PartialObjectMetadata":
        shown = "*unstructured.UnstructuredList" if resource.custom else f"*{package}.{resource.kind}List"
        raise not_acceptable(f"you requested {wanted}, but the requested object is a list ({shown})")
    if verb in _SHOWING_ONE and wanted == "PartialObjectMetadataList":
        shown = "*unstructured.Unstructured" if resource.custom else f"*{package}.{resource.kind}"
        raise not_acceptable(f"you requested {wanted}, but the requested object is not a list ({shown})")


class Renderings:
    """The renderings that requests ask for, each made once."""

    def __init__(self, scheme: Scheme, forms: Forms) -> None:
        self._scheme = scheme
        self._forms = forms
        self._known: dict[tuple[int, str, str, MediaType, str], Rendering] = {}
        self._generation = -1

    def asked_for(self, request: Request, resource: Resource, version: Version, verb: str) -> Rendering:
        """What the headers and query of a request want. ApiError 400 or 406."""
        accept = request.header("accept")
        streamed = verb in ("list", "watch")
        if not resource.custom:
            codec.check_route(accept, codec.STREAM_ROUTE if streamed else codec.OBJECT_ROUTE)
        formats = _WITHOUT_PROTOBUF if resource.custom or version.removed_in else codec.ALL_FORMATS
        form = codec.negotiate(accept, formats=formats, stream=verb == "watch")
        if form.as_kind in _PARTIAL:
            _check_partial(form.as_kind, resource, verb)
        include = request.parameter("includeObject") if form.as_kind == "Table" else ""
        if self._generation != self._scheme.generation:
            self._known.clear()
            self._generation = self._scheme.generation
        key = (id(resource), version.group, version.version, form, include)
        known = self._known.get(key)
        if known is None:
            if include:
                table.check_include(include)
            known = self._known[key] = rendering(resource, version, form, include, self._forms)
        return known


def render_object(obj: Obj, form: MediaType) -> tuple[bytes, str]:
    """Bytes and content type of an object that is no stored kind's (Status, Scale, reviews)."""
    if form.format == "yaml":
        return codec.encode_yaml(obj), "application/yaml"
    if form.format == "protobuf":
        return wire.encode_object(obj), ProtobufRendering.content_type
    return orjson.dumps(obj), "application/json"


def plain_not_found() -> Response:
    """404 for a path below no API at all."""
    return Response(404, b"404 page not found\n", content_type=PLAIN_TEXT)


def render_table(answer: Obj, columns: Sequence[Column], form: MediaType, include: str, now: datetime) -> bytes:
    """What is not stored as it is shown, an object or a list, as a Table."""
    metadata = {key: answer["metadata"][key] for key in ("resourceVersion",) if answer.get("metadata", {}).get(key)}
    items = answer.get("items", [answer])
    rows = table.table(items, columns, now=now, include=include, version=form.version, metadata=metadata)
    return orjson.dumps(rows)
