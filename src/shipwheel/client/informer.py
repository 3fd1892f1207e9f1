"""Informers: a local, indexed copy of a part of the API, kept up to date by list and watch.

Level-triggered controllers read these copies and act on differences, so a copy may lag but must never go back
in time: after a failure it resumes from where it was, and asks for a new list only at least as new as what it
has (as client-go's reflector does). There is no periodic resync; a handler sees each change once.

Everything runs in one event loop: a handler is a plain function, called in the order of changes right after
the copy was changed. Objects are shared by all readers and must not be changed by any.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.kubeconfig import ConfigError

log = logging.getLogger(__name__)

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
Handler = Callable[[EventType, Obj | None, Obj | None], None]
"""(type, new, old): `new` is None when deleted (`old` is its last state), `old` is None when added."""
Indexer = Callable[[Obj], Iterable[str]]
Transform = Callable[[Obj], Obj]

_BACKOFF_START = 0.8
_BACKOFF_MAX = 30.0
_BACKOFF_RESET = 120.0
_WATCH_SECONDS = 300.0


def drop_managed_fields(obj: Obj) -> Obj:
    """A transform: nobody but the API server's apply reads managed fields, and they are half of an object."""
    obj["metadata"].pop("managedFields", None)
    return obj


class Store:
    """Objects by namespace and name, with indexes: the part of an informer that needs no server."""

    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        self._objects: dict[str, dict[str, Obj]] = {}
        self.version = 0
        """Another one after each change, for those who keep what they have worked out."""
        self._indexers = dict(indexers or {})
        self._indexes: dict[str, dict[str, dict[tuple[str, str], Obj]]] = {name: {} for name in self._indexers}

    def __len__(self) -> int:
        return sum(len(names) for names in self._objects.values())

    def get(self, namespace: str, name: str) -> Obj | None:
        names = self._objects.get(namespace)
        return names.get(name) if names else None

    def list(self, namespace: str = "") -> list[Obj]:
        """All objects, or those of one namespace, in no particular order."""
        if namespace:
            return [*self._objects.get(namespace, {}).values()]
        return [obj for names in self._objects.values() for obj in names.values()]

    def by_index(self, name: str, value: str) -> Iterable[Obj]:
        """The objects for which the indexer called `name` gave `value`."""
        found = self._indexes[name].get(value)
        return tuple(found.values()) if found else ()

    def index_values(self, name: str) -> Iterable[str]:
        """The values that an index has objects for."""
        return tuple(self._indexes[name])

    def add_indexers(self, indexers: Mapping[str, Indexer]) -> None:
        """Add indexes, also over the objects already here. One of a name that exists must be the same one."""
        for name, indexer in indexers.items():
            if name in self._indexers:
                continue
            self._indexers[name] = indexer
            self._indexes[name] = {}
            for obj in self.list():
                self._file(name, indexer, obj)

    def put(self, obj: Obj) -> Obj | None:
        """Add or replace an object; returns the one it replaces."""
        self.version += 1
        meta = obj["metadata"]
        names = self._objects.setdefault(meta.get("namespace", ""), {})
        old = names.get(meta["name"])
        names[meta["name"]] = obj
        for name, indexer in self._indexers.items():
            if old is not None:
                self._unfile(name, indexer, old)
            self._file(name, indexer, obj)
        return old

    def remove(self, namespace: str, name: str) -> Obj | None:
        names = self._objects.get(namespace, {})
        old = names.pop(name, None)
        if old is not None:
            self.version += 1
            if not names:
                del self._objects[namespace]
            for index, indexer in self._indexers.items():
                self._unfile(index, indexer, old)
        return old

    def _file(self, name: str, indexer: Indexer, obj: Obj) -> None:
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        index = self._indexes[name]
        for value in indexer(obj):
            index.setdefault(value, {})[key] = obj

    def _unfile(self, name: str, indexer: Indexer, obj: Obj) -> None:
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        index = self._indexes[name]
        for value in indexer(obj):
            entries = index.get(value)
            if entries is not None:
                entries.pop(key, None)
                if not entries:
                    del index[value]


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far a copy must have got: a version to have seen, and uids that are to be gone."""

    version: int = 0
    gone: frozenset[str] = frozenset()

    def __or__(self, other: Frontier) -> Frontier:
        return Frontier(max(self.version, other.version), self.gone | other.gone)


def version_number(meta: Obj) -> int:
    """The resource version in an object's metadata as a number; 0 when it has none, or none that is a number."""
    text = meta.get("resourceVersion") or ""
    return int(text) if text.isdecimal() else 0


