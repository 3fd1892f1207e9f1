"""Passing requests on: to kubelets, to what listens in pods and services, to other API servers.

Whole requests and streams go through a pool of connections; an upgrade gets a connection of its own, and once the other
side has agreed its bytes are carried both ways as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from shipwheel.api.errors import ApiError, unavailable
from shipwheel.apiserver.links import rewrite_page, through_proxy
from shipwheel.apiserver.watchsocket import over_websocket
from shipwheel.client.httpclient import ConnectionFailed, Pool
from shipwheel.client.httpclient import Stream as Incoming
from shipwheel.client.httpserver import (
    Answer,
    BodyTooLarge,
    Request,
    Response,
    Stream,
    StreamWriter,
    Tunnel,
    Upgrade,
)
from shipwheel.client.streams import portforward, remotecommand
from shipwheel.client.streams.remotecommand import Endpoint, StreamOptions
from shipwheel.client.streams.websocket import is_websocket, requested_protocols

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "proxy-connection"}
)  # fmt: skip
_OURS = frozenset({"authorization", "host", "content-length", "expect", "accept-encoding"})
_HANDSHAKE = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions"}
)
_BODY_LIMIT = 64 << 20
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to pass a request on to; `headers` are added to what the client sent."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=())


class Forwarder:
    def __init__(self) -> None:
        self._pools: dict[tuple[str, int, int, str], Pool] = {}

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

    async def forward(
        self,
        request: Request,
        to: Destination,
        target: str,
        *,
        drop: frozenset[str] = frozenset(),
        upgrade: bool = True,
    ) -> Answer:
        """Send the request to `target` (path and query) there, and its answer back, without its wish for another
        protocol if `upgrade` is False. ApiError 503 when nobody answers."""
        if not target.startswith("/"):
            if request.method in ("GET", "HEAD"):
                return _to_root(request)
            target = f"/{target}"
        headers = [
            (name, value)
            for name, value in request.headers
            if name not in _HOP_BY_HOP and name not in _OURS and name not in drop
        ]
        headers += to.headers
        headers.append(("X-Forwarded-For", request.remote_address))
        try:
            if upgrade and request.is_upgrade and request.header("upgrade"):
                return await self._upgrade(request, to, target, headers)
            body = await request.body(_BODY_LIMIT)
            pool = self._pool(to)
            answer = await pool.stream(request.method, target, headers, body, timeout=None)
        except BodyTooLarge:
            raise ApiError(413, "RequestEntityTooLarge", "request body is too large to be passed on") from None
        except ConnectionFailed as error:
            raise unavailable(f"error trying to reach service: {error}") from error
        except OSError as error:
            raise unavailable(f"error trying to reach service: {error.strerror or error}") from error
        return await _relay(answer, request, to, target)

    async def forward_streams(self, request: Request, to: Destination, target: str) -> Answer:
        """The same for what kubelets stream. They speak SPDY; a WebSocket client's newer protocols are translated
        (KEP-4006)."""
        endpoint = Endpoint(to.host, to.port, target, to.tls, to.server_name, to.headers)
        if is_websocket(request):
            if target.startswith("/containerLogs/"):
                answer = await self.forward(request, to, target, drop=_HANDSHAKE, upgrade=False)
                return over_websocket(request, answer) if isinstance(answer, Stream) else answer
            if portforward.tunneled_protocols(request):
                return await portforward.tunnel(request, endpoint)
            if remotecommand.V5 in requested_protocols(request):
                return remotecommand.translate(request, _stream_options(target), endpoint)
        return await self.forward(request, to, target)

    def _pool(self, to: Destination) -> Pool:
        key = (to.host, to.port, id(to.tls), to.server_name)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(to.host, to.port, tls=to.tls, server_name=to.server_name, limit=1024)
        return pool

    async def _upgrade(self, request: Request, to: Destination, target: str, headers: list[tuple[str, str]]) -> Answer:
        reader, writer = await open_upstream(to)
        shown = f"[{to.host}]" if ":" in to.host else to.host
        lines = [f"{request.method} {target} HTTP/1.1", f"Host: {shown}:{to.port}", "Connection: Upgrade"]
        lines.append(f"Upgrade: {request.header('upgrade')}")
        lines += [f"{name}: {value}" for name, value in headers]
        if not any(name == "sec-websocket-key" for name, _ in headers):
            lines.append("Content-Length: 0")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        try:
            status, answered = await read_head(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError) as error:
            writer.close()
            raise unavailable(f"error upgrading the connection: {error}") from error
        if status != 101:
            return await _declined(reader, writer, status, answered)
        kept = [(n, v) for n, v in answered if n.lower() not in ("content-length", "transfer-encoding")]
        return Upgrade(lambda tunnel: splice(tunnel, reader, writer), headers=kept)


def _to_root(request: Request) -> Response:
    """The root of what is proxied to ends with a slash, so that its relative links lead to where they should."""
    query = f"?{request.raw_query}" if request.raw_query else ""
    return Response(301, headers=[("Location", f"{request.raw_path}/{query}")])


def _stream_options(target: str) -> StreamOptions:
    """Which streams the kubelet is asked for, as its query says."""
    asked = dict(parse_qsl(urlsplit(target).query))
    on = {name: asked.get(name) in ("1", "true") for name in ("input", "output", "error", "tty")}
    return StreamOptions(on["input"], on["output"], on["error"] and not on["tty"], on["tty"])


async def open_upstream(to: Destination) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection. OSError when it cannot be had."""
    return await asyncio.open_connection(
        to.host, to.port, ssl=to.tls, server_hostname=(to.server_name or to.host) if to.tls else None
    )


