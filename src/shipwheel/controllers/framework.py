"""What control loops are made of: a context with everything from outside, a queue with workers, and a memory of
one's own writes.

A controller is a class with `__init__(context)`, which asks for informers and adds handlers that put keys into
queues, and `async run()`, which works on keys until cancelled. `reconcile(key)` reads caches, computes with
pure functions what is missing, acts, and is safe to repeat at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj, controller_of, key_of, split_key
from shipwheel.api.selectors import LabelSelector, from_label_selector
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.events import EventRecorder
from shipwheel.client.informer import EventType, Frontier, Indexer, Informer, InformerFactory, version_number
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import PODS
from shipwheel.client.workqueue import ShutDown, WorkQueue

if TYPE_CHECKING:
    from prometheus_client import Counter

    from shipwheel.controllers.config import ControllerManagerConfig

log = logging.getLogger(__name__)

Reconcile = Callable[[str], Awaitable[float | None]]
"""Reconciles a key; returns the seconds after which to look again even if nothing changes, or None."""

_BEHIND_SECONDS = 1.0


class Retry(Exception):
    """What a key needs cannot be done now, for the reason given; it is tried again."""


class Controller(Protocol):
    async def run(self) -> None:
        """Work until cancelled."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a controller is given."""

    client: Client
    """With the controller's own identity."""
    informers: InformerFactory
    """Shared by all controllers."""
    clock: Clock
    recorder: EventRecorder
    """With the controller's name as the source."""
    metrics: Metrics
    config: ControllerManagerConfig

    def informer(self, gvr: GroupVersionResource, indexers: dict[str, Indexer] | None = None) -> Informer:
        return self.informers.informer(gvr, indexers=indexers)

    def pods(self) -> Informer:
        """All pods, indexed by controller (`owner`: its uid), node (`node`) and, without one, namespace
        (`orphan`)."""
        return self.informers.informer(PODS, indexers=POD_INDEXERS)

    def queue(self, name: str) -> WorkQueue[Any]:
        return WorkQueue(name, self.clock, metrics=self.metrics.queues)

    def loop(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int,
        informers: Sequence[Informer],
        writes: Writes | None = None,
    ) -> Loop:
        """A loop; with `writes`, a key is not looked at before the caches show what was written for it."""
        return Loop(self.queue(name), reconcile, workers=workers, informers=informers, writes=writes)

    def writes(self, subsystem: str, kind: str) -> Writes:
        """A memory of writes that counts, as upstream does, how often a sync had to wait for a cache."""
        return Writes(
            self.metrics.counter(
                f"{subsystem}_stale_sync_skips_total",
                f"[ALPHA] Total number of {kind} syncs skipped due to a stale watch cache.",
                ("group", "resource"),
            )
        )


def by_owner(obj: Obj) -> Iterable[str]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner else ()


def by_orphanage(obj: Obj) -> Iterable[str]:
    return () if controller_of(obj) else (obj["metadata"].get("namespace", ""),)


def by_node(pod: Obj) -> Iterable[str]:
    node = pod["spec"].get("nodeName")
    return (node,) if node else ()


POD_INDEXERS: dict[str, Indexer] = {"owner": by_owner, "orphan": by_orphanage, "node": by_node}
OWNER_INDEXERS: dict[str, Indexer] = {"owner": by_owner, "orphan": by_orphanage}


class Loop:
    """A work queue of object keys with its workers."""

    def __init__(
        self,
        queue: WorkQueue[str],
        reconcile: Reconcile,
        *,
        workers: int,
        informers: Sequence[Informer],
        writes: Writes | None = None,
    ) -> None:
        self.queue = queue
        self._reconcile = reconcile
        self._workers = workers
        self._informers = informers
        self._writes = writes

    def add(self, obj: Obj) -> None:
        """Queue an object by its key."""
        self.queue.add(key_of(obj))

    def on_event(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """An informer's handler: queue what changed."""
        obj = new if new is not None else old
        if obj is not None:
            self.add(obj)

    async def run(self) -> None:
        """Once the informers have synced, reconcile keys until cancelled."""
        for informer in self._informers:
            await informer.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run_delayed(), name=f"{self.queue.name} delays")
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self.queue.name} worker {number}")

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            try:
                await self.process(key)
            finally:
                self.queue.done(key)

    async def process(self, key: str) -> None:
        """Reconcile one key, and queue it again when that failed or asked for it."""
        try:
            if self._writes is not None and (wait := await self._writes.behind(key)) is not None:
                self.queue.add_after(key, wait)
                return
            again = await self._reconcile(key)
        except (Retry, ApiError, ConnectionFailed, ConfigError) as error:
            log.log(
                logging.DEBUG if is_conflict(error) else logging.WARNING,
                "%s: syncing %s failed: %s", self.queue.name, key, error,
            )  # fmt: skip
            self.queue.add_rate_limited(key)
        except Exception:
            log.exception("%s: syncing %s failed", self.queue.name, key)
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add_after(key, again)


