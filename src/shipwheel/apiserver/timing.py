"""How long a request may take: `--request-timeout`, or less where it asks for less itself (`?timeout=`).

What is done by then is not undone: who is told 504 does not know whether a write has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shipwheel.api.errors import ApiError, bad_request
from shipwheel.client.flags import parse_duration
from shipwheel.client.httpserver import Answer, Request, StreamWriter

Run = Callable[[StreamWriter], Awaitable[None]]


def allotted(request: Request, most: float) -> float:
    """How many seconds the request may take: what it says itself, but at most `most`. ApiError 400."""
    text = request.parameter("timeout") if "timeout=" in request.raw_query else ""
    if not text:
        return most
    try:
        wanted = parse_duration(text)
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None
    return wanted if 0 < wanted < most else most


class OutOfTime(ApiError):
    """504: the time that a request may take is up."""

    def __init__(self) -> None:
        super().__init__(504, "Timeout", "Timeout: request did not complete within the allotted timeout")


class _Alarm:
    """Cancels a task when its time is up."""

    __slots__ = ("_task", "rung")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self.rung = False

    def ring(self) -> None:
        self.rung = True
        self._task.cancel()


async def in_time(seconds: float, answering: Awaitable[Answer]) -> Answer:
    """The answer, or OutOfTime. Only in a task. (`asyncio.timeout` takes three times as long, in every write.)"""
    task = asyncio.current_task()
    assert task is not None
    alarm = _Alarm(task)
    handle = asyncio.get_running_loop().call_later(seconds, alarm.ring)
    try:
        return await answering
    except asyncio.CancelledError:
        if alarm.rung and task.cancelling() == 1:
            raise OutOfTime from None
        raise
    finally:
        handle.cancel()
        if alarm.rung:
            task.uncancel()


def read_in_time(seconds: float, run: Run, aborted: Callable[[], None]) -> Run:
    """A stream that is broken off, and `aborted` called, when its reader takes longer than that."""

    async def limited(writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(seconds):
                await run(writer)
        except TimeoutError:
            aborted()
            writer.abort()

    return limited
