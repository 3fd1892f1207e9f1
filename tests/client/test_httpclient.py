"""The pool: connections are used again, what broke is asked again only when that is harmless, streams."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shipwheel.client.httpclient import ConnectionFailed, Pool
from shipwheel.client.httpserver import Answer, HttpServer, Request, Response, Stream, StreamWriter, server_tls
from shipwheel.client.serving import self_signed
from tests.client.wire import Wire, serving

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def pool_to(port: int, *, limit: int = 64, tls: ssl.SSLContext | None = None) -> AsyncIterator[Pool]:
    pool = Pool("127.0.0.1", port, tls=tls, limit=limit)
    try:
        yield pool
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[Pool, list[int]]]:
    """A pool to a server that does as `script` says for each connection; and how many there have been."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        try:
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with pool_to(server.sockets[0].getsockname()[1]) as pool:
        yield pool, connections
    server.close()


async def get(pool: Pool, target: str = "/", *, method: str = "GET", timeout: float | None = 5) -> str:
    return (await pool.request(method, target, [], b"", timeout=timeout)).body.decode()


async def say(request: Request) -> Response:
    body = (await request.body(1 << 20)).decode()
    headers = [("X-Seen", request.header("x-sent")), ("X-Host", request.header("host"))]
    return Response(200, f"{request.method} {request.path} {body}".encode(), headers=headers)


