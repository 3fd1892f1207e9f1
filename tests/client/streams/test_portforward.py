"""Port-forward over SPDY, over SPDY in a WebSocket, and over WebSocket channels."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from shipwheel.client.httpserver import Answer, HttpServer, Request
from shipwheel.client.streams import portforward
from shipwheel.client.streams.channel import read_all
from shipwheel.client.streams.remotecommand import V4, Endpoint
from shipwheel.client.streams.spdy_session import SpdySession
from shipwheel.client.streams.websocket import (
    TUNNEL_PREFIX,
    TunnelWire,
    WebSocket,
    WebSocketChannels,
    client_headers,
)
from shipwheel.client.streams.wire import SocketWire, Wire, connect, header


class Served:
    """A pod with an echo server on its port 7, forwarded at `/direct` and, through a tunnel, at `/tunneled`."""

    def __init__(self) -> None:
        self.port = 0
        self.echo = 0

    async def dial(self, port: int) -> Wire:
        if port != 7:
            raise ConnectionRefusedError(111, "Connection refused")
        return SocketWire(*await asyncio.open_connection("127.0.0.1", self.echo))

    async def handle(self, request: Request) -> Answer:
        if request.path == "/tunneled":
            return await portforward.tunnel(request, Endpoint("127.0.0.1", self.port, "/direct"))
        ports = [int(value) for name, value in request.query if name == "port"]
        return portforward.accept(request, ports, self.dial)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each line in capitals and closes after `bye`."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
        if line == b"bye\n":
            break
    writer.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    pod = await asyncio.start_server(echo, "127.0.0.1", 0)
    served.echo = pod.sockets[0].getsockname()[1]
    server = HttpServer(served.handle)
    served.port = await server.listen("127.0.0.1", 0)
    async with asyncio.timeout(10):
        yield served
    await server.close()
    pod.close()


async def wire_to(served: Served, way: str) -> Wire:
    if way == "spdy":
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", portforward.PROTOCOL),
        ]
        upgraded = await connect("127.0.0.1", served.port, "/direct", headers, method="POST")
        return upgraded.wire
    protocol = TUNNEL_PREFIX + portforward.PROTOCOL
    upgraded = await connect("127.0.0.1", served.port, "/tunneled", client_headers([protocol]))
    assert header(upgraded.headers, "sec-websocket-protocol") == protocol
    return TunnelWire(WebSocket(upgraded.wire, server=False))


@pytest.mark.parametrize("way", ["spdy", "tunneled"])
async def test_connections_share_one_session(served: Served, way: str) -> None:
    session = SpdySession(await wire_to(served, way), server=False)
    reader = asyncio.create_task(session.run())

    async def converse(number: int) -> bytes:
        headers = [("port", "7"), ("requestid", str(number))]
        [error] = await session.open([("streamtype", "error"), *headers])
        await error.close()
        [data] = await session.open([("streamtype", "data"), *headers])
        await data.write(b"hello %d\n" % number)
        await data.write(b"bye\n")
        answer = await read_all(data, 1000)
        assert await read_all(error, 1000) == b""
        return answer

    answers = await asyncio.gather(*(converse(number) for number in range(5)))
    assert answers == [b"HELLO %d\nBYE\n" % number for number in range(5)]
    await session.close()
    await reader


async def test_a_port_where_nobody_listens(served: Served) -> None:
    session = SpdySession(await wire_to(served, "spdy"), server=False)
    reader = asyncio.create_task(session.run())
    headers = [("port", "8"), ("requestid", "0")]
    [error] = await session.open([("streamtype", "error"), *headers])
    [data] = await session.open([("streamtype", "data"), *headers])
    assert await read_all(error, 1000) == b"error forwarding port 8 to pod: Connection refused"
    assert await read_all(data, 1000) == b""
    await session.close()
    await reader


async def test_websocket_channels_begin_with_their_port(served: Served) -> None:
    upgraded = await connect("127.0.0.1", served.port, "/direct?port=7&port=8", client_headers([V4]))
    channels = WebSocketChannels(WebSocket(upgraded.wire, server=False), V4, range(4))
    reader = asyncio.create_task(channels.run())
    data, error, _, refused = channels.channels.values()
    assert struct.unpack("<H", (await data.read())[:2]) == (7,)
    assert struct.unpack("<H", (await error.read())[:2]) == (7,)
    await data.write(b"bye\n")
    assert await data.read() == b"BYE\n"
    text = b""
    while b"refused" not in text:
        text += await refused.read()
    assert text == struct.pack("<H", 8) + b"error forwarding port 8 to pod: Connection refused"
    channels.disconnect()
    await reader
