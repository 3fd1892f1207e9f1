"""An HTTP/1.1 server: a request in; a response, a stream or an upgraded connection out.

This is the seam between the wire and the handlers of every component that serves HTTP (API server, kubelet,
health endpoints). It parses with httptools straight from the transport, because the API server's cost per small
request is mostly this: a general web framework takes four times as long. What it does beyond parsing is the
little a Kubernetes component needs: bodies read only when asked for, streams that push, upgrades to raw bytes.

A handler is `async def handle(request) -> Response | Stream | Upgrade`. Most requests are answered from memory
without waiting for anything, so the handler is started at once, in the parser's own call; only when it waits is
it made a task (see `_Resumed`). Before it uses `asyncio.timeout` it must therefore `await in_task()`.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import httptools

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 1 << 20
BODY_WINDOW = 256 * 1024
"""Bytes of a body held before its handler asks for them; then the sender has to wait."""
HEADER_TIMEOUT = 32.0
IDLE_TIMEOUT = 180.0
LINGER = 0.5
"""Seconds for a peer that is still sending to find its refusal, which closing at once would tear up."""
_SWEEP = 5.0

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_STATUS_LINES = {code: f"HTTP/1.1 {code} {phrase}\r\n".encode() for code, phrase in _REASONS.items()}


class BodyTooLarge(Exception):
    """The request's body is larger than the reader allows."""


class ClientGone(ConnectionError):
    """The peer closed the connection before the body was complete, or before the answer was written."""


class Request:
    """One request. Header names are lower case; the target is split but not decoded until asked."""

    __slots__ = (
        "_body", "_connection", "_headers", "_query", "context", "keep_alive", "method", "raw_path", "raw_query",
        "takes_chunks",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        takes_chunks: bool = True,
    ) -> None:
        self._connection = connection
        self._headers = headers
        self._query: list[tuple[str, str]] | None = None
        self._body: _Body | None = None
        self.method = method
        self.keep_alive = keep_alive
        self.takes_chunks = takes_chunks
        """Whether the peer knows chunked bodies; HTTP/1.0 does not."""
        path, _, query = target.partition(b"?")
        if not path.startswith(b"/") and b"://" in path:
            path = b"/" + path.split(b"://", 1)[1].partition(b"/")[2]
        self.raw_path = path.decode("latin-1")
        self.raw_query = query.decode("latin-1")
        self.context: Any = None
        """For the handler's own notes."""

    @property
    def path(self) -> str:
        return unquote(self.raw_path) if "%" in self.raw_path else self.raw_path

    @property
    def query(self) -> list[tuple[str, str]]:
        """Parameters in order, decoded; a name without `=` has the empty value."""
        if self._query is None:
            self._query = parse_qsl(self.raw_query, keep_blank_values=True) if self.raw_query else []
        return self._query

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        if not self.raw_query:
            return default
        return next((value for key, value in self.query if key == name), default)

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header; `name` in lower case."""
        wanted = name.encode()
        for key, value in self._headers:
            if key == wanted:
                return value.decode("latin-1")
        return default

    def header_values(self, name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._headers if key == wanted]

    @property
    def header_names(self) -> Iterable[bytes]:
        return (key for key, _ in self._headers)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self._headers]

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` beyond `limit` bytes, `ClientGone`."""
        if self._body is None:
            return b""
        return await self._body.read_all(limit)

    async def body_chunk(self) -> bytes:
        """The next piece of the body, `b""` at its end. Raises `ClientGone`."""
        if self._body is None:
            return b""
        return await self._body.read_some()

    @property
    def has_body(self) -> bool:
        return self._body is not None

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def remote_address(self) -> str:
        return self._connection.remote_address

    @property
    def is_upgrade(self) -> bool:
        return "upgrade" in self.header("connection").lower()