class Informer(Store):
    """A store that follows the API. `run()` must be running for it to fill; `wait_synced()` waits for that."""

    def __init__(
        self,
        client: Client,
        gvr: GroupVersionResource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
        transform: Transform | None = None,
        metadata_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(indexers)
        self.gvr = gvr
        self._client = client
        self._clock = clock or client.clock
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._metadata_only = metadata_only
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._kind: tuple[str, str] | None = None
        self.resource_version = ""
        """Of the newest change seen."""

    @property
    def synced(self) -> bool:
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return when the first whole list has been taken in and handled."""
        await self._synced.wait()

    def add_handler(self, on_event: Handler) -> None:
        """Call `on_event` for every change from now on, and first for every object already here."""
        self._handlers.append(on_event)
        for obj in self.list():
            on_event("ADDED", obj, None)

    def remove_handler(self, on_event: Handler) -> None:
        self._handlers.remove(on_event)

    async def run(self) -> None:
        """Follow the API until cancelled. Failures are logged and tried again, ever more slowly."""
        backoff = _Backoff(self._clock)
        while True:
            try:
                if not self.resource_version or not self.synced:
                    await self._relist()
                await self._follow(backoff)
            except ApiError as error:
                if error.code == 410:
                    log.info("%s: %s; listing again", self.gvr.group_resource, error)
                    try:
                        await self._relist()
                        continue
                    except (ApiError, ConnectionFailed, ConfigError) as again:
                        self._report(again)
                else:
                    self._report(error)
                await backoff.wait()
            except (ConnectionFailed, ConfigError) as error:
                self._report(error)
                await backoff.wait()

    async def frontier(self, namespace: str) -> Frontier:
        """How far this copy must get to show all that the server has by now in a namespace, by a read of its own.
        Raises as any read does."""
        listing = await self._client.list(self.gvr, namespace, metadata_only=True)
        metas = [obj["metadata"] for obj in listing["items"]]
        uids = {meta["uid"] for meta in metas}
        return Frontier(
            max((version_number(meta) for meta in metas), default=0),
            frozenset(obj["metadata"]["uid"] for obj in self.list(namespace)) - uids,
        )

    def has_reached(self, frontier: Frontier, namespace: str) -> bool:
        """This copy shows everything up to there."""
        if int(self.resource_version or 0) < frontier.version:
            return False
        return not frontier.gone or frontier.gone.isdisjoint(obj["metadata"]["uid"] for obj in self.list(namespace))

    def _report(self, error: Exception) -> None:
        log.warning("failed to list and watch %s: %s", self.gvr.group_resource, error)

    async def _relist(self) -> None:
        """Replace everything by a new list, at least as new as what is here.

        The first is the newest there is, not just what the server has at hand: whoever takes over from another
        must see everything that one has done.
        """
        try:
            listing = await self._list(self.resource_version)
        except ApiError as error:
            # The version is gone, or ahead of a server that lags: the newest state serves as well.
            if error.code not in (410, 504) or not self.resource_version:
                raise
            listing = await self._list("")
        self._replace(listing)
        self._synced.set()

    async def _list(self, resource_version: str) -> Obj:
        return await self._client.list(
            self.gvr,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=resource_version,
            metadata_only=self._metadata_only,
        )

    def _replace(self, listing: Obj) -> None:
        kind = listing.get("kind", "").removesuffix("List")
        self._kind = (listing.get("apiVersion", ""), kind)
        items = listing.get("items") or ()
        present: set[tuple[str, str]] = set()
        for obj in items:
            # Items of a list do not carry their kind; everybody who writes references needs it.
            if "kind" not in obj and not self._metadata_only:
                obj["apiVersion"], obj["kind"] = self._kind
            meta = obj["metadata"]
            present.add((meta.get("namespace", ""), meta["name"]))
        gone = [
            (namespace, name)
            for namespace, names in self._objects.items()
            for name in names
            if (namespace, name) not in present
        ]
        for namespace, name in gone:
            self._forget(namespace, name)
        for obj in items:
            self._take(obj)
        self.resource_version = listing["metadata"].get("resourceVersion", "")

    async def _follow(self, backoff: _Backoff) -> None:
        """Take in changes until the watch ends, one way or another."""
        watch = self._client.watch(
            self.gvr,
            self._namespace,
            resource_version=self.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            # Spread over time, so that a server's watches do not all end at once.
            timeout=_WATCH_SECONDS * (1 + random.random()),
            metadata_only=self._metadata_only,
        )
        started = self._clock.monotonic()
        async for event in watch:
            obj = event.object
            version = obj["metadata"].get("resourceVersion", "")
            if not _is_newer(version, self.resource_version):
                continue  # a server may tell again what it has told; to take it in would be to go back in time
            if event.type == "DELETED":
                self._forget(obj["metadata"].get("namespace", ""), obj["metadata"]["name"], obj)
            elif event.type != "BOOKMARK":
                self._take(obj)
            self.resource_version = version
        if self._clock.monotonic() - started < 1:
            await backoff.wait()

    def _take(self, obj: Obj) -> None:
        if self._transform:
            obj = self._transform(obj)
        meta = obj["metadata"]
        old = self.get(meta.get("namespace", ""), meta["name"])
        if old is not None and old["metadata"].get("resourceVersion") == meta.get("resourceVersion"):
            return
        if old is not None and old["metadata"].get("uid") != meta.get("uid"):
            # Deleted and made again while we did not look: two things, so two events.
            self._forget(meta.get("namespace", ""), meta["name"])
            old = None
        self.put(obj)
        self._emit("ADDED" if old is None else "MODIFIED", obj, old)

    def _forget(self, namespace: str, name: str, last: Obj | None = None) -> None:
        old = self.remove(namespace, name)
        if old is not None:
            last = self._transform(last) if last is not None and self._transform else last
            self._emit("DELETED", None, last if last is not None else old)

    def _emit(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for handler in self._handlers:
            try:
                handler(kind, new, old)
            except Exception:
                log.exception("%s: a handler failed", self.gvr.group_resource)


def _is_newer(version: str, than: str) -> bool:
    """Versions of one resource are numbers that grow (KEP-5504); of others it is only known whether they differ."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than


class _Backoff:
    """0.8 s, doubling to 30 s, jittered, and from the start again after two quiet minutes: client-go's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delay = _BACKOFF_START
        self._last = clock.monotonic()

    async def wait(self) -> None:
        now = self._clock.monotonic()
        if now - self._last > _BACKOFF_RESET:
            self._delay = _BACKOFF_START
        await self._clock.sleep(self._delay * (1 + random.random()))
        self._delay = min(self._delay * 2, _BACKOFF_MAX)
        self._last = self._clock.monotonic()


class InformerFactory:
    """Informers shared by everybody who asks for the same thing."""

    def __init__(
        self, client: Client, clock: Clock | None = None, *, transform: Transform | None = drop_managed_fields
    ) -> None:
        self._client = client
        self._clock = clock or client.clock
        self._transform = transform
        self._informers: dict[tuple[object, ...], Informer] = {}
        self._group: asyncio.TaskGroup | None = None

    def informer(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
        metadata_only: bool = False,
    ) -> Informer:
        """The informer for this, made if it is new; `indexers` are added to it. It starts with `run()`, or at
        once when that is running already."""
        key = (gvr, namespace, label_selector, field_selector, metadata_only)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self._client,
                gvr,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                transform=self._transform,
                metadata_only=metadata_only,
                clock=self._clock,
            )
            if self._group is not None:
                self._group.create_task(informer.run(), name=f"informer {gvr.group_resource}")
        if indexers:
            informer.add_indexers(indexers)
        return informer

    def existing(self, gvr: GroupVersionResource) -> Informer | None:
        """The informer of all objects of a resource, if somebody has asked for it already."""
        return self._informers.get((gvr, "", "", "", False))

    async def wait_synced(self) -> None:
        """Return when every informer asked for so far has its first list."""
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    async def run(self) -> None:
        """Run all informers, present and future, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for informer in self._informers.values():
                    group.create_task(informer.run(), name=f"informer {informer.gvr.group_resource}")
                await asyncio.Event().wait()
            finally:
                self._group = None
