"""A place for every request: how many are served at once, and who waits.

Long-running requests (watches, streams, proxied connections) are not counted. Reads and writes have a limit each, as
`--max-requests-inflight` and `--max-mutating-requests-inflight` say; who finds none free waits a moment, and is
answered 429 when the queue is full. What keeps the cluster alive (leases, node status, system:masters) has a share
of its own, so that a storm of LISTs does not starve it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from shipwheel.api.errors import too_many_requests
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.requestinfo import RequestInfo

_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_LONG_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_VITAL_RESOURCES = frozenset({"leases", "nodes"})
_QUEUE_FACTOR = 8


class _Lane:
    """A number of places, and those who wait for one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def leave(self) -> None:
        while self.waiting:
            following = self.waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self.used -= 1


class Ticket:
    """A place taken; `leave` gives it back."""

    __slots__ = ("_lane",)

    def __init__(self, lane: _Lane | None) -> None:
        self._lane = lane

    def leave(self) -> None:
        if self._lane is not None:
            self._lane.leave()
            self._lane = None


_NO_TICKET = Ticket(None)


class Flow:
    def __init__(self, *, max_requests: int = 400, max_mutating: int = 200) -> None:
        self.reads = _Lane(max_requests)
        self.writes = _Lane(max_mutating)
        self.vital = _Lane(max(16, max_mutating // 2))

    async def enter(self, info: RequestInfo, user: UserInfo) -> Ticket:
        """Take a place, waiting for one if need be. ApiError 429 when too many wait already."""
        if info.verb == "watch" or info.subresource in _LONG_SUBRESOURCES:
            return _NO_TICKET
        if info.resource in _VITAL_RESOURCES or "system:masters" in user.groups:
            lane = self.vital
        else:
            lane = self.writes if info.verb in _MUTATING else self.reads
        if lane.limit <= 0:
            return _NO_TICKET
        if lane.used < lane.limit:
            lane.used += 1
            return Ticket(lane)
        if len(lane.waiting) >= lane.limit * _QUEUE_FACTOR:
            raise too_many_requests("Too many requests, please try again later.", 1)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                lane.leave()
            raise
        return Ticket(lane)