class Response:
    """A whole answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    def encode(self, *, close: bool, head_only: bool) -> bytes:
        parts = [_status_line(self.status)]
        # A 304 describes nothing anew: caches would take its type for that of what they have (RFC 9110, 15.4.5).
        if self.content_type and self.status != 304:
            parts.append(b"Content-Type: %b\r\n" % self.content_type.encode())
        if self.headers:
            parts.extend(_encode_header(name, value) for name, value in self.headers)
        if self.status not in {204, 304}:
            parts.append(b"Content-Length: %d\r\n" % len(self.body))
        if close:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        if self.body and not head_only and self.status not in {204, 304}:
            parts.append(self.body)
        return b"".join(parts)


def _status_line(status: int) -> bytes:
    """A proxied server may answer with a status that nobody has named."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def _encode_header(name: str, value: str) -> bytes:
    if "\r" in value or "\n" in value:
        value = value.replace("\r", " ").replace("\n", " ")
    return f"{name}: {value}\r\n".encode("utf-8", "replace")


class Stream:
    """An answer whose body is pushed in chunks by `run`, until it returns."""

    __slots__ = ("content_type", "headers", "run", "status")

    def __init__(
        self,
        run: Callable[[StreamWriter], Awaitable[None]],
        *,
        status: int = 200,
        content_type: str = "application/json",
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        self.run = run
        self.status = status
        self.content_type = content_type
        self.headers = headers


class Upgrade:
    """An answer of 101; from then on the connection carries raw bytes between the peer and `run`."""

    __slots__ = ("headers", "run")

    def __init__(self, run: Callable[[Tunnel], Awaitable[None]], *, headers: list[tuple[str, str]]) -> None:
        self.run = run
        self.headers = headers


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], Coroutine[Any, Any, Answer]]


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
        """Write what `frame` made: one framing serves many watchers."""
        self._connection.transport_write(chunk if self._chunked else unframe(chunk))

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


class _Body:
    """A request's body as it arrives. Nothing is taken from the wire faster than it is read."""

    __slots__ = ("_chunks", "_complete", "_connection", "_expects_continue", "_size", "_waiting")

    def __init__(self, connection: Connection, expects_continue: bool) -> None:
        self._connection = connection
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


class _Resumed:
    """A coroutine that was started without a task, and now waits, as something a task can await."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        coroutine = self._coroutine
        try:
            while True:
                try:
                    sent = yield awaited
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:
                    awaited = coroutine.throw(error)
                else:
                    awaited = coroutine.send(sent)
        except StopIteration as stop:
            return stop.value


async def _resume(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Any:
    return await _Resumed(coroutine, awaited)


async def in_task() -> None:
    """From here on the handler runs as a task, as time-outs need it. Costs nothing when it does already."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


