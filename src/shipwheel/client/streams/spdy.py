"""SPDY/3.1 framing, without input or output: bytes in, events out; calls in, bytes out.

Browsers have long forgotten SPDY, but `kubectl exec` of every release before 1.31 speaks it, and API servers
still speak it to kubelets, and kubelets to container runtimes. Only what those use is here: streams with headers,
half-close, reset, ping and goaway. Their implementation ignores SPDY's flow control, so windows are neither kept
nor updated; TCP alone slows a sender down.

Draft: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM = 1, 2, 3
_PING, _GOAWAY, _HEADERS = 6, 7, 8
_FIN = 1
MAX_DATA = 1 << 16
"""Bytes a data frame of ours carries; larger writes are cut."""
_MAX_HEADER_BLOCK = 1 << 20
_MASK = 0x7FFFFFFF

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, UNSUPPORTED_VERSION, CANCEL, INTERNAL_ERROR = range(1, 7)

Headers = Sequence[tuple[str, str]]

_WORDS = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age
allow authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie
keep-alive origin"""
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    """What both sides' compressors begin with (section 2.6.10.1): words with their lengths, then loose text."""
    words = [word.replace("_", " ").encode() for word in _WORDS.split()]
    return b"".join(struct.pack(">I", len(word)) + word for word in words) + _REST.encode()


class SpdyError(Exception):
    """The peer does not speak SPDY/3.1; the connection is of no more use."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    stream: int
    headers: Headers
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReplied:
    stream: int
    headers: Headers
    fin: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    ping: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer opens and accepts no more streams."""

    last_stream: int


Event = StreamOpened | StreamReplied | DataReceived | StreamReset | PongReceived | GoneAway


class SpdyFramer:
    """One connection's state: what was half received, both header compressors, the next stream's number.

    Calls that send return the bytes to write, in the order in which they must be written.
    """

    def __init__(self, *, server: bool) -> None:
        self._parity = 0 if server else 1
        self._next_stream = 2 if server else 1
        self._next_ping = 2 if server else 1
        self._buffer = bytearray()
        dictionary = _dictionary()
        self._deflate = zlib.compressobj(zdict=dictionary)
        self._inflate = zlib.decompressobj(zdict=dictionary)
        self._pending = bytearray()

    # Receiving

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes bring. Raises SpdyError. Answers to pings are left in `take_pending`."""
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        start = 0
        while len(buffer) - start >= 8:
            first, second = struct.unpack_from(">II", buffer, start)
            flags, length = second >> 24, second & 0xFFFFFF
            if len(buffer) - start - 8 < length:
                break
            body = bytes(buffer[start + 8 : start + 8 + length])
            start += 8 + length
            event = self._control(first, flags, body) if first >> 31 else self._data(first, flags, body)
            if event is not None:
                events.append(event)
        del buffer[:start]
        return events

    def take_pending(self) -> bytes:
        """Bytes that must be sent because of what was received."""
        pending, self._pending = bytes(self._pending), bytearray()
        return pending

    def _data(self, stream: int, flags: int, body: bytes) -> Event:
        return DataReceived(stream, body, bool(flags & _FIN))

    def _control(self, first: int, flags: int, body: bytes) -> Event | None:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"unsupported SPDY version {version}")
        fin = bool(flags & _FIN)
        try:
            if kind == _SYN_STREAM:
                (stream,) = struct.unpack_from(">I", body)
                return StreamOpened(stream & _MASK, self._read_headers(body[10:]), fin)
            if kind == _SYN_REPLY:
                (stream,) = struct.unpack_from(">I", body)
                return StreamReplied(stream & _MASK, self._read_headers(body[4:]), fin)
            if kind == _RST_STREAM:
                stream, status = struct.unpack(">II", body)
                return StreamReset(stream & _MASK, status)
            if kind == _PING:
                (ping,) = struct.unpack(">I", body)
                if ping & 1 == self._parity:
                    return PongReceived(ping)
                self._pending += _frame(_PING, 0, body)
            if kind == _GOAWAY:
                (stream,) = struct.unpack_from(">I", body)
                return GoneAway(stream & _MASK)
            if kind == _HEADERS:
                # Late headers mean nothing here, but their block belongs to the compressor's history.
                (stream,) = struct.unpack_from(">I", body)
                self._read_headers(body[4:])
                return DataReceived(stream & _MASK, b"", True) if fin else None
        except struct.error as error:
            raise SpdyError(f"malformed SPDY control frame of type {kind}") from error
        return None

    def _read_headers(self, block: bytes) -> Headers:
        try:
            raw = self._inflate.decompress(block, _MAX_HEADER_BLOCK)
        except zlib.error as error:
            raise SpdyError(f"malformed SPDY headers: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError("SPDY headers are too large")
        (count,) = struct.unpack_from(">I", raw)
        position, headers = 4, []
        for _ in range(count):
            parts = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", raw, position)
                position += 4
                if position + length > len(raw):
                    raise SpdyError("malformed SPDY headers: a value is cut short")
                parts.append(raw[position : position + length].decode("latin-1"))
                position += length
            headers += [(parts[0].lower(), value) for value in parts[1].split("\0")]
        return headers

    # Sending

    def open(self, headers: Headers, *, fin: bool = False) -> tuple[int, bytes]:
        """Begin a stream: (its number, the bytes to write)."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        body = struct.pack(">IIBB", stream, 0, 0, 0) + self._write_headers(headers)
        return stream, _frame(_SYN_STREAM, _FIN if fin else 0, body)

    def reply(self, stream: int, headers: Headers = (), *, fin: bool = False) -> bytes:
        """Accept a stream that the peer began. Its peer drops data that comes before this."""
        return _frame(_SYN_REPLY, _FIN if fin else 0, struct.pack(">I", stream) + self._write_headers(headers))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Send on a stream; with `fin` it is the last that will be sent on it."""
        pieces = [data[at : at + MAX_DATA] for at in range(0, len(data), MAX_DATA)] or [b""]
        frames = bytearray()
        for number, piece in enumerate(pieces, 1):
            last = fin and number == len(pieces)
            frames += struct.pack(">II", stream, (_FIN if last else 0) << 24 | len(piece)) + piece
        return bytes(frames)

    def reset(self, stream: int, status: int) -> bytes:
        return _frame(_RST_STREAM, 0, struct.pack(">II", stream, status))

    def ping(self) -> tuple[int, bytes]:
        ping, self._next_ping = self._next_ping, self._next_ping + 2
        return ping, _frame(_PING, 0, struct.pack(">I", ping))

    def go_away(self, last_stream: int) -> bytes:
        return _frame(_GOAWAY, 0, struct.pack(">II", last_stream, 0))

    def _write_headers(self, headers: Headers) -> bytes:
        joined: dict[str, str] = {}
        for name, value in ((name.lower(), value) for name, value in headers):
            joined[name] = f"{joined[name]}\0{value}" if name in joined else value
        raw = bytearray(struct.pack(">I", len(joined)))
        for text in (each for pair in joined.items() for each in pair):
            encoded = text.encode("latin-1")
            raw += struct.pack(">I", len(encoded)) + encoded
        return self._deflate.compress(bytes(raw)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">II", 1 << 31 | _VERSION << 16 | kind, flags << 24 | len(body)) + body
