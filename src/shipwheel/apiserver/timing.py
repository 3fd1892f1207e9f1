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


async def in_time(seconds: float, answering: Awaitable[Answer]) -> Answer:
    """The answer, or ApiError 504. Only in a task."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await answering
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ApiError(504, "Timeout", "Timeout: request did not complete within the allotted timeout") from None


def read_in_time(seconds: float, run: Run) -> Run:
    """A stream that is broken off when its reader takes longer than that."""

    async def limited(writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(seconds):
                await run(writer)
        except TimeoutError:
            writer.abort()

    return limited
