"""The remote command protocol: the streams of `kubectl exec` and `attach`, over SPDY or WebSocket.

A session has up to five channels: stdin, stdout, stderr, resize (a JSON document for each new terminal size) and
error, on which the server at last says how the command ended. Versions differ little: from version 3 there is
resizing, from version 4 the end is a `metav1.Status` rather than a text, version 5 (WebSocket only) can close stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shipwheel.api.meta import Obj
from shipwheel.client.httpserver import Answer, Request, Response, Tunnel, Upgrade
from shipwheel.client.streams.channel import Channel, read_all
from shipwheel.client.streams.spdy_session import SpdySession, SpdyStream
from shipwheel.client.streams.websocket import (
    BadHandshake,
    WebSocket,
    WebSocketChannels,
    choose_protocol,
    client_headers,
    is_websocket,
    requested_protocols,
    server_headers,
)
from shipwheel.client.streams.wire import UpgradeRefused, connect, header

V1, V2, V3, V4, V5 = (
    "channel.k8s.io",
    "v2.channel.k8s.io",
    "v3.channel.k8s.io",
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
)
SPDY_PROTOCOLS = (V4, V3, V2, V1)
WEBSOCKET_PROTOCOLS = (V5, V4, V1, "v4.base64.channel.k8s.io", "base64.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_NAMES = {"stdin": _STDIN, "stdout": _STDOUT, "stderr": _STDERR, "error": _ERROR, "resize": _RESIZE}
_STREAM_CREATION_SECONDS = 30.0
_MAX_STATUS = 1 << 20
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams a command has. With a terminal there is no stderr of its own."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    @property
    def names(self) -> list[str]:
        """In the order in which clients open them."""
        wanted = {"error": True, "stdin": self.stdin, "stdout": self.stdout}
        wanted |= {"stderr": self.stderr and not self.tty, "resize": self.tty}
        return [name for name, is_wanted in wanted.items() if is_wanted]


SUCCESS: Obj = {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> Obj:
    """The Status of a command that ended with an exit code."""
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(message: str) -> Obj:
    """The Status of a command that could not be run."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


@dataclass(slots=True)
class Session:
    """The channels of one command, at either end. A stream that was not asked for is None."""

    protocol: str
    error: Channel
    stdin: Channel | None = None
    stdout: Channel | None = None
    stderr: Channel | None = None
    resize: Channel | None = None

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """(width, height) each time the client's terminal changes."""
        if self.resize is None:
            return
        rest = ""
        decoder = json.JSONDecoder()
        while data := await self.resize.read():
            rest += data.decode(errors="replace")
            while rest := rest.lstrip():
                try:
                    size, end = decoder.raw_decode(rest)
                except ValueError:
                    break
                rest = rest[end:]
                yield int(size.get("Width", 0)), int(size.get("Height", 0))

    async def finish(self, status: Obj) -> None:
        """Tell how the command ended (server's side)."""
        if self.protocol in (V1, V2, V3, "base64.channel.k8s.io", ""):
            text = b"" if status.get("status") == "Success" else status.get("message", "").encode()
        else:
            text = json.dumps(status, separators=(",", ":")).encode()
        await self.finish_raw(text)

    async def finish_raw(self, text: bytes) -> None:
        if text:
            await self.error.write(text)
        await self.error.close()

    async def outcome(self) -> bytes:
        """What the server says of the command's end (client's side); `b""` when the connection broke."""
        return await read_all(self.error, _MAX_STATUS)


Serve = Callable[[Session], Coroutine[None, None, None]]


# --- The server's side


def accept(request: Request, options: StreamOptions, serve: Serve) -> Answer:
    """Answer an upgrade request: once all channels are there, `serve` has the session until it returns."""
    if is_websocket(request):
        return _accept_websocket(request, options, serve)
    if request.is_upgrade and request.header("upgrade").lower() == "spdy/3.1":
        return _accept_spdy(request, options, serve)
    return Response(400, b"Upgrade request required", content_type=_TEXT)


def _accept_websocket(request: Request, options: StreamOptions, serve: Serve) -> Answer:
    try:
        protocol = choose_protocol(requested_protocols(request), WEBSOCKET_PROTOCOLS)
        headers = server_headers(request, protocol)
    except BadHandshake as error:
        return Response(400, str(error).encode(), content_type=_TEXT)

    async def run(tunnel: Tunnel) -> None:
        channels = WebSocketChannels(WebSocket(tunnel, server=True), protocol, range(5))
        session = _session(protocol, {name: channels.channels[_NAMES[name]] for name in options.names})
        # An empty message says that the connection is up, before the command says anything.
        first = session.stdout or session.stderr or session.error
        with contextlib.suppress(ConnectionError):
            await first.write(b"")
            await while_connected(channels.run(), serve(session))
        channels.disconnect()

    return Upgrade(run, headers=headers)


def _accept_spdy(request: Request, options: StreamOptions, serve: Serve) -> Answer:
    offered = request.header_values("x-stream-protocol-version")
    offered = [each.strip() for value in offered for each in value.split(",")]
    protocol = next((each for each in offered if each in SPDY_PROTOCOLS), "" if offered else V1)
    if not protocol:
        supported = [("X-Accepted-Stream-Protocol-Versions", each) for each in SPDY_PROTOCOLS]
        message = f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts"
        return Response(403, message.encode(), content_type=_TEXT, headers=supported)
    names = [name for name in options.names if name != "resize" or protocol in (V3, V4)]

    async def run(tunnel: Tunnel) -> None:
        streams: dict[str, SpdyStream] = {}
        complete = asyncio.Event()

        def on_stream(stream: SpdyStream) -> bool:
            name = stream.header("streamtype")
            if name not in names or name in streams:
                return False
            streams[name] = stream
            if len(streams) == len(names):
                complete.set()
            return True

        spdy = SpdySession(tunnel, server=True, on_stream=on_stream)

        async def serve_when_complete() -> None:
            async with asyncio.timeout(_STREAM_CREATION_SECONDS):
                await complete.wait()
            await serve(_session(protocol, streams))

        with contextlib.suppress(ConnectionError, TimeoutError):
            await while_connected(spdy.run(), serve_when_complete())
        await spdy.close()

    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)]
    return Upgrade(run, headers=headers)


