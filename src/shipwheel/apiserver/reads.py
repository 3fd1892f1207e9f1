"""GET, LIST and WATCH: answered from the watch cache, or from the store's past.

The meaning of `resourceVersion` and `resourceVersionMatch` is upstream's: unset is the newest, "0" whatever is at
hand, a number at least that (`NotOlderThan`) or exactly that (`Exact`). Pages are cut from the snapshot that the
first page saw.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError, bad_request, expired, forbidden, invalid, invalid_object, not_found
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Resource, Version
from shipwheel.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from shipwheel.apiserver.rendering import Rendering
from shipwheel.apiserver.watchcache import Change, Entry, Filter, ResourceCache, WatchCache, Watcher, make_entry
from shipwheel.client.httpserver import Request, Stream, StreamWriter
from shipwheel.store.base import Compacted, FutureRevision

SLOW_READER_BYTES = 16 << 20
"""A watcher that is further behind than this is cut off; it starts anew from where it was."""
BOOKMARK_SECONDS = 60.0
MIN_WATCH_SECONDS = 1800
INCONSISTENT_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class ListOptions:
    labels: LabelSelector | None
    fields: FieldSelector | None
    limit: int
    token: str
    resource_version: str
    match: str
    watch: bool
    bookmarks: bool
    timeout: int
    send_initial: bool | None

    @property
    def revision(self) -> int:
        """The resource version as a number, -1 when unset."""
        if not self.resource_version:
            return -1
        try:
            revision = int(self.resource_version)
        except ValueError:
            revision = -1
        if revision < 0:
            field_error = invalid("resourceVersion", self.resource_version, "strconv.ParseUint: parsing \"" +
                                  self.resource_version + "\": invalid syntax")  # fmt: skip
            raise invalid_object("meta.k8s.io", "ListOptions", "", [field_error])
        return revision


def list_options(request: Request, resource: Resource, version: Version) -> ListOptions:
    """Read and check the query of a list or a watch."""
    labels = fields = None
    if text := request.parameter("labelSelector"):
        try:
            labels = parse_label_selector(text)
        except ValueError as error:
            raise bad_request(f"unable to parse requirement: {error}") from None
    if text := request.parameter("fieldSelector"):
        try:
            fields = parse_field_selector(text)
        except ValueError as error:
            raise bad_request(str(error)) from None
        own = version.field_labels
        for name in sorted(fields.fields()):
            if name not in ("metadata.name", "metadata.namespace") and name not in (
                resource.selectable if own is None else own
            ):
                known = f"{version.group_version}, Kind={resource.kind}"
                raise bad_request(
                    f'Unable to find "{known}" that match label selector "{request.parameter("labelSelector")}", '
                    f'field selector "{text}": field label not supported: {name}'
                    if resource.custom
                    else f'Unable to find "{version.group_version}, Resource={resource.plural}" that match label '
                    f'selector "{request.parameter("labelSelector")}", field selector "{text}": field label not '
                    f"supported: {name}"
                )
        if own is not None:
            fields = fields.transform(lambda name, value: (own.get(name, name), value))
    initial = request.parameter("sendInitialEvents")
    options = ListOptions(
        labels,
        fields,
        max(_number(request, "limit"), 0),
        request.parameter("continue"),
        request.parameter("resourceVersion"),
        request.parameter("resourceVersionMatch"),
        request.parameter("watch") in _TRUE,
        request.parameter("allowWatchBookmarks") in _TRUE,
        _number(request, "timeoutSeconds"),
        None if not initial else initial in _TRUE,
    )
    _check_match(options)
    return options


def _number(request: Request, name: str) -> int:
    text = request.parameter(name)
    if not text:
        return 0
    if not _INTEGER.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if not -(1 << 63) <= (number := int(text)) < 1 << 63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def _check_match(options: ListOptions) -> None:
    errors = []
    match = options.match
    if options.watch:
        if options.send_initial is not None and not match:
            errors.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch must be set when sendInitialEvents is set")
            )
        if options.send_initial is None and match:
            errors.append(
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if match and match != "NotOlderThan" and options.send_initial is not None:
            errors.append(invalid("resourceVersionMatch", match, 'supported values: "NotOlderThan"'))
    elif match:
        if not options.resource_version:
            errors.append(
                forbidden(
                    "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                )
            )
        if options.token:
            errors.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
        if match not in ("Exact", "NotOlderThan"):
            errors.append(invalid("resourceVersionMatch", match, 'supported values: "Exact", "NotOlderThan", ""'))
        elif match == "Exact" and options.resource_version == "0":
            errors.append(
                forbidden("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
            )
    elif options.send_initial is not None:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise invalid_object("meta.k8s.io", "ListOptions", "", errors)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a LIST found: entries of one snapshot, and the ListMeta that goes with them."""

    entries: list[Entry]
    metadata: Obj


