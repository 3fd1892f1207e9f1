"""The queues of one priority level, and who of those that wait is next: fair queuing of requests (KEP-1040).

A request takes seats while it is carried out, as many as it is wide, and for wide writes some for a while after. When
there is no seat it waits in the emptiest of the queues that its flow was dealt. `r` is how many seat-seconds each
queue that has something to do should have been given by now; a queue's `next_r` is how many it will have been given
when its next request begins, were all requests of the usual length; and of those that wait the one is next that would
end first by that reckoning. When a request has ended its queue is given back what it did not use, or pays what it took
beyond.

A plain state machine: whoever calls says what time it is (seconds, never less than before), and carries out what
`arrive`, `dispatch` and `finish` decide. While nobody waits nobody needs a queue, and requests cost little; those that
are under way when somebody has to wait are put into a queue each, as if they had come through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

SERVICE_SECONDS = 0.003
"""How long requests are thought to take, until they have."""


@dataclass(frozen=True, slots=True)
class Width:
    """How many seats a request takes: `initial` while it is carried out, `final` for `linger` seconds after that."""

    initial: int = 1
    final: int = 0
    linger: float = 0.0
    seats: int = field(init=False)
    """As many are held all the time."""
    work: float = field(init=False)
    """In seat-seconds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seats", max(self.initial, self.final))
        object.__setattr__(self, "work", self.initial * SERVICE_SECONDS + self.final * self.linger)

    def within(self, limit: int) -> Width:
        """The same work on no more than `limit` final seats."""
        if not 0 < limit < self.final:
            return self
        return Width(self.initial, limit, self.final * self.linger / limit)


NARROW = Width()


class Claim:
    """One request's claim to seats."""

    __slots__ = ("arrived", "arrived_r", "hand", "queue", "started", "width")

    queue: Queue | None
    arrived: float
    arrived_r: float
    """What `r` was then; only of one that had to wait."""
    started: float
    """Only of one that has."""

    def __init__(self, width: Width, hand: Sequence[int] = ()) -> None:
        self.width = width
        self.hand = hand
        """The queues that it may wait in; none where there are no queues."""
        self.queue = None


class Queue:
    __slots__ = ("executing", "next_r", "seats", "waiting", "work")

    def __init__(self) -> None:
        self.waiting: dict[Claim, None] = {}
        """In the order of their arrival."""
        self.executing: dict[Claim, None] = {}
        self.next_r = 0.0
        self.seats = 0
        """In use."""
        self.work = 0.0
        """That waits, in seat-seconds."""

    @property
    def head(self) -> Claim:
        return next(iter(self.waiting))


@dataclass(frozen=True, slots=True)
class Queuing:
    queues: int
    hand: int
    length_limit: int


class Verdict(Enum):
    EXECUTE = "execute"
    WAIT = "wait"
    TOO_BUSY = "concurrency-limit"
    QUEUE_FULL = "queue-full"


Occupancy = dict[tuple[int, int, int, int], float]
"""Seconds by (seats in use, seats waited for, requests executing, requests waiting)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How the queues stood at the last dispatch, in seat-seconds: `r`; where the queue was that was chosen; the first
    and the last of all queues; and the same without what is under way."""

    r: float = 0.0
    chosen: float = 0.0
    low: float = 0.0
    high: float = 0.0
    low_discounted: float = 0.0
    high_discounted: float = 0.0


