"""The load generator's own HTTP: figures depend on its seeing where answers end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.http import Answer, Connection, ProtobufWatch, Watch
from bench.report import percentile, table


class Transport:
    """Answers what is written to it with bytes cut at given places."""

    def __init__(self, answer: bytes, cuts: list[int]) -> None:
        self.pieces = [answer[low:high] for low, high in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        self.receive: Callable[[bytes], None]

    def write(self, data: bytes) -> None:
        for piece in self.pieces:
            self.receive(piece)


def chunked(body: bytes, sizes: list[int]) -> bytes:
    encoded = b""
    for size in sizes:
        part, body = body[:size], body[size:]
        if part:
            encoded += b"%x\r\n%s\r\n" % (len(part), part)
    return encoded + (b"%X\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=300),
    sizes=st.none() | st.lists(st.integers(1, 40), max_size=8),
    places=st.lists(st.floats(0, 1), max_size=12),
    keep=st.booleans(),
)
def test_an_answer_ends_where_it_ends(body: bytes, sizes: list[int] | None, places: list[float], keep: bool) -> None:
    if sizes is None:
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    else:
        raw = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n" + chunked(body, sizes)
    cuts = sorted({round(place * len(raw)) for place in places})

    async def ask() -> list[Answer]:
        connection, transport = Connection(), Transport(raw, cuts)
        transport.receive = connection.data_received
        connection.connection_made(transport)  # type: ignore[arg-type]
        return [await connection.ask(b"GET /", keep=keep) for _ in range(2)]

    expected = Answer(200 if sizes is None else 201, len(body), body if keep else b"")
    assert asyncio.run(asyncio.wait_for(ask(), 5)) == [expected, expected]


async def test_a_connection_that_ends_is_an_error() -> None:
    connection, transport = Connection(), Transport(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", [])
    transport.receive = connection.data_received
    connection.connection_made(transport)  # type: ignore[arg-type]
    answer = asyncio.ensure_future(connection.ask(b"GET /"))
    await asyncio.sleep(0)
    connection.connection_lost(None)
    with pytest.raises(ConnectionError):
        await answer


async def test_a_watch_counts_events_however_they_are_cut() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for n in range(3):
        event = b'{"type":"ADDED","object":{"n":%d}}\n' % n
        raw += b"%x\r\n%s\r\n" % (len(event), event)
    for size in range(1, len(raw)):
        times: list[float] = []
        watch = Watch(times.append)
        for start in range(0, len(raw), size):
            watch.data_received(raw[start : start + size])
        assert len(times) == 3


async def test_a_watch_in_protobuf_counts_events_however_they_are_cut() -> None:
    events = b"".join(size.to_bytes(4, "big") + bytes(size) for size in (3, 0, 300))
    for size in range(1, len(events)):
        body = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (events[start : start + size] for start in range(0, len(events), size))
        )
        times: list[float] = []
        watch = ProtobufWatch(times.append)
        raw = b"HTTP/1.1 200 OK\r\n\r\n" + body + b"0\r\n\r\n"
        for start in range(0, len(raw), 7):
            watch.data_received(raw[start : start + 7])
        assert len(times) == 3


def test_percentiles_and_tables() -> None:
    values = [float(n) for n in range(100)]
    assert (percentile(values, 50), percentile(values, 99), percentile([1.0], 99)) == (50.0, 99.0, 1.0)
    assert table(("a", "b"), [("x", "10"), ("long", "1")]) == "a      b\n----  --\nx     10\nlong   1"
