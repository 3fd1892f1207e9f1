"""A small HTTP/1.1 client: keep-alive connections over TLS, whole answers, and streams.

Components send thousands of small requests a second to one server and hold some dozens of watches. A general
client library costs several times more per request than this (see docs/dependencies.md) and a fifth of a
second of every component's start. So: a pool of connections to one address, parsed by httptools, and nothing
that an API server's client does not need (no redirects, cookies, compression or proxies).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

Headers = Sequence[tuple[str, str]]

_IDLE_SECONDS = 90.0
_CONNECT_SECONDS = 30.0
_HIGH_WATER = 1 << 20
"""Bytes of a stream that may wait to be read before the socket is no longer read."""


class ConnectionFailed(OSError):
    """The server could not be reached, or the connection broke before the answer was complete."""


class _IdleLost(ConnectionFailed):
    """A connection that had been idle broke before any answer came."""


@dataclass(slots=True)
class Response:
    """A whole answer. Header names are lower-case bytes, as they came."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header; empty when it is absent."""
        return _find(self.headers, name)


class Stream(Protocol):
    """An answer whose body arrives over time."""

    status: int

    def header(self, name: str) -> str: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body's pieces as they arrive; ConnectionFailed when it breaks off."""

    def close(self) -> None:
        """Stop listening. Safe to repeat, and needed unless the body was read to its end."""


class Transport(Protocol):
    """The way to one server. `target` is path and query; `timeout` is seconds, None for ever."""

    async def request(
        self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None
    ) -> Response: ...

    async def stream(
        self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None
    ) -> Stream: ...

    async def close(self) -> None: ...