class QueueSet:
    """`queuing` None: without a seat nobody waits; `exempt`: everybody is carried out at once."""

    def __init__(self, *, exempt: bool = False, now: float = 0.0) -> None:
        self.exempt = exempt
        self.queuing: Queuing | None = None
        self.limit = 0
        self.now = now
        self.r = 0.0
        self.queues: dict[int, Queue] = {}
        """Those that have been used of late."""
        self.unqueued: dict[Claim, None] = {}
        """What is executing outside of any queue."""
        self.active = 0
        """How many queues have something waiting or executing."""
        self.waiting = self.executing = 0
        self.seats_waiting = self.seats_in_use = 0
        self.dispatched = self.rejected = self.cancelled = 0
        self.blocked: Claim | None = None
        """Who was next at the last `dispatch`, but is too wide for the seats that were left."""
        self.occupancy: Occupancy = {}
        self._enqueued = 0
        self._robin = 0
        self.progress = Progress()

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.executing

    def configure(self, queuing: Queuing | None, limit: int, now: float) -> None:
        """Go on with other queues or another limit. Whoever waits goes on waiting; `dispatch` is called for after."""
        self.pass_time(now)
        self.queuing, self.limit = queuing, limit
        self.queues = {index: queue for index, queue in self.queues.items() if queue.waiting or queue.seats}

    def pass_time(self, now: float) -> None:
        """Everything has been as it is until `now`."""
        span = now - self.now
        self.now = now
        if span > 0.0 and (self.seats_in_use or self.waiting or self.executing):
            state = (self.seats_in_use, self.seats_waiting, self.executing, self.waiting)
            self.occupancy[state] = self.occupancy.get(state, 0.0) + span
            if self.active:
                self.r += min(self.seats_in_use + self.seats_waiting, self.limit) / self.active * span

    def take_occupancy(self, now: float) -> Occupancy:
        """How full it was since this was last asked."""
        self.pass_time(now)
        taken, self.occupancy = self.occupancy, {}
        return taken

    def arrive(self, claim: Claim, now: float) -> Verdict:
        """What becomes of a request. After WAIT, `dispatch` is called for: a narrow request may begin although a wide
        one cannot."""
        self.pass_time(now)
        claim.arrived = now
        width = claim.width
        fits = not self.waiting and self._accommodates(width.seats)
        if fits and (self.seats_in_use < self.limit or not claim.hand):
            if width.final > self.limit:
                claim.width = width.within(self.limit)
            self.unqueued[claim] = None
            self._begin(claim, now)
            return Verdict.EXECUTE
        if not claim.hand:
            self.rejected += 1
            return Verdict.TOO_BUSY
        for other in [each for each in self.unqueued if each.hand]:
            self._enter(other, self._choose(other.hand))
        queue = self._choose(claim.hand)
        if self.seats_in_use >= self.limit and len(queue.waiting) >= self.queuing.length_limit:  # type: ignore[union-attr]
            self.rejected += 1
            return Verdict.QUEUE_FULL
        claim.arrived_r = self.r
        claim.queue = queue
        if not queue.waiting:
            self._rouse(queue)
        queue.waiting[claim] = None
        queue.work += width.work
        self.waiting += 1
        self.seats_waiting += width.seats
        return Verdict.WAIT

    def _rouse(self, queue: Queue) -> None:
        """A queue in which nobody waits is about to be joined."""
        if not queue.executing:
            self.active += 1
            queue.next_r = self.r
        else:
            queue.next_r = max(queue.next_r, self.r)

    def _enter(self, claim: Claim, queue: Queue) -> None:
        """Put what is under way into a queue."""
        del self.unqueued[claim]
        if not queue.waiting:
            self._rouse(queue)
        claim.queue = queue
        queue.executing[claim] = None
        queue.seats += claim.width.seats
        queue.next_r += claim.width.work

    def _choose(self, hand: Sequence[int]) -> Queue:
        """The queue of a hand with the least work waiting. Which one is looked at first changes."""
        offset = self._enqueued % len(hand)
        self._enqueued += 1
        index = hand[offset]
        if self.waiting:
            least = self._work(index)
            for other in (*hand[offset + 1 :], *hand[:offset]):
                work = self._work(other)
                if work < least:
                    index, least = other, work
        queue = self.queues.get(index)
        if queue is None:
            queue = self.queues[index] = Queue()
        return queue

    def _work(self, index: int) -> float:
        queue = self.queues.get(index)
        return queue.work if queue is not None and queue.waiting else 0.0

    def _accommodates(self, seats: int) -> bool:
        if self.seats_in_use + seats <= self.limit or self.exempt:
            return True
        return seats > self.limit and not self.seats_in_use  # what is too wide for the level is carried out alone

    def dispatch(self, now: float) -> list[Claim]:
        """Those that begin now."""
        self.pass_time(now)
        begun: list[Claim] = []
        self.blocked = None
        while self.waiting and self.seats_in_use < self.limit:
            index, queue = self._next_queue()
            claim = queue.head
            if not self._accommodates(claim.width.seats):
                self.blocked = claim
                break
            self._robin = index
            self._drop(claim, queue)
            claim.width = claim.width.within(self.limit)
            queue.executing[claim] = None
            queue.seats += claim.width.seats
            queue.next_r += claim.width.work
            self._begin(claim, now)
            self._bound(queue)
            begun.append(claim)
        return begun

    def _next_queue(self) -> tuple[int, Queue]:
        """The queue whose first request would end first; of several the one that comes next after the last chosen."""
        starts: list[float] = []
        discounted: list[float] = []
        best: tuple[float, int] | None = None
        chosen = -1
        count = max(self.queues) + 1
        for index, queue in self.queues.items():
            if queue.waiting:
                starts.append(queue.next_r)
                discounted.append(queue.next_r - queue.seats * SERVICE_SECONDS)
                rank = (queue.next_r + queue.head.width.work, (index - self._robin - 1) % count)
                if best is None or rank < best:
                    best, chosen = rank, index
        queue = self.queues[chosen]
        self.progress = Progress(self.r, queue.next_r, min(starts), max(starts), min(discounted), max(discounted))
        return chosen, queue

    def _begin(self, claim: Claim, now: float) -> None:
        claim.started = now
        self.dispatched += 1
        self.executing += 1
        self.seats_in_use += claim.width.seats

    def _drop(self, claim: Claim, queue: Queue) -> None:
        """Out of its queue, to begin or for good."""
        del queue.waiting[claim]
        queue.work -= claim.width.work
        self.waiting -= 1
        self.seats_waiting -= claim.width.seats

    def withdraw(self, claim: Claim, now: float) -> bool:
        """Whoever waits gives up: False when it is no longer waiting. `dispatch` is called for after."""
        queue = claim.queue
        if queue is None or claim not in queue.waiting:
            return False
        self.pass_time(now)
        self._drop(claim, queue)
        if not queue.waiting and not queue.executing:
            self.active -= 1
        self._bound(queue)
        self.rejected += 1
        self.cancelled += 1
        return True

    def finish(self, claim: Claim, now: float) -> None:
        """A request has been carried out. Its seats are free again, unless its width lingers: then `release` is called
        for when that is over. After either, `dispatch` is if somebody waits."""
        self.pass_time(now)
        self.executing -= 1
        width = claim.width
        queue = claim.queue
        if queue is None:
            del self.unqueued[claim]
        else:
            del queue.executing[claim]
            queue.next_r -= width.initial * (SERVICE_SECONDS - (now - claim.started))
            if queue.waiting:
                self._bound(queue)
            elif not queue.executing:
                self.active -= 1
        if width.linger <= 0.0:
            self.seats_in_use -= width.seats
            if queue is not None:
                queue.seats -= width.seats

    def release(self, claim: Claim, now: float) -> None:
        self.pass_time(now)
        self.seats_in_use -= claim.width.seats
        if claim.queue is not None:
            claim.queue.seats -= claim.width.seats

    def _bound(self, queue: Queue) -> None:
        """Nothing begins before it arrived, by the queues' reckoning either: a queue that cannot use all that it is
        given saves nothing up."""
        if queue.waiting:
            queue.next_r = max(queue.next_r, queue.head.arrived_r)

    def claims(self) -> Iterator[tuple[int, int, Claim]]:
        """Everybody, with the index of the queue and the place in it: -1 for those that are not in one."""
        for index, queue in sorted(self.queues.items()):
            for place, claim in enumerate(queue.waiting):
                yield index, place, claim
            for claim in queue.executing:
                yield index, -1, claim
        for claim in self.unqueued:
            yield -1, -1, claim