Changes = Sequence[Change]


class Reader:
    def __init__(self, cache: WatchCache, clock: Clock) -> None:
        self.cache = cache
        self.clock = clock
        self.draining = asyncio.Event()
        """Set when the server stops: watches end."""

    async def get(self, resource: Resource, namespace: str, name: str, resource_version: str = "") -> Entry:
        """One object. Raises ApiError NotFound."""
        await self._await_revision(resource_version)
        entry = self.cache.of(resource).get(namespace, name)
        if entry is None:
            raise not_found(resource.group_resource, name)
        return entry

    async def _await_revision(self, resource_version: str) -> None:
        if not resource_version:
            await self.cache.freshen()
        elif resource_version != "0":
            try:
                revision = int(resource_version)
            except ValueError:
                raise bad_request(f"invalid resource version {resource_version!r}") from None
            await self.cache.reach(revision)

    # LIST.

    async def select(self, resource: Resource, namespace: str, options: ListOptions) -> Selection:
        """The entries that a LIST asks for. Raises ApiError 410 when its snapshot is gone."""
        wanted = Filter(namespace, options.labels, options.fields)
        cache = self.cache.of(resource)
        if options.token:
            return await self._continue(cache, wanted, options)
        revision = options.revision
        exact = options.match == "Exact" or (revision > 0 and options.limit > 0 and not options.match)
        if exact and revision > 0:
            return await self._past(cache, wanted, revision, "", options.limit)
        await self._await_revision(options.resource_version)
        return self._present(cache, wanted, "", options.limit, self.cache.revision)

    def _present(self, cache: ResourceCache, wanted: Filter, start: str, limit: int, revision: int) -> Selection:
        entries = cache.select(wanted, start=start)
        metadata: Obj = {"resourceVersion": str(revision)}
        if limit and len(entries) > limit:
            if wanted.everything:
                metadata["remainingItemCount"] = len(entries) - limit
            metadata["continue"] = encode_token(revision, entries[limit - 1].key)
            entries = entries[:limit]
        return Selection(entries, metadata)

    async def _continue(self, cache: ResourceCache, wanted: Filter, options: ListOptions) -> Selection:
        revision, start = decode_token(options.token)
        if options.resource_version and options.resource_version != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        if revision < 0:
            await self.cache.freshen()
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
        if cache.changed_at <= revision and self.cache.compacted <= revision:
            return self._present(cache, wanted, start, limit, revision)
        scope = f"{wanted.namespace}/" if wanted.namespace and cache.resource.namespaced else ""
        found: list[Entry] = []
        remaining = 0
        position = cache.prefix + start if start else None
        while True:
            try:
                page = await self.cache.store.range(
                    cache.prefix + scope, start=position, limit=max(limit, 500) if limit else 0, revision=revision
                )
            except Compacted:
                raise expired(f"The resourceVersion for the provided list is too old: {revision}") from None
            except FutureRevision:
                raise bad_request(f"resource version {revision} is in the future") from None
            for item in page.items:
                entry = make_entry(
                    cache.resource, cache.head, item.key[len(cache.prefix) :], item.value, item.mod_revision
                )
                if wanted.matches(entry):
                    found.append(entry)
            remaining = page.remaining
            if not remaining or (limit and len(found) > limit):
                break
            position = page.items[-1].key + "\0"
        metadata: Obj = {"resourceVersion": str(revision)}
        if limit and len(found) > limit:
            if wanted.everything:
                metadata["remainingItemCount"] = len(found) - limit + remaining
            found = found[:limit]
            metadata["continue"] = encode_token(revision, found[-1].key)
        return Selection(found, metadata)

    # WATCH.

    async def watch(
        self, request: Request, resource: Resource, namespace: str, options: ListOptions, rendering: Rendering
    ) -> Stream:
        """Events from a resource version on; with none or "0" (or `sendInitialEvents`), what exists first."""
        cache = self.cache.of(resource)
        wanted = Filter(namespace, options.labels, options.fields)
        revision = options.revision
        if options.send_initial:
            await self._await_revision(options.resource_version)
        elif revision < 0:
            await self.cache.freshen()
        # Whether the past asked for can be had is found out before the answer begins.
        initial = options.send_initial or (options.send_initial is None and revision <= 0)
        since = self.cache.revision if initial or revision <= 0 else revision
        past = None if initial else await self._missed(cache, since)
        watch = _Watch(self, cache, wanted, rendering, since, options)
        return Stream(
            lambda writer: watch.run(writer, past, initial=bool(initial)), content_type=rendering.watch_content_type
        )

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


