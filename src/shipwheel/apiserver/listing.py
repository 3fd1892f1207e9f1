"""A LIST as an answer: short ones whole, long ones piece by piece, compressed for those who can read it.

A list of ten thousand pods is tens of megabytes. Sent in one piece it would be in memory twice, and everybody else
would wait for as long as it takes to encrypt it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from datetime import datetime

from shipwheel.apiserver.reads import Selection
from shipwheel.apiserver.rendering import Rendering
from shipwheel.client.httpserver import Answer, Request, Response, Stream, StreamWriter

STREAM_FROM = 64
"""Lists of more items than this are streamed."""
GZIP_FROM = 128 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 128 * 1024
_ENCODED = [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]


async def answer_list(request: Request, selection: Selection, rendering: Rendering, now: datetime) -> Answer:
    """The entries of a selection in the form that was asked for."""
    compress = "gzip" in request.header("accept-encoding")
    if len(selection.entries) <= STREAM_FROM:
        body = rendering.list(selection.entries, selection.metadata, now)
        if not (compress and len(body) >= GZIP_FROM):
            return Response(200, body, content_type=rendering.content_type)
        packed = await asyncio.get_running_loop().run_in_executor(None, _compress, body)
        return Response(200, packed, content_type=rendering.content_type, headers=_ENCODED)

    async def run(writer: StreamWriter) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP) if compress else None
        for piece in _gathered(rendering.pieces(selection.entries, selection.metadata, now)):
            if packer is None:
                writer.write(piece)
            else:
                writer.write(await asyncio.get_running_loop().run_in_executor(None, packer.compress, piece))
            await writer.drain()
            await asyncio.sleep(0)
        if packer is not None:
            writer.write(packer.flush())

    return Stream(run, content_type=rendering.content_type, headers=_ENCODED if compress else None)


def _compress(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces put together to ones worth a write. Empty ones pass, as a chance for others."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE or not piece:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    yield b"".join(waiting)
