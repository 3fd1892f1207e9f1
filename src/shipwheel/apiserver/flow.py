"""A place for every request: how many are served at once, and who waits.

Reads and writes have a limit each, as `--max-requests-inflight` and `--max-mutating-requests-inflight` say; who finds
no place free waits for one, and is answered 429 when too many wait already or the wait gets long. A place is held
until the answer has been given, which for a streamed list is when its last byte is written. Watches take no place of
these, but are limited in number; exec and the like are not counted. What keeps the cluster alive (leases, and the
nodes' own word on themselves) has a share of its own, and system:masters need none, so that a storm of LISTs starves
neither.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from shipwheel.api.errors import ApiError, too_many_requests
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.requestinfo import RequestInfo

_LONG_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_READING = frozenset({"get", "list", "watch", "head"})
_QUEUE_FACTOR = 8
_REFUSAL = "Too many requests, please try again later."
RETRY_AFTER = 1
"""Seconds."""


def lasts_long(info: RequestInfo) -> bool:
    """Whether a request may go on for as long as its client likes."""
    return info.verb == "watch" or info.subresource in _LONG_SUBRESOURCES


class _Lane:
    """A number of places (0: any number), and those who wait for one."""

    def __init__(self, limit: int, *, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.used = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        return self.used < self.limit or self.limit <= 0

    async def wait(self, patience: float) -> None:
        """Until somebody hands over a place. ApiError 429 when too many wait already, or nobody does in time."""
        if len(self.waiting) >= self.queue:
            raise refused()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self.waiting.append(turn)
        alarm = loop.call_later(patience, _send_away, turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()
            raise
        finally:
            alarm.cancel()

    def leave(self) -> None:
        while self.waiting:
            following = self.waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self.used -= 1


def _send_away(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(refused())


def refused() -> ApiError:
    return too_many_requests(_REFUSAL, RETRY_AFTER)


class Place:
    """A place taken; `leave` gives it back."""

    __slots__ = ("_count", "_kind", "_lane")

    def __init__(self, lane: _Lane, count: Counter[str], kind: str) -> None:
        self._lane: _Lane | None = lane
        self._count = count
        self._kind = kind
        count[kind] += 1

    def leave(self) -> None:
        if self._lane is not None:
            self._count[self._kind] -= 1
            self._lane.leave()
            self._lane = None


class Flow:
    """`patience` is how many seconds a request waits for its place."""

    def __init__(
        self, *, max_requests: int = 400, max_mutating: int = 200, max_watches: int = 0, patience: float = 15.0
    ) -> None:
        self.reads = _Lane(max_requests, queue=max_requests * _QUEUE_FACTOR)
        self.writes = _Lane(max_mutating, queue=max_mutating * _QUEUE_FACTOR)
        self.vital = _Lane(max(16, max_mutating // 2), queue=max_mutating * _QUEUE_FACTOR)
        self.watches = _Lane(max_watches, queue=0)
        self.unlimited = _Lane(0, queue=0)
        self.serving: Counter[str] = Counter()
        """How many requests have a place, as `readOnly`, `mutating` or `long`."""
        self._patience = patience

    async def enter(self, info: RequestInfo, user: UserInfo) -> Place:
        """Take a place, waiting for one if need be. ApiError 429 when there is none to be had."""
        lane, kind = self._lane(info, user)
        if lane.free:
            lane.used += 1
        else:
            await lane.wait(self._patience)
        return Place(lane, self.serving, kind)

    def _lane(self, info: RequestInfo, user: UserInfo) -> tuple[_Lane, str]:
        if lasts_long(info):
            return self.watches if info.verb == "watch" else self.unlimited, "long"
        kind = "readOnly" if info.verb in _READING else "mutating"
        if "system:masters" in user.groups:
            return self.unlimited, kind
        if info.resource == "leases" or (info.resource == "nodes" and "system:nodes" in user.groups):
            return self.vital, kind
        return (self.reads if kind == "readOnly" else self.writes), kind
