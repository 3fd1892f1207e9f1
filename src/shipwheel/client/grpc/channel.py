"""A gRPC client: calls to one server, over a Unix socket or TCP, by methods and message tables.

The connection is made by the first call, and again by the next one after it broke; a call under way when it breaks
fails with UNAVAILABLE, and is not repeated, since it may have been carried out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from h2.exceptions import H2Error

from shipwheel.api.protobuf import Message, decode, encode
from shipwheel.client.grpc.connection import Connection, StreamState
from shipwheel.client.grpc.wire import (
    MAX_MESSAGE,
    GrpcError,
    Messages,
    frame,
    read_status,
    status_headers,
    timeout_text,
)

__all__ = ["Channel", "GrpcError"]

_CONNECT_SECONDS = 5.0


class Channel:
    """All methods raise GrpcError. Must be closed."""

    def __init__(self, endpoint: str, *, max_message: int = MAX_MESSAGE, user_agent: str = "shipwheel") -> None:
        """`endpoint`: `unix:///run/containerd/containerd.sock`, a bare path, or `host:port`."""
        self._endpoint = endpoint
        self._max_message = max_message
        self._user_agent = user_agent
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(
        self,
        method: str,
        request: Message,
        response: Message,
        obj: dict[str, Any],
        *,
        timeout: float | None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Call `/package.Service/Method` with one message and get one. `timeout` is in seconds, connecting
        included; `metadata` are further headers."""
        try:
            async with asyncio.timeout(timeout):
                answers = self._exchange(method, encode(request, obj), timeout, metadata)
                messages = [raw async for raw in answers]
        except TimeoutError:
            raise GrpcError("DEADLINE_EXCEEDED", "context deadline exceeded") from None
        if len(messages) != 1:
            raise GrpcError("INTERNAL", f"{method}: {len(messages)} answers where there must be one")
        return _decoded(method, response, messages[0])

    async def stream(
        self, method: str, request: Message, response: Message, obj: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Call a method that answers with many messages, until it ends."""
        async with aclosing(self._exchange(method, encode(request, obj), None)) as answers:
            async for raw in answers:
                yield _decoded(method, response, raw)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _exchange(
        self, method: str, message: bytes, timeout: float | None, metadata: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[bytes, None]:
        connection = await self._connected()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", self._user_agent),
            *metadata,
        ]
        if timeout is not None:
            headers.append(("grpc-timeout", timeout_text(timeout)))
        try:
            stream = connection.begin(headers, lambda number: _Call(number, self._max_message))
        except H2Error as error:
            raise GrpcError("UNAVAILABLE", str(error)) from error
        assert isinstance(stream, _Call)
        try:
            try:
                await connection.send(stream, frame(message), last=True)
            except ConnectionError as error:
                # The server may have answered, and refused, before it had read everything.
                stream.failed(str(error))
            while (answer := await stream.answers.get()) is not None:
                yield answer
        finally:
            if stream.complete:
                connection.forget(stream)
            else:
                connection.reset(stream)
        if stream.error is not None:
            raise stream.error

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or not self._connection.usable:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        path = socket_path(self._endpoint)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if path:
                    _, connection = await loop.create_unix_connection(lambda: Connection(server=False), path)
                else:
                    host, _, port = self._endpoint.removeprefix("tcp://").rpartition(":")
                    _, connection = await loop.create_connection(
                        lambda: Connection(server=False), host.strip("[]"), int(port)
                    )
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
            where = f"dial unix {path}" if path else f"dial tcp {self._endpoint}"
            raise GrpcError(
                "UNAVAILABLE",
                f'connection error: desc = "transport: Error while dialing: {where}: connect: {why}"',
            ) from error
        return connection


class _Call(StreamState):
    """The answers to one call, and how it ended."""

    def __init__(self, number: int, max_message: int) -> None:
        super().__init__(number)
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.error: GrpcError | None = None
        self.complete = False
        self._messages = Messages(max_message)
        self._status: list[tuple[str, str]] = status_headers("UNKNOWN", "the call ended without a status")

    def headers_received(self, headers: list[tuple[str, str]], *, last: bool) -> None:
        if last or any(name == "grpc-status" for name, _ in headers) or dict(headers).get(":status") != "200":
            self._status = headers

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._messages.feed(data):
                self.answers.put_nowait(message)
        except GrpcError as error:
            self._finish(error, complete=False)

    def ended(self) -> None:
        self._finish(read_status(self._status), complete=True)

    def failed(self, why: str, *, code: str = "UNAVAILABLE") -> None:
        self._finish(GrpcError(code, why), complete=True)

    def _finish(self, error: GrpcError | None, *, complete: bool) -> None:
        if self.error is None and not self.complete:
            self.error, self.complete = error, complete
            self.answers.put_nowait(None)


def socket_path(endpoint: str) -> str:
    """The path of a Unix endpoint; empty for TCP."""
    if endpoint.startswith("/"):
        return endpoint
    return endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else ""


def _decoded(method: str, response: Message, raw: bytes) -> dict[str, Any]:
    try:
        return decode(response, raw)
    except ValueError as error:
        raise GrpcError("INTERNAL", f"{method}: {error}") from error
