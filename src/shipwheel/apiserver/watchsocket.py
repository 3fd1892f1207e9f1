"""A watch over WebSocket: each event a message, for clients (browsers) that cannot read a stream."""

from __future__ import annotations

import asyncio
from typing import Any

from shipwheel.api.errors import bad_request
from shipwheel.client.httpserver import Request, Stream, Tunnel, Upgrade, unframe
from shipwheel.client.streams.channel import ChannelReset
from shipwheel.client.streams.websocket import (
    BadHandshake,
    WebSocket,
    choose_protocol,
    requested_protocols,
    server_headers,
)

_PROTOCOLS = ("", "binary.k8s.io", "base64.binary.k8s.io")


class _SocketWriter:
    """What a watch writes to, as messages that wait for their turn."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.buffered = 0
        self.closed = asyncio.Event()

    def write_framed(self, chunk: bytes) -> None:
        event = unframe(chunk)
        self.buffered += len(event)
        self.messages.put_nowait(event)

    def abort(self) -> None:
        self.closed.set()


def over_websocket(request: Request, stream: Stream) -> Upgrade:
    """The same watch, on the socket the client asks for. ApiError 400 when it asks for something else."""
    try:
        wanted = requested_protocols(request)
        protocol = choose_protocol(wanted, _PROTOCOLS) if wanted else ""
        headers = server_headers(request, protocol)
    except BadHandshake as error:
        raise bad_request(str(error)) from None

    async def run(tunnel: Tunnel) -> None:
        socket = WebSocket(tunnel, server=True)
        writer: Any = _SocketWriter()
        text = "json" in stream.content_type
        tasks = {
            asyncio.ensure_future(stream.run(writer)),
            asyncio.create_task(_send(socket, writer, text)),
            asyncio.create_task(_listen(socket)),
            asyncio.create_task(writer.closed.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            socket.close()

    return Upgrade(run, headers=headers)


async def _send(socket: WebSocket, writer: _SocketWriter, text: bool) -> None:
    while True:
        event = await writer.messages.get()
        await socket.send(event, text=text)
        writer.buffered -= len(event)


async def _listen(socket: WebSocket) -> None:
    """Until the client closes; what it says is of no interest."""
    try:
        while await socket.receive() is not None:
            pass
    except ChannelReset:
        return
