"""The leanest HTTP/1.1 client: it shares its two cores with the server that it measures.

Requests are bytes made beforehand, answers are counted and thrown away unless somebody wants to read them, and nothing
is parsed but what says where an answer ends.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from shipwheel.client.kubeconfig import ClientConfig


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    size: int
    """Of the body, in bytes."""
    body: bytes


class Server:
    """Where requests go, and as whom."""

    def __init__(self, config: ClientConfig) -> None:
        url = urlsplit(config.server)
        self.url = config.server
        self.host = url.hostname or "127.0.0.1"
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self._ssl = _ssl_context(config) if url.scheme == "https" else None
        self._server_name = (config.tls_server_name or self.host) if self._ssl else None
        self._head = f"Host: {url.netloc}\r\nUser-Agent: bench\r\n"
        if config.token:
            self._head += f"Authorization: Bearer {config.token}\r\n"

    def request(
        self, method: str, path: str, *, body: bytes = b"", accept: str = "application/json", kind: str = ""
    ) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Accept: {accept}\r\n"
        if body:
            head += f"Content-Type: {kind or 'application/json'}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def connect(self) -> Connection:
        return await self._connect(Connection)

    async def watch(self, path: str, on_event: Callable[[float], None], *, accept: str = "application/json") -> Watch:
        """`on_event(time)` for each event that arrives, until the connection is closed."""
        make = ProtobufWatch if "protobuf" in accept else Watch
        watch = await self._connect(lambda: make(on_event))
        watch.begin(self.request("GET", path, accept=accept))
        return watch

    async def _connect(self, make):
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            make, self.host, self.port, ssl=self._ssl, server_hostname=self._server_name
        )
        return protocol


class Connection(asyncio.Protocol):
    """One request at a time, kept alive between them."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._answer: asyncio.Future[Answer] | None = None
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._status = 0
        self._size = 0
        self._left = 0
        self._chunked = False
        self._pending = b""
        self._body: list[bytes] | None = None

    async def ask(self, request: bytes, *, keep: bool = False) -> Answer:
        """OSError when the connection ends before the answer does. `keep`: the body, too."""
        self._reset()
        self._body = [] if keep else None
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await answer

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._status:
            data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._read_head(data[:end].lower())
            data = data[end + 4 :]
        if self._chunked:
            self._read_chunks(data)
        else:
            self._take(data)
            self._left -= len(data)
            if self._left <= 0:
                self._done()

    def _read_head(self, head: bytes) -> None:
        self._status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self._left = int(head[at + 17 :].split(b"\r\n", 1)[0])
        else:
            self._chunked = b"\r\ntransfer-encoding: chunked" in head

    def _read_chunks(self, data: bytes) -> None:
        """`_left` is what the current chunk, with its line end, still lacks."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        position, length = 0, len(data)
        while position < length:
            if self._left:
                taken = min(self._left, length - position)
                self._take(data[position : position + taken] if self._body is not None else b"")
                self._left -= taken
                position += taken
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._pending = data[position:]
                return
            size = int(data[position:end].split(b";")[0] or b"0", 16) if end > position else -1
            position = end + 2
            if size == 0:
                self._done()
                return
            if size > 0:
                self._left = size
                self._size += size

    def _take(self, data: bytes) -> None:
        if not self._chunked:
            self._size += len(data)
        if self._body is not None:
            self._body.append(data)

    def _done(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(Answer(self._status, self._size, b"".join(self._body or ())))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))


class Watch(asyncio.Protocol):
    """Counts events: each is a line that ends with a brace."""

    def __init__(self, on_event: Callable[[float], None]) -> None:
        self._on_event = on_event
        self._head = b""
        self._brace = False
        self.begun = asyncio.get_running_loop().create_future()
        """The head of the answer; done when there is one."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def begin(self, request: bytes) -> None:
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self.begun.set_result(head)
        events = self.count(data)
        if events:
            now = time.perf_counter()
            for _ in range(events):
                self._on_event(now)

    def count(self, data: bytes) -> int:
        """How many events end with these bytes."""
        events = data.count(b"}\n") + (self._brace and data[:1] == b"\n")
        self._brace = data.endswith(b"}")
        return events

    def close(self) -> None:
        self._transport.abort()


class ProtobufWatch(Watch):
    """Counts events that say their length, in chunks that need not end where events do."""

    def __init__(self, on_event: Callable[[float], None]) -> None:
        super().__init__(on_event)
        self._chunks = b""
        self._events = b""

    def count(self, data: bytes) -> int:
        self._chunks += data
        while (end := self._chunks.find(b"\r\n")) >= 0:
            size = int(self._chunks[:end], 16)
            if len(self._chunks) < end + size + 4:
                break
            self._events += self._chunks[end + 2 : end + 2 + size]
            self._chunks = self._chunks[end + size + 4 :]
        events = 0
        while len(self._events) >= 4:
            size = 4 + int.from_bytes(self._events[:4], "big")
            if len(self._events) < size:
                break
            self._events = self._events[size:]
            events += 1
        return events


def _ssl_context(config: ClientConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_data:
        context.load_verify_locations(cadata=config.ca_data.decode())
    else:
        context.load_default_certs()
    if config.client_cert_data:
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads certificates from files only
            file.write(config.client_cert_data + b"\n" + config.client_key_data)
            file.flush()
            os.fsync(file.fileno())
            context.load_cert_chain(file.name)
    return context
