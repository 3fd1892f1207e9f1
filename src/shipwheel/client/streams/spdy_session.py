"""SPDY streams on a wire: the framer, a reader, and a channel for each stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from shipwheel.client.streams import spdy
from shipwheel.client.streams.channel import ChannelReset, Inbox
from shipwheel.client.streams.wire import Wire


class SpdyStream:
    """A `Channel`. `headers` are those it was opened with."""

    def __init__(self, session: SpdySession, number: int, headers: spdy.Headers) -> None:
        self._session = session
        self.number = number
        self.headers = headers
        self.inbox = Inbox()
        self.replied = asyncio.Event()
        self.refused = False
        """Reset, or cut off with the connection, before it was accepted."""
        self.write_closed = False

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    async def read(self) -> bytes:
        return await self.inbox.get()

    async def write(self, data: bytes) -> None:
        if self.write_closed:
            raise ChannelReset("the stream is closed for writing")
        await self._session.send(self._session.framer.data(self.number, data))

    async def close(self) -> None:
        if self.write_closed:
            return
        self.write_closed = True
        with contextlib.suppress(ConnectionError):
            await self._session.send(self._session.framer.data(self.number, b"", fin=True))
        self._session.forget_if_done(self)

    def end(self) -> None:
        """Nothing more will come."""
        self.refused = not self.replied.is_set()
        self.inbox.end()
        self.replied.set()

    async def reset(self) -> None:
        """Give the stream up: nothing more is sent, and what comes is dropped."""
        self.write_closed = True
        self.inbox.abandon()
        self._session.forget(self)
        with contextlib.suppress(ConnectionError):
            await self._session.send(self._session.framer.reset(self.number, spdy.CANCEL))


class SpdySession:
    """One end of a SPDY connection. `run` reads it and must be running for anything to arrive.

    `on_stream` decides about streams that the peer opens: True accepts. It is called in the reader, so it must
    not wait.
    """

    def __init__(self, wire: Wire, *, server: bool, on_stream: Callable[[SpdyStream], bool] | None = None) -> None:
        self.framer = spdy.SpdyFramer(server=server)
        self._wire = wire
        self._on_stream = on_stream
        self._streams: dict[int, SpdyStream] = {}
        self._last_opened = 0
        self.closed = asyncio.Event()

    async def run(self) -> None:
        """Read until the peer closes or talks nonsense. Every stream ends with the connection."""
        try:
            while data := await self._wire.read():
                for event in self.framer.receive(data):
                    await self._take(event)
                if pending := self.framer.take_pending():
                    await self.send(pending)
        except (spdy.SpdyError, ConnectionError):
            pass
        finally:
            self._end_all()

    async def _take(self, event: spdy.Event) -> None:
        if isinstance(event, spdy.DataReceived):
            stream = self._streams.get(event.stream)
            if stream is None:
                return
            stream.inbox.put(event.data)
            if event.fin:
                stream.inbox.end()
                self.forget_if_done(stream)
            else:
                # Whoever does not read holds up the whole connection, as in the protocol's usual implementation.
                await stream.inbox.has_room()
        elif isinstance(event, spdy.StreamOpened):
            await self._opened(event)
        elif isinstance(event, spdy.StreamReplied):
            stream = self._streams.get(event.stream)
            if stream is not None:
                stream.replied.set()
                if event.fin:
                    stream.inbox.end()
        elif isinstance(event, spdy.StreamReset):
            stream = self._streams.pop(event.stream, None)
            if stream is not None:
                stream.write_closed = True
                stream.end()

    async def _opened(self, event: spdy.StreamOpened) -> None:
        if event.stream <= self._last_opened:
            await self.send(self.framer.reset(event.stream, spdy.PROTOCOL_ERROR))
            return
        self._last_opened = event.stream
        stream = SpdyStream(self, event.stream, event.headers)
        if self._on_stream is None or not self._on_stream(stream):
            await self.send(self.framer.reset(event.stream, spdy.REFUSED_STREAM))
            return
        self._streams[event.stream] = stream
        if event.fin:
            stream.inbox.end()
        await self.send(self.framer.reply(event.stream))

    async def open(self, *streams: spdy.Headers) -> list[SpdyStream]:
        """Begin streams, all at once, and wait until the peer has accepted them. Raises ChannelReset when it refuses
        one."""
        begun, requests = [], bytearray()
        for headers in streams:
            number, data = self.framer.open(headers)
            begun.append(SpdyStream(self, number, headers))
            self._streams[number] = begun[-1]
            requests += data
        await self.send(bytes(requests))
        for stream in begun:
            await stream.replied.wait()
            if stream.refused:
                raise ChannelReset("the peer refused the stream")
        return begun

    async def send(self, data: bytes) -> None:
        if self.closed.is_set():
            raise ChannelReset("the connection is closed")
        self._wire.write(data)
        await self._wire.drain()

    def forget(self, stream: SpdyStream) -> None:
        self._streams.pop(stream.number, None)

    def forget_if_done(self, stream: SpdyStream) -> None:
        if stream.write_closed and stream.inbox.ended:
            self.forget(stream)

    def _end_all(self) -> None:
        self.closed.set()
        for stream in self._streams.values():
            stream.end()
        self._streams.clear()

    async def close(self) -> None:
        """Say goodbye and close the wire."""
        if not self.closed.is_set():
            with contextlib.suppress(ConnectionError):
                await self.send(self.framer.go_away(self._last_opened))
        self._wire.close()
