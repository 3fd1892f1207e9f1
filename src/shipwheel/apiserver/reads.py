"""GET, LIST and WATCH: answered from the watch cache, or from the store's past.

The meaning of `resourceVersion` and `resourceVersionMatch` is upstream's: unset is the newest, "0" whatever is at
hand, a number at least that (`NotOlderThan`) or exactly that (`Exact`). Pages are cut from the snapshot that the
first page saw.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError, bad_request, expired, not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Resource
from shipwheel.apiserver.entries import Entry, make_entry
from shipwheel.apiserver.forms import Forms
from shipwheel.apiserver.listoptions import ListOptions, parse_revision
from shipwheel.apiserver.rendering import Rendering
from shipwheel.apiserver.turns import Turns, slices
from shipwheel.apiserver.watch import Watch
from shipwheel.apiserver.watchcache import Change, Filter, ResourceCache, WatchCache
from shipwheel.client.histogram import Histogram
from shipwheel.client.httpserver import Request, Stream, StreamWriter
from shipwheel.client.metrics import exponential
from shipwheel.store.base import Compacted, FutureRevision

INCONSISTENT_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_TOKEN_VERSION = "meta.k8s.io/v1"
_WAITS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3)
_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a LIST found: entries of one snapshot, and the ListMeta that goes with them."""

    entries: list[Entry]
    metadata: Obj


Changes = Sequence[Change]


class Reader:
    """`min_watch_seconds` is how long a watch lasts at least whose client does not say; at most twice that."""

    def __init__(self, cache: WatchCache, clock: Clock, *, min_watch_seconds: int) -> None:
        self.cache = cache
        self.clock = clock
        self.min_watch_seconds = min_watch_seconds
        self.forms = Forms(cache.everything)
        self.turns = Turns()
        self.sent = Histogram(
            "apiserver_watch_events_sizes",
            "[ALPHA] Watch event size distribution in bytes",
            ("group", "version", "resource"),
            exponential(1024, 2, 8),
        )
        self.waits = Histogram(
            "apiserver_watch_cache_read_wait_seconds",
            "[ALPHA] Histogram of time spent waiting for a watch cache to become fresh.",
            ("group", "resource"),
            _WAITS,
        )
        self.initial_events: Counter[GroupResource] = Counter()
        """What watches began with, by kind."""
        self.draining = asyncio.Event()
        """Set when the server stops: watches end."""

    async def get(self, resource: Resource, namespace: str, name: str, resource_version: str = "") -> Entry:
        """One object. Raises ApiError NotFound."""
        await self._await_revision(resource, resource_version)
        entry = self.cache.of(resource).get(namespace, name)
        if entry is None:
            raise not_found(resource.group_resource, name)
        return entry

    async def _await_revision(self, resource: Resource, resource_version: str) -> None:
        if not resource_version:
            if not self.cache.store.shared:
                return  # what was acknowledged is here
            waiting = self.cache.freshen()
        elif resource_version != "0":
            waiting = self.cache.reach(parse_revision(resource_version, code=500))
        else:
            return
        begun = self.clock.monotonic()
        await waiting
        self.waits.labels(*resource.group_resource).observe(self.clock.monotonic() - begun)

    # LIST.

    async def select(self, resource: Resource, namespace: str, options: ListOptions) -> Selection:
        """The entries that a LIST asks for. Raises ApiError 410 when its snapshot is gone."""
        wanted = Filter(namespace, options.labels, options.fields)
        cache = self.cache.of(resource)
        if options.token:
            return await self._continue(cache, wanted, options)
        revision = options.revision
        limit = 0 if revision == 0 else options.limit  # whatever is at hand is at hand as a whole
        exact = options.match == "Exact" or (revision > 0 and options.limit > 0 and not options.match)
        if exact and revision > 0:
            return await self._past(cache, wanted, revision, "", options.limit)
        await self._await_revision(resource, options.resource_version)
        await self._index(cache, wanted)
        return self._present(cache, wanted, "", limit, self.cache.revision)

    async def _index(self, cache: ResourceCache, wanted: Filter) -> None:
        """What a selector asks of objects is found out slice by slice, the first time somebody asks; so that the
        selection itself, which must see one moment, takes no time."""
        if not wanted.decodes:
            return
        unknown = [entry for entry in cache.within(wanted.namespace) if not entry.is_indexed]
        for run in slices(unknown):
            async with self.turns:
                for entry in run:
                    entry.index()

    def _present(self, cache: ResourceCache, wanted: Filter, start: str, limit: int, revision: int) -> Selection:
        entries, remaining = cache.select(wanted, start=start, limit=limit)
        metadata: Obj = {"resourceVersion": str(revision)}
        if remaining:
            if wanted.everything:
                metadata["remainingItemCount"] = remaining
            metadata["continue"] = encode_token(revision, entries[-1].key)
        return Selection(entries, metadata)

    async def _continue(self, cache: ResourceCache, wanted: Filter, options: ListOptions) -> Selection:
        revision, start = decode_token(options.token)
        if options.resource_version and options.resource_version != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        if revision < 0:
            await self.cache.freshen()
            await self._index(cache, wanted)
            return self._present(cache, wanted, start, options.limit, self.cache.revision)
        try:
            return await self._past(cache, wanted, revision, start, options.limit)
        except ApiError as error:
            if error.reason != "Expired":
                raise
            gone = expired(INCONSISTENT_CONTINUE)
            gone.continue_token = encode_token(-1, start.removesuffix("\0"))
            raise gone from None

    async def _past(self, cache: ResourceCache, wanted: Filter, revision: int, start: str, limit: int) -> Selection:
        if revision > self.cache.revision:
            await self.cache.reach(revision)
        await self._index(cache, wanted)
        if cache.changed_at <= revision and self.cache.compacted <= revision:
            return self._present(cache, wanted, start, limit, revision)
        scope = f"{wanted.namespace}/" if wanted.namespace and cache.resource.namespaced else ""
        found: list[Entry] = []
        remaining = 0
        position = cache.prefix + start if start else None
        # A selector may leave few of those read; without one no more are read than are wanted, and the store knows
        # from the page before how many are left.
        step = max(limit, 500) if limit and not wanted.everything else limit
        while True:
            try:
                page = await self.cache.store.range(cache.prefix + scope, start=position, limit=step, revision=revision)
            except Compacted:
                raise expired(f"The resourceVersion for the provided list is too old: {revision}") from None
            except FutureRevision:
                raise bad_request(f"resource version {revision} is in the future") from None
            for item in page.items:
                entry = make_entry(cache.resource, item.key[len(cache.prefix) :], item.value, item.mod_revision)
                if wanted.matches(entry):
                    found.append(entry)
            remaining = page.remaining
            if not remaining or (limit and (wanted.everything or len(found) > limit)):
                break
            position = page.items[-1].key + "\0"
        metadata: Obj = {"resourceVersion": str(revision)}
        if limit and (remaining or len(found) > limit):
            if wanted.everything:
                metadata["remainingItemCount"] = remaining
            found = found[:limit]
            metadata["continue"] = encode_token(revision, found[-1].key)
        return Selection(found, metadata)

    # WATCH.

    async def watch(
        self,
        request: Request,
        resource: Resource,
        namespace: str,
        options: ListOptions,
        rendering: Rendering,
        *,
        begun: Callable[[], None],
    ) -> Stream:
        """Events from a resource version on; with none or "0" (or `sendInitialEvents`), what exists first. `begun` is
        called when what the watch begins with has been sent."""
        cache = self.cache.of(resource)
        wanted = Filter(namespace, options.labels, options.fields)
        revision = options.revision
        if options.send_initial:
            await self._await_revision(resource, options.resource_version)
        elif revision < 0:
            await self.cache.freshen()
        # Whether the past asked for can be had is found out before the answer begins.
        initial = options.send_initial or (options.send_initial is None and revision <= 0)
        since = self.cache.revision if initial or revision <= 0 else revision
        past = None if initial else await self._missed(cache, since)
        if initial:
            await self._index(cache, wanted)
        version = rendering.version
        watch = Watch(
            self.cache,
            cache,
            wanted,
            rendering,
            turns=self.turns,
            clock=self.clock,
            bookmarks=options.bookmarks,
            sent=self.sent.labels(version.group, version.version, resource.plural),
        )

        def has_begun() -> None:
            self.initial_events[resource.group_resource] += watch.initial
            begun()

        seconds = options.timeout or int(self.min_watch_seconds * (1 + random.random()))
        initial_end = options.send_initial is True and options.bookmarks

        async def run(writer: StreamWriter) -> None:
            await watch.run(
                writer,
                since=since,
                past=past,
                initial_end=initial_end,
                begun=has_begun,
                seconds=seconds,
                stop=self.draining,
            )

        return Stream(run, content_type=rendering.watch_content_type)

    async def _missed(self, cache: ResourceCache, since: int) -> Changes:
        """Changes between `since` and now, from memory or from the store."""
        recent = cache.changes_since(since)
        if recent is not None:
            return recent
        await self.cache.history(cache, since, min(since + 1, self.cache.revision))
        until = cache.recent_since
        older = await self.cache.history(cache, since, until)
        newer = cache.changes_since(until)
        return [*older, *(newer if newer is not None else await self.cache.history(cache, until, self.cache.revision))]


