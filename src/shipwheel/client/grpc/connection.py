"""One HTTP/2 connection, either end: the library's state machine between a socket and the streams of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes

_WINDOW = 1 << 20
"""Bytes that may arrive unread on a stream; a connection may have several."""


class StreamState:
    """What the connection tells one call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.writable = asyncio.Event()

    def headers_received(self, headers: list[tuple[str, str]], *, last: bool) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def ended(self) -> None:
        """The other side sends no more."""

    def failed(self, why: str, *, code: str = "UNAVAILABLE") -> None:
        """The stream was reset or the connection is gone."""


class Connection(asyncio.Protocol):
    """`opened` is called for each stream that the other side begins (a server's)."""

    def __init__(self, *, server: bool, opened: Callable[[Connection, int], StreamState] | None = None) -> None:
        config = H2Configuration(client_side=not server, header_encoding="utf-8", validate_inbound_headers=False)
        self._h2 = H2Connection(config=config)
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, StreamState] = {}
        self.usable = False
        """New calls can be made on it."""
        self.lost = asyncio.Event()

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(4 * _WINDOW)
        self._flush()
        self.usable = True

    def data_received(self, data: bytes) -> None:
        try:
            received = self._h2.receive_data(data)
        except H2Error as error:
            self._fail(f"connection error: {error}")
            return
        for event in received:
            self._take(event)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("error reading from server: EOF" if exc is None else str(exc))

    def _fail(self, why: str) -> None:
        self.usable = False
        self.lost.set()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.failed(why)
            stream.writable.set()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self.usable:
            self.usable = False
            self._h2.close_connection()
            self._flush()
        if self._transport is not None:
            self._transport.close()

    # What the library makes of it

    def _take(self, event: Any) -> None:
        if isinstance(event, events.RequestReceived) and self._opened is not None:
            stream = self._streams[event.stream_id] = self._opened(self, event.stream_id)
            stream.headers_received(_text(event.headers), last=False)
        elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
            if found := self._streams.get(event.stream_id):
                found.headers_received(_text(event.headers), last=isinstance(event, events.TrailersReceived))
        elif isinstance(event, events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if found := self._streams.get(event.stream_id):
                found.data_received(event.data)
        elif isinstance(event, events.StreamEnded):
            if found := self._streams.get(event.stream_id):
                found.ended()
        elif isinstance(event, events.StreamReset):
            if found := self._streams.pop(event.stream_id, None):
                cancelled = event.error_code == ErrorCodes.CANCEL
                found.failed(
                    f"stream terminated by RST_STREAM with error code: {event.error_code!s}",
                    code="CANCELLED" if cancelled else "UNAVAILABLE",
                )
                found.writable.set()
        elif isinstance(event, events.WindowUpdated | events.RemoteSettingsChanged):
            for stream in self._streams.values():
                stream.writable.set()
        elif isinstance(event, events.ConnectionTerminated):
            # Calls under way may still be answered; new ones need a new connection.
            self.usable = False

    # Streams

    def begin(self, headers: list[tuple[str, str]], make: Callable[[int], StreamState]) -> StreamState:
        """Begin a stream, as a client."""
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = make(number)
        self._h2.send_headers(number, headers)
        self._flush()
        return stream

    def send_headers(self, stream: StreamState, headers: list[tuple[str, str]], *, last: bool = False) -> None:
        try:
            self._h2.send_headers(stream.number, headers, end_stream=last)
        except (H2Error, KeyError) as error:
            raise ConnectionResetError(str(error)) from error
        self._flush()

    async def send(self, stream: StreamState, data: bytes, *, last: bool) -> None:
        """As fast as the other side's windows allow. Raises ConnectionError."""
        position = 0
        while True:
            if self.lost.is_set() or stream.number not in self._streams:
                raise ConnectionResetError("the stream is closed")
            try:
                room = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
                piece = data[position : position + room]
                position += len(piece)
                done = position == len(data)
                if piece or done:
                    self._h2.send_data(stream.number, piece, end_stream=last and done)
            except (H2Error, StreamClosedError, KeyError) as error:
                raise ConnectionResetError(str(error)) from error
            self._flush()
            if done:
                return
            if not piece:
                stream.writable.clear()
                await stream.writable.wait()

    def reset(self, stream: StreamState) -> None:
        """Give a call up."""
        if self._streams.pop(stream.number, None) is not None and not self.lost.is_set():
            try:
                self._h2.reset_stream(stream.number, ErrorCodes.CANCEL)
            except H2Error:
                return
            self._flush()

    def forget(self, stream: StreamState) -> None:
        self._streams.pop(stream.number, None)


def _text(headers: Any) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in headers]
