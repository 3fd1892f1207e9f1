"""The pods that wait to be placed: those whose turn it is, those that wait a while, and those that wait for something.

A pod that was refused stays away until an event happens that one of the plugins that refused it has an interest in
(queueing hints, KEP-4247); then it is tried again, at the earliest when its back-off is over or nothing else is to be
done. To be safe from hints that are wrong, nobody waits for longer than five minutes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, key_of
from shipwheel.scheduler.events import ClusterEvent, Interest

log = logging.getLogger(__name__)

Place = Literal["active", "backoff", "unschedulable", "gated", "in flight"]
SortKey = Callable[[Obj, float], tuple[float, ...]]

INITIAL_BACKOFF = 1.0
MAX_BACKOFF = 10.0
MAX_UNSCHEDULABLE = 300.0
FLUSH_SECONDS = 30.0
MEASURED = 10
"""Of so many hints the time of one is taken."""


@dataclass(eq=False, slots=True)
class Queued:
    """A pod in the queue, and what has been tried for it."""

    pod: Obj
    queued_at: float
    """When it was last put in the active queue, by the monotonic clock; decides who is first among equals."""
    first_tried_at: float | None = None
    attempts: int = 0
    failures: int = 0
    """Attempts in a row that failed by an error, not by rules."""
    plugins: frozenset[str] = frozenset()
    """Those that refused it. Nobody in particular: any event may help."""
    place: Place = "active"
    since: float = 0.0
    """When it came to that place."""
    serial: int = 0
    """Tells its valid entry in a heap from stale ones."""
    missed: list[ClusterEvent] = field(default_factory=list)
    """Events while it was being tried."""
    flushed: bool = False

    @property
    def key(self) -> str:
        return key_of(self.pod)


class QueueMeter:
    """Is told what happens to pods, under the names of upstream's metrics. This one does not care."""

    def incoming(self, queue: str, event: str) -> None:
        """A pod has come to a place, because of an event."""

    def hint(self, plugin: str, event: str, hint: str, seconds: float) -> None:
        """A plugin was asked whether an event helps a pod; `hint` is Queue, QueueSkip or Error. One in ten is told."""


