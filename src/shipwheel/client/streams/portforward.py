"""The port-forward protocol: TCP connections into a pod, many in one HTTP connection.

Over SPDY each connection is a pair of streams with the same `requestID`: one for its bytes, one for an error message.
WebSocket clients either put that SPDY connection into binary messages (kubectl since 1.31) or use the older form, with
ports named beforehand and two channels for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipwheel.client.httpserver import Answer, Request, Response, Tunnel, Upgrade
from shipwheel.client.streams.channel import Channel
from shipwheel.client.streams.remotecommand import V4, Endpoint, while_connected
from shipwheel.client.streams.spdy_session import SpdySession, SpdyStream
from shipwheel.client.streams.websocket import (
    TUNNEL_PREFIX,
    BadHandshake,
    TunnelWire,
    WebSocket,
    WebSocketChannels,
    choose_protocol,
    is_websocket,
    requested_protocols,
    server_headers,
)
from shipwheel.client.streams.wire import UpgradeRefused, Wire, connect, join

PROTOCOL = "portforward.k8s.io"
WEBSOCKET_PROTOCOLS = (V4, "v4.base64.channel.k8s.io")
_PAIR_SECONDS = 30.0
_TEXT = "text/plain; charset=utf-8"

Dial = Callable[[int], Awaitable[Wire]]
"""A connection to a port of the pod. Raises OSError."""


# --- The server's side


def accept(request: Request, ports: Sequence[int], dial: Dial) -> Answer:
    """Answer an upgrade request and forward until the client closes. `ports` are for WebSocket clients, who cannot
    name them later."""
    if is_websocket(request):
        return _accept_websocket(request, ports, dial)
    if not request.is_upgrade or request.header("upgrade").lower() != "spdy/3.1":
        return Response(400, b"Upgrade request required", content_type=_TEXT)

    async def run(tunnel: Tunnel) -> None:
        await _serve_spdy(tunnel, dial)

    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", PROTOCOL)]
    return Upgrade(run, headers=headers)


@dataclass(slots=True)
class _Pair:
    port: int
    data: SpdyStream | None = None
    error: SpdyStream | None = None


async def _serve_spdy(wire: Wire, dial: Dial) -> None:
    pairs: dict[str, _Pair] = {}
    complete: asyncio.Queue[_Pair] = asyncio.Queue()

    def on_stream(stream: SpdyStream) -> bool:
        kind, port = stream.header("streamtype"), stream.header("port")
        if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
            return False
        # Clients before 1.3 number nothing: their error stream comes right before its data stream.
        number = stream.number + (2 if kind == "error" else 0)
        key = stream.header("requestid") or str(number)
        pair = pairs.setdefault(key, _Pair(int(port)))
        setattr(pair, kind, stream)
        if pair.data is not None and pair.error is not None:
            del pairs[key]
            complete.put_nowait(pair)
        return True

    session = SpdySession(wire, server=True, on_stream=on_stream)

    async def serve() -> None:
        async with asyncio.TaskGroup() as connections:
            while True:
                pair = await complete.get()
                if pair.data is not None and pair.error is not None:
                    connections.create_task(_forward(pair.port, pair.data, pair.error, dial))

    with contextlib.suppress(ConnectionError):
        await while_connected(session.run(), serve())
    await session.close()


def _accept_websocket(request: Request, ports: Sequence[int], dial: Dial) -> Answer:
    try:
        protocol = choose_protocol(requested_protocols(request), WEBSOCKET_PROTOCOLS)
        headers = server_headers(request, protocol)
    except BadHandshake as error:
        return Response(400, str(error).encode(), content_type=_TEXT)
    if not ports:
        return Response(400, b'query parameter "port" is required', content_type=_TEXT)

    async def run(tunnel: Tunnel) -> None:
        channels = WebSocketChannels(WebSocket(tunnel, server=True), protocol, range(2 * len(ports)))

        async def serve() -> None:
            async with asyncio.TaskGroup() as connections:
                for index, port in enumerate(ports):
                    data, error = channels.channels[2 * index], channels.channels[2 * index + 1]
                    # Each channel begins with the number of its port.
                    await data.write(struct.pack("<H", port))
                    await error.write(struct.pack("<H", port))
                    connections.create_task(_forward(port, data, error, dial))
            await asyncio.Event().wait()

        with contextlib.suppress(ConnectionError):
            await while_connected(channels.run(), serve())
        channels.disconnect()

    return Upgrade(run, headers=headers)


async def _forward(port: int, data: Channel, error: Channel, dial: Dial) -> None:
    """One connection, from its beginning to its end."""
    with contextlib.suppress(ConnectionError):
        try:
            wire = await dial(port)
        except OSError as failure:
            text = f"error forwarding port {port} to pod: {failure.strerror or failure}"
            await error.write(text.encode())
            await error.close()
            await data.close()
            return
        try:
            await _carry(data, wire)
        finally:
            wire.close()
        await error.close()
        await data.close()


async def _carry(data: Channel, wire: Wire) -> None:
    async def outward() -> None:
        with contextlib.suppress(ConnectionError):
            while received := await wire.read():
                await data.write(received)

    async def inward() -> None:
        with contextlib.suppress(ConnectionError):
            while sent := await data.read():
                wire.write(sent)
                await wire.drain()

    inner = asyncio.create_task(inward())
    try:
        # The pod's end decides: a client that has said everything may still wait for the answer.
        await outward()
    finally:
        inner.cancel()
        await asyncio.gather(inner, return_exceptions=True)


# --- In between


def tunneled_protocols(request: Request) -> list[str]:
    """The protocols a client wants to speak in a SPDY connection inside its WebSocket."""
    return [each.removeprefix(TUNNEL_PREFIX) for each in requested_protocols(request) if each.startswith(TUNNEL_PREFIX)]


async def tunnel(request: Request, endpoint: Endpoint) -> Answer:
    """Serve a client that puts its SPDY connection into a WebSocket with the SPDY connection at `endpoint`
    (KEP-4006)."""
    offered = tunneled_protocols(request)
    try:
        upgraded = await connect(
            endpoint.host,
            endpoint.port,
            endpoint.target,
            [
                ("Connection", "Upgrade"),
                ("Upgrade", "SPDY/3.1"),
                *(("X-Stream-Protocol-Version", each) for each in offered),
                *endpoint.headers,
            ],
            method="POST",
            tls=endpoint.tls,
            server_name=endpoint.server_name,
        )
    except UpgradeRefused as refused:
        return Response(refused.status, refused.body, content_type=refused.content_type or _TEXT)
    chosen = next(
        (value for name, value in upgraded.headers if name.lower() == "x-stream-protocol-version"), offered[0]
    )
    try:
        headers = server_headers(request, TUNNEL_PREFIX + chosen)
    except BadHandshake as error:
        upgraded.wire.close()
        return Response(400, str(error).encode(), content_type=_TEXT)

    async def run(connection: Tunnel) -> None:
        await join(TunnelWire(WebSocket(connection, server=True)), upgraded.wire)

    return Upgrade(run, headers=headers)