def encode_token(revision: int, last_key: str) -> str:
    """A continue token: the snapshot's revision (-1: none in particular) and the key after which to go on."""
    raw = orjson.dumps({"v": _TOKEN_VERSION, "rv": revision, "start": f"{last_key}\0"})
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, str]:
    """What `encode_token` made. ApiError 400 for anything else."""
    if (wrong := _not_base64(token)) >= 0:
        raise _bad_token(f": illegal base64 data at input byte {wrong}")
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        spoken, revision, start = fields.get("v", ""), fields.get("rv", 0), fields.get("start", "")
    except (ValueError, AttributeError) as error:
        raise _bad_token(f": {error}") from None
    if spoken != _TOKEN_VERSION:
        raise _bad_token(f': server does not recognize this encoded version "{spoken}"')
    if not isinstance(revision, int) or revision == 0:
        raise _bad_token(f": incorrect encoded start resourceVersion (version {spoken})")
    if not isinstance(start, str) or not start:
        raise _bad_token(f": encoded start key empty (version {spoken})")
    if ".." in start.split("/"):
        raise _bad_token("")
    return revision, start


def _bad_token(why: str) -> ApiError:
    return bad_request(f"invalid continue token: continue key is not valid{why}")


def _not_base64(token: str) -> int:
    """Where a text ceases to be unpadded base64 for URLs, -1 when it does not."""
    if (good := len(_BASE64.match(token)[0])) < len(token):  # type: ignore[index]
        return good
    return len(token) - 1 if len(token) % 4 == 1 else -1