async def read_head(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of an answer. ValueError when it is no HTTP."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    parts = first.split(" ", 2)
    if not first.startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
        raise ValueError(f"malformed HTTP response {first!r}")
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    return int(parts[1]), headers


async def splice(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either side ends."""

    async def outward() -> None:
        while data := await tunnel.read():
            writer.write(data)
            await writer.drain()

    async def inward() -> None:
        while data := await reader.read(_CHUNK):
            tunnel.write(data)
            await tunnel.drain()

    tasks = {asyncio.ensure_future(outward()), asyncio.ensure_future(inward())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _declined(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, headers: list[tuple[str, str]]
) -> Response:
    """The other side would not upgrade: its answer, whole."""
    named = {name.lower(): value for name, value in headers}
    try:
        if "content-length" in named:
            body = await reader.readexactly(int(named["content-length"]))
        elif named.get("transfer-encoding", "").lower() == "chunked":
            body = await _read_chunked(reader)
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise unavailable(f"error reading the answer: {error}") from error
    finally:
        writer.close()
    return Response(status, body, content_type=named.get("content-type", "text/plain"))


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        piece = await reader.readexactly(size + 2)
        if not size:
            return b"".join(pieces)
        pieces.append(piece[:-2])


async def _whole(answer: Incoming) -> bytes:
    try:
        return b"".join([piece async for piece in answer])
    except ConnectionFailed as error:
        raise unavailable(f"error trying to reach service: {error}") from error
    finally:
        answer.close()


async def _relay(answer: Incoming, request: Request, to: Destination, target: str) -> Answer:
    path = target.partition("?")[0]
    prefix = request.raw_path.removesuffix(path) if request.raw_path.endswith(path) else ""
    hosts = frozenset((f"{to.host}:{to.port}", request.header("host")))
    kept = []
    for raw_name, raw_value in getattr(answer, "headers", []):
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.lower() == "location" and prefix:
            value = through_proxy(value, prefix=prefix, hosts=hosts)
        if name.lower() not in _HOP_BY_HOP | {"content-length", "content-type"}:
            kept.append((name, value))

    async def run(writer: StreamWriter) -> None:
        try:
            async for piece in answer:
                writer.write(piece)
                await writer.drain()
        except ConnectionFailed:
            writer.abort()
        finally:
            answer.close()

    media = answer.header("content-type") or "text/plain; charset=utf-8"
    if request.method == "HEAD" or answer.status in (204, 304):
        answer.close()
        return Response(answer.status, content_type=media, headers=kept)
    if prefix and media.partition(";")[0].strip().lower() == "text/html" and not answer.header("content-encoding"):
        page = await _whole(answer)
        return Response(answer.status, rewrite_page(page, prefix=prefix, hosts=hosts), content_type=media, headers=kept)
    return Stream(run, status=answer.status, content_type=media, headers=kept)
