"""WebSockets (RFC 6455) as Kubernetes uses them: channels in one socket, or raw bytes in its messages.

In the `channel.k8s.io` protocols a message's first byte is the number of its channel; in the `base64` ones it is that
number as a digit, and the rest is text. Version 5 adds channel 255, whose message names a channel that ends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence

from wsproto import connection as ws
from wsproto import events

from shipwheel.client.httpserver import Request
from shipwheel.client.streams.channel import ChannelReset, Inbox
from shipwheel.client.streams.wire import Wire

TUNNEL_PREFIX = "SPDY/3.1+"
"""Of subprotocols that carry a SPDY connection in binary messages (KEP-4006)."""
CLOSE_CHANNEL = 255
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE = 32 << 20
_PIECE = 1 << 16


class BadHandshake(ValueError):
    """The request does not ask for a WebSocket that can be had here."""


# --- The handshake


def is_websocket(request: Request) -> bool:
    return request.is_upgrade and request.header("upgrade").lower() == "websocket"


def requested_protocols(request: Request) -> list[str]:
    """The subprotocols a client offers, in its order."""
    offered = ",".join(request.header_values("sec-websocket-protocol"))
    return [each.strip() for each in offered.split(",") if each.strip()]


def choose_protocol(offered: Sequence[str], known: Sequence[str]) -> str:
    """The client's first choice that is known; empty when it offers none. Raises BadHandshake."""
    if not offered:
        return ""
    for each in offered:
        if each in known:
            return each
    raise BadHandshake(f"requested protocol(s) are not supported: [{' '.join(offered)}]; supports {list(known)}")


def server_headers(request: Request, protocol: str) -> list[tuple[str, str]]:
    """What answers the client's request (with 101). Raises BadHandshake."""
    key = request.header("sec-websocket-key")
    if not key or request.header("sec-websocket-version") != "13":
        raise BadHandshake("not a WebSocket handshake of version 13")
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", _accept(key))]
    return headers + ([("Sec-WebSocket-Protocol", protocol)] if protocol else [])


def client_headers(protocols: Sequence[str]) -> list[tuple[str, str]]:
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
    ]
    # In one header: some servers read only the first.
    return headers + ([("Sec-WebSocket-Protocol", ", ".join(protocols))] if protocols else [])


def _accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


# --- Messages


class WebSocket:
    """Whole messages on an upgraded wire. Pings are answered while somebody receives."""

    def __init__(self, wire: Wire, *, server: bool) -> None:
        self.is_server = server
        self._wire = wire
        kind = ws.ConnectionType.SERVER if server else ws.ConnectionType.CLIENT
        self._connection = ws.Connection(kind)
        self._parts: list[bytes] = []
        self._size = 0
        self._ready: list[bytes] = []

    async def receive(self) -> bytes | None:
        """The next message, text as UTF-8; None when the peer has closed."""
        while not self._ready:
            if self._connection.state is not ws.ConnectionState.OPEN:
                return None
            data = await self._wire.read()
            self._connection.receive_data(data or None)
            for event in self._connection.events():
                if not await self._take(event):
                    return self._ready.pop(0) if self._ready else None
            if not data:
                break
        return self._ready.pop(0) if self._ready else None

    async def _take(self, event: events.Event) -> bool:
        """False when this was the last event."""
        if isinstance(event, events.Message):
            part = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            self._parts.append(part)
            self._size += len(part)
            if self._size > _MAX_MESSAGE:
                await self._send(events.CloseConnection(code=1009, reason="message too big"))
                return False
            if event.message_finished:
                self._ready.append(b"".join(self._parts))
                self._parts, self._size = [], 0
        elif isinstance(event, events.Ping):
            await self._send(event.response())
        elif isinstance(event, events.CloseConnection):
            if self._connection.state is ws.ConnectionState.REMOTE_CLOSING:
                with contextlib.suppress(ConnectionError):
                    await self._send(event.response())
            return False
        return True

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Raises ChannelReset when the socket is closed."""
        if text:
            await self._send(events.TextMessage(data=data.decode()))
        else:
            await self._send(events.BytesMessage(data=data))

    async def ping(self) -> None:
        await self._send(events.Ping())

    async def _send(self, event: events.Event) -> None:
        if self._connection.state not in (ws.ConnectionState.OPEN, ws.ConnectionState.REMOTE_CLOSING):
            raise ChannelReset("the WebSocket is closed")
        self._wire.write(self._connection.send(event))
        await self._wire.drain()

    def close(self, code: int = 1000) -> None:
        """Say goodbye, and close the wire once what was written is sent."""
        if self._connection.state in (ws.ConnectionState.OPEN, ws.ConnectionState.REMOTE_CLOSING):
            self._wire.write(self._connection.send(events.CloseConnection(code=code)))
        self._wire.close()


class TunnelWire:
    """A `Wire` inside a WebSocket: each binary message is some of its bytes."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._outgoing: list[bytes] = []

    async def read(self) -> bytes:
        while (message := await self._socket.receive()) is not None:
            if message:
                return message
        return b""

    def write(self, data: bytes) -> None:
        self._outgoing.append(data)

    async def drain(self) -> None:
        outgoing, self._outgoing = b"".join(self._outgoing), []
        if outgoing:
            await self._socket.send(outgoing)

    def close(self) -> None:
        self._socket.close()


# --- Channels


class WebSocketChannel:
    """A `Channel` of `WebSocketChannels`."""

    def __init__(self, channels: WebSocketChannels, number: int) -> None:
        self._channels = channels
        self.number = number
        self.inbox = Inbox()

    async def read(self) -> bytes:
        return await self.inbox.get()

    async def write(self, data: bytes) -> None:
        pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)] or [b""]
        for piece in pieces:
            await self._channels.send(self.number, piece)

    async def close(self) -> None:
        await self._channels.send_close(self.number)


class WebSocketChannels:
    """Several channels in one socket. `run` reads it and must be running for anything to arrive."""

    def __init__(self, socket: WebSocket, protocol: str, numbers: Iterable[int]) -> None:
        self._socket = socket
        self._base64 = "base64" in protocol
        self._has_close = protocol.startswith("v5.")
        self.channels = {number: WebSocketChannel(self, number) for number in numbers}

    async def run(self) -> None:
        """Read until the peer closes; every channel ends with the socket."""
        try:
            while (message := await self._socket.receive()) is not None:
                if message:
                    await self._take(message)
        except (ConnectionError, ValueError):
            pass
        finally:
            for channel in self.channels.values():
                channel.inbox.end()

    async def _take(self, message: bytes) -> None:
        if self._base64:
            number, data = message[0] - ord("0"), base64.b64decode(message[1:])
        else:
            number, data = message[0], message[1:]
        if number == CLOSE_CHANNEL and self._has_close:
            ended = self.channels.get(data[0]) if data else None
            if ended is not None:
                ended.inbox.end()
            return
        channel = self.channels.get(number)
        if channel is not None:
            channel.inbox.put(data)
            await channel.inbox.has_room()

    async def send(self, number: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send(bytes([ord("0") + number]) + base64.b64encode(data), text=True)
        else:
            await self._socket.send(bytes([number]) + data)

    async def send_close(self, number: int) -> None:
        """Say that a channel ends, where the protocol has words for it: clients do, and do not know it of servers."""
        if self._has_close and not self._socket.is_server:
            with contextlib.suppress(ConnectionError):
                await self._socket.send(bytes([CLOSE_CHANNEL, number]))

    def disconnect(self) -> None:
        self._socket.close()
