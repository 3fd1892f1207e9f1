"""The server on the wire: one request after the other, bodies, streams, upgrades, and peers that misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from shipwheel.client.httpserver import (
    Answer,
    BodyTooLarge,
    ClientGone,
    Handler,
    Request,
    Response,
    Stream,
    StreamWriter,
    Tunnel,
    Upgrade,
    connection,
    frame,
    in_task,
    server,
)
from tests.client.wire import serving


@pytest.fixture(autouse=True)
def hardly_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.02)


def text(body: str, status: int = 200) -> Response:
    return Response(status, body.encode(), content_type="text/plain")


async def at_once(request: Request) -> Response:
    """Answers in the parser's own call."""
    assert asyncio.current_task() is None
    return text(f"{request.method} {request.path}")


async def later(request: Request) -> Response:
    """Answers as a task."""
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    return text(f"{request.method} {request.path}")


async def much_later(request: Request) -> Response:
    await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await asyncio.sleep(0.001)
    return text(f"{request.method} {request.path}")


HANDLERS = [at_once, later, much_later]


class TestRequests:
    @pytest.mark.parametrize("handler", HANDLERS)
    async def test_keep_alive(self, handler: Handler) -> None:
        async with serving(handler) as wire:
            peer = await wire.connect()
            for path in ("/a", "/b", "/c"):
                peer.send(f"GET {path} HTTP/1.1")
                assert (await peer.answer()).body == f"GET {path}".encode()
            assert len(wire.server.connections) == 1

    @pytest.mark.parametrize("handler", HANDLERS)
    async def test_pipelined_requests_are_answered_in_order(self, handler: Handler) -> None:
        async with serving(handler) as wire:
            peer = await wire.connect()
            for number in range(20):
                peer.send(f"GET /{number} HTTP/1.1")
            assert [(await peer.answer()).body for _ in range(20)] == [b"GET /%d" % number for number in range(20)]

    async def test_one_request_at_a_time(self) -> None:
        at_work = 0

        async def handler(request: Request) -> Response:
            nonlocal at_work
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0.001)
            at_work -= 1
            return text("ok")

        async with serving(handler) as wire:
            peer = await wire.connect()
            for _ in range(5):
                peer.send("POST / HTTP/1.1", "Content-Length: 2", body=b"{}")
            assert [(await peer.answer()).status for _ in range(5)] == [200] * 5

    @pytest.mark.parametrize("lines", [("GET / HTTP/1.1", "Connection: close"), ("GET / HTTP/1.0",)])
    async def test_who_does_not_keep_the_connection(self, lines: tuple[str, ...]) -> None:
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send(*lines)
            answer = await peer.answer()
            assert answer.headers["connection"] == "close"
            assert await peer.closed() == b""

    async def test_head_has_the_length_but_no_body(self) -> None:
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send("HEAD /some HTTP/1.1")
            assert (await peer.head()).headers["content-length"] == str(len("HEAD /some"))
            peer.send("GET /next HTTP/1.1")
            assert (await peer.answer()).body == b"GET /next"

    @pytest.mark.parametrize("status", [204, 304])
    async def test_answers_that_have_no_body(self, status: int) -> None:
        async def handler(request: Request) -> Response:
            return text("not to be sent", status) if request.path == "/none" else text("some")

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET /none HTTP/1.1")
            assert "content-length" not in (await peer.head()).headers
            peer.send("GET /some HTTP/1.1")
            assert (await peer.answer()).body == b"some"

    async def test_what_a_request_says(self) -> None:
        seen: list[Request] = []

        async def handler(request: Request) -> Response:
            seen.append(request)
            return text("")

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET /a%2Fb%20c?x=1&y&x=2&z=%26 HTTP/1.1", "Accept: one", "ACCEPT: two", "X-Empty:")
            await peer.answer()
            peer.send("GET http://some.host:80/absolute?q HTTP/1.1")
            await peer.answer()
        first, second = seen
        assert (first.path, first.raw_path) == ("/a/b c", "/a%2Fb%20c")
        assert first.query == [("x", "1"), ("y", ""), ("x", "2"), ("z", "&")]
        assert (first.parameter("x"), first.parameter("y", "d"), first.parameter("w", "d")) == ("1", "", "d")
        assert first.header("accept") == "one"
        assert first.header_values("accept") == ["one", "two"]
        assert first.header("x-empty", "absent") == ""
        assert first.remote_address == "127.0.0.1"
        assert not first.has_body
        assert (second.path, second.raw_query, second.query) == ("/absolute", "q", [("q", "")])

    async def test_a_header_cannot_start_another_line(self) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, headers=[("Warning", '299 - "a\r\nSet-Cookie: b"')])

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            answer = await peer.answer()
            assert "set-cookie" not in answer.headers
            assert answer.headers["warning"] == '299 - "a  set-cookie: b"'

    async def test_a_handler_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(request: Request) -> Response:
            raise KeyError(request.path)

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET /that HTTP/1.1")
            answer = await peer.answer()
            assert (answer.status, answer.body) == (500, b"internal server error\n")
            assert await peer.closed() == b""
        assert "the handler of GET /that failed" in caplog.text


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            b"nonsense\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    async def test_is_refused(self, data: bytes) -> None:
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.raw(data)
            answer = await peer.answer()
            assert answer.status == 400
            assert answer.body.startswith(b"malformed HTTP request: ")
            assert await peer.closed() == b""

    async def test_a_broken_chunk(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\nzz\r\n")
            assert (await peer.answer()).status == 400
            assert await peer.closed() == b""

    async def test_what_came_before_is_still_answered(self) -> None:
        async with serving(much_later) as wire:
            peer = await wire.connect()
            peer.send("GET /1 HTTP/1.1")
            peer.send("GET /2 HTTP/1.1")
            peer.raw(b"nonsense\r\n\r\n")
            assert [(await peer.answer()).body for _ in range(2)] == [b"GET /1", b"GET /2"]
            assert await peer.closed() == b""

    async def test_headers_that_never_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "HEADER_TIMEOUT", 0.02)
        monkeypatch.setattr(server, "_SWEEP", 0.01)
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.raw(b"GET / HTTP/1.1\r\nHost:")
            async with asyncio.timeout(60):
                assert await peer.closed() == b""

    async def test_idle_connections_are_closed_but_busy_ones_are_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "IDLE_TIMEOUT", 0.05)
        monkeypatch.setattr(server, "_SWEEP", 0.01)

        async def handler(request: Request) -> Response:
            await asyncio.sleep(0.2)
            return text("ok")

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            assert (await peer.answer()).body == b"ok"
            async with asyncio.timeout(60):
                assert await peer.closed() == b""