class Connection(asyncio.Protocol):
    """One client's connection: requests are answered one after the other."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = server.loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._reading: _Body | None = None
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._tunnel: Tunnel | None = None
        self._pausers = 0
        self._drained: asyncio.Future[None] | None = None
        self._can_write = True
        self._closing = False
        self._deaf = False
        self._answering = False
        """Whether an answer is on its way already, so that no other may be sent instead."""
        self.gone = asyncio.Event()
        self.remote_address = ""
        self.deadline = self._loop.time() + HEADER_TIMEOUT
        self.state: dict[str, Any] = {}
        """What the handler remembers of this connection (the sender's certificate, parsed)."""

    # What asyncio tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.remote_address = peer[0] if isinstance(peer, tuple) else "@"
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if self._deaf:
            return
        if self._reading is None:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            self._expect_upgrade(rest)
        except httptools.HttpParserError as error:
            if self._current is not None and self._reading is None:
                # What came before is well formed and gets its answers; what follows cannot be understood.
                last = self._waiting[-1] if self._waiting else self._current
                last.keep_alive = False
                self.pause_reading()
            else:
                self._refuse(400, f"malformed HTTP request: {error}")
        if self._reading is None and self._header_bytes > MAX_HEADER_BYTES and not self._waiting:
            self._refuse(431, "request header fields too large")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self.gone.set()
        if self._reading is not None:
            self._reading.fail()
        if self._tunnel is not None:
            self._tunnel.end()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ClientGone("the client closed the connection"))
        if self._task is not None and self._tunnel is None:
            self._task.cancel()
        self._waiting.clear()

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # What the parser tells us.

    def on_message_begin(self) -> None:
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        request = Request(
            self,
            parser.get_method().decode(),
            self._target,
            self._headers,
            parser.should_keep_alive(),
            parser.get_http_version() != "1.0",
        )
        self._header_bytes = 0
        for name, value in self._headers:
            if (name == b"content-length" and value != b"0") or name == b"transfer-encoding":
                expects = any(n == b"expect" and v.lower() == b"100-continue" for n, v in self._headers)
                request._body = self._reading = _Body(self, expects)
                break
        self._headers = []
        if self._current is None:
            self._start(request)
        else:
            self._waiting.append(request)
            self.pause_reading()

    def on_body(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading.feed(data)

    def on_message_complete(self) -> None:
        if self._reading is not None:
            body, self._reading = self._reading, None
            body.finish()

    # One request at a time.

    def _start(self, request: Request) -> None:
        self._current = request
        self.deadline = 0.0
        coroutine = self._serve(request)
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return
        self._task = self._loop.create_task(_resume(coroutine, awaited))

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self._server.handler(request)
            if type(answer) is Response:
                self._respond(request, answer)
            elif isinstance(answer, Stream):
                await self._stream(request, answer)
            elif isinstance(answer, Upgrade):
                await self._upgrade(answer)
        except asyncio.CancelledError:
            self.abort()
            raise
        except ConnectionError:
            self.close()
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.raw_path)
            self._refuse(500, "internal server error")
        finally:
            self._finish(request)

    def _respond(self, request: Request, answer: Response) -> None:
        body = request._body
        # A body nobody has read to its end would be taken for the next request.
        unread = body is not None and not body.complete
        close = not request.keep_alive or unread or self._server.closing
        self.transport_write(answer.encode(close=close, head_only=request.method == "HEAD"))
        if unread:
            self._linger()
        elif close:
            self.close()

    async def _stream(self, request: Request, answer: Stream) -> None:
        chunked = request.takes_chunks
        # A body nobody has read to its end would be taken for the next request.
        unread = request._body is not None and not request._body.complete
        close = not request.keep_alive or not chunked or unread or self._server.closing
        head = [_status_line(answer.status), b"Content-Type: %b\r\n" % answer.content_type.encode()]
        if answer.headers:
            head.extend(_encode_header(name, value) for name, value in answer.headers)
        if chunked:
            head.append(b"Transfer-Encoding: chunked\r\n")
        if close:
            head.append(b"Connection: close\r\n")
        head.append(b"\r\n")
        self._answering = True
        self.transport_write(b"".join(head))
        if request.method != "HEAD":
            await in_task()
            await answer.run(StreamWriter(self, chunked))
            if chunked:
                self.transport_write(b"0\r\n\r\n")
        if close or not request.keep_alive or self._server.closing:
            self.close()

    async def _upgrade(self, answer: Upgrade) -> None:
        self._answering = True
        head = [b"HTTP/1.1 101 Switching Protocols\r\n"]
        head.extend(_encode_header(name, value) for name, value in answer.headers)
        head.append(b"\r\n")
        self.transport_write(b"".join(head))
        if self._tunnel is None:
            self._tunnel = Tunnel(self)
        await in_task()
        try:
            await answer.run(self._tunnel)
        finally:
            self.close()

    def _finish(self, request: Request) -> None:
        self._task = None
        self._current = None
        self._answering = False
        if self._closing:
            return
        if request._body is not None and not request._body.complete:
            self.close()
            return
        self.deadline = self._loop.time() + IDLE_TIMEOUT
        if self._waiting:
            following = self._waiting.popleft()
            self.resume_reading()
            self._loop.call_soon(self._start_if_open, following)
            self._current = following

    def _start_if_open(self, request: Request) -> None:
        if not self._closing:
            self._start(request)

    def _expect_upgrade(self, rest: bytes) -> None:
        """The peer asked to upgrade: what follows its request is not HTTP if we agree."""
        if self._current is None:
            # Answered already, and not with an upgrade.
            self.close()
            return
        self._current.keep_alive = False
        self._tunnel = Tunnel(self)
        if rest:
            self._tunnel.feed(rest)

    def _refuse(self, status: int, message: str) -> None:
        """Answer something that cannot go on, and close; half an answer is better cut off than mixed with this."""
        if self._answering:
            self.abort()
        elif not self._closing:
            answer = Response(status, (message + "\n").encode(), content_type="text/plain; charset=utf-8")
            self.transport_write(answer.encode(close=True, head_only=False))
            self._linger()

    def _linger(self) -> None:
        """Take in and drop what the peer still sends, for a moment, and close."""
        self._closing = self._deaf = True
        self.resume_reading()
        self._loop.call_later(LINGER, self.close)

    # The transport, for those above.

    def transport_write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def drain(self) -> None:
        if self.gone.is_set():
            raise ClientGone("the client closed the connection")
        if not self._can_write:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def pause_reading(self) -> None:
        self._pausers += 1
        if self._pausers == 1 and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._pausers:
            self._pausers = 0
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def busy(self) -> bool:
        return self._current is not None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What works on the current request, when that has to wait."""
        return self._task

    def peer_certificate(self) -> bytes | None:
        """The client certificate (DER) that TLS has verified, if the client sent one."""
        if self._transport is None:
            return None
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) if tls is not None else None

    @property
    def is_tls(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None


class HttpServer:
    """Listens and serves until closed.

    `listen` may be called several times (several addresses); it raises OSError when an address cannot be had.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.closing = False
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
        path: str = "",
    ) -> int:
        """Accept connections on an address, a socket of the caller's, or a Unix socket at `path`; returns the
        port."""
        if path:
            listener = await self.loop.create_unix_server(self._connection, path)
        elif sock is not None:
            listener = await self.loop.create_server(self._connection, sock=sock, ssl=tls, backlog=1024)
        else:
            listener = await self.loop.create_server(self._connection, host, port, ssl=tls, backlog=1024)
        self._listeners.append(listener)
        if self._sweeper is None:
            self._sweep()
        if path:
            return 0
        return listener.sockets[0].getsockname()[1]

    def _connection(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        """Close connections that have sent no request for too long."""
        now = self.loop.time()
        for connection in list(self.connections):
            if connection.deadline and connection.deadline < now and not connection.busy:
                connection.close()
        self._sweeper = self.loop.call_later(_SWEEP, self._sweep)

    async def close(self, *, grace: float = 0.0) -> None:
        """Stop listening, let requests under way finish for `grace` seconds, then cut the rest off."""
        self.closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            if not connection.busy:
                connection.close()
        if self.connections and grace:
            leaving = [self.loop.create_task(each.gone.wait()) for each in self.connections]
            _, staying = await asyncio.wait(leaving, timeout=grace)
            for task in staying:
                task.cancel()
        working = [each.task for each in self.connections if each.task is not None]
        for connection in list(self.connections):
            connection.abort()
        for each in working:
            each.cancel()
        if working:
            await asyncio.wait(working)
        await asyncio.sleep(0)


def server_tls(
    certificate: str,
    key: str,
    *,
    client_ca: Mapping[str, str] | list[str] | None = None,
    client_certificate: bool = False,
) -> ssl.SSLContext:
    """A server's TLS context from PEM files. With `client_ca` (PEM texts) a client may show a certificate, which
    one of these CAs must have signed; `client_certificate` makes showing one a must."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    if client_ca:
        for pem in client_ca.values() if isinstance(client_ca, Mapping) else client_ca:
            context.load_verify_locations(cadata=pem)
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    return context
