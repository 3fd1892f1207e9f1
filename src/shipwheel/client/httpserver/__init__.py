"""An HTTP/1.1 server: a request in; a response, a stream or an upgraded connection out.

This is the seam between the wire and the handlers of every component that serves HTTP (API server, kubelet,
health endpoints). It parses with httptools straight from the transport, because the API server's cost per small
request is mostly this: a general web framework takes four times as long. What it does beyond parsing is the
little a Kubernetes component needs: bodies read only when asked for, streams that push, upgrades to raw bytes.

A handler is `async def handle(request) -> Response | Stream | Upgrade`. Most requests are answered from memory
without waiting for anything, so the handler is started at once, in the parser's own call; only when it waits is
it made a task (see `connection`). Before it uses `asyncio.timeout` it must therefore `await in_task()`.
"""

from shipwheel.client.httpserver.connection import MAX_HEADER_BYTES, Connection, in_task
from shipwheel.client.httpserver.messages import Answer, Handler, Request, Response, Stream, Upgrade
from shipwheel.client.httpserver.server import HttpServer
from shipwheel.client.httpserver.tls import ServerContext, server_tls
from shipwheel.client.httpserver.transfer import BodyTooLarge, ClientGone, StreamWriter, Tunnel, frame, unframe

__all__ = [
    "MAX_HEADER_BYTES",
    "Answer",
    "BodyTooLarge",
    "ClientGone",
    "Connection",
    "Handler",
    "HttpServer",
    "Request",
    "Response",
    "ServerContext",
    "Stream",
    "StreamWriter",
    "Tunnel",
    "Upgrade",
    "frame",
    "in_task",
    "server_tls",
    "unframe",
]