def _session(protocol: str, channels: Mapping[str, Channel]) -> Session:
    return Session(
        protocol,
        error=channels["error"],
        stdin=channels.get("stdin"),
        stdout=channels.get("stdout"),
        stderr=channels.get("stderr"),
        resize=channels.get("resize"),
    )


async def while_connected(reading: Coroutine[None, None, None], work: Coroutine[None, None, None]) -> None:
    """Do `work` while `reading` carries what the peer sends; when the peer is gone, so is the work."""
    reader, worker = asyncio.create_task(reading), asyncio.create_task(work)
    try:
        await asyncio.wait((reader, worker), return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            worker.result()
    finally:
        for task in (reader, worker):
            task.cancel()
        await asyncio.gather(reader, worker, return_exceptions=True)


# --- The client's side


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a command's streams are served. `target` is path and query."""

    host: str
    port: int
    target: str
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    headers: Sequence[tuple[str, str]] = ()


@asynccontextmanager
async def open_spdy(endpoint: Endpoint, options: StreamOptions) -> AsyncIterator[Session]:
    """A session as SPDY clients have it. Raises UpgradeRefused, OSError."""
    upgraded = await connect(
        endpoint.host,
        endpoint.port,
        endpoint.target,
        [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            *(("X-Stream-Protocol-Version", each) for each in SPDY_PROTOCOLS),
            *endpoint.headers,
        ],
        method="POST",
        tls=endpoint.tls,
        server_name=endpoint.server_name,
    )
    protocol = header(upgraded.headers, "x-stream-protocol-version") or V1
    spdy = SpdySession(upgraded.wire, server=False)
    reader = asyncio.create_task(spdy.run())
    try:
        names = [name for name in options.names if name != "resize" or protocol in (V3, V4)]
        streams = dict(zip(names, await spdy.open(*([("streamtype", name)] for name in names)), strict=True))
        for name in ("error", "stdout", "stderr"):
            if name in streams:
                await streams[name].close()
        yield _session(protocol, streams)
    finally:
        await spdy.close()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


@asynccontextmanager
async def open_websocket(
    endpoint: Endpoint, options: StreamOptions, *, protocols: Sequence[str] = (V5, V4)
) -> AsyncIterator[Session]:
    """A session as WebSocket clients have it. Raises UpgradeRefused, OSError."""
    upgraded = await connect(
        endpoint.host,
        endpoint.port,
        endpoint.target,
        [*client_headers(protocols), *endpoint.headers],
        tls=endpoint.tls,
        server_name=endpoint.server_name,
    )
    protocol = header(upgraded.headers, "sec-websocket-protocol")
    channels = WebSocketChannels(WebSocket(upgraded.wire, server=False), protocol, range(5))
    reader = asyncio.create_task(channels.run())
    try:
        yield _session(protocol, {name: channels.channels[_NAMES[name]] for name in options.names})
    finally:
        channels.disconnect()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


# --- In between


def translate(request: Request, options: StreamOptions, endpoint: Endpoint) -> Answer:
    """Serve a WebSocket client (`v5.channel.k8s.io`) with a command that is streamed over SPDY at `endpoint`. The
    socket is opened first; what goes wrong afterwards is told on its error channel (KEP-4006)."""

    async def serve(session: Session) -> None:
        try:
            async with open_spdy(endpoint, options) as upstream:
                await relay(session, upstream)
        except UpgradeRefused as refused:
            await session.finish(_status_of(refused))
        except OSError as error:
            await session.finish(failure_status(f"error dialing backend: {error}"))

    return accept(request, options, serve)


def _status_of(refused: UpgradeRefused) -> Obj:
    with contextlib.suppress(ValueError):
        found = json.loads(refused.body)
        if isinstance(found, dict) and found.get("kind") == "Status":
            return found
    return failure_status(str(refused))


async def relay(client: Session, upstream: Session) -> None:
    """Carry every stream between a client's session (ours to serve) and the session it stands for."""

    async def carry(source: Channel | None, target: Channel | None) -> None:
        if source is None or target is None:
            return
        with contextlib.suppress(ConnectionError):
            while data := await source.read():
                await target.write(data)
            await target.close()

    inward = [
        asyncio.create_task(carry(client.stdin, upstream.stdin)),
        asyncio.create_task(carry(client.resize, upstream.resize)),
    ]
    outward = [
        asyncio.create_task(carry(upstream.stdout, client.stdout)),
        asyncio.create_task(carry(upstream.stderr, client.stderr)),
    ]
    try:
        outcome = await upstream.outcome()
        await asyncio.gather(*outward)
        if outcome and upstream.protocol == V4:
            await client.finish_raw(outcome)
        else:
            await client.finish(failure_status(outcome.decode(errors="replace")) if outcome else SUCCESS)
    finally:
        for task in (*inward, *outward):
            task.cancel()
        await asyncio.gather(*inward, *outward, return_exceptions=True)
