"""Event recording with client-go's correlation: what would flood the API is counted, combined or dropped.

`EventCorrelator` is the pure part. The recorder never makes its caller wait: events go into a bounded queue
that `run()` writes out; when the queue is full they are dropped, as upstream does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeVar

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.client.ratelimit import TokenBucket
from shipwheel.client.resources import EVENTS

log = logging.getLogger(__name__)

EventKind = Literal["Normal", "Warning"]
Value = TypeVar("Value")

_CACHE = 4096
_AGGREGATE_EVENTS = 10
_AGGREGATE_SECONDS = 600.0
_SPAM_BURST = 25
_SPAM_QPS = 1 / 300
_QUEUED = 1000
_LATER_SECONDS = 0.05
_TRIES = 12
_RETRY_SECONDS = 10.0


class EventRecorder:
    """Records events about objects. `component` and `host` are the events' source. `limit` is how often one may be
    written, `queued` how many can wait."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        component: str,
        host: str = "",
        limit: TokenBucket | None = None,
        queued: int = _QUEUED,
    ) -> None:
        self._clock = clock
        self._component = component
        self._host = host
        self._sink = _Sink(client, clock, limit, queued)

    def event(
        self,
        about: Obj,
        kind: EventKind,
        reason: str,
        message: str,
        *,
        annotations: dict[str, str] | None = None,
        field_path: str = "",
    ) -> None:
        """Record an event about an object (or an object reference with `field_path`); never waits."""
        event = make_event(
            involved_object(about, field_path),
            kind,
            reason,
            message,
            component=self._component,
            host=self._host,
            now=self._clock.now(),
            annotations=annotations,
        )
        self._sink.put(event)

    def for_component(self, component: str) -> EventRecorder:
        """A recorder with another source that shares this one's queue and its `run()`."""
        sibling = object.__new__(EventRecorder)
        sibling.__dict__.update(self.__dict__)
        sibling._component = component
        return sibling

    def defer_to(self, busy: Callable[[], bool]) -> None:
        """Let events wait while there is more important work, as long as not many wait."""
        self._sink.busy = busy

    async def run(self) -> None:
        """Write events until cancelled."""
        await self._sink.run()

    async def drain(self) -> None:
        """Write what is queued, once, without retries: for an orderly end."""
        await self._sink.drain()


class _Sink:
    """The queue that recorders share, and who writes it out."""

    def __init__(self, client: Client, clock: Clock, limit: TokenBucket | None, queued: int) -> None:
        self._client = client
        self._clock = clock
        self._limit = limit
        self._queue: asyncio.Queue[Obj] = asyncio.Queue(queued)
        self._many = queued // 2
        self.busy: Callable[[], bool] = lambda: False
        self._correlator = EventCorrelator(clock)
        self._dropped = 0

    def put(self, event: Obj) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._dropped += 1

    async def run(self) -> None:
        while True:
            event = await self._queue.get()
            while self._queue.qsize() < self._many and self.busy():
                await self._clock.sleep(_LATER_SECONDS)
            if self._dropped:
                # Once for all, not once each: a flood of events should not become one of log lines.
                log.error("unable to record events: too many queued, dropped %d", self._dropped)
                self._dropped = 0
            correlated = self._correlator.correlate(event)
            if correlated is not None:
                await self._write(correlated)

    async def drain(self) -> None:
        while not self._queue.empty():
            correlated = self._correlator.correlate(self._queue.get_nowait())
            if correlated is not None:
                await self._try(correlated)

    async def _write(self, event: Obj) -> None:
        for attempt in range(_TRIES):
            if await self._try(event):
                return
            await self._clock.sleep(_RETRY_SECONDS * (random.random() if attempt == 0 else 1))
        log.error("unable to write event (retry limit exceeded): %s", event["message"])

    async def _try(self, event: Obj) -> bool:
        """Write an event; False when the server cannot be reached."""
        try:
            self._correlator.written(await self._send(event))
        except ApiError as error:
            if error.reason != "AlreadyExists" and not _namespace_terminating(error):
                log.error("server rejected event: %s", error)
        except (ConnectionFailed, ConfigError) as error:
            log.warning("unable to write event: %s", error)
            return False
        return True

    async def _send(self, event: Obj) -> Obj:
        if self._limit is not None:
            await self._limit.take()
        meta = event["metadata"]
        if event["count"] > 1:
            patch = {key: event[key] for key in ("count", "lastTimestamp", "message")}
            try:
                return await self._client.patch(EVENTS, meta["name"], meta["namespace"], patch, kind="strategic")
            except ApiError as error:
                if error.code != 404:
                    raise
        return await self._client.create(EVENTS, event, meta["namespace"])


