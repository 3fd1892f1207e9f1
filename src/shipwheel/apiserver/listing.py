"""A LIST as an answer: short ones whole, long ones piece by piece, compressed for those who can read it.

A list of ten thousand pods is tens of megabytes. Sent in one piece it would be in memory twice, and everybody else
would wait for as long as it takes to encrypt it.
"""

from __future__ import annotations

import asyncio
import zlib
from datetime import datetime

from shipwheel.apiserver.pretty import wants_pretty
from shipwheel.apiserver.reads import Selection
from shipwheel.apiserver.rendering import Rendering
from shipwheel.apiserver.turns import Turns
from shipwheel.client.httpserver import Request, Response, Stream, StreamWriter

STREAM_FROM = 128 * 1024
"""Lists of more stored bytes than this are streamed."""
GZIP_FROM = 128 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_ENCODED = [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]


async def answer_list(
    request: Request, selection: Selection, rendering: Rendering, now: datetime, turns: Turns
) -> Response | Stream:
    """The entries of a selection in the form that was asked for."""
    compress = "gzip" in request.header("accept-encoding")
    if _is_short(selection) or wants_pretty(request):
        body = rendering.list(selection.entries, selection.metadata, now)
        if not (compress and len(body) >= GZIP_FROM) or wants_pretty(request):
            return Response(200, body, content_type=rendering.content_type)
        packed = await asyncio.get_running_loop().run_in_executor(None, _compress, body)
        return Response(200, packed, content_type=rendering.content_type, headers=_ENCODED)

    async def run(writer: StreamWriter) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP) if compress else None
        loop = asyncio.get_running_loop()
        pieces = rendering.pieces(selection.entries, selection.metadata, now)
        while True:
            async with turns:
                piece = next(pieces, None)
                if piece is None:
                    break
                if packer is None:
                    writer.write(piece)
            if packer is not None:
                writer.write(await loop.run_in_executor(None, packer.compress, piece))
            await writer.drain()
        if packer is not None:
            writer.write(packer.flush())

    return Stream(run, content_type=rendering.content_type, headers=_ENCODED if compress else None)


def _is_short(selection: Selection) -> bool:
    size = 0
    for entry in selection.entries:
        size += len(entry.tail)
        if size > STREAM_FROM:
            return False
    return True


def _compress(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()
