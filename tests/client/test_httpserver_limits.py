"""How much a request may bring along: the limits on headers do not count bodies."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.client.httpserver import MAX_HEADER_BYTES, HttpServer, Request, Response


async def size_of_body(request: Request) -> Response:
    return Response(200, str(len(await request.body(10 << 20))).encode(), content_type="text/plain")


async def ask(*pieces: bytes) -> list[bytes]:
    """The status line and the body of the answer to a request sent in pieces."""
    server = HttpServer(size_of_body)
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return [head.split(b"\r\n")[0], await reader.readexactly(length)]
    finally:
        writer.close()
        await server.close()


@pytest.mark.parametrize("size", [0, 1, MAX_HEADER_BYTES, 3 * MAX_HEADER_BYTES])
async def test_a_large_body(size: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    assert await ask(head, bytes(size)) == [b"HTTP/1.1 200 OK", b"%d" % size]


async def test_large_headers() -> None:
    line = b"X: " + b"a" * 65536 + b"\r\n"
    status, _ = await ask(b"GET / HTTP/1.1\r\nHost: x\r\n", *([line] * (MAX_HEADER_BYTES // len(line) + 1)))
    assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