class TestRequests:
    async def test_what_goes_over_the_wire(self) -> None:
        async with serving(say) as wire, pool_to(wire.port) as pool:
            answer = await pool.request("PATCH", "/a?b", [("X-Sent", "x")], b"body", timeout=60)
            assert (answer.status, answer.body) == (200, b"PATCH /a body")
            assert answer.header("x-seen") == answer.header("X-SEEN") == "x"
            assert answer.header("x-host") == f"127.0.0.1:{wire.port}"
            assert answer.header("absent") == ""
            assert await get(pool, method="POST") == "POST / "

    async def test_one_connection_serves_one_after_the_other(self) -> None:
        async with serving(say) as wire, pool_to(wire.port) as pool:
            for _ in range(5):
                await get(pool)
            assert len(wire.server.connections) == 1

    async def test_many_at_once_up_to_the_limit(self) -> None:
        at_once = most = 0

        async def handler(request: Request) -> Response:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.005)
            at_once -= 1
            return Response(200)

        async with serving(handler) as wire, pool_to(wire.port, limit=3) as pool:
            await asyncio.gather(*(get(pool) for _ in range(10)))
            assert most == len(wire.server.connections) == 3

    async def test_a_connection_that_is_not_kept(self) -> None:
        async with scripted(answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")) as (
            pool,
            connections,
        ):
            assert [await get(pool) for _ in range(2)] == ["ok", "ok"]
            assert len(connections) == 2

    async def test_a_body_that_ends_with_the_connection(self) -> None:
        async with scripted(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as (pool, _):
            assert await get(pool) == "all of it"

    async def test_interim_answers_are_skipped(self) -> None:
        data = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        async with scripted(answering(data)) as (pool, _):
            answer = await pool.request("GET", "/", [], b"", timeout=60)
            assert (answer.status, answer.body, answer.header("x")) == (200, b"ok", "")


def answering(data: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return script


async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request as if more could come, and hang up when they do."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await reader.readuntil(b"\r\n\r\n")


class TestFailures:
    async def test_nobody_there(self) -> None:
        async with scripted(once) as (pool, _):
            pass
        with pytest.raises(ConnectionFailed, match=r"GET http://127.0.0.1:\d+/: .*[Cc]onnect"):
            await get(pool)

    async def test_a_get_is_asked_again_when_an_idle_connection_turns_out_to_be_dead(self) -> None:
        async with scripted(once) as (pool, connections):
            assert [await get(pool), await get(pool)] == ["ok", "ok"]
            assert len(connections) == 2

    async def test_so_is_a_watch(self) -> None:
        async with scripted(once) as (pool, connections):
            await get(pool)
            stream = await pool.stream("GET", "/", [], b"", timeout=60)
            assert [piece async for piece in stream] == [b"ok"]
            assert len(connections) == 2

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    async def test_a_write_is_not(self, method: str) -> None:
        async with scripted(once) as (pool, connections):
            await get(pool)
            with pytest.raises(ConnectionFailed, match=r"EOF|reset"):
                await get(pool, method=method)
            assert len(connections) == 1

    async def test_a_fresh_connection_that_breaks_is_not_tried_again(self) -> None:
        async with scripted(answering(b"")) as (pool, connections):
            with pytest.raises(ConnectionFailed, match=r"EOF"):
                await get(pool)
            assert len(connections) == 1

    async def test_half_an_answer(self) -> None:
        async with scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")) as (pool, _):
            with pytest.raises(ConnectionFailed, match=r"EOF"):
                await get(pool)

    async def test_what_is_no_http(self) -> None:
        async with scripted(answering(b"SSH-2.0-OpenSSH_9.2\r\n")) as (pool, _):
            with pytest.raises(ConnectionFailed, match=r"malformed HTTP response"):
                await get(pool)

    async def test_no_answer_in_time(self) -> None:
        """Asked once, even on a connection that was used before."""
        asked = 0

        async def handler(request: Request) -> Response:
            nonlocal asked
            asked += 1
            if asked > 1:
                await asyncio.Event().wait()
            return Response(200)

        async with serving(handler) as wire, pool_to(wire.port) as pool:
            await get(pool)
            with pytest.raises(ConnectionFailed, match=r"no answer within 0.05s"):
                await get(pool, timeout=0.05)
            assert asked == 2

    async def test_connecting_counts(self) -> None:
        """A server that accepts but does not shake hands."""

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        started = time.monotonic()
        async with pool_to(server.sockets[0].getsockname()[1], tls=ssl.create_default_context()) as pool:
            with pytest.raises(ConnectionFailed, match=r"i/o timeout"):
                await get(pool, timeout=0.05)
        assert time.monotonic() - started < 5
        server.close()

    async def test_giving_up_frees_the_place(self) -> None:
        asked = asyncio.Event()

        async def handler(request: Request) -> Response:
            if not asked.is_set():
                asked.set()
                await asyncio.Event().wait()
            return Response(200, b"ok")

        async with serving(handler) as wire, pool_to(wire.port, limit=1) as pool:
            first = asyncio.create_task(get(pool))
            await asked.wait()
            first.cancel()
            assert await get(pool) == "ok"


class TestTls:
    @contextlib.asynccontextmanager
    async def secure(self) -> AsyncIterator[tuple[Wire, ssl.SSLContext]]:
        pem = self_signed("127.0.0.1")
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem)
            file.flush()
            server = HttpServer(say)
            port = await server.listen("127.0.0.1", 0, tls=server_tls(file.name, file.name))
        trusting = ssl.create_default_context(cadata=pem[pem.index(b"-----BEGIN CERT") :].decode())
        try:
            yield Wire(server, port), trusting
        finally:
            await server.close()

    async def test_a_trusted_server(self) -> None:
        async with self.secure() as (wire, trusting), pool_to(wire.port, tls=trusting) as pool:
            assert await get(pool, "/x") == "GET /x "
            assert pool.origin == f"https://127.0.0.1:{wire.port}"

    async def test_an_unknown_authority(self) -> None:
        async with self.secure() as (wire, _), pool_to(wire.port, tls=ssl.create_default_context()) as pool:
            with pytest.raises(ConnectionFailed, match=r"tls: failed to verify certificate: self.signed certificate"):
                await get(pool)

    async def test_another_name(self) -> None:
        async with self.secure() as (wire, trusting):
            pool = Pool("127.0.0.1", wire.port, tls=trusting, server_name="other.example.com")
            with pytest.raises(ConnectionFailed, match=r"tls: failed to verify certificate: .*other.example.com"):
                await get(pool)
            await pool.close()

    async def test_a_server_without_tls(self) -> None:
        async with serving(say) as wire, pool_to(wire.port, tls=ssl.create_default_context()) as pool:
            with pytest.raises(ConnectionFailed):
                await get(pool)


class TestStreams:
    async def test_pieces_as_they_come(self) -> None:
        going_on = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            await going_on.wait()
            writer.write(b"two")

        async with serving(streaming(run)) as wire, pool_to(wire.port) as pool:
            stream = await pool.stream("GET", "/", [], b"", timeout=60)
            assert stream.status == 200
            pieces = aiter(stream)
            assert await anext(pieces) == b"one"
            going_on.set()
            assert [piece async for piece in pieces] == [b"two"]
            assert await get(pool) == "onetwo"
            assert len(wire.server.connections) == 1

    async def test_do_not_count_against_the_limit(self) -> None:
        async def handler(request: Request) -> Answer:
            return Stream(for_ever) if request.path == "/watch" else Response(200, b"ok")

        async def for_ever(writer: StreamWriter) -> None:
            await asyncio.Event().wait()

        async with serving(handler) as wire, pool_to(wire.port, limit=1) as pool:
            streams = [await pool.stream("GET", "/watch", [], b"", timeout=60) for _ in range(3)]
            assert await get(pool) == "ok"
            for stream in streams:
                stream.close()
                stream.close()

    async def test_closing_one_ends_its_connection(self) -> None:
        gone = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                gone.set()

        async with serving(streaming(run)) as wire, pool_to(wire.port) as pool:
            stream = await pool.stream("GET", "/", [], b"", timeout=60)
            stream.close()
            async with asyncio.timeout(60):
                await gone.wait()

    async def test_one_that_breaks_off(self) -> None:
        async def run(writer: StreamWriter) -> None:
            writer.write(b"one")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.abort()

        async with serving(streaming(run)) as wire, pool_to(wire.port) as pool:
            stream = await pool.stream("GET", "/", [], b"", timeout=60)
            pieces = aiter(stream)
            assert await anext(pieces) == b"one"
            with pytest.raises(ConnectionFailed):
                await anext(pieces)

    async def test_a_reader_that_is_slow_holds_the_sender_up(self) -> None:
        size = 64 << 20
        written = asyncio.Event()

        async def run(writer: StreamWriter) -> None:
            for _ in range(64):
                writer.write(bytes(1 << 20))
                await writer.drain()
            written.set()

        async with serving(streaming(run)) as wire, pool_to(wire.port) as pool:
            stream = await pool.stream("GET", "/", [], b"", timeout=60)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await written.wait()
            received = 0
            async with asyncio.timeout(60):
                async for piece in stream:
                    received += len(piece)
            assert received == size


def streaming(run: Callable[[StreamWriter], Awaitable[None]]) -> Callable[[Request], Awaitable[Stream]]:
    async def handler(request: Request) -> Stream:
        return Stream(run)

    return handler


async def test_a_handler_that_asks_another_server_first_of_all() -> None:
    """Handlers are no tasks until they wait, and connecting has a time limit, which only tasks can have."""
    behind = HttpServer(say)
    behind_port = await behind.listen("127.0.0.1", 0)

    async def passes_on(request: Request) -> Response:
        async with pool_to(behind_port) as pool:
            return Response(200, (await get(pool, "/behind")).encode())

    front = HttpServer(passes_on)
    async with pool_to(await front.listen("127.0.0.1", 0)) as pool:
        assert await get(pool) == "GET /behind "
    await front.close()
    await behind.close()
