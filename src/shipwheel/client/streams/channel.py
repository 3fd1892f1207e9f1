"""One direction-pair of bytes among several on a connection: a SPDY stream, or a channel of a WebSocket.

What speaks exec, attach or port-forward reads and writes `Channel`s and need not know which it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

HIGH_WATER = 1 << 18
"""Bytes a channel holds unread before its connection is read no further."""


class ChannelReset(ConnectionError):
    """Nothing more can be sent: the peer refused the channel, or gave it up."""


class Channel(Protocol):
    async def read(self) -> bytes:
        """The next bytes; `b""` when the peer will send no more, for whatever reason: servers reset the streams of a
        command that has ended."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the connection is congested. Raises ConnectionError when nobody can get it."""

    async def close(self) -> None:
        """Send no more; what the peer still sends can be read."""


class Inbox:
    """The receiving half of a channel: bytes in the order they came, until an end."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    @property
    def ended(self) -> bool:
        return self._ended

    def put(self, data: bytes) -> None:
        if self._ended or not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER:
            self._emptied.clear()
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()
        self._emptied.set()

    async def get(self) -> bytes:
        while not self._pieces:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._pieces.clear()
        self._size = 0
        self._emptied.set()
        return data

    def abandon(self) -> None:
        """Nobody will read: drop what is here and what comes."""
        self._pieces.clear()
        self._size = 0
        self.end()

    async def has_room(self) -> None:
        """Wait until the reader has caught up."""
        await self._emptied.wait()


async def read_all(channel: Channel, limit: int) -> bytes:
    """Everything up to the channel's end; no more than `limit` bytes are kept."""
    kept = bytearray()
    while data := await channel.read():
        kept += data[: limit - len(kept)]
    return bytes(kept)
