"""How a container is asked: exec, HTTP, TCP and gRPC. Probes and lifecycle hooks share these.

The HTTP client here speaks to whatever runs in a container, so it trusts nothing: it reads at most ten kilobytes,
verifies no certificate (upstream's documented behaviour), follows redirects only within the host, and closes the
connection after each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urljoin, urlsplit

import httptools

from shipwheel.api.meta import Obj
from shipwheel.api.protobuf import parse_tables

BODY_BYTES = 10 * 1024
_MAXIMUM_REDIRECTS = 10
_USER_AGENT = "kube-probe/1.36"

Outcome = Literal["success", "warning", "failure", "unknown"]


class HandlerFault(Exception):
    """The question could not be asked as it is specified."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def resolve_port(port: int | str, container: Obj) -> int:
    """A port number, or the number of the container's port of that name."""
    number = port
    if isinstance(port, str):
        named = (each["containerPort"] for each in container.get("ports") or () if each.get("name") == port)
        number = next(named, None) or (int(port) if port.isdigit() else 0)
        if not number:
            raise HandlerFault(f"couldn't find port: {port} in container ports" if port else "couldn't find port")
    if not 0 < int(number) < 65536:
        raise HandlerFault(f"invalid port number: {number}")
    return int(number)


def http_request(action: Obj, container: Obj, pod_ip: str) -> tuple[str, list[tuple[str, str]]]:
    """(url, headers) of an HTTPGetAction."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    port = resolve_port(action["port"], container)
    path = action.get("path") or "/"
    shown = f"[{host}]" if ":" in host else host
    headers = [(each["name"], each.get("value", "")) for each in action.get("httpHeaders") or ()]
    present = {name.lower(): value for name, value in headers}
    if "user-agent" not in present:
        headers.append(("User-Agent", _USER_AGENT))
    if "accept" not in present:
        headers.append(("Accept", "*/*"))
    # An empty value means that the header is not to be sent.
    headers = [(name, value) for name, value in headers if value or name.lower() not in ("user-agent", "accept")]
    return f"{scheme}://{shown}:{port}/{path.lstrip('/')}", headers


async def http_get(url: str, headers: Sequence[tuple[str, str]], timeout: float) -> HttpAnswer:
    """GET within `timeout` seconds. OSError, ssl.SSLError, TimeoutError or HandlerFault when there is no answer."""
    async with asyncio.timeout(timeout):
        return await _exchange(url, headers)


async def http_probe(url: str, headers: Sequence[tuple[str, str]], timeout: float) -> tuple[Outcome, str]:
    """The outcome and what to tell of it."""
    try:
        async with asyncio.timeout(timeout):
            current = url
            for _ in range(_MAXIMUM_REDIRECTS):
                answer = await _exchange(current, headers)
                location = answer.header("location")
                if not (300 <= answer.status < 400 and location):
                    break
                following = urljoin(current, location)
                if urlsplit(following).hostname != urlsplit(url).hostname:
                    text = answer.body.decode(errors="replace")
                    return "warning", f"Probe terminated redirects, Response body: {text}"
                current = following
            else:
                return "failure", f'Get "{location}": stopped after {_MAXIMUM_REDIRECTS} redirects'
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return "failure", f'Get "{current}": {why}'
    except HandlerFault as fault:
        return "failure", f'Get "{current}": {fault}'
    except OSError as error:
        return "failure", f'Get "{current}": {describe_dial(current, error)}'
    body = answer.body.decode(errors="replace")
    if 200 <= answer.status < 300:
        return "success", body
    if answer.status < 400:
        return "warning", f"Probe terminated redirects, Response body: {body}"
    return "failure", f"HTTP probe failed with statuscode: {answer.status}"


def describe_dial(url: str, error: OSError) -> str:
    """A failed connection as Go tells of it: `dial tcp 10.0.0.1:80: connect: connection refused`."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "EOF"
    return f"dial tcp {_join(host, port)}: connect: {_why(error)}"


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (error.strerror or str(error)).lower()


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Reader:
    """Collects an answer as httptools parses it."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self.body += body
        self.done = self.done or len(self.body) >= BODY_BYTES

    def on_message_complete(self) -> None:
        self.done = True


async def _exchange(url: str, headers: Sequence[tuple[str, str]]) -> HttpAnswer:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {name.lower() for name, _ in headers}
    lines = [f"GET {target} HTTP/1.1"]
    if "host" not in sent:
        lines.append(f"Host: {_join(host, port)}")
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append("Connection: close\r\n\r\n")
    context = _unverified() if secure else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host if secure else None)
    try:
        writer.write("\r\n".join(lines).encode("latin-1", "replace"))
        collected = _Reader()
        parser = httptools.HttpResponseParser(collected)
        # Whatever Go's client reads is read here: programs in containers are often sloppy.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_optional_lf_after_cr=True
        )
        while not collected.done:
            chunk = await reader.read(65536)
            if not chunk:
                break
            parser.feed_data(chunk)
        status = parser.get_status_code()
        if not status:
            raise HandlerFault("EOF")
        return HttpAnswer(status, collected.headers, bytes(collected.body[:BODY_BYTES]))
    except httptools.HttpParserError as error:
        raise HandlerFault(f"net/http: HTTP/1.x transport connection broken: {error}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            writer.transport.abort()


_context: ssl.SSLContext | None = None


def _unverified() -> ssl.SSLContext:
    global _context  # noqa: PLW0603 (made once, when the first HTTPS probe needs it)
    if _context is None:
        _context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _context.check_hostname = False
        _context.verify_mode = ssl.CERT_NONE
    return _context


async def tcp_probe(host: str, port: int, timeout: float) -> tuple[Outcome, str]:
    """Whether a connection can be opened. It is closed with a reset, so that no TIME_WAIT is left behind."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "failure", f"dial tcp {_join(host, port)}: i/o timeout"
    except OSError as error:
        return "failure", f"dial tcp {_join(host, port)}: connect: {_why(error)}"
    raw = writer.get_extra_info("socket")
    if raw is not None:
        import socket

        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return "success", ""


_HEALTH = """
enum ServingStatus UNKNOWN=0 SERVING=1 NOT_SERVING=2 SERVICE_UNKNOWN=3
HealthCheckRequest service=1:string
HealthCheckResponse status=1:ServingStatus
"""


async def grpc_probe(host: str, port: int, service: str, timeout: float) -> tuple[Outcome, str]:
    """Ask grpc.health.v1.Health."""
    from shipwheel.client.grpc.channel import Channel, GrpcError

    address = _join(host, port)
    tables = parse_tables(_HEALTH)
    channel = Channel(address, user_agent=_USER_AGENT)
    try:
        answer = await channel.call(
            "/grpc.health.v1.Health/Check",
            tables["HealthCheckRequest"],
            tables["HealthCheckResponse"],
            {"service": service} if service else {},
            timeout=timeout,
        )
    except GrpcError as error:
        return "failure", _explain_grpc(error.code, error.message, address, timeout)
    finally:
        await channel.close()
    status = answer.get("status", "UNKNOWN")
    if status == "SERVING":
        return "success", "service healthy"
    return "failure", f'service unhealthy (responded with "{status}")'


def _explain_grpc(code: str, message: str, address: str, timeout: float) -> str:
    if code == "UNIMPLEMENTED":
        return f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
    if code in ("DEADLINE_EXCEEDED", "UNAVAILABLE"):
        return f'timeout: failed to connect service "{address}" within {timeout:g}s: context deadline exceeded'
    return f"error: health rpc probe failed: {message}"
