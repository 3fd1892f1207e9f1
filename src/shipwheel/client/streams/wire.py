"""Raw bytes both ways: what is left of an HTTP connection after both sides agreed to speak something else.

`httpserver.Tunnel` is the server's end, `SocketWire` (from `connect`) the client's. `join` lets two of them talk
to each other, which is all that a proxy of upgraded connections does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import httptools

_HEAD_LIMIT = 1 << 16
_BODY_LIMIT = 1 << 20
_READ_SIZE = 1 << 16


class Wire(Protocol):
    async def read(self) -> bytes:
        """The next bytes, `b""` when the peer has closed."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written. Raises ConnectionError."""

    def close(self) -> None: ...


class SocketWire:
    """A `Wire` over asyncio's streams. `early` are bytes that arrived before."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes = b"") -> None:
        self._reader = reader
        self._writer = writer
        self._early = early

    async def read(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return await self._reader.read(_READ_SIZE)
        except (ConnectionError, ssl.SSLError):
            return b""

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


async def join(one: Wire, other: Wire) -> None:
    """Carry bytes both ways until either side closes; then close both."""

    async def carry(source: Wire, target: Wire) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read():
                target.write(data)
                await target.drain()

    there = asyncio.create_task(carry(one, other))
    back = asyncio.create_task(carry(other, one))
    try:
        await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        one.close()
        other.close()


class UpgradeRefused(Exception):
    """The server answered with something else than 101."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        super().__init__(f"unable to upgrade connection: {body.decode(errors='replace').strip() or status}")
        self.status = status
        self.headers = tuple(headers)
        self.body = body

    @property
    def content_type(self) -> str:
        return header(self.headers, "content-type")


@dataclass(frozen=True, slots=True)
class Upgraded:
    wire: SocketWire
    headers: Sequence[tuple[str, str]]
    """Of the server's answer."""


def header(headers: Sequence[tuple[str, str]], name: str) -> str:
    """The first value of a header; `name` in lower case."""
    return next((value for key, value in headers if key.lower() == name), "")


HOP_BY_HOP = frozenset(
    ("keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
)


async def connect(
    host: str,
    port: int,
    target: str,
    headers: Sequence[tuple[str, str]],
    *,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    timeout: float = 30.0,
) -> Upgraded:
    """Send a request that asks for an upgrade (`headers` say which), and wait for its answer. Raises
    UpgradeRefused, OSError (TimeoutError among them)."""
    # An HTTP handler becomes a task, which timeouts need, with its first wait (see httpserver).
    await asyncio.sleep(0)
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=(server_name or host) if tls else None
        )
        try:
            shown = f"[{host}]" if ":" in host else host
            lines = [f"{method} {target} HTTP/1.1", f"Host: {shown}:{port}"]
            lines += [f"{name}: {value}" for name, value in headers]
            if method != "GET":
                lines.append("Content-Length: 0")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            answer = _Answer()
            while not answer.complete:
                data = await reader.read(_READ_SIZE)
                if not data:
                    if answer.status:
                        break
                    raise ConnectionResetError("the server closed the connection without an answer")
                answer.feed(data)
        except BaseException:
            writer.close()
            raise
        if answer.status != 101:
            writer.close()
            raise UpgradeRefused(answer.status, answer.headers, bytes(answer.body))
        return Upgraded(SocketWire(reader, writer, answer.rest), answer.headers)


class _Answer:
    """Parses a response up to its end, or to the end of a 101's head."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.rest = b""
        self.complete = False
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise ConnectionResetError(f"malformed HTTP response: {error}") from error
        if not self.status and self._size > _HEAD_LIMIT:
            raise ConnectionResetError("the response's head is too large")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if len(self.body) < _BODY_LIMIT:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True
