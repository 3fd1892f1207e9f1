"""A watch or a log over WebSocket: each event or piece a message, for clients (browsers) that cannot read a stream."""

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

_ROOM = 1 << 20
_PROTOCOLS = ("", "binary.k8s.io", "base64.binary.k8s.io")


class _SocketWriter:
    """What a stream writes to, as messages that wait for their turn; None is their end."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.buffered = 0
        self.closed = asyncio.Event()
        self._sent = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.buffered += len(data)
        self.messages.put_nowait(data)

    def write_framed(self, chunk: bytes) -> None:
        self.write(unframe(chunk))

    async def drain(self) -> None:
        """Wait until there is room for more."""
        while self.buffered > _ROOM:
            await self._sent.wait()
            self._sent.clear()

    def sent(self, size: int) -> None:
        self.buffered -= size
        self._sent.set()

    def abort(self) -> None:
        self.closed.set()


def over_websocket(request: Request, stream: Stream) -> Upgrade:
    """The same stream, on the socket the client asks for. ApiError 400 when it asks for something else."""
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
            asyncio.create_task(_send(socket, writer, text)),
            asyncio.create_task(_listen(socket)),
            asyncio.create_task(writer.closed.wait()),
        }
        running = asyncio.create_task(_run(stream, writer))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, *tasks):
                task.cancel()
            await asyncio.gather(running, *tasks, return_exceptions=True)
            socket.close()

    return Upgrade(run, headers=headers)


async def _run(stream: Stream, writer: Any) -> None:
    try:
        await stream.run(writer)
    finally:
        writer.messages.put_nowait(None)


async def _send(socket: WebSocket, writer: _SocketWriter, text: bool) -> None:
    """Until everything is sent."""
    while (message := await writer.messages.get()) is not None:
        await socket.send(message, text=text)
        writer.sent(len(message))


async def _listen(socket: WebSocket) -> None:
    """Until the client closes; what it says is of no interest."""
    try:
        while await socket.receive() is not None:
            pass
    except ChannelReset:
        return
