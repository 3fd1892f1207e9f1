"""What gRPC puts into HTTP/2: messages with a length, statuses in trailers, timeouts in a header. Pure functions."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
MAX_MESSAGE = 16 << 20
"""Bytes. What CRI's parties agree on: node-wide lists are larger than gRPC's usual 4 MB."""

Headers = Iterable[tuple[str, str]]


class GrpcError(Exception):
    """A status other than OK. `code` is its name, `message` what the other side said."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"rpc error: code = {self.code.title().replace('_', '')} desc = {self.message}"


def frame(message: bytes) -> bytes:
    """A message as it travels: not compressed, its length before it."""
    return struct.pack(">BI", 0, len(message)) + message


class Messages:
    """Whole messages out of the pieces that arrive."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises GrpcError when a message is compressed or too large."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 5:
            compressed, length = struct.unpack_from(">BI", buffer)
            if compressed:
                raise GrpcError("INTERNAL", "a compressed message, which was not agreed on")
            if length > self._limit:
                raise GrpcError("RESOURCE_EXHAUSTED", f"received message larger than max ({length} vs. {self._limit})")
            if len(buffer) < 5 + length:
                return
            message = bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            yield message


def status_headers(code: str, message: str = "") -> list[tuple[str, str]]:
    headers = [("grpc-status", str(CODES.index(code)))]
    # Everything but printable ASCII is percent-encoded.
    printable = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
    return headers + ([("grpc-message", quote(message, safe=printable))] if message else [])


def read_status(headers: Headers) -> GrpcError | None:
    """The error that trailers (or the only headers) tell of; None for OK."""
    found = dict(headers)
    if "grpc-status" not in found:
        status = found.get(":status", "")
        if status == "200" or not status:
            return GrpcError("UNKNOWN", "the server ended the call without a status")
        return GrpcError(_BY_HTTP.get(status, "UNKNOWN"), f"unexpected HTTP status code received from server: {status}")
    number = found["grpc-status"]
    code = CODES[int(number)] if number.isdigit() and int(number) < len(CODES) else "UNKNOWN"
    return None if code == "OK" else GrpcError(code, unquote(found.get("grpc-message", "")))


_BY_HTTP = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeout_text(seconds: float) -> str:
    """At most eight digits and a unit."""
    for unit in ("m", "S", "M", "H"):
        amount = math.ceil(seconds / _UNITS[unit])
        if amount < 10**8:
            return f"{amount}{unit}"
    return "99999999H"


def timeout_seconds(text: str) -> float | None:
    if not text or text[-1] not in _UNITS or not text[:-1].isdigit():
        return None
    return int(text[:-1]) * _UNITS[text[-1]]