class _Watch:
    """One client's watch: what it has missed, then every change as it happens."""

    def __init__(
        self,
        reader: Reader,
        cache: ResourceCache,
        wanted: Filter,
        rendering: Rendering,
        since: int,
        options: ListOptions,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._rendering = rendering
        self._options = options
        self._watcher = Watcher(wanted, since, self._deliver)
        self._writer: StreamWriter | None = None
        self._cut_off = False

    def _deliver(self, kind: str, change: Change) -> None:
        writer = self._writer
        if writer is None or self._cut_off:
            return
        writer.write_framed(self._rendering.frame(kind, change))
        if writer.buffered > SLOW_READER_BYTES:
            self._cut_off = True
            writer.abort()

    async def run(self, writer: StreamWriter, past: Changes | None, *, initial: bool) -> None:
        self._writer = writer
        watcher, cache = self._watcher, self._cache
        # From here to `add_watcher` nothing waits, so nothing is missed or told twice.
        if initial:
            watcher.since = self._reader.cache.revision
            for entry in cache.select(watcher.filter):
                writer.write_framed(self._rendering.frame("ADDED", Change(entry.revision, None, entry, False)))
            if self._options.send_initial and self._options.bookmarks:
                writer.write_framed(self._rendering.bookmark(watcher.since, initial_end=True))
        else:
            told = watcher.since
            for change in past or ():
                watcher.offer(change)
                told = max(told, change.revision)
            late = cache.changes_since(told)
            if late is None:
                writer.abort()
                return
            for change in late:
                watcher.offer(change)
                told = max(told, change.revision)
            watcher.since = told
        cache.add_watcher(watcher)
        try:
            await self._follow(writer)
        finally:
            cache.remove_watcher(watcher)

    async def _follow(self, writer: StreamWriter) -> None:
        """Let the cache push until the time is up, with a bookmark now and then."""
        timeout = self._options.timeout or int(MIN_WATCH_SECONDS * (1 + random.random()))
        clock = self._reader.clock
        deadline = clock.monotonic() + timeout
        while not writer.closed.is_set():
            left = deadline - clock.monotonic()
            if left <= 0:
                if self._options.bookmarks:
                    writer.write_framed(self._rendering.bookmark(self._reader.cache.revision))
                return
            try:
                async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                    await self._reader.draining.wait()
                    return
            except TimeoutError:
                if self._options.bookmarks and left > BOOKMARK_SECONDS:
                    writer.write_framed(self._rendering.bookmark(self._reader.cache.revision))


def encode_token(revision: int, last_key: str) -> str:
    """A continue token: the snapshot's revision (-1: none in particular) and the key after which to go on."""
    raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": f"{last_key}\0"})
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        fields = orjson.loads(raw)
        revision, start = fields["rv"], fields["start"]
        if fields["v"] != "meta.k8s.io/v1" or not isinstance(revision, int) or not isinstance(start, str):
            raise ValueError
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise bad_request("continue key is not valid: incorrectly encoded") from None
    if not start or ".." in start.split("/") or revision == 0:
        raise bad_request("continue key is not valid")
    return revision, start
