"""One client's connection: bytes to requests, answers to bytes, one request at a time."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

import httptools

from shipwheel.client.httpserver.messages import Request, Response, Stream, Upgrade, encode_header, status_line
from shipwheel.client.httpserver.transfer import Body, ClientGone, StreamWriter, Tunnel

if TYPE_CHECKING:
    from shipwheel.client.httpserver.server import HttpServer

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 1 << 20
HEADER_TIMEOUT = 32.0
IDLE_TIMEOUT = 180.0
LINGER = 0.5
"""Seconds of silence after which a peer that was still sending has found its refusal; closing at once would tear it
up."""
LINGER_AT_MOST = 30.0


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
        self._reading: Body | None = None
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._tunnel: Tunnel | None = None
        self._pausers = 0
        self._drained: asyncio.Future[None] | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
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
            self.deadline = self._loop.time() + LINGER
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
            self._drained.exception()  # who waits may be cancelled before hearing of it, and nobody need then
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
                declared = int(value) if name == b"content-length" else 0
                request._body = self._reading = Body(self, declared, expects)
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
            if isinstance(answer, Response):
                self._respond(request, answer)
            else:
                await self._give(request, answer)
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

    async def _give(self, request: Request, answer: Stream | Upgrade) -> None:
        try:
            if isinstance(answer, Stream):
                await self._stream(request, answer)
            else:
                await self._upgrade(answer)
        finally:
            if answer.over is not None:
                answer.over()

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
        head = [status_line(answer.status), b"Content-Type: %b\r\n" % answer.content_type.encode()]
        if answer.headers:
            head.extend(encode_header(name, value) for name, value in answer.headers)
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
        head.extend(encode_header(name, value) for name, value in answer.headers)
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
        """Take in and drop what the peer still sends, until it has said everything, and close."""
        self._closing = self._deaf = True
        self.resume_reading()
        now = self._loop.time()
        self.deadline = now + LINGER
        self._close_when_silent(now + LINGER_AT_MOST)

    def _close_when_silent(self, end: float) -> None:
        now, until = self._loop.time(), min(self.deadline, end)
        if until <= now:
            self.close()
        elif not self.gone.is_set():
            self._loop.call_at(until, self._close_when_silent, end)

    # The transport, for those above.

    def transport_write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent.append(data)
            self._send()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_soon(self, data: bytes) -> None:
        """Write with whatever else is written before the loop turns. What watchers are told comes in batches, and
        every single write would be encrypted, cost a system call and wake the reader."""
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def _send(self) -> None:
        if not self._unsent:
            return
        data = b"".join(self._unsent) if len(self._unsent) > 1 else self._unsent[0]
        self._unsent.clear()
        self._unsent_bytes = 0
        self.transport_write(data)

    @property
    def buffered(self) -> int:
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + self._unsent_bytes

    async def drain(self) -> None:
        self._send()
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
        self._send()
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
