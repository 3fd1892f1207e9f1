"""Everything the store holds, as the bytes that go out: what GET, LIST and WATCH are answered from.

One watch over `/registry/` feeds a cache for each kind. The one piece of bytes that an object is kept as (see
`entries`) serves a GET, an item of a LIST and an event of a WATCH.

All of this happens in the event loop's thread without waiting, so a reader never sees half an event, and every
watcher has been written to before the next event is looked at.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shipwheel.api.errors import ApiError, expired
from shipwheel.api.resource import Resource
from shipwheel.api.selectors import FieldSelector, LabelSelector
from shipwheel.apiserver.entries import NAMES, Entry, forget_forms, make_entry
from shipwheel.store.base import Compacted, Event, KeyValue, Progress, Store, StoreError

log = logging.getLogger(__name__)

REGISTRY = "/registry/"
_LOAD_PAGE = 5000
HISTORY = 4096
HISTORY_BYTES = 16 << 20
"""How many changes of a kind are remembered; for what is older, the store is asked."""


class Change:
    """One event as watchers see it: what the object was and what it is now (for a deletion: the last state with
    the deletion's revision). `frames` keeps what was encoded for one watcher, for the next of the same format."""

    __slots__ = ("after", "before", "deleted", "frames", "namespace", "revision")

    def __init__(self, revision: int, before: Entry | None, after: Entry, deleted: bool) -> None:
        self.revision = revision
        self.before = before
        self.after = after
        self.namespace = after.namespace
        self.deleted = deleted
        self.frames: dict[Any, bytes] = {}


class Filter:
    """Which objects a reader wants: a namespace, a name, selectors. Frozen after construction."""

    __slots__ = ("everything", "fields", "labels", "names_only", "namespace", "pin")

    def __init__(
        self, namespace: str = "", labels: LabelSelector | None = None, fields: FieldSelector | None = None
    ) -> None:
        self.namespace = namespace
        self.labels = labels if labels is not None and not labels.is_everything else None
        self.fields = fields if fields is not None and not fields.is_everything else None
        self.everything = self.labels is None and self.fields is None
        self.names_only = self.fields is not None and self.fields.fields() <= NAMES
        self.pin: tuple[str, str] | None = None
        """(field, value) that every wanted object must have: lets an event find its watchers."""
        if self.fields is not None:
            for field in sorted(self.fields.fields()):
                value = self.fields.requires(field)
                if value is not None and field != "metadata.namespace":
                    self.pin = (field, value)
                    break

    @property
    def decodes(self) -> bool:
        """Whether objects must be decoded to know if they are wanted."""
        return self.labels is not None or (self.fields is not None and not self.names_only)

    def matches(self, entry: Entry) -> bool:
        return (not self.namespace or entry.namespace == self.namespace) and self.selects(entry)

    def selects(self, entry: Entry) -> bool:
        """The same of an entry in the right namespace."""
        if self.everything:
            return True
        if self.fields is not None and not self.fields.matches(entry.names if self.names_only else entry.fields):
            return False
        return self.labels is None or self.labels.matches(entry.labels)


class Watcher:
    """Somebody to be told of changes. `deliver(kind, change)` is called with ADDED, MODIFIED or DELETED."""

    __slots__ = ("deliver", "filter", "since")

    def __init__(self, wanted: Filter, since: int, deliver: Callable[[str, Change], None]) -> None:
        self.filter = wanted
        self.since = since
        self.deliver = deliver

    def offer(self, change: Change) -> None:
        if change.revision <= self.since:
            return
        wanted = self.filter
        if wanted.namespace and wanted.namespace != change.namespace:
            return
        is_in = not change.deleted and wanted.selects(change.after)
        was_in = change.before is not None and wanted.selects(change.before)
        if is_in:
            self.deliver("MODIFIED" if was_in else "ADDED", change)
        elif was_in:
            self.deliver("DELETED", change)


class ResourceCache:
    """All objects of one kind, in the order of their keys, their recent changes, and who watches them."""

    def __init__(self, resource: Resource, *, history: int = HISTORY) -> None:
        self.resource = resource
        self.prefix = f"{REGISTRY}{resource.prefix}/"
        self.entries: dict[str, Entry] = {}
        self.keys: list[str] = []
        self.size = 0
        """The bytes of all entries."""
        self.received = 0
        """How many events there were."""
        self.loads = 0
        """How often all was read."""
        self.changed_at = 0
        """The revision of the newest change."""
        self.recent: deque[Change] = deque()
        self.recent_since = 0
        """`recent` holds every change after this revision."""
        self._history = history
        self._recent_bytes = 0
        self.watchers: set[Watcher] = set()
        self._pinned: dict[str, dict[str, set[Watcher]]] = {}
        self._free: set[Watcher] = set()

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        for item in items:
            key = item.key[len(self.prefix) :]
            self.entries[key] = entry = make_entry(self.resource, key, item.value, item.mod_revision)
            self.size += len(entry.tail)
            self.changed_at = max(self.changed_at, item.mod_revision)
        self.keys = sorted(self.entries)
        self.recent_since = revision
        self.loads += 1

    def apply(self, event: Event) -> None:
        """Take an event in and tell the watchers."""
        key = event.key[len(self.prefix) :]
        before = self.entries.get(key)
        self.received += 1
        if event.current is not None:
            after = make_entry(self.resource, key, event.current.value, event.revision)
            if before is None:
                bisect.insort(self.keys, key)
            self.entries[key] = after
            self.size += len(after.tail)
            change = Change(event.revision, before, after, False)
        else:
            if before is None:
                return
            del self.entries[key]
            del self.keys[bisect.bisect_left(self.keys, key)]
            change = Change(event.revision, before, before.at(event.revision), True)
        if before is not None:
            self.size -= len(before.tail)
        self.changed_at = event.revision
        self.recent.append(change)
        self._recent_bytes += len(change.after.tail)
        while len(self.recent) > self._history or (self._recent_bytes > HISTORY_BYTES and len(self.recent) > 1):
            forgotten = self.recent.popleft()
            self.recent_since = forgotten.revision
            self._recent_bytes -= len(forgotten.after.tail)
        if self.watchers:
            for watcher in self._interested(change):
                watcher.offer(change)
        change.frames.clear()
        if before is not None:
            forget_forms(before)

    def change_of(self, event: Event) -> Change:
        """An event from the store's history, as a change."""
        key = event.key[len(self.prefix) :]
        before = None
        if event.previous is not None:
            before = make_entry(self.resource, key, event.previous.value, event.previous.mod_revision)
        if event.current is not None:
            after = make_entry(self.resource, key, event.current.value, event.revision)
            return Change(event.revision, before, after, False)
        last = before or make_entry(self.resource, key, b"{}", event.revision)
        return Change(event.revision, before, last.at(event.revision), True)

    # Reading.

    def get(self, namespace: str, name: str) -> Entry | None:
        return self.entries.get(f"{namespace}/{name}" if self.resource.namespaced else name)

    def span(self, namespace: str) -> tuple[int, int]:
        """The positions in `keys` of a namespace's objects (of all, without one)."""
        if not namespace or not self.resource.namespaced:
            return 0, len(self.keys)
        low = bisect.bisect_left(self.keys, f"{namespace}/")
        return low, bisect.bisect_left(self.keys, f"{namespace}0", low)

    def within(self, namespace: str) -> list[Entry]:
        """All entries of a namespace (all, without one), in order."""
        low, high = self.span(namespace)
        return [self.entries[key] for key in self.keys[low:high]]

    def select(self, wanted: Filter, *, start: str = "", limit: int = 0) -> tuple[list[Entry], int]:
        """The entries that a filter wants, in order, from the key `start` on; at most `limit` of them (0: all), and
        how many more there are."""
        if wanted.pin is not None and wanted.pin[0] == "metadata.name":
            found = self._select_by_name(wanted, start)
        else:
            low, high = self.span(wanted.namespace)
            if start:
                low = max(low, bisect.bisect_left(self.keys, start))
            entries = self.entries
            if wanted.everything:
                end = min(high, low + limit) if limit else high
                return [entries[key] for key in self.keys[low:end]], max(high - end, 0)
            found = [entry for key in self.keys[low:high] if wanted.selects(entry := entries[key])]
        if limit and len(found) > limit:
            return found[:limit], len(found) - limit
        return found, 0

    def _select_by_name(self, wanted: Filter, start: str) -> list[Entry]:
        name = wanted.pin[1]  # type: ignore[index]
        if wanted.namespace or not self.resource.namespaced:
            found = [self.get(wanted.namespace, name)]
        else:
            found = [entry for entry in map(self.entries.get, self.keys) if entry and entry.name == name]
        return [entry for entry in found if entry and entry.key >= start and wanted.matches(entry)]

    # Watching.

    def add_watcher(self, watcher: Watcher) -> None:
        self.watchers.add(watcher)
        self._home(watcher).add(watcher)

    def remove_watcher(self, watcher: Watcher) -> None:
        self.watchers.discard(watcher)
        home = self._home(watcher)
        home.discard(watcher)
        if watcher.filter.pin is not None and not home:
            field, value = watcher.filter.pin
            del self._pinned[field][value]
            if not self._pinned[field]:
                del self._pinned[field]

    def _home(self, watcher: Watcher) -> set[Watcher]:
        pin = watcher.filter.pin
        if pin is None:
            return self._free
        return self._pinned.setdefault(pin[0], {}).setdefault(pin[1], set())

    def _interested(self, change: Change) -> list[Watcher]:
        found = list(self._free)
        for field, by_value in self._pinned.items():
            value = change.after.field(field)
            found.extend(by_value.get(value, ()))
            if change.before is not None and (old := change.before.field(field)) != value:
                found.extend(by_value.get(old, ()))
        return found

    def changes_since(self, revision: int) -> list[Change] | None:
        """What happened after `revision`, or None when that is further back than remembered."""
        if revision < self.recent_since:
            return None
        return [change for change in self.recent if change.revision > revision]


class WatchCache:
    """The caches of all kinds, fed by one watch, and how fresh they are."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.revision = 0
        """Everything up to here has been taken in."""
        self.compacted = 0
        """What was before here is forgotten. A list that began before it cannot go on, even where nothing has
        changed since: clients count on a continue token's end."""
        self.caches: dict[str, ResourceCache] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._listeners: list[Callable[[ResourceCache, Change], None]] = []
        self._loading: dict[str, list[Event]] = {}
        self._freshening: asyncio.Future[int] | None = None
        self._next_freshening: asyncio.Future[int] | None = None
        self.connected = asyncio.Event()

    async def load(self, resources: Iterable[Resource]) -> None:
        """Read the store once. What belongs to no known kind (yet) is left aside."""
        for resource in resources:
            self.caches[resource.prefix] = ResourceCache(resource)
        by_prefix: dict[str, list[KeyValue]] = {prefix: [] for prefix in self.caches}
        revision, start, more = 0, None, True
        while more:
            page = await self.store.range(REGISTRY, start=start, limit=_LOAD_PAGE, revision=revision)
            revision = page.revision
            for item in page.items:
                prefix = self._prefix_of(item.key)
                if prefix is not None:
                    by_prefix[prefix].append(item)
            more = page.remaining > 0
            start = page.items[-1].key + "\0" if page.items else None
        for prefix, items in by_prefix.items():
            self.caches[prefix].load(items, revision)
        self.revision = revision
        self.connected.set()

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`. Raises `StoreError`."""
        await self.store.compact(revision)
        self.compacted = revision

    async def run(self) -> None:
        """Follow the store until cancelled; through losses of the store too."""
        while True:
            try:
                async for progress in self.store.watch(REGISTRY, after=self.revision):
                    self.connected.set()
                    self.take(progress)
            except Compacted:
                await self._reload()
            except StoreError as error:
                self.connected.clear()
                log.warning("watching the store broke off, trying again: %s", error)
                await asyncio.sleep(0.5)

    async def _reload(self) -> None:
        """We were away for longer than the store remembers: find out what changed by comparing."""
        for prefix, cache in list(self.caches.items()):
            page = await self.store.range(f"{REGISTRY}{prefix}/")
            present = {item.key: item for item in page.items}
            for key, entry in list(cache.entries.items()):
                if cache.prefix + key not in present:
                    cache.apply(Event(page.revision, cache.prefix + key, None, None))
                elif present[cache.prefix + key].mod_revision == entry.revision:
                    del present[cache.prefix + key]
            for item in sorted(present.values(), key=lambda each: each.mod_revision):
                cache.apply(Event(item.mod_revision, item.key, item, None))
            self.revision = max(self.revision, page.revision)
            cache.loads += 1
        self._wake()

    def take(self, progress: Progress) -> None:
        """Take in a batch of the store's events."""
        for event in progress.events:
            prefix = self._prefix_of(event.key)
            if prefix is None:
                continue
            if prefix in self._loading:
                self._loading[prefix].append(event)
                continue
            cache = self.caches[prefix]
            cache.apply(event)
            if self._listeners and cache.recent:
                change = cache.recent[-1]
                for listener in self._listeners:
                    listener(cache, change)
        self.revision = max(self.revision, progress.revision)
        if self._waiting:
            self._wake()

    def everything(self) -> Iterable[Entry]:
        """All entries of all kinds."""
        for cache in self.caches.values():
            yield from cache.entries.values()

    def on_change(self, listener: Callable[[ResourceCache, Change], None]) -> None:
        """Call `listener` with every change of every kind, at once (authorizers and admission index with it)."""
        self._listeners.append(listener)

    def _prefix_of(self, key: str) -> str | None:
        parts = key.split("/", 4)
        if len(parts) > 3:
            if parts[2] in self.caches:
                return parts[2]
            two = f"{parts[2]}/{parts[3]}"
            if two in self.caches:
                return two
        return None

    # Kinds that come and go.

    async def add(self, resource: Resource) -> None:
        """Serve another kind: read what the store has of it."""
        prefix = resource.prefix
        old = self.caches.get(prefix)
        cache = ResourceCache(resource)
        self.caches[prefix] = cache
        self._loading[prefix] = []
        try:
            page = await self.store.range(cache.prefix)
            cache.load(page.items, page.revision)
        finally:
            late = self._loading.pop(prefix)
        for event in late:
            if event.revision > page.revision:
                cache.apply(event)
        if old is not None:
            for watcher in list(old.watchers):
                old.remove_watcher(watcher)
                cache.add_watcher(watcher)

    def remove(self, resource: Resource) -> None:
        self.caches.pop(resource.prefix, None)

    def kinds(self) -> Iterator[tuple[Resource, ResourceCache]]:
        """Every kind that is stored, with its cache."""
        return ((cache.resource, cache) for cache in self.caches.values())

    def of(self, resource: Resource) -> ResourceCache:
        return self.caches[resource.prefix]

    # Freshness.

    async def reach(self, revision: int, *, patience: float = 3.0) -> None:
        """Wait until everything up to `revision` is here; ApiError 504 when that takes too long."""
        if revision <= self.revision:
            return
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        self._waiting.append((revision, arrived))
        if self.store.shared:
            await self.store.request_progress()
        alarm = loop.call_later(patience, _give_up, arrived)
        try:
            await arrived
        except TimeoutError:
            raise ApiError(
                504,
                "Timeout",
                f"Timeout: Too large resource version: {revision}, current: {self.revision}",
                details={
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                },
            ) from None
        finally:
            alarm.cancel()

    async def freshen(self) -> None:
        """Make sure that whatever was acknowledged before now is here (a linearizable read)."""
        if not self.store.shared:
            return
        # A question already on its way may have been answered before what we must see was written: join the next.
        if self._next_freshening is None:
            self._next_freshening = asyncio.ensure_future(self._ask_revision(self._freshening))
        await self.reach(await asyncio.shield(self._next_freshening))

    async def _ask_revision(self, previous: asyncio.Future[int] | None) -> int:
        """One question to the store at a time; all who wait meanwhile share the next."""
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        self._freshening, self._next_freshening = self._next_freshening, None
        return await self.store.revision()

    def _wake(self) -> None:
        still: list[tuple[int, asyncio.Future[None]]] = []
        for revision, arrived in self._waiting:
            if revision > self.revision:
                still.append((revision, arrived))
            elif not arrived.done():
                arrived.set_result(None)
        self._waiting = still

    async def history(self, cache: ResourceCache, after: int, until: int) -> list[Change]:
        """Changes of a kind in (after, until] from the store's own history. ApiError 410 when compacted."""
        changes: list[Change] = []
        if after >= until:
            return changes
        try:
            async for progress in self.store.watch(cache.prefix, after=after):
                changes.extend(cache.change_of(event) for event in progress.events if event.revision <= until)
                if progress.revision >= until:
                    break
                if self.store.shared:
                    await self.store.request_progress()
        except Compacted as gone:
            raise expired(f"too old resource version: {after} ({gone.oldest})") from None
        return changes


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())
