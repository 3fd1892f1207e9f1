"""Work queues: keys to reconcile, each at most once in the queue and by at most one worker at a time.

The semantics are client-go's: a key added while it is being worked on is queued again when that work is done; a
key that fails comes back later and later (5 ms doubling to 1000 s), and all failures together at most ten a
second after a burst of a hundred.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from shipwheel.api.clock import Clock
from shipwheel.client.metrics import QueueMetrics

Key = TypeVar("Key", bound=Hashable)

BASE_DELAY = 0.005
MAX_DELAY = 1000.0
BUCKET_QPS = 10.0
BUCKET_BURST = 100


class ShutDown(Exception):
    """The queue is closed and empty."""


class RateLimiter(Generic[Key]):
    """How long a failed key waits: the longer of its own exponential delay and its turn in the common bucket."""

    def __init__(
        self,
        clock: Clock,
        *,
        base: float = BASE_DELAY,
        maximum: float = MAX_DELAY,
        qps: float = BUCKET_QPS,
        burst: int = BUCKET_BURST,
    ) -> None:
        self._clock = clock
        self._base = base
        self._maximum = maximum
        self._qps = qps
        self._burst = float(burst)
        self._tokens = float(burst)
        self._stamp = clock.monotonic()
        self._failures: dict[Key, int] = {}

    def when(self, key: Key) -> float:
        """Count a failure of `key`; returns the seconds to wait."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        own = min(self._base * 2 ** min(failures, 60), self._maximum)
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._stamp) * self._qps) - 1
        self._stamp = now
        return max(own, -self._tokens / self._qps if self._tokens < 0 else 0.0)

    def forget(self, key: Key) -> None:
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        return self._failures.get(key, 0)


class WorkQueue(Generic[Key]):
    """A queue of keys. `await get()` them, and `done(key)` each. `name` is that of its metrics.

    `run_delayed()` must be running for delayed keys to come due.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        metrics: QueueMetrics | None = None,
        limiter: RateLimiter[Key] | None = None,
    ) -> None:
        self.name = name
        self._clock = clock
        self._limiter: RateLimiter[Key] = limiter or RateLimiter(clock)
        self._queue: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._working: dict[Key, float] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._delayed: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._serial = 0
        self._earlier = asyncio.Event()
        self._closed = False
        self._added: dict[Key, float] = {}
        self._meter = _Meter(name, metrics, self._ages) if metrics else None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing is queued and nothing is being worked on (delayed keys aside)."""
        return not self._queue and not self._working

    def add(self, key: Key) -> None:
        """Queue a key, unless it is queued already."""
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if self._meter:
            self._meter.added()
            self._added.setdefault(key, self._clock.monotonic())
        if key not in self._working:
            self._push(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Queue a key after a while; of several delays the soonest counts."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._serial += 1
        heapq.heappush(self._delayed, (due, self._serial, key))
        if self._delayed[0][2] == key:
            self._earlier.set()

    def add_rate_limited(self, key: Key) -> None:
        """Queue a key that failed, after its back-off."""
        if self._meter:
            self._meter.retried()
        self.add_after(key, self._limiter.when(key))

    def forget(self, key: Key) -> None:
        """A key succeeded: its next failure starts from the shortest delay."""
        self._limiter.forget(key)

    def failures(self, key: Key) -> int:
        """How often a key failed since it last succeeded."""
        return self._limiter.failures(key)

    async def get(self) -> Key:
        """The next key, now being worked on; ShutDown when there will be none."""
        while not self._queue:
            if self._closed:
                raise ShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # it was for us; let somebody else have it
                raise
        key = self._queue.popleft()
        self._dirty.discard(key)
        now = self._clock.monotonic()
        self._working[key] = now
        if self._meter:
            self._meter.taken(now - self._added.pop(key, now))
        return key

    def done(self, key: Key) -> None:
        """Work on a key is over; if it was added meanwhile it is queued again."""
        started = self._working.pop(key)
        if self._meter:
            self._meter.finished(self._clock.monotonic() - started)
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """Take no more keys; those queued are still given out."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def run_delayed(self) -> None:
        """Move delayed keys into the queue when they come due, until cancelled."""
        while True:
            self._earlier.clear()
            self.move_due()
            if self._delayed:
                sleep = asyncio.ensure_future(self._clock.sleep(self._delayed[0][0] - self._clock.monotonic()))
                earlier = asyncio.ensure_future(self._earlier.wait())
                try:
                    await asyncio.wait((sleep, earlier), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    sleep.cancel()
                    earlier.cancel()
            else:
                await self._earlier.wait()

    def move_due(self) -> None:
        """Queue what has come due by now."""
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:  # else it was overtaken by a shorter delay
                del self._due[key]
                self.add(key)

    def _ages(self) -> list[float]:
        """For how long each key in work has been worked on, in seconds."""
        now = self._clock.monotonic()
        return [now - started for started in self._working.values()]

    def _push(self, key: Key) -> None:
        self._queue.append(key)
        if self._meter:
            self._meter.queued()
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class _Meter:
    """A queue's children of the `workqueue_*` metrics. Those of work in progress ask for `ages` when they are read."""

    def __init__(self, name: str, metrics: QueueMetrics, ages: Callable[[], list[float]]) -> None:
        self._adds = metrics.adds.labels(name)
        self._depth = metrics.depth.labels(name)
        self._latency = metrics.latency.labels(name)
        self._work = metrics.work.labels(name)
        self._retries = metrics.retries.labels(name)
        metrics.unfinished.labels(name).set_function(lambda: sum(ages()))
        metrics.longest.labels(name).set_function(lambda: max(ages(), default=0.0))

    def added(self) -> None:
        self._adds.inc()

    def queued(self) -> None:
        self._depth.inc()

    def taken(self, waited: float) -> None:
        self._depth.dec()
        self._latency.observe(waited)

    def finished(self, seconds: float) -> None:
        self._work.observe(seconds)

    def retried(self) -> None:
        self._retries.inc()
