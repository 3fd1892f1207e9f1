"""What goes over the wire, as handlers see it: a request in; a response, a stream or an upgraded connection out."""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from shipwheel.client.httpserver.transfer import Body, StreamWriter, Tunnel

if TYPE_CHECKING:
    from shipwheel.client.httpserver.connection import Connection

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_STATUS_LINES = {code: f"HTTP/1.1 {code} {phrase}\r\n".encode() for code, phrase in _REASONS.items()}


class Request:
    """One request. Header names are lower case; the target is split but not decoded until asked."""

    __slots__ = (
        "_body", "_connection", "_first", "_headers", "_query", "context", "keep_alive", "method", "raw_path",
        "raw_query", "takes_chunks",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        takes_chunks: bool = True,
    ) -> None:
        self._connection = connection
        self._headers = headers
        self._first = dict(reversed(headers))
        """The first value of each header."""
        self._query: list[tuple[str, str]] | None = None
        self._body: Body | None = None
        self.method = method
        self.keep_alive = keep_alive
        self.takes_chunks = takes_chunks
        """Whether the peer knows chunked bodies; HTTP/1.0 does not."""
        path, _, query = target.partition(b"?")
        if not path.startswith(b"/") and b"://" in path:
            path = b"/" + path.split(b"://", 1)[1].partition(b"/")[2]
        self.raw_path = path.decode("latin-1")
        self.raw_query = query.decode("latin-1")
        self.context: Any = None
        """For the handler's own notes."""

    @property
    def path(self) -> str:
        return unquote(self.raw_path) if "%" in self.raw_path else self.raw_path

    @property
    def query(self) -> list[tuple[str, str]]:
        """Parameters in order, decoded; a name without `=` has the empty value."""
        if self._query is None:
            self._query = parse_qsl(self.raw_query, keep_blank_values=True) if self.raw_query else []
        return self._query

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        if not self.raw_query:
            return default
        return next((value for key, value in self.query if key == name), default)

    def flag(self, name: str) -> bool | None:
        """A query parameter as Kubernetes reads a bool: anything but `0` and `false` is true; None when absent."""
        if not self.raw_query:
            return None
        value = next((value for key, value in self.query if key == name), None)
        return None if value is None else value.lower() not in ("0", "false")

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header; `name` in lower case."""
        value = self._first.get(name.encode())
        return default if value is None else value.decode("latin-1")

    def header_values(self, name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._headers if key == wanted]

    @property
    def header_names(self) -> Iterable[bytes]:
        """Each once."""
        return self._first

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self._headers]

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` beyond `limit` bytes, `ClientGone`."""
        if self._body is None:
            return b""
        return await self._body.read_all(limit)

    async def body_chunk(self) -> bytes:
        """The next piece of the body, `b""` at its end. Raises `ClientGone`."""
        if self._body is None:
            return b""
        return await self._body.read_some()

    @property
    def has_body(self) -> bool:
        return self._body is not None

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def remote_address(self) -> str:
        return self._connection.remote_address

    @property
    def is_upgrade(self) -> bool:
        return "upgrade" in self.header("connection").lower()


class Response:
    """A whole answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    def encode(self, *, close: bool, head_only: bool) -> bytes:
        parts = [status_line(self.status)]
        # A 304 describes nothing anew: caches would take its type for that of what they have (RFC 9110, 15.4.5).
        if self.content_type and self.status != 304:
            parts.append(b"Content-Type: %b\r\n" % self.content_type.encode())
        if self.headers:
            parts.extend(encode_header(name, value) for name, value in self.headers)
        if self.status not in {204, 304}:
            parts.append(b"Content-Length: %d\r\n" % len(self.body))
        if close:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        if self.body and not head_only and self.status not in {204, 304}:
            parts.append(self.body)
        return b"".join(parts)


class Stream:
    """An answer whose body is pushed in chunks by `run`, until it returns.

    `over` may be set to what is to be called when the answer has been given, or has broken off.
    """

    __slots__ = ("content_type", "headers", "over", "run", "status")

    def __init__(
        self,
        run: Callable[[StreamWriter], Awaitable[None]],
        *,
        status: int = 200,
        content_type: str = "application/json",
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        self.run = run
        self.over: Callable[[], None] | None = None
        self.status = status
        self.content_type = content_type
        self.headers = headers


class Upgrade:
    """An answer of 101; from then on the connection carries raw bytes between the peer and `run`.

    `over` is as that of a `Stream`.
    """

    __slots__ = ("headers", "over", "run")

    def __init__(self, run: Callable[[Tunnel], Awaitable[None]], *, headers: list[tuple[str, str]]) -> None:
        self.run = run
        self.over: Callable[[], None] | None = None
        self.headers = headers


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], Coroutine[Any, Any, Answer]]


def status_line(status: int) -> bytes:
    """A proxied server may answer with a status that nobody has named."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def encode_header(name: str, value: str) -> bytes:
    if "\r" in value or "\n" in value:
        value = value.replace("\r", " ").replace("\n", " ")
    return f"{name}: {value}\r\n".encode("utf-8", "replace")
