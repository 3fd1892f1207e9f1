"""A gRPC server on a Unix socket: what device plugins register with, and what tests speak to.

A method is a coroutine from a message to a message, or an asynchronous generator of messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shipwheel.api.protobuf import Message, decode, encode
from shipwheel.client.grpc.connection import Connection, StreamState
from shipwheel.client.grpc.wire import GrpcError, Messages, frame, status_headers, timeout_seconds

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | AsyncIterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Method:
    request: Message
    response: Message
    handle: Handler
    """May raise GrpcError."""


class GrpcServer:
    """`methods` by path: `/package.Service/Method`."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def listen(self, path: str) -> None:
        """OSError when the socket cannot be made."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, path)

    def _connection(self) -> Connection:
        connection = Connection(server=True, opened=self._opened)
        self._connections.add(connection)
        return connection

    def _opened(self, connection: Connection, number: int) -> StreamState:
        stream = _Incoming(number)
        call = asyncio.ensure_future(self._serve(connection, stream))
        stream.call = call
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return stream

    async def _serve(self, connection: Connection, stream: _Incoming) -> None:
        with contextlib.suppress(ConnectionError):
            started = False
            try:
                async with asyncio.timeout(None) as limit:
                    headers = await stream.headers
                    if (seconds := timeout_seconds(headers.get("grpc-timeout", ""))) is not None:
                        limit.reschedule(asyncio.get_running_loop().time() + seconds)
                    method = self._methods.get(headers.get(":path", ""))
                    if method is None:
                        raise GrpcError("UNIMPLEMENTED", f"unknown method {headers.get(':path')}")
                    request = decode(method.request, await stream.message)
                    async for answer in _answers(method, request):
                        if not started:
                            started = True
                            connection.send_headers(stream, _HEAD)
                        await connection.send(stream, frame(encode(method.response, answer)), last=False)
                status = status_headers("OK")
            except GrpcError as error:
                status = status_headers(error.code, error.message)
            except TimeoutError:
                status = status_headers("DEADLINE_EXCEEDED", "context deadline exceeded")
            except ValueError as error:
                status = status_headers("INTERNAL", str(error))
            except ConnectionError:
                raise
            except Exception as error:
                log.exception("a gRPC method failed")
                status = status_headers("UNKNOWN", str(error))
            connection.send_headers(stream, status if started else [*_HEAD, *status], last=True)
        connection.forget(stream)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for connection in self._connections:
            connection.close()
        self._connections.clear()


_HEAD = [(":status", "200"), ("content-type", "application/grpc")]


async def _answers(method: Method, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    result = method.handle(request)
    if isinstance(result, AsyncIterator):
        async for answer in result:
            yield answer
    else:
        yield await result


class _Incoming(StreamState):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        loop = asyncio.get_running_loop()
        self.headers: asyncio.Future[dict[str, str]] = loop.create_future()
        self.message: asyncio.Future[bytes] = loop.create_future()
        self.call: asyncio.Task[None] | None = None
        self._messages = Messages()

    def headers_received(self, headers: list[tuple[str, str]], *, last: bool) -> None:
        if not self.headers.done():
            self.headers.set_result(dict(headers))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._messages.feed(data):
                if not self.message.done():
                    self.message.set_result(message)
        except GrpcError as error:
            if not self.message.done():
                self.message.set_exception(error)

    def ended(self) -> None:
        if not self.message.done():
            self.message.set_exception(GrpcError("INTERNAL", "the call ended without a message"))

    def failed(self, why: str, *, code: str = "UNAVAILABLE") -> None:
        if self.call is not None:
            self.call.cancel()
