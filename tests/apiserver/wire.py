"""A connection to a server whose bytes are the test's own."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shipwheel.api.meta import Obj
from tests.apiserver.world import World

PATIENCE = 60.0


@dataclass
class Wire:
    """A connection whose bytes are the test's own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "Host: x", "", ""]).encode() + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def status(self) -> tuple[int, dict[str, str], Obj]:
        """The answer, its headers and the Status in it."""
        code, headers = await self.head()
        return code, headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def wire(world: World, directory: Path, user: str = "admin", *groups: str) -> AsyncIterator[Wire]:
    config = world.config(user, *(groups or ("system:masters" if user == "admin" else "team",)))
    context = ssl.create_default_context(cadata=config.ca_data.decode())
    pair = directory / f"{user}.pem"
    pair.write_bytes(config.client_cert_data + config.client_key_data)
    context.load_cert_chain(pair)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=context, server_hostname="localhost", limit=1 << 20
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