async def all_of_it(request: Request) -> Response:
    try:
        return text(f"{len(await request.body(100_000))}")
    except BodyTooLarge:
        return text("too large", 413)


class TestBodies:
    async def test_chunked(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            chunks = b"".join(frame(b"x" * size) for size in (1, 10, 5000)) + b"0\r\n\r\n"
            peer.send("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=chunks)
            assert (await peer.answer()).body == b"5011"
            peer.send("GET / HTTP/1.1")
            assert (await peer.answer()).body == b"0"

    async def test_byte_by_byte(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            for byte in b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
                peer.raw(bytes([byte]))
                await peer.writer.drain()
                await asyncio.sleep(0)
            assert (await peer.answer()).body == b"3"

    async def test_beyond_the_limit(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 200000", body=b"x" * 150_000)
            answer = await peer.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")

    @pytest.mark.parametrize("size", [70_000, 4 << 20])
    async def test_who_is_still_sending_hears_the_answer(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "LINGER", 5)
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", f"Content-Length: {size}")
            for _ in range(10):
                peer.raw(bytes(size // 10))
                await peer.writer.drain()
                await asyncio.sleep(0.001)
            answer = await peer.answer()
            assert (answer.body, answer.headers["connection"]) == (b"POST /", "close")

    async def test_who_sends_for_long_hears_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "LINGER", 2)
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 25000")
            for _ in range(25):
                peer.raw(bytes(1000))
                await asyncio.sleep(0.1)
            await peer.writer.drain()
            assert (await peer.answer()).headers["connection"] == "close"

    async def test_but_nobody_is_listened_to_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "LINGER", 60)
        monkeypatch.setattr(connection, "LINGER_AT_MOST", 0.05)
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 25000")
            async with asyncio.timeout(30):
                assert (await peer.answer()).status == 200
                assert await peer.closed() == b""

    async def test_what_says_itself_too_large_is_not_read(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 200000")
            assert (await peer.answer()).status == 413

    async def test_a_sender_waits_for_its_reader(self) -> None:
        read = asyncio.Event()

        async def handler(request: Request) -> Response:
            await read.wait()
            size = 0
            while chunk := await request.body_chunk():
                size += len(chunk)
            return text(str(size))

        size = 32 << 20
        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", f"Content-Length: {size}")
            peer.raw(bytes(size))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await peer.writer.drain()
            read.set()
            assert (await peer.answer()).body == str(size).encode()

    async def test_continue_is_said_when_the_body_is_wanted(self) -> None:
        async with serving(all_of_it) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 3", "Expect: 100-continue")
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            peer.raw(b"abc")
            assert (await peer.answer()).body == b"3"

    async def test_a_body_nobody_wants_is_not_asked_for(self) -> None:
        async with serving(at_once) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 3", "Expect: 100-continue")
            answer = await peer.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await peer.closed() == b""

    async def test_a_sender_that_goes_away(self) -> None:
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        async def handler(request: Request) -> Response:
            try:
                await request.body(100)
            except (ClientGone, asyncio.CancelledError) as error:
                ended.set_result(error)
                raise
            return text("never")

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("POST / HTTP/1.1", "Content-Length: 50", body=b"some")
            await asyncio.sleep(0.01)
            peer.reset()
            async with asyncio.timeout(60):
                await ended
            assert not wire.server.connections


class TestStreams:
    async def test_chunks_as_they_are_written(self) -> None:
        going_on = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            await going_on.wait()
            writer.write(b"")
            writer.write_framed(frame(b"two"))

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            assert (await peer.head()).headers["transfer-encoding"] == "chunked"
            assert await peer.chunk() == b"one"
            going_on.set()
            assert [await peer.chunk(), await peer.chunk()] == [b"two", b""]
            peer.send("GET / HTTP/1.1")
            assert (await peer.answer()).body == b"onetwo"

    async def test_for_those_who_know_no_chunks(self) -> None:
        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            writer.write_framed(frame(b"\r\ntwo\r\n"))

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.0", "Connection: keep-alive")
            assert "transfer-encoding" not in (await peer.head()).headers
            assert await peer.closed() == b"one\r\ntwo\r\n"

    async def test_a_status_without_a_name(self) -> None:
        async def handler(request: Request) -> Stream:
            return Stream(nothing, status=299)

        async def nothing(writer: StreamWriter) -> None:
            pass

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            assert (await peer.answer()).status == 299

    async def test_head_has_no_body(self) -> None:
        async def run(writer: StreamWriter) -> None:
            writer.write(b"some")

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("HEAD / HTTP/1.1")
            assert (await peer.head()).status == 200
            peer.send("GET / HTTP/1.1")
            assert (await peer.answer()).body == b"some"

    async def test_a_slow_reader(self) -> None:
        """Writing does not wait; `buffered` tells, and `drain` waits until the reader is there again."""
        behind: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        drained = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            for _ in range(64):
                writer.write(bytes(1 << 20))
            behind.set_result(writer.buffered)
            await writer.drain()
            drained.set()

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            async with asyncio.timeout(10):
                assert await behind > 16 << 20
                assert not drained.is_set()
                assert len((await peer.answer()).body) == 64 << 20
                await drained.wait()

    async def test_a_reader_that_goes_away(self) -> None:
        gone = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            try:
                await writer.closed.wait()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                gone.set()
                raise

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            await peer.head()
            peer.reset()
            async with asyncio.timeout(60):
                await gone.wait()
            assert not wire.server.connections

    async def test_a_reader_that_goes_away_while_waited_for(self) -> None:
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        async def run(writer: StreamWriter) -> None:
            writer.write(bytes(64 << 20))
            try:
                await writer.drain()
            except (ClientGone, asyncio.CancelledError) as error:
                ended.set_result(error)
                raise

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            await peer.head()
            peer.reset()
            async with asyncio.timeout(60):
                await ended

    async def test_one_that_fails_is_cut_off(self, caplog: pytest.LogCaptureFixture) -> None:
        """No second answer in the middle of the first."""

        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            await writer.drain()
            await asyncio.sleep(0.01)
            raise KeyError("that")

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)) as broken:
                await peer.answer()
            assert b"500" not in getattr(broken.value, "partial", b"")
        assert "the handler of GET / failed" in caplog.text

    async def test_aborting(self) -> None:
        async def run(writer: StreamWriter) -> None:
            writer.abort()

        async with serving(streaming(run)) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await peer.answer()


def streaming(run: Callable[[StreamWriter], Awaitable[None]]) -> Handler:
    async def handler(request: Request) -> Stream:
        return Stream(run)

    return handler


async def echo(tunnel: Tunnel) -> None:
    while data := await tunnel.read():
        tunnel.write(data.upper())
        await tunnel.drain()


class TestUpgrades:
    LINES = ("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: echo")

    @pytest.fixture(params=["at once", "later"])
    def waits(self, request: pytest.FixtureRequest) -> Iterator[bool]:
        yield request.param == "later"

    async def test_accepted(self, waits: bool) -> None:
        async def handler(request: Request) -> Answer:
            assert request.is_upgrade
            if waits:
                await asyncio.sleep(0.01)
            return Upgrade(echo, headers=[("Connection", "Upgrade"), ("Upgrade", "echo")])

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send(*self.LINES, body=b"early ")
            assert (await peer.head()).status == 101
            peer.raw(b"late\r\n\r\n")
            assert await peer.reader.readexactly(14) == b"EARLY LATE\r\n\r\n"
            peer.writer.write_eof()
            assert await peer.closed() == b""

    async def test_declined(self, waits: bool) -> None:
        async def handler(request: Request) -> Answer:
            if waits:
                await asyncio.sleep(0.01)
            return text("no", 403)

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send(*self.LINES)
            answer = await peer.answer()
            assert (answer.status, answer.body) == (403, b"no")
            assert await peer.closed() == b""

    async def test_a_peer_is_told_to_wait(self) -> None:
        started = asyncio.Event()

        async def run(tunnel: Tunnel) -> None:
            await started.wait()
            size = 0
            while data := await tunnel.read():
                size += len(data)
                if size == 32 << 20:
                    break
            tunnel.write(b"all")
            tunnel.close()

        async def handler(request: Request) -> Answer:
            return Upgrade(run, headers=[])

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send(*self.LINES)
            await peer.head()
            peer.raw(bytes(32 << 20))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await peer.writer.drain()
            started.set()
            async with asyncio.timeout(10):
                assert await peer.closed() == b"all"


class TestClosing:
    async def test_lets_requests_finish(self) -> None:
        entered = asyncio.Event()

        async def handler(request: Request) -> Response:
            entered.set()
            await asyncio.sleep(0.05)
            return text("done")

        async with serving(handler) as wire:
            idle, busy = await wire.connect(), await wire.connect()
            busy.send("GET / HTTP/1.1")
            await entered.wait()
            closing = asyncio.create_task(wire.server.close(grace=5))
            assert await idle.closed() == b""
            answer = await busy.answer()
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")
            async with asyncio.timeout(60):
                await closing
            with pytest.raises(OSError):
                await wire.connect()

    async def test_but_not_for_ever(self) -> None:
        left = asyncio.Event()

        async def handler(request: Request) -> Response:
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            return text("never")

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send("GET / HTTP/1.1")
            await asyncio.sleep(0.01)
            started = time.monotonic()
            await wire.server.close(grace=0.05)
            assert left.is_set()
            assert time.monotonic() - started < 2

    @pytest.mark.parametrize("upgraded", [False, True])
    async def test_ends_streams_and_tunnels(self, upgraded: bool) -> None:
        """When `close` returns nobody works for a connection any more."""
        left = asyncio.Event()

        async def run(peer: StreamWriter | Tunnel) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                left.set()

        async def handler(request: Request) -> Answer:
            return Upgrade(run, headers=[]) if upgraded else Stream(run)

        async with serving(handler) as wire:
            peer = await wire.connect()
            peer.send(*TestUpgrades.LINES)
            await peer.head()
            await wire.server.close()
            assert left.is_set()


async def test_in_task_makes_time_outs_possible() -> None:
    async def handler(request: Request) -> Response:
        await in_task()
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return text("ok")

    async with serving(handler) as wire:
        peer = await wire.connect()
        peer.send("GET / HTTP/1.1")
        assert (await peer.answer()).body == b"ok"
