"""From cached bytes to what a client asked for: JSON as it is, YAML, protobuf, Tables, metadata alone.

A `Rendering` belongs to a kind, a version and a negotiated form, and is kept as long as these. The plain JSON one,
which nearly all traffic uses, only joins bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import orjson

from shipwheel.api import codec, table
from shipwheel.api.clock import SystemClock
from shipwheel.api.codec import MediaType
from shipwheel.api.meta import GroupVersionKind, Obj
from shipwheel.api.resource import Resource, Version
from shipwheel.apiserver.watchcache import Change, Entry
from shipwheel.client.httpserver import frame
from shipwheel.kinds import wire

GROUP = 32
"""How many items of a long list are rendered before others have their turn."""


def head_of(kind: str, api_version: str) -> bytes:
    return b'{"kind":"%b","apiVersion":"%b",' % (kind.encode(), api_version.encode())


class Rendering:
    """The plain JSON form. Subclasses override `one`; lists and frames follow from it."""

    content_type = "application/json"
    watch_content_type = "application/json"

    def __init__(self, resource: Resource, version: Version, form: MediaType) -> None:
        self.resource = resource
        self.version = version
        self.form = form
        self.head = head_of(resource.kind, str(version.group_version))
        self.item_kind = resource.kind
        self.list_kind = resource.list_kind or f"{resource.kind}List"
        self.list_version = str(version.group_version)
        self.convert = version.from_storage
        self.key: tuple[object, ...] = (form, str(version.group_version))

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

    def list(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> bytes:
        """The objects as a list, whole."""
        return b"".join(self.pieces(entries, metadata, now))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        """The same piece by piece, so that a long list neither blocks others nor is in memory twice."""
        yield self.opening(metadata, now)
        for start in range(0, len(entries), GROUP):
            if start:
                yield b","
            yield self.joined(entries[start : start + GROUP], now)
        yield b"]}"

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

    def one(self, entry: Entry) -> bytes:
        return codec.encode_yaml(self.view(entry))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        yield codec.encode_yaml(orjson.loads(b"".join(super().pieces(entries, metadata, now))))

    def event(self, kind: str, entry: Entry) -> bytes:
        return b"---\n" + codec.encode_yaml({"type": kind, "object": self.view(entry)})


class TableRendering(Rendering):
    """`as=Table`: what kubectl prints."""

    def __init__(self, resource: Resource, version: Version, form: MediaType, include: str) -> None:
        super().__init__(resource, version, form)
        self.include = include or "Metadata"
        self.columns = version.columns if version.columns is not None else resource.columns
        self.key = (form, str(version.group_version), self.include)
        self.content_type = f"application/json;as=Table;g=meta.k8s.io;v={form.version}"

    def one(self, entry: Entry) -> bytes:
        return self.list([entry], {"resourceVersion": str(entry.revision)}, SystemClock().now())

    def opening(self, metadata: Obj, now: datetime) -> bytes:
        empty = table.table(
            [], self.columns, now=now, include=self.include, metadata=metadata, version=self.form.version
        )
        return orjson.dumps(empty).removesuffix(b"]}")

    def joined(self, entries: Sequence[Entry], now: datetime) -> bytes:
        return orjson.dumps([self._row(entry, now) for entry in entries])[1:-1]

    def _row(self, entry: Entry, now: datetime) -> Obj:
        """Columns read the stored form, unless the version brings its own."""
        view = self.view(entry)
        stored = view if self.convert is None or self.version.columns is not None else entry.decode()
        columns = self.columns or table.DEFAULT_COLUMNS
        return table.row(stored, columns, now=now, include=self.include, version=self.form.version, beside=view)


class PartialRendering(Rendering):
    """`as=PartialObjectMetadata` and its list: metadata alone."""

    def __init__(self, resource: Resource, version: Version, form: MediaType) -> None:
        super().__init__(resource, version, form)
        self.item_kind = "PartialObjectMetadata"
        self.list_kind = "PartialObjectMetadataList"
        self.list_version = f"meta.k8s.io/{form.version}"
        self.content_type = f"application/json;as={form.as_kind};g=meta.k8s.io;v={form.version}"

    def one(self, entry: Entry) -> bytes:
        metadata = orjson.loads(b"{" + entry.tail)["metadata"]
        return orjson.dumps({"kind": "PartialObjectMetadata", "apiVersion": self.list_version, "metadata": metadata})

    def joined(self, entries: Sequence[Entry], now: datetime) -> bytes:
        return b",".join([self.one(entry) for entry in entries])


class ProtobufRendering(Rendering):
    """What client-go and controller-runtime speak for built-in kinds."""

    content_type = "application/vnd.kubernetes.protobuf"
    watch_content_type = "application/vnd.kubernetes.protobuf;stream=watch"

    def __init__(self, resource: Resource, version: Version, form: MediaType) -> None:
        super().__init__(resource, version, form)
        self.gvk = GroupVersionKind(version.group, version.version, resource.kind)

    def one(self, entry: Entry) -> bytes:
        return wire.encode_object(self.view(entry))

    def pieces(self, entries: Sequence[Entry], metadata: Obj, now: datetime) -> Iterator[bytes]:
        items: list[bytes] = []
        for start in range(0, len(entries), GROUP):
            items += [wire.encode_item(self.gvk, self.view(entry)) for entry in entries[start : start + GROUP]]
            yield b""  # its length comes first, so nothing can be sent yet; but others may have their turn
        yield wire.encode_list(self.list_version, self.list_kind, metadata, items)

    def event(self, kind: str, entry: Entry) -> bytes:
        return wire.watch_frame(kind, self.one(entry))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        obj = orjson.loads(self._bookmark(revision, initial_end))
        return frame(wire.watch_frame("BOOKMARK", wire.encode_object(obj)))

    def error(self, status: Obj) -> bytes:
        return frame(wire.watch_frame("ERROR", wire.encode_object(status)))


class PartialProtobufRendering(ProtobufRendering):
    """Metadata alone, in protobuf; custom resources have this form too."""

    def __init__(self, resource: Resource, version: Version, form: MediaType) -> None:
        super().__init__(resource, version, form)
        self.item_kind = "PartialObjectMetadata"
        self.list_kind = "PartialObjectMetadataList"
        self.list_version = f"meta.k8s.io/{form.version}"
        self.gvk = GroupVersionKind("meta.k8s.io", form.version, self.item_kind)
        self.content_type = f"{self.content_type};as={form.as_kind};g=meta.k8s.io;v={form.version}"

    def view(self, entry: Entry) -> Obj:
        metadata = orjson.loads(b"{" + entry.tail)["metadata"]
        return {"kind": self.item_kind, "apiVersion": self.list_version, "metadata": metadata}


def rendering(resource: Resource, version: Version, form: MediaType, include: str = "") -> Rendering:
    """The rendering for a negotiated form."""
    if form.as_kind == "Table":
        return TableRendering(resource, version, form, include)
    if form.as_kind in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return (PartialProtobufRendering if form.format == "protobuf" else PartialRendering)(resource, version, form)
    by_format = {"yaml": YamlRendering, "protobuf": ProtobufRendering}
    return by_format.get(form.format, Rendering)(resource, version, form)


def render_object(obj: Obj, form: MediaType) -> tuple[bytes, str]:
    """Bytes and content type of an object that is no stored kind's (Status, Scale, reviews)."""
    if form.format == "yaml":
        return codec.encode_yaml(obj), "application/yaml"
    if form.format == "protobuf":
        return wire.encode_object(obj), ProtobufRendering.content_type
    return orjson.dumps(obj), "application/json"


def render_table(answer: Obj, resource: Resource, form: MediaType, include: str, now: datetime) -> bytes:
    """What a kind without storage answered, an object or a list, as a Table."""
    items = answer.get("items", [answer])
    rows = table.table(items, resource.columns, now=now, include=include, version=form.version)
    return orjson.dumps(rows)
