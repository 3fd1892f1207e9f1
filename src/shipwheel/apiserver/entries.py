"""An object as the bytes that go out.

An object is kept as its *tail*: its JSON in the storage version from `"metadata":` to the end, with the resource
version spliced in. What precedes the tail in an answer (the brace, kind and apiVersion) is the same for all objects
of a kind, so a LIST joins tails; and nothing is decoded unless a selector, a decision or another encoding needs it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import orjson

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Resource
from shipwheel.api.schema import apply_defaults, has_defaults, prune

_METADATA = b'"metadata":{'
NAMES = frozenset({"metadata.name", "metadata.namespace"})
"""The selectable fields that need no decoding."""


class Entry:
    """An object at a revision. `labels` and `field(...)` decode on first use and keep what they found."""

    __slots__ = ("_fields", "_labels", "_obj", "forms", "key", "resource", "revision", "tail")

    def __init__(self, resource: Resource, key: str, tail: bytes, revision: int) -> None:
        self.resource = resource
        self.key = key
        """Below the kind's prefix: `namespace/name`, or `name`."""
        self.tail = tail
        self.revision = revision
        self.forms: dict[Hashable, Any] | None = None
        """What was made of it for some encoding, kept for the next who asks (see `forms`)."""
        self._obj: Obj | None = None
        self._labels: dict[str, str] | None = None
        self._fields: dict[str, str] | None = None

    def decode(self) -> Obj:
        """A fresh copy, in the storage version."""
        obj: Obj = orjson.loads(self.resource.type_meta + self.tail)
        return obj

    def peek(self) -> Obj:
        """The decoded object, kept for the next one who asks: not to be changed."""
        if self._obj is None:
            self._obj = self.decode()
        return self._obj

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0] if self.resource.namespaced else ""

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def labels(self) -> dict[str, str]:
        if self._labels is None:
            self.index()
        return self._labels  # type: ignore[return-value]

    @property
    def fields(self) -> dict[str, str]:
        """The values of all selectable fields, empty where unset."""
        if self._fields is None:
            self.index()
        return self._fields  # type: ignore[return-value]

    @property
    def names(self) -> dict[str, str]:
        """The selectable fields that need no decoding."""
        return {"metadata.name": self.name, "metadata.namespace": self.namespace}

    def field(self, name: str) -> str:
        return self.names[name] if name in NAMES else self.fields.get(name, "")

    @property
    def is_indexed(self) -> bool:
        return self._labels is not None

    def index(self) -> None:
        """Find out what selectors may ask for."""
        obj = self._obj if self._obj is not None else self.decode()
        self._labels = obj["metadata"].get("labels") or {}
        self._fields = {name: read(obj) for name, read in self.resource.selectable.items()} | self.names

    def at(self, revision: int) -> Entry:
        """The same object with another resource version: as a deletion shows it."""
        rest = self.tail[self.tail.index(b",", len(_METADATA)) :]
        return Entry(self.resource, self.key, b'"metadata":{"resourceVersion":"%d"%b' % (revision, rest), revision)


def make_entry(resource: Resource, key: str, value: bytes, revision: int) -> Entry:
    """Splice the revision into stored bytes. What was not written by this program in this storage version is
    decoded and encoded once, so that the tail always has the one form."""
    head = resource.type_meta
    start = len(head)
    if not (value.startswith(head) and value.startswith(_METADATA, start)):
        value = _normalize(resource, value)
    if resource.custom:
        value = _reshape(resource, value)
    body = value[start + len(_METADATA) :]
    return Entry(resource, key, b'"metadata":{"resourceVersion":"%d",%b' % (revision, body), revision)


def _normalize(resource: Resource, value: bytes) -> bytes:
    obj: Obj = orjson.loads(value)
    stored_as = obj.get("apiVersion")
    if stored_as != resource.storage.api_version:
        for version in resource.versions:
            if version.api_version == stored_as and version.to_storage is not None:
                obj = version.to_storage(obj)
    ordered: Obj = {
        "kind": resource.kind,
        "apiVersion": resource.storage.api_version,
        "metadata": obj.pop("metadata", {}),
    }
    ordered["metadata"].pop("resourceVersion", None)
    obj.pop("kind", None)
    obj.pop("apiVersion", None)
    ordered.update(obj)
    return orjson.dumps(ordered)


def _reshape(resource: Resource, value: bytes) -> bytes:
    """A custom object by the rules of today: since it was stored, its definition may have got defaults and lost
    fields."""
    schema = resource.storage.schema
    obj: Obj = orjson.loads(value)
    pruned = prune(schema, obj)
    if has_defaults(schema):
        apply_defaults(schema, obj)
    elif not pruned:
        return value
    return orjson.dumps(obj)


def forget_forms(entry: Entry) -> None:
    """Let go of what was made of an entry that is no longer the newest."""
    entry.forms = None
    entry._obj = None