class SchedulingQueue:
    """`pop()` gives the pod whose turn it is; then `done()` or `give_back()` says how it went.

    `interests` is, by scheduler name, what each plugin wants to hear of.
    """

    def __init__(
        self,
        clock: Clock,
        sort_key: SortKey,
        interests: Mapping[str, Mapping[str, Sequence[Interest]]],
        *,
        gate: Callable[[Obj], str] = lambda pod: "",  # the plugin that keeps a pod out
        initial_backoff: float = INITIAL_BACKOFF,
        max_backoff: float = MAX_BACKOFF,
        max_unschedulable: float = MAX_UNSCHEDULABLE,
        meter: QueueMeter | None = None,
    ) -> None:
        self._clock = clock
        self._sort_key = sort_key
        self._interests = interests
        self._gate = gate
        self._initial = initial_backoff
        self._max = max_backoff
        self._max_unschedulable = max_unschedulable
        self._meter = meter or QueueMeter()
        self._on_incoming = self._meter.incoming
        self._hints = 0
        self._pods: dict[str, Queued] = {}
        self._waiting: dict[str, Queued] = {}
        """The unschedulable ones."""
        self._gated: dict[str, Queued] = {}
        self._active: list[tuple[tuple[float, ...], int, Queued]] = []
        self._backoff: list[tuple[float, int, Queued]] = []
        self._errors: list[tuple[float, int, Queued]] = []
        """Who waits after an error waits to the end."""
        self._in_flight: dict[str, Queued] = {}
        self._serials = itertools.count(1)
        self._arrival = asyncio.Event()
        self._sizes: Counter[Place] = Counter()

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, key: str) -> bool:
        return key in self._pods

    def get(self, key: str) -> Queued | None:
        return self._pods.get(key)

    def size(self, place: Place) -> int:
        return self._sizes[place]

    def refused_by(self) -> Mapping[tuple[str, str], int]:
        """How many pods wait because of each (plugin, scheduler name)."""
        found: Counter[tuple[str, str]] = Counter()
        for each in self._waiting.values():
            name = each.pod["spec"].get("schedulerName", "default-scheduler")
            found.update((plugin, name) for plugin in each.plugins)
        return found

    def missed(self) -> Mapping[str, int]:
        """Events that are kept for pods that are being tried, by label."""
        return Counter(event.label for each in self._in_flight.values() for event in each.missed)

    # Pods

    def add(self, pod: Obj, event: str = "UnschedulablePodAdd") -> None:
        """A new pod."""
        queued = Queued(pod, self._clock.monotonic())
        self._pods[queued.key] = queued
        self._sizes["active"] += 1
        self._let_in(queued, event)

    def update(self, pod: Obj, event: ClusterEvent | None) -> None:
        """The pod has changed; with an event if in a way that may help it."""
        queued = self._pods.get(key_of(pod))
        if queued is None:
            self.add(pod)
            return
        queued.pod = pod
        if queued.place == "gated":
            self._let_in(queued, "UnschedulablePodUpdate")
        elif queued.place == "active":
            self._push_active(queued)
        elif event is not None:
            if queued.place == "in flight":
                queued.missed.append(event)
            elif queued.place == "unschedulable" and self._helps(queued, event):
                self._wake(queued, event.label)

    def remove(self, key: str) -> None:
        """The pod is gone, or has a node."""
        queued = self._pods.pop(key, None)
        if queued is not None:
            self._waiting.pop(key, None)
            self._gated.pop(key, None)
            self._in_flight.pop(key, None)
            self._sizes[queued.place] -= 1
            queued.serial = 0

    def _let_in(self, queued: Queued, event: str) -> None:
        if plugin := self._gate(queued.pod):
            queued.plugins = frozenset((plugin,))
            self._gated[queued.key] = queued
            self._move(queued, "gated")
            self._on_incoming("gated", event)
        else:
            self._gated.pop(queued.key, None)
            queued.queued_at = self._clock.monotonic()
            self._push_active(queued)
            self._on_incoming("active", event)

    # Turns

    def pop(self) -> Queued | None:
        """The next pod to try; None when there is none now. Who is in back-off comes early if nobody else is there,
        unless an error put it there."""
        self._end_backoffs()
        while self._active:
            _, serial, queued = heapq.heappop(self._active)
            if serial == queued.serial:
                return self._take(queued)
        while self._backoff:
            _, serial, queued = heapq.heappop(self._backoff)
            if serial == queued.serial:
                self._on_incoming("active", "PopFromBackoffQ")
                return self._take(queued)
        return None

    def _take(self, queued: Queued) -> Queued:
        self._move(queued, "in flight")
        self._in_flight[queued.key] = queued
        queued.missed = []
        queued.attempts += 1
        if queued.first_tried_at is None:
            queued.first_tried_at = queued.queued_at
        return queued

    async def wait(self) -> None:
        """Return when a pod has come; to be called when `pop()` gave none."""
        self._arrival.clear()
        await self._arrival.wait()

    def done(self, queued: Queued) -> None:
        """The pod has been placed."""
        if self._pods.get(queued.key) is queued:
            self.remove(queued.key)

    def give_back(self, queued: Queued, plugins: Collection[str] = (), *, error: bool = False) -> None:
        """The attempt has failed: because of these plugins, or by an error, after which only time has to pass.

        A pod that was done but could not be bound comes back the same way; one that has gone in the meantime, or
        has been made anew, does not.
        """
        known = self._pods.get(queued.key)
        if known is None and queued.place == "in flight" and queued.serial == 0:
            self._pods[queued.key] = queued
            self._sizes["in flight"] += 1
        elif known is not queued:
            return
        self._in_flight.pop(queued.key, None)
        queued.plugins = frozenset(plugins)
        queued.failures = queued.failures + 1 if error or not plugins else 0
        missed, queued.missed = queued.missed, []
        if queued.failures or any(self._helps(queued, event) for event in missed):
            self._to_backoff(queued, "ScheduleAttemptFailure")
        else:
            self._move(queued, "unschedulable")
            self._waiting[queued.key] = queued
            self._on_incoming("unschedulable", "ScheduleAttemptFailure")

    # Events

    def happened(self, event: ClusterEvent) -> None:
        """Wake the pods that an event may help."""
        for queued in self._in_flight.values():
            queued.missed.append(event)
        if not self._waiting and not self._gated:
            return
        concerned: dict[tuple[str, str], bool] = {}
        for queued in [each for each in self._gated.values() if self._helps(each, event, concerned)]:
            self._let_in(queued, event.label)
        woken = [each for each in self._waiting.values() if self._helps(each, event, concerned)]
        for queued in woken:
            self._wake(queued, event.label)

    def activate(self, keys: Iterable[str]) -> None:
        """Try these now."""
        for key in keys:
            queued = self._pods.get(key)
            if queued is not None and queued.place in ("backoff", "unschedulable"):
                self._waiting.pop(key, None)
                self._push_active(queued)
                self._on_incoming("active", "ForceActivate")

    def _helps(self, queued: Queued, event: ClusterEvent, concerned: dict[tuple[str, str], bool] | None = None) -> bool:
        profile = queued.pod["spec"].get("schedulerName", "default-scheduler")
        by_plugin = self._interests.get(profile, {})
        for plugin in queued.plugins:
            interests = by_plugin.get(plugin, ())
            if concerned is not None:
                known = concerned.get((profile, plugin))
                if known is None:
                    known = concerned[(profile, plugin)] = any(
                        each.resource == event.resource and each.action & event.action for each in interests
                    )
                if not known:
                    continue
            if any(self._may_help(plugin, each, queued.pod, event) for each in interests):
                return True
        return False

    def _may_help(self, plugin: str, interest: Interest, pod: Obj, event: ClusterEvent) -> bool:
        """What a plugin thinks of an event; one that fails to say is taken to hope for the best."""
        if interest.resource != event.resource or not interest.action & event.action:
            return False
        self._hints += 1
        measured = self._hints % MEASURED == 1
        started = time.perf_counter() if measured else 0.0
        try:
            helps = interest.helps(pod, event)
            result = "Queue" if helps else "QueueSkip"
        except Exception:
            log.exception("a queueing hint failed for %s of pod %s", event.label, key_of(pod))
            helps, result = True, "Error"
        if measured:
            self._meter.hint(plugin, event.label, result, time.perf_counter() - started)
        return helps

    def _wake(self, queued: Queued, event: str) -> None:
        self._waiting.pop(queued.key, None)
        if queued.since + self.backoff(queued) > self._clock.monotonic():
            self._to_backoff(queued, event, since=queued.since)
        else:
            queued.queued_at = self._clock.monotonic()
            self._push_active(queued)
            self._on_incoming("active", event)

    # Time

    def backoff(self, queued: Queued) -> float:
        """Seconds that a pod waits after its attempts so far: 1, 2, 4, 8, 10."""
        tries = queued.failures or queued.attempts
        return min(self._initial * 2 ** min(max(tries - 1, 0), 30), self._max) if tries else 0.0

    def _to_backoff(self, queued: Queued, event: str, since: float | None = None) -> None:
        self._move(queued, "backoff")
        if since is not None:
            queued.since = since
        heap = self._errors if queued.failures else self._backoff
        heapq.heappush(heap, (queued.since + self.backoff(queued), queued.serial, queued))
        self._on_incoming("backoff", event)
        self._arrival.set()

    def _end_backoffs(self) -> None:
        now = self._clock.monotonic()
        for heap in (self._backoff, self._errors):
            while heap and heap[0][0] <= now:
                _, serial, queued = heapq.heappop(heap)
                if serial == queued.serial:
                    queued.queued_at = now
                    self._push_active(queued)
                    self._on_incoming("active", "BackoffComplete")

    def _flush(self) -> None:
        now = self._clock.monotonic()
        for queued in [each for each in self._waiting.values() if now - each.since > self._max_unschedulable]:
            queued.flushed = True
            self._wake(queued, "UnschedulableTimeout")

    async def run(self) -> None:
        """Let time have its effect, until cancelled."""
        flushed = self._clock.monotonic()
        while True:
            await self._clock.sleep(1.0)
            self._end_backoffs()
            if self._clock.monotonic() - flushed >= FLUSH_SECONDS:
                flushed = self._clock.monotonic()
                self._flush()

    # Places

    def _move(self, queued: Queued, place: Place) -> None:
        self._sizes[queued.place] -= 1
        self._sizes[place] += 1
        queued.place = place
        queued.since = self._clock.monotonic()
        queued.serial = next(self._serials)

    def _push_active(self, queued: Queued) -> None:
        self._move(queued, "active")
        heapq.heappush(self._active, (self._sort_key(queued.pod, queued.queued_at), queued.serial, queued))
        self._arrival.set()