def involved_object(about: Obj, field_path: str = "") -> Obj:
    """The reference to an object (with metadata), or to what is a reference already."""
    if "metadata" not in about:
        return {**about, "fieldPath": field_path} if field_path else about
    meta = about["metadata"]
    reference = {
        "kind": about.get("kind"),
        "namespace": meta.get("namespace"),
        "name": meta.get("name"),
        "uid": meta.get("uid"),
        "apiVersion": about.get("apiVersion"),
        "resourceVersion": meta.get("resourceVersion"),
        "fieldPath": field_path,
    }
    return {key: value for key, value in reference.items() if value}


def make_event(
    reference: Obj,
    kind: EventKind,
    reason: str,
    message: str,
    *,
    component: str,
    host: str,
    now: datetime,
    annotations: dict[str, str] | None = None,
) -> Obj:
    """A core/v1 Event that happened once, now."""
    source = {"component": component}
    if host:
        source["host"] = host
    namespace = reference.get("namespace") or "default"
    metadata: Obj = {"name": _event_name(reference, now), "namespace": namespace}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": metadata,
        "involvedObject": reference,
        "reason": reason,
        "message": message,
        "type": kind,
        "source": source,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "count": 1,
        "reportingComponent": component,
        "reportingInstance": host,
    }


def _event_name(reference: Obj, now: datetime) -> str:
    """Unique by its time. Datetimes stop at microseconds; the last digits keep simultaneous events apart."""
    nanoseconds = int(now.timestamp() * 1_000_000) * 1000 + random.randrange(1000)
    return f"{reference.get('name', '')}.{nanoseconds:x}"


class EventCorrelator:
    """Combines, counts and limits events (the defaults of client-go's `EventCorrelator`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: _Lru[_Group] = _Lru()
        self._seen: _Lru[_Seen] = _Lru()
        self._budgets: _Lru[_Budget] = _Lru()

    def correlate(self, event: Obj) -> Obj | None:
        """The event to write instead; with a `count` above 1 it updates the one of its name. None: drop it."""
        event, key = self._combine(event)
        seen = self._seen.get(key)
        if seen is not None:
            metadata = {**event["metadata"], "name": seen.name}
            event = {
                **event, "metadata": metadata, "count": seen.count + 1, "firstTimestamp": seen.first,
            }  # fmt: skip
        self._seen.put(key, _Seen(event["count"], event["firstTimestamp"], event["metadata"]["name"]))
        return event if self._within_budget(event) else None

    def written(self, event: Obj) -> None:
        """Take note of an event as the server has it."""
        seen = _Seen(event.get("count", 1), event.get("firstTimestamp") or "", event["metadata"]["name"])
        self._seen.put(_full_key(event), seen)

    def _combine(self, event: Obj) -> tuple[Obj, tuple[object, ...]]:
        """Events that differ only in their message become one when there are many."""
        now = self._clock.now()
        key = _group_key(event)
        group = self._groups.get(key)
        if group is None or (now - group.last).total_seconds() > _AGGREGATE_SECONDS:
            group = _Group(set(), now)
        group.messages.add(event["message"])
        group.last = now
        self._groups.put(key, group)
        if len(group.messages) < _AGGREGATE_EVENTS:
            return event, _full_key(event)
        group.messages.pop()
        combined = {
            **event,
            "metadata": {
                "name": _event_name(event["involvedObject"], now),
                "namespace": event["metadata"]["namespace"],
            },
            "message": f"(combined from similar events): {event['message']}",
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
        }
        return combined, key

    def _within_budget(self, event: Obj) -> bool:
        key = _spam_key(event)
        now = self._clock.monotonic()
        budget = self._budgets.get(key) or _Budget(float(_SPAM_BURST), now)
        budget.tokens = min(_SPAM_BURST, budget.tokens + (now - budget.stamp) * _SPAM_QPS)
        budget.stamp = now
        self._budgets.put(key, budget)
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True


@dataclass(slots=True)
class _Group:
    messages: set[str]
    last: datetime


@dataclass(frozen=True, slots=True)
class _Seen:
    count: int
    first: str
    name: str


@dataclass(slots=True)
class _Budget:
    tokens: float
    stamp: float


class _Lru(Generic[Value]):
    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[object, ...], Value] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> Value | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: tuple[object, ...], value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > _CACHE:
            self._entries.popitem(last=False)


def _spam_key(event: Obj) -> tuple[object, ...]:
    source, about = event["source"], event["involvedObject"]
    identity = (about.get(key) for key in ("kind", "namespace", "name", "uid", "apiVersion"))
    return (source.get("component"), source.get("host"), *identity, event["type"])


def _group_key(event: Obj) -> tuple[object, ...]:
    return (
        *_spam_key(event), event["reason"], event.get("reportingComponent"), event.get("reportingInstance"),
    )  # fmt: skip


def _full_key(event: Obj) -> tuple[object, ...]:
    return (
        *_spam_key(event), event["involvedObject"].get("fieldPath"), event["reason"], event["message"],
    )  # fmt: skip


def _namespace_terminating(error: ApiError) -> bool:
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
