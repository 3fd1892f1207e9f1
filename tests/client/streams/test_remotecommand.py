"""exec's protocol in all its forms: SPDY, WebSocket 1 to 5, and WebSocket translated to SPDY."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from shipwheel.client.httpserver import Answer, HttpServer, Request
from shipwheel.client.streams.channel import Channel, read_all
from shipwheel.client.streams.remotecommand import (
    V1,
    V4,
    V5,
    Endpoint,
    Session,
    StreamOptions,
    accept,
    exit_status,
    open_spdy,
    open_websocket,
    translate,
)
from shipwheel.client.streams.websocket import WebSocket, client_headers
from shipwheel.client.streams.wire import UpgradeRefused, connect

ALL = StreamOptions(stdin=True, stdout=True, stderr=True)
TERMINAL = StreamOptions(stdin=True, stdout=True, tty=True)


async def shout(session: Session) -> None:
    """The command under test: says stdin in capitals, its length on stderr, and exits with it. On a terminal it
    tells the first size instead."""
    assert session.stdout is not None
    if session.resize is not None:
        async for width, height in session.sizes():
            await session.stdout.write(f"{width}x{height}".encode())
            break
        await session.finish(exit_status(0))
        return
    text = await read_all(session.stdin, 1 << 30) if session.stdin else b""
    await session.stdout.write(text.upper())
    if session.stderr is not None:
        await session.stderr.write(str(len(text)).encode())
        await session.stderr.close()
    await session.stdout.close()
    await session.finish(exit_status(len(text) % 256))


class Served:
    def __init__(self) -> None:
        self.port = 0
        self.options = ALL
        self.seen: list[Session] = []

    async def handle(self, request: Request) -> Answer:
        if request.path == "/translated":
            return translate(request, self.options, self.endpoint("/exec"))
        if request.path == "/broken":
            return translate(request, self.options, self.endpoint("/nowhere"))
        if request.path != "/exec":
            from shipwheel.client.httpserver import Response

            return Response(404, b"no such pod", content_type="text/plain")
        return accept(request, self.options, shout)

    def endpoint(self, target: str) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, target)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    server = HttpServer(served.handle)
    served.port = await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(10):
        yield served
    await server.close()


def websocket(protocol: str, target: str = "/exec") -> Callable[[Served], AbstractAsyncContextManager[Session]]:
    return lambda served: open_websocket(served.endpoint(target), served.options, protocols=[protocol])


WAYS = {
    "spdy": lambda served: open_spdy(served.endpoint("/exec"), served.options),
    "websocket v5": websocket(V5),
    "translated": websocket(V5, "/translated"),
}


@asynccontextmanager
async def session(served: Served, way: str) -> AsyncIterator[Session]:
    async with WAYS[way](served) as found:
        yield found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 5, 300_000])
async def test_input_output_errors_and_the_exit_code(served: Served, way: str, size: int) -> None:
    async with session(served, way) as found:
        assert found.stdin and found.stdout and found.stderr
        await found.stdin.write(b"a" * size)
        await found.stdin.close()
        output, errors, outcome = await asyncio.gather(
            _first(found.stdout, size), _first(found.stderr, len(str(size))), _first(found.error, 1)
        )
        assert (output, errors) == (b"A" * size, str(size).encode())
        assert json.loads(outcome) == exit_status(size % 256)


async def _first(channel: Channel, size: int) -> bytes:
    """At least so many bytes: a WebSocket client sees messages, and not every channel's end."""
    data = b""
    while len(data) < size:
        data += await channel.read()
    return data


@pytest.mark.parametrize("way", WAYS)
async def test_a_terminal_tells_its_size(served: Served, way: str) -> None:
    served.options = TERMINAL
    async with session(served, way) as found:
        assert found.resize and found.stdout and found.stderr is None
        await found.resize.write(b'{"Width":80,"Height":24}\n')
        assert await _first(found.stdout, 5) == b"80x24"
        assert json.loads(await _first(found.error, 1))["status"] == "Success"


async def test_what_cannot_be_reached_is_told_on_the_error_channel(served: Served) -> None:
    async with websocket(V5, "/broken")(served) as found:
        status = json.loads(await _first(found.error, 1))
        assert (status["status"], status["code"]) == ("Failure", 500)
        assert "no such pod" in status["message"]


async def test_the_first_websocket_protocols(served: Served) -> None:
    """Before version 4 the end is a text; base64 protocols number channels by digits."""
    served.options = StreamOptions(stdout=True)
    async with websocket(V1)(served) as found:
        assert found.stdout is not None
        assert await found.error.read() == b"", "success is silence"

    upgraded = await connect("127.0.0.1", served.port, "/exec", client_headers(["base64.channel.k8s.io"]))
    socket = WebSocket(upgraded.wire, server=False)
    messages = []
    while (message := await socket.receive()) is not None:
        messages.append((message[:1], base64.b64decode(message[1:])))
    assert messages[0] == (b"1", b"")
    socket.close()


async def test_protocols_nobody_speaks_are_refused(served: Served) -> None:
    with pytest.raises(UpgradeRefused) as refused:
        async with open_websocket(served.endpoint("/exec"), ALL, protocols=["v9.channel.k8s.io"]):
            pass
    assert refused.value.status == 400
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v9")]
    with pytest.raises(UpgradeRefused) as refused:
        await connect("127.0.0.1", served.port, "/exec", headers, method="POST")
    assert refused.value.status == 403


async def test_a_plain_request_is_told_to_upgrade(served: Served) -> None:
    with pytest.raises(UpgradeRefused) as refused:
        await connect("127.0.0.1", served.port, "/exec", [], method="POST")
    assert (refused.value.status, refused.value.body) == (400, b"Upgrade request required")


async def test_a_client_that_leaves_ends_the_command(served: Served) -> None:
    ended = asyncio.Event()

    async def wait_for_ever(session: Session) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def handle(request: Request) -> Answer:
        return accept(request, ALL, wait_for_ever)

    server = HttpServer(handle)
    port = await server.listen("127.0.0.1", 0)
    async with open_spdy(Endpoint("127.0.0.1", port, "/"), ALL):
        pass
    await ended.wait()
    await server.close()


def test_versions_are_offered_from_the_best_on() -> None:
    from shipwheel.client.streams import remotecommand

    assert remotecommand.WEBSOCKET_PROTOCOLS[0] == V5
    assert remotecommand.SPDY_PROTOCOLS[0] == V4
