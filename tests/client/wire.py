"""A server on loopback and somebody who speaks to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from shipwheel.client.httpserver import Handler, HttpServer


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """The client's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        """Send a request's lines (its `Host` is added) and body."""
        self.raw("\r\n".join([*lines, "Host: x", "", ""]).encode() + body)

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Answer:
        """An answer without its body."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return Answer(int(lines[0].split()[1]), headers, b"")

    async def answer(self) -> Answer:
        """A whole answer."""
        answer = await self.head()
        if "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        elif "transfer-encoding" in answer.headers:
            pieces = []
            while piece := await self.chunk():
                pieces.append(piece)
            answer.body = b"".join(pieces)
        return answer

    async def chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n")), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def closed(self) -> bytes:
        """What still comes until the server closes."""
        return await self.reader.read()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


@dataclass
class Wire:
    server: HttpServer
    port: int

    async def connect(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Wire]:
    server = HttpServer(handler)
    try:
        yield Wire(server, await server.listen("127.0.0.1", 0))
    finally:
        await server.close()
