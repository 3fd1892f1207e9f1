"""exec, attach and port-forward: the client's connection, joined with the runtime's.

The runtime says at which URL it serves the stream. Where both speak the same protocol (SPDY/3.1, or the older
WebSocket ones) the client's upgrade request is repeated there and the bytes are carried both ways untouched. The newer
WebSocket protocols of kubectl, which no runtime speaks, are translated to SPDY here (KEP-4006).
"""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import SplitResult, urlsplit

from shipwheel.client.httpserver import Answer, Request, Response, Tunnel, Upgrade
from shipwheel.client.streams import portforward, remotecommand
from shipwheel.client.streams.remotecommand import Endpoint, StreamOptions
from shipwheel.client.streams.websocket import is_websocket, requested_protocols
from shipwheel.client.streams.wire import UpgradeRefused, connect, join
from shipwheel.kubelet.runtime.base import RuntimeFault

_TEXT = "text/plain; charset=utf-8"
_NOT_FORWARDED = frozenset(("host", "authorization", "content-length", "cookie"))
_CODES = {"NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}


class BadOptions(ValueError):
    """The query does not say what to stream."""


def options_of(request: Request) -> StreamOptions:
    """Read the query (`input`, `output`, `error`, `tty`). Raises BadOptions."""
    wanted = {name: request.parameter(name) == "1" for name in ("input", "output", "error", "tty")}
    # A terminal has one output.
    stderr = wanted["error"] and not wanted["tty"]
    if not (wanted["input"] or wanted["output"] or stderr):
        raise BadOptions("you must specify at least 1 of stdin, stdout, stderr")
    return StreamOptions(wanted["input"], wanted["output"], stderr, wanted["tty"])


async def command(request: Request, options: StreamOptions, url: Awaitable[str]) -> Answer:
    """Answer an exec or attach request with what the runtime serves at `url`."""
    if is_websocket(request) and remotecommand.V5 in requested_protocols(request):
        found = await _located(url)
        if isinstance(found, Response):
            return found
        return remotecommand.translate(request, options, _endpoint(found))
    return await _pass_on(request, url)


async def port_forward(request: Request, url: Awaitable[str]) -> Answer:
    if is_websocket(request) and portforward.tunneled_protocols(request):
        found = await _located(url)
        return found if isinstance(found, Response) else await portforward.tunnel(request, _endpoint(found))
    return await _pass_on(request, url)


async def _located(url: Awaitable[str]) -> SplitResult | Response:
    """Where the runtime serves a stream, or the answer that says why it does not."""
    try:
        return urlsplit(await url)
    except RuntimeFault as fault:
        headers = [("Retry-After", "1")] if fault.code == "RESOURCE_EXHAUSTED" else None
        return Response(_CODES.get(fault.code, 500), str(fault).encode(), content_type=_TEXT, headers=headers)


def _endpoint(url: SplitResult) -> Endpoint:
    target = url.path + (f"?{url.query}" if url.query else "")
    return Endpoint(url.hostname or "", url.port or 80, target)


async def _pass_on(request: Request, url: Awaitable[str]) -> Answer:
    found = await _located(url)
    if isinstance(found, Response):
        return found
    if not request.is_upgrade:
        return Response(400, b"Upgrade request required", content_type=_TEXT)
    there = _endpoint(found)
    try:
        upgraded = await connect(
            there.host,
            there.port,
            there.target,
            [pair for pair in request.headers if pair[0] not in _NOT_FORWARDED],
            method=request.method,
        )
    except UpgradeRefused as refused:
        return Response(refused.status, refused.body, content_type=refused.content_type or _TEXT)
    except OSError as error:
        return Response(500, f"error dialing backend: {error}".encode(), content_type=_TEXT)

    async def run(tunnel: Tunnel) -> None:
        await join(tunnel, upgraded.wire)

    return Upgrade(run, headers=list(upgraded.headers))
