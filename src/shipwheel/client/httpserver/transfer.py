"""Bytes on their way: the body of a request as it arrives, a streamed answer, an upgraded connection.

Nothing is taken from the wire faster than it is read; what is written waits in the transport, and whoever writes
much asks how much that is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shipwheel.client.httpserver.connection import Connection

BODY_WINDOW = 256 * 1024
"""Bytes of a body held before its handler asks for them; then the sender has to wait."""


class BodyTooLarge(Exception):
    """The request's body is larger than the reader allows."""


class ClientGone(ConnectionError):
    """The peer closed the connection before the body was complete, or before the answer was written."""


def frame(data: bytes) -> bytes:
    """`data` as a chunk of a chunked body, ready for `StreamWriter.write_framed`."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unframe(chunk: bytes) -> bytes:
    """What `frame` was given."""
    return chunk[chunk.index(b"\n") + 1 : -2]


class StreamWriter:
    """The sending side of a `Stream`. Writes never wait; `buffered` tells how far the peer is behind."""

    __slots__ = ("_chunked", "_closed", "_connection")

    def __init__(self, connection: Connection, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked
        self._closed = connection.gone

    def write(self, data: bytes) -> None:
        if data:
            self._connection.transport_write(frame(data) if self._chunked else data)

    def write_framed(self, chunk: bytes) -> None:
        """Write what `frame` made, soon: one framing serves many watchers, one write many events."""
        self._connection.write_soon(chunk if self._chunked else unframe(chunk))

    @property
    def buffered(self) -> int:
        return self._connection.buffered

    @property
    def closed(self) -> asyncio.Event:
        """Set when the peer has gone."""
        return self._closed

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written. Raises `ClientGone`."""
        await self._connection.drain()

    def abort(self) -> None:
        """Cut the peer off at once."""
        self._connection.abort()


class Tunnel:
    """An upgraded connection: raw bytes both ways."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The next bytes, `b""` when the peer has closed."""
        while not self._received:
            if self._ended:
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        data = b"".join(self._received) if len(self._received) > 1 else self._received[0]
        self._received.clear()
        if self._size > BODY_WINDOW:
            self._connection.resume_reading()
        self._size = 0
        return data

    def write(self, data: bytes) -> None:
        self._connection.transport_write(data)

    async def drain(self) -> None:
        await self._connection.drain()

    def close(self) -> None:
        self._connection.close()

    def feed(self, data: bytes) -> None:
        self._received.append(data)
        self._size += len(data)
        if self._size > BODY_WINDOW:
            self._connection.pause_reading()
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Body:
    """A request's body as it arrives. Nothing is taken from the wire faster than it is read."""

    __slots__ = ("_chunks", "_complete", "_connection", "_declared", "_expects_continue", "_size", "_waiting")

    def __init__(self, connection: Connection, declared: int, expects_continue: bool) -> None:
        """`declared` is the size that the sender announced, 0 when it did not."""
        self._connection = connection
        self._declared = declared
        self._expects_continue = expects_continue
        self._chunks: list[bytes] = []
        self._size = 0
        self._complete = False
        self._waiting: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > BODY_WINDOW:
            self._connection.pause_reading()
        self._wake()

    def finish(self) -> None:
        self._complete = True
        self._wake()

    @property
    def complete(self) -> bool:
        return self._complete

    def fail(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ClientGone("the client closed the connection"))

    async def read_all(self, limit: int) -> bytes:
        if self._declared > limit:
            raise BodyTooLarge
        total: list[bytes] = []
        size = 0
        while True:
            chunk = await self.read_some()
            if not chunk:
                return b"".join(total) if len(total) != 1 else total[0]
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge
            total.append(chunk)

    async def read_some(self) -> bytes:
        self._ask()
        while not self._chunks:
            if self._complete:
                return b""
            if self._connection.gone.is_set():
                raise ClientGone("the client closed the connection")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        if self._size > BODY_WINDOW:
            self._connection.resume_reading()
        self._size = 0
        return data

    def _ask(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            if not self._complete and not self._chunks:
                self._connection.transport_write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
