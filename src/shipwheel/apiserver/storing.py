"""The last step of a write: the store, and the cache that everybody reads from."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from shipwheel.api import codec
from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError, not_found
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Resource
from shipwheel.apiserver.entries import Entry, make_entry
from shipwheel.apiserver.requestmetrics import StoreRequestMetrics
from shipwheel.apiserver.watchcache import REGISTRY, WatchCache
from shipwheel.store.base import Mismatch, OutcomeUnknown, Store, StoreError

_TYPE = ("kind", "apiVersion", "metadata")


@dataclass(frozen=True, slots=True)
class Written:
    """What a write came to. `gone`: it removed the object, and `entry` is its last state."""

    entry: Entry
    created: bool = False
    gone: bool = False


class Storing:
    """Objects of the storage version, put into the store and taken out of it."""

    def __init__(
        self, store: Store, cache: WatchCache, *, event_ttl: float, clock: Clock, requests: StoreRequestMetrics
    ) -> None:
        """`event_ttl` is how many seconds objects of kinds that expire are kept; 0: for ever."""
        self.event_ttl = math.ceil(event_ttl)
        self.clock = clock
        self.requests = requests
        self.store = store
        self.cache = cache

    async def current(self, resource: Resource, namespace: str, name: str) -> Entry:
        """The newest state; ApiError NotFound."""
        await self.cache.freshen()
        entry = self.cache.of(resource).get(namespace, name)
        if entry is None:
            raise not_found(resource.group_resource, name)
        return entry

    async def put(self, resource: Resource, obj: Obj, expected: int) -> Entry:
        metadata = obj["metadata"]
        metadata.pop("resourceVersion", None)
        metadata.pop("selfLink", None)
        obj["kind"], obj["apiVersion"] = resource.kind, resource.storage.api_version
        value = _encoded(resource, obj)
        key = resource.key(metadata.get("namespace", ""), metadata["name"])
        ttl = self.event_ttl if resource.expires else 0
        begun = self.clock.monotonic()
        written = await _guard(self.store.put(key, value, expected=expected, ttl=ttl))
        self.requests.observe("update" if expected else "create", resource, self.clock.monotonic() - begun)
        await self.seen(written.mod_revision)
        below = key[len("/registry/") + len(resource.prefix) + 1 :]
        cached = self.cache.of(resource).entries.get(below)
        if cached is not None and cached.revision == written.mod_revision:
            return cached
        return make_entry(resource, below, value, written.mod_revision)

    async def remove(self, resource: Resource, entry: Entry, last: Obj | None) -> Written:
        """Take an object out for good, unless it was changed since (Mismatch). `last` is its last state, None when that
        is the entry's."""
        key = f"{REGISTRY}{resource.prefix}/{entry.key}"
        begun = self.clock.monotonic()
        removed = await _guard(self.store.delete(key, expected=entry.revision))
        self.requests.observe("delete", resource, self.clock.monotonic() - begun)
        revision = removed.mod_revision if removed is not None else entry.revision
        await self.seen(revision)
        gone = entry.at(revision) if last is None else self.imagined(resource, last, revision)
        return Written(gone, gone=True)

    async def catch_up(self, mismatch: Mismatch) -> None:
        """See what made a write fail, before it is tried again."""
        if mismatch.current is not None:
            await self.cache.reach(mismatch.current.mod_revision)
        else:
            await self.cache.freshen()

    async def seen(self, revision: int) -> None:
        """A write is answered when this server's own readers see it."""
        if revision > self.cache.revision:
            await self.cache.reach(revision)

    def imagined(self, resource: Resource, obj: Obj, revision: int | None) -> Entry:
        """An entry for an object that is not (or no longer) stored."""
        metadata = obj["metadata"]
        metadata.pop("resourceVersion", None)
        below = f"{metadata.get('namespace', '')}/{metadata['name']}" if resource.namespaced else metadata["name"]
        if revision is None:
            tail = _encoded(resource, {"metadata": metadata, **{k: v for k, v in obj.items() if k not in _TYPE}})[1:]
            return Entry(resource, below, tail, 0)
        value = _encoded(resource, {**obj, "kind": resource.kind, "apiVersion": resource.storage.api_version})
        return make_entry(resource, below, value, revision)


def _encoded(resource: Resource, obj: Obj) -> bytes:
    return codec.html_safe(codec.encode(obj)) if resource.html_safe else codec.encode(obj)


async def _guard(write: Awaitable[Any]) -> Any:
    try:
        return await write
    except OutcomeUnknown as error:
        raise ApiError(504, "Timeout", f"request timed out: {error}") from error
    except StoreError as error:
        raise ApiError(500, "InternalError", f"Internal error occurred: {error}") from error