class Writes:
    """Remembers how new a cache must be to include what we wrote ourselves.

    A controller that counts what it has created must not count in a cache from before the creation: it would
    create more. Resource versions of a resource can be compared (KEP-5504), so it is enough to keep the newest
    one written for a key, and to wait until the informer has got there. Where a write's answer was lost it may
    have been carried out all the same: then all that the server has by now is what to wait for.
    """

    def __init__(self, skips: Counter | None = None) -> None:
        self._frontiers: dict[str, dict[Informer, Frontier]] = {}
        self._unknown: dict[str, set[Informer]] = {}
        self._skips = skips

    async def do(self, key: str, informer: Informer, write: Awaitable[Obj]) -> Obj:
        """Make a write to what an informer shows; returns its answer and raises its errors."""
        try:
            answer = await write
        except (ApiError, ConnectionFailed) as error:
            # What the server has refused was not done; of what it did not answer nobody knows.
            if isinstance(error, ConnectionFailed) or error.code >= 500:
                self._unknown.setdefault(key, set()).add(informer)
            raise
        self.wrote(key, informer, answer)
        return answer

    def wrote(self, key: str, informer: Informer, obj: Obj) -> None:
        """Take note of an object as the server answered it. Without a resource version (a Status) it tells
        nothing."""
        self._expect(key, informer, Frontier(version_of(obj)))

    async def behind(self, key: str) -> float | None:
        """Seconds to wait when a cache does not show all we wrote yet, else None. The change that is missing
        queues the key as well, so this is only the latest time. Raises as a read does."""
        namespace = split_key(key)[0]
        for informer in tuple(self._unknown.get(key, ())):
            self._expect(key, informer, await informer.frontier(namespace))
            self._unknown[key].discard(informer)
        self._unknown.pop(key, None)
        for informer, frontier in self._frontiers.get(key, {}).items():
            if not informer.has_reached(frontier, namespace):
                if self._skips:
                    self._skips.labels(informer.gvr.group, informer.gvr.resource).inc()
                return _BEHIND_SECONDS
        self._frontiers.pop(key, None)
        return None

    def forget(self, key: str) -> None:
        self._frontiers.pop(key, None)
        self._unknown.pop(key, None)

    def _expect(self, key: str, informer: Informer, frontier: Frontier) -> None:
        frontiers = self._frontiers.setdefault(key, {})
        frontiers[informer] = frontiers.get(informer, Frontier()) | frontier


def selector_of(obj: Obj) -> LabelSelector:
    """The label selector of a workload or budget."""
    return _compiled(orjson.dumps(obj["spec"].get("selector")))


@lru_cache(maxsize=4096)
def _compiled(selector: bytes) -> LabelSelector:
    return from_label_selector(orjson.loads(selector))


def version_of(obj: Obj) -> int:
    """The resource version as a number; 0 when there is none."""
    return version_number(obj.get("metadata") or {})


def is_not_found(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.code == 404


def is_conflict(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.code == 409 and error.reason == "Conflict"


def is_already_exists(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.reason == "AlreadyExists"


def namespace_is_terminating(error: BaseException) -> bool:
    """A create failed only because its namespace is being deleted: nothing to do about it."""
    if not isinstance(error, ApiError):
        return False
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


async def each(calls: Iterable[Awaitable[Any]]) -> list[BaseException]:
    """Run all at the same time; returns the errors. A programming error is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, Retry | ApiError | ConnectionFailed | ConfigError):
            raise error
    return errors


async def in_batches(calls: Sequence[Callable[[], Awaitable[Any]]]) -> tuple[int, list[BaseException]]:
    """Make calls in batches that double as long as they succeed: what cannot work is not tried five hundred times.
    Returns how many have succeeded, and the errors of the batch that was the last."""
    done, size = 0, 1
    left = list(calls)
    while left:
        batch = left[:size]
        del left[:size]
        errors = await each(call() for call in batch)
        done += len(batch) - len(errors)
        if errors:
            return done, errors
        size *= 2
    return done, []
