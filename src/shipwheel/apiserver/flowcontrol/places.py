"""What the pipeline asks for before a request is carried out: a place, or a refusal."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request

_LONG_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
READING = frozenset({"get", "list", "watch"})
REFUSAL = "Too many requests, please try again later.\n"

Headers = tuple[tuple[str, str], ...]


def lasts_long(info: RequestInfo) -> bool:
    """Whether a request may go on for as long as its client likes."""
    return info.verb == "watch" or info.subresource in _LONG_SUBRESOURCES


class TooMany(Exception):
    """429: come back after so many seconds."""

    def __init__(self, retry_after: int, headers: Headers = ()) -> None:
        super().__init__(REFUSAL)
        self.retry_after = retry_after
        self.headers = headers


class Place(Protocol):
    """What a request holds while it is carried out. `headers` go out with its answer."""

    @property
    def headers(self) -> Headers: ...

    @property
    def turn(self) -> asyncio.Future[None] | None:
        """Done when the place is free; None where it is already."""

    def leave(self) -> None:
        """Give the place back. Once is enough."""


class FlowControl(Protocol):
    def admit(self, info: RequestInfo, user: UserInfo, request: Request) -> Place:
        """A place for a request, perhaps one that is not free yet (see `wait`). Raises `TooMany`."""

    async def wait(self, place: Place, patience: float) -> None:
        """Until the place is free. Raises `TooMany` after `patience` seconds."""

    def serving(self, kind: str) -> int:
        """How many requests are carried out now that are `readOnly` or `mutating`."""

    def waiting(self, kind: str) -> int:
        """The same of those that wait."""


class NoPlace:
    """For those that need none."""

    __slots__ = ()
    headers: Headers = ()
    turn: asyncio.Future[None] | None = None

    def leave(self) -> None:
        pass


NO_PLACE = NoPlace()
