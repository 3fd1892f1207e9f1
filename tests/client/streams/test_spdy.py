"""SPDY/3.1: frames as bytes, and two ends that talk to each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.client.streams import spdy
from shipwheel.client.streams.channel import HIGH_WATER, ChannelReset, read_all
from shipwheel.client.streams.spdy_session import SpdySession, SpdyStream

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)


def test_known_frames() -> None:
    framer = spdy.SpdyFramer(server=False)
    assert framer.data(1, b"hi").hex() == "00000001000000026869"
    assert framer.data(1, b"", fin=True).hex() == "0000000101000000"
    assert framer.reset(3, spdy.CANCEL).hex() == "80030003000000080000000300000005"
    assert framer.ping() == (1, bytes.fromhex("800300060000000400000001"))
    assert framer.go_away(5).hex() == "80030007000000080000000500000000"


@given(
    st.lists(st.lists(st.tuples(NAMES, VALUES), unique_by=lambda pair: pair[0], max_size=5), max_size=5),
    st.integers(1, 40),
)
def test_headers_survive_in_any_pieces(opened: list[list[tuple[str, str]]], step: int) -> None:
    """Both compressors keep their history, and a reader gets bytes as the network likes."""
    client, server = spdy.SpdyFramer(server=False), spdy.SpdyFramer(server=True)
    raw = b"".join(client.open(headers, fin=bool(number % 2))[1] for number, headers in enumerate(opened))
    events = [event for at in range(0, len(raw), step) for event in server.receive(raw[at : at + step])]
    assert events == [
        spdy.StreamOpened(2 * number + 1, headers, bool(number % 2)) for number, headers in enumerate(opened)
    ]


def test_repeated_headers_travel_as_one() -> None:
    client, server = spdy.SpdyFramer(server=False), spdy.SpdyFramer(server=True)
    _, raw = client.open([("A", "1"), ("a", "2")])
    assert server.receive(raw) == [spdy.StreamOpened(1, [("a", "1"), ("a", "2")], False)]


@given(st.binary(max_size=3 * spdy.MAX_DATA))
def test_long_data_is_cut_and_only_its_end_ends(data: bytes) -> None:
    client, server = spdy.SpdyFramer(server=False), spdy.SpdyFramer(server=True)
    events = server.receive(client.data(1, data, fin=True))
    assert b"".join(event.data for event in events) == data  # type: ignore[union-attr]
    assert [event.fin for event in events] == [False] * (len(events) - 1) + [True]  # type: ignore[union-attr]


def test_pings_are_answered() -> None:
    client, server = spdy.SpdyFramer(server=False), spdy.SpdyFramer(server=True)
    number, raw = client.ping()
    assert server.receive(raw) == []
    assert client.receive(server.take_pending()) == [spdy.PongReceived(number)]


@pytest.mark.parametrize(
    "raw",
    [
        "80020001" + "0000000a" + "00" * 10,  # SPDY/2
        "80030003" + "00000002" + "0000",  # a reset of two bytes
        "80030001" + "00000010" + "00" * 16,  # headers that are not compressed
        "80030006" + "00000000",  # a ping without a number
    ],
)
def test_nonsense_is_refused(raw: str) -> None:
    with pytest.raises(spdy.SpdyError):
        spdy.SpdyFramer(server=True).receive(bytes.fromhex(raw))


@given(st.binary(max_size=200))
def test_garbage_never_crashes(raw: bytes) -> None:
    try:
        spdy.SpdyFramer(server=True).receive(raw)
    except spdy.SpdyError:
        return


# --- Sessions


class Pipe:
    """Two wires, back to back."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.other: Pipe = self
        self.closed = False

    @classmethod
    def pair(cls) -> tuple[Pipe, Pipe]:
        one, other = cls(), cls()
        one.other, other.other = other, one
        return one, other

    async def read(self) -> bytes:
        return await self.queue.get()

    def write(self, data: bytes) -> None:
        self.other.queue.put_nowait(data)

    async def drain(self) -> None:
        if self.closed:
            raise ConnectionResetError("closed")

    def close(self) -> None:
        self.closed = True
        self.queue.put_nowait(b"")
        self.other.queue.put_nowait(b"")


class Ends:
    def __init__(self) -> None:
        there, here = Pipe.pair()
        self.accepted: asyncio.Queue[SpdyStream] = asyncio.Queue()
        self.client = SpdySession(there, server=False)
        self.server = SpdySession(here, server=True, on_stream=self._accept)

    def _accept(self, stream: SpdyStream) -> bool:
        if stream.header("streamtype") == "unwanted":
            return False
        self.accepted.put_nowait(stream)
        return True

    async def open(self, kind: str = "data") -> tuple[SpdyStream, SpdyStream]:
        [ours] = await self.client.open([("streamtype", kind)])
        return ours, await self.accepted.get()


@asynccontextmanager
async def connected() -> AsyncIterator[Ends]:
    ends = Ends()
    readers = [asyncio.create_task(ends.client.run()), asyncio.create_task(ends.server.run())]
    try:
        async with asyncio.timeout(60):
            yield ends
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_either_side_can_end_its_half() -> None:
    async with connected() as ends:
        ours, theirs = await ends.open()
        await ours.write(b"question")
        await ours.close()
        assert await read_all(theirs, 100) == b"question"
        await theirs.write(b"answer")
        await theirs.close()
        assert await read_all(ours, 100) == b"answer"
        with pytest.raises(ChannelReset):
            await ours.write(b"more")


async def test_streams_do_not_mix() -> None:
    async with connected() as ends:
        pairs = [await ends.open() for _ in range(5)]
        for number, (ours, _) in enumerate(pairs):
            await ours.write(bytes([number]) * 10)
            await ours.close()
        assert [await read_all(theirs, 100) for _, theirs in pairs] == [bytes([n]) * 10 for n in range(5)]


async def test_a_refused_stream() -> None:
    async with connected() as ends:
        with pytest.raises(ChannelReset):
            await ends.client.open([("streamtype", "unwanted")])


async def test_a_reset_ends_what_is_read_and_forbids_to_write() -> None:
    async with connected() as ends:
        ours, theirs = await ends.open()
        await ours.write(b"last words")
        await ours.reset()
        assert await read_all(theirs, 100) == b"last words"
        with pytest.raises(ChannelReset):
            await theirs.write(b"x")


async def test_the_end_of_the_connection_ends_every_stream() -> None:
    async with connected() as ends:
        ours, theirs = await ends.open()
        await ends.client.close()
        assert await theirs.read() == b""
        assert await ours.read() == b""
        with pytest.raises(ConnectionError):
            await theirs.write(b"x")


async def test_a_reader_that_does_not_read_slows_the_connection() -> None:
    async with connected() as ends:
        ours, theirs = await ends.open()
        for _ in range(8):
            await ours.write(b"x" * HIGH_WATER)
        await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        held = sum(map(len, theirs.inbox._pieces))
        assert held <= HIGH_WATER + spdy.MAX_DATA
        await ours.close()
        assert len(await read_all(theirs, 1 << 30)) == 8 * HIGH_WATER
