"""exec, attach and port-forward: the client's connection, joined with the runtime's.

The runtime says at which URL it serves the stream; the client's upgrade request is repeated there, and once both
have agreed the bytes are carried both ways untouched, whatever protocol they speak (SPDY/3.1, WebSocket).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import urlsplit

from shipwheel.client.httpserver import Answer, Request, Response, Tunnel, Upgrade
from shipwheel.client.streams.wire import UpgradeRefused, connect, join
from shipwheel.kubelet.runtime.base import RuntimeFault

_TEXT = "text/plain; charset=utf-8"
_NOT_FORWARDED = frozenset(("host", "authorization", "content-length", "cookie"))
_CODES = {"NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}


class BadOptions(ValueError):
    """The query does not say what to stream."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams a client wants of a command."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, request: Request) -> StreamOptions:
        """Read the query (`input`, `output`, `error`, `tty`). Raises BadOptions."""
        flag = {name: request.parameter(name) == "1" for name in ("input", "output", "error", "tty")}
        # A terminal has one output.
        stderr = flag["error"] and not flag["tty"]
        if not (flag["input"] or flag["output"] or stderr):
            raise BadOptions("you must specify at least 1 of stdin, stdout, stderr")
        return cls(flag["input"], flag["output"], stderr, flag["tty"])


async def forward(request: Request, url: Awaitable[str]) -> Answer:
    """Answer an upgrade request with what the runtime serves at `url`."""
    try:
        target = urlsplit(await url)
    except RuntimeFault as fault:
        headers = [("Retry-After", "1")] if fault.code == "RESOURCE_EXHAUSTED" else None
        return Response(_CODES.get(fault.code, 500), str(fault).encode(), content_type=_TEXT, headers=headers)
    if not request.is_upgrade:
        return Response(400, b"Upgrade request required", content_type=_TEXT)
    try:
        upgraded = await connect(
            target.hostname or "",
            target.port or 80,
            target.path + (f"?{target.query}" if target.query else ""),
            [pair for pair in request.headers if pair[0] not in _NOT_FORWARDED],
            method=request.method,
        )
    except UpgradeRefused as refused:
        return Response(refused.status, refused.body, content_type=refused.content_type or _TEXT)
    except OSError as error:
        text = f"error dialing backend: {error}"
        return Response(500, text.encode(), content_type=_TEXT)

    async def run(tunnel: Tunnel) -> None:
        await join(tunnel, upgraded.wire)

    return Upgrade(run, headers=list(upgraded.headers))