class Pool:
    """Connections to one address, opened as needed and kept while they are of use.

    At most `limit` whole requests are under way at once; more wait their turn. Streams are not counted.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, server_name: str = "", limit: int = 64
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._server_name = server_name or host
        shown = f"[{host}]" if ":" in host else host
        self.origin = f"{'https' if tls else 'http'}://{shown}:{port}"
        self._prefix = f" HTTP/1.1\r\nHost: {shown}:{port}\r\n"
        self._idle: list[tuple[float, _Connection]] = []
        self._open: set[_Connection] = set()
        self._slots = asyncio.Semaphore(limit)
        self._reaper: asyncio.TimerHandle | None = None

    async def request(
        self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None
    ) -> Response:
        """Send a request and wait for the whole answer."""
        async with self._slots:
            exchange = await self._ask(method, target, headers, body, False, timeout)
        return Response(exchange.status, exchange.headers, b"".join(exchange.chunks))

    async def stream(self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None) -> Stream:
        """Send a request and wait for the answer's head, at most `timeout` seconds."""
        return await self._ask(method, target, headers, body, True, timeout)

    async def close(self) -> None:
        if self._reaper:
            self._reaper.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        await asyncio.gather(*(connection.closed for connection in self._open))

    async def _ask(
        self, method: str, target: str, headers: Headers, body: bytes, streaming: bool, timeout: float | None
    ) -> _Exchange:
        try:
            return await self._exchange(method, target, headers, body, streaming, timeout)
        except _IdleLost:
            # The server may close an idle connection just as it is used again; asking twice for the same is harmless.
            if method != "GET":
                raise
            return await self._exchange(method, target, headers, body, streaming, timeout, fresh=True)

    async def _exchange(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        streaming: bool,
        timeout: float | None,
        *,
        fresh: bool = False,
    ) -> _Exchange:
        lines = [method, " ", target, self._prefix]
        for name, value in headers:
            lines += (name, ": ", value, "\r\n")
        if body or method in ("POST", "PUT", "PATCH"):
            lines += ("Content-Length: ", str(len(body)), "\r\n")
        lines.append("\r\n")
        what = f"{method} {self.origin}{target}"
        connection = None if fresh else self._take_idle()
        reused = connection is not None
        if connection is None:
            connection = await self._connect(what, timeout)
        loop = asyncio.get_running_loop()
        exchange = _Exchange(connection, streaming, what, loop.create_future(), reused=reused)
        connection.exchange = exchange
        connection.transport.write("".join(lines).encode("latin-1") + body)
        timer = loop.call_later(timeout, exchange.time_out, timeout) if timeout is not None else None
        try:
            await exchange.ready
        except asyncio.CancelledError:
            exchange.close()
            raise
        finally:
            if timer:
                timer.cancel()
        return exchange

    async def _connect(self, what: str, timeout: float | None) -> _Connection:
        loop = asyncio.get_running_loop()
        # An HTTP handler becomes a task, which time limits need, with its first wait (see httpserver).
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS if timeout is None else min(timeout, _CONNECT_SECONDS)):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._released, self._open.discard),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._server_name if self._tls else None,
                )
        except TimeoutError:
            raise ConnectionFailed(f"{what}: dial tcp {self._host}:{self._port}: i/o timeout") from None
        except ssl.SSLCertVerificationError as error:
            raise ConnectionFailed(f"{what}: tls: failed to verify certificate: {error.verify_message}") from error
        except OSError as error:
            raise ConnectionFailed(f"{what}: {error.strerror or error}") from error
        _keep_alive(connection.transport.get_extra_info("socket"))
        self._open.add(connection)
        return connection

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.lost:
                return connection
        return None

    def _released(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._reaper is None:
            self._reaper = loop.call_later(_IDLE_SECONDS, self._reap)

    def _reap(self) -> None:
        """Close what was idle for long. The longest idle are at the front."""
        loop = asyncio.get_running_loop()
        horizon = loop.time() - _IDLE_SECONDS
        stale = [connection for since, connection in self._idle if since <= horizon]
        self._idle = [(since, each) for since, each in self._idle if since > horizon and not each.lost]
        for connection in stale:
            connection.transport.close()
        self._reaper = loop.call_later(_IDLE_SECONDS, self._reap) if self._idle else None


class _Exchange:
    """One request's answer, as it arrives. It is also the `Stream` that a reader sees."""

    __slots__ = (
        "_buffered", "_connection", "_error", "_reused", "_what", "chunks", "ended", "headers", "ready", "status",
        "streaming", "wake",
    )  # fmt: skip

    def __init__(
        self,
        connection: _Connection,
        streaming: bool,
        what: str,
        ready: asyncio.Future[None],
        *,
        reused: bool = False,
    ) -> None:
        self._connection = connection
        self._reused = reused
        self._what = what
        self._error: ConnectionFailed | None = None
        self._buffered = 0
        self.streaming = streaming
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: deque[bytes] = deque()
        self.ended = False
        self.ready = ready
        self.wake: asyncio.Future[None] | None = None

    def header(self, name: str) -> str:
        return _find(self.headers, name)

    def head_complete(self) -> None:
        if self.streaming and not self.ready.done():
            self.ready.set_result(None)

    def received(self, data: bytes) -> None:
        self.chunks.append(data)
        if self.streaming:
            self._buffered += len(data)
            if self._buffered > _HIGH_WATER:
                self._connection.transport.pause_reading()
            self._notify()

    def complete(self) -> None:
        self.ended = True
        if not self.ready.done():
            self.ready.set_result(None)
        self._notify()

    def failed(self, why: str) -> None:
        unanswered = _IdleLost if self._reused and not self.status else ConnectionFailed
        self._error = unanswered(f"{self._what}: {why}")
        self.ended = True
        if not self.ready.done():
            self.ready.set_exception(self._error)
        self._notify()

    def time_out(self, seconds: float) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionFailed(f"{self._what}: no answer within {seconds:g}s"))
            self.close()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self._connection.exchange = None
            self._connection.transport.abort()

    def _notify(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            while self.chunks:
                yield self.chunks.popleft()
            if self._buffered:
                if self._buffered > _HIGH_WATER and not self._connection.lost:
                    self._connection.transport.resume_reading()
                self._buffered = 0
            if self.ended:
                if self._error:
                    raise self._error
                return
            self.wake = loop.create_future()
            try:
                await self.wake
            finally:
                self.wake = None


class _Connection(asyncio.Protocol):
    """One connection, carrying one exchange at a time."""

    transport: asyncio.Transport

    def __init__(self, released: Callable[[_Connection], None], forget: Callable[[_Connection], None]) -> None:
        self._released = released
        self._forget = forget
        self._parser: Any = httptools.HttpResponseParser(self)
        self._until_eof = False
        self.exchange: _Exchange | None = None
        self.lost = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            self.transport.abort()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"malformed HTTP response: {error}")
            self.transport.abort()

    def eof_received(self) -> None:
        if self.exchange is not None and self._until_eof:
            self.exchange.complete()
            self.exchange = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail(str(exc) if exc else "EOF")
        self._forget(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def _fail(self, why: str) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.failed(why)

    # The parser's callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.exchange is not None:
            self.exchange.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        if exchange.status >= 200:
            self._until_eof = not (exchange.header("content-length") or exchange.header("transfer-encoding"))
            exchange.head_complete()

    def on_body(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.received(data)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.status < 200:  # an interim answer: the real one follows
            exchange.headers.clear()
            return
        self.exchange = None
        keep = self._parser.should_keep_alive()
        exchange.complete()
        if keep:
            self.transport.resume_reading()
            self._released(self)
        else:
            self.lost = True
            self.transport.close()


def _find(headers: list[tuple[bytes, bytes]], name: str) -> str:
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in headers if key == wanted), "")


def _keep_alive(connection: socket.socket | None) -> None:
    """Notice within a minute that the other machine is gone, even on a watch that is silent."""
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
