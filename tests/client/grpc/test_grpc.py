"""gRPC between our own ends: messages, statuses, timeouts, sizes, broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.protobuf import parse_tables
from shipwheel.client.grpc.channel import Channel, GrpcError, socket_path
from shipwheel.client.grpc.server import GrpcServer, Method
from shipwheel.client.grpc.wire import (
    CODES,
    Messages,
    frame,
    read_status,
    status_headers,
    timeout_seconds,
    timeout_text,
)

TABLES = parse_tables("Text text=1:string\nNumber number=1:int64")
TEXT, NUMBER = TABLES["Text"], TABLES["Number"]


# --- Pure parts


@given(st.lists(st.binary(max_size=100), max_size=5), st.integers(1, 50))
def test_messages_survive_in_any_pieces(messages: list[bytes], step: int) -> None:
    raw = b"".join(map(frame, messages))
    reader = Messages()
    assert [m for at in range(0, len(raw), step) for m in reader.feed(raw[at : at + step])] == messages


def test_messages_that_are_too_large_or_compressed_are_refused() -> None:
    with pytest.raises(GrpcError, match=r"received message larger than max \(100 vs\. 10\)"):
        list(Messages(10).feed(frame(b"x" * 100)))
    with pytest.raises(GrpcError, match="compressed"):
        list(Messages().feed(b"\x01\0\0\0\0"))


@given(st.sampled_from(CODES[1:]), st.text())
def test_statuses_survive(code: str, message: str) -> None:
    headers = status_headers(code, message)
    assert all(value.isascii() and value.isprintable() for _, value in headers)
    error = read_status(headers)
    assert error is not None and (error.code, error.message) == (code, message)


def test_what_is_no_status() -> None:
    assert read_status([("grpc-status", "0")]) is None
    for headers, code in (
        ([("grpc-status", "99")], "UNKNOWN"),
        ([(":status", "503")], "UNAVAILABLE"),
        ([(":status", "200")], "UNKNOWN"),
    ):
        error = read_status(headers)
        assert error is not None and error.code == code


@given(st.floats(0.001, 1e9))
def test_timeouts_survive(seconds: float) -> None:
    text = timeout_text(seconds)
    assert len(text) <= 9
    read = timeout_seconds(text)
    assert read is not None and seconds <= read * 1.0001 and read <= seconds * 1.001 + 3600


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("unix:///run/x.sock", "/run/x.sock"), ("/run/x.sock", "/run/x.sock"), ("localhost:1", "")],
)
def test_endpoints(endpoint: str, path: str) -> None:
    assert socket_path(endpoint) == path


# --- Two ends


class Service:
    def __init__(self, path: str) -> None:
        self.path = path
        self.cancelled = asyncio.Event()
        self.server: GrpcServer | None = None

    async def start(self) -> None:
        methods = {
            "/t.S/Upper": Method(TEXT, TEXT, self.upper),
            "/t.S/Fail": Method(TEXT, TEXT, self.fail),
            "/t.S/Crash": Method(TEXT, TEXT, self.crash),
            "/t.S/Wait": Method(TEXT, TEXT, self.wait),
            "/t.S/Count": Method(NUMBER, NUMBER, self.count),
        }
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.server = GrpcServer(methods)
        await self.server.listen(self.path)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()

    async def upper(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"text": request.get("text", "").upper()}

    async def fail(self, request: dict[str, Any]) -> dict[str, Any]:
        raise GrpcError("NOT_FOUND", f'no "{request["text"]}" – 100 %')

    async def crash(self, request: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("oh")

    async def wait(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return {}

    async def count(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for number in range(request["number"]):
            yield {"number": number}
        if request["number"] > 3:
            raise GrpcError("OUT_OF_RANGE", "that is all")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory() as scratch:
        service = Service(f"{scratch}/s")
        await service.start()
        yield service
        await service.stop()


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[Channel]:
    channel = Channel(f"unix://{service.path}")
    yield channel
    await channel.close()


async def call(channel: Channel, name: str, text: str = "", timeout: float | None = 5) -> str:
    answer = await channel.call(f"/t.S/{name}", TEXT, TEXT, {"text": text}, timeout=timeout)
    return answer.get("text", "")


async def test_calls(channel: Channel) -> None:
    assert await call(channel, "Upper", "hällo") == "HÄLLO"
    assert await call(channel, "Upper") == ""


async def test_many_at_once(channel: Channel) -> None:
    answers = await asyncio.gather(*(call(channel, "Upper", f"a{number}") for number in range(200)))
    assert answers == [f"A{number}" for number in range(200)]


async def test_large_messages_pass_through_small_windows(channel: Channel) -> None:
    text = "x" * 3_000_000
    assert await call(channel, "Upper", text) == text.upper()


async def test_answers_have_a_limit(service: Service) -> None:
    channel = Channel(service.path, max_message=1000)
    with pytest.raises(GrpcError) as error:
        await call(channel, "Upper", "x" * 2000)
    assert error.value.code == "RESOURCE_EXHAUSTED"
    assert await call(channel, "Upper", "on") == "ON"
    await channel.close()


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("Fail", "NOT_FOUND", 'no "x" – 100 %'),
        ("Crash", "UNKNOWN", "oh"),
        ("Nothing", "UNIMPLEMENTED", "unknown method /t.S/Nothing"),
    ],
)
async def test_errors(channel: Channel, method: str, code: str, message: str) -> None:
    with pytest.raises(GrpcError) as error:
        await call(channel, method, "x")
    assert (error.value.code, error.value.message) == (code, message)
    assert await call(channel, "Upper", "on") == "ON"


async def test_a_deadline(service: Service, channel: Channel) -> None:
    with pytest.raises(GrpcError) as error:
        await call(channel, "Wait", timeout=0.05)
    assert error.value.code == "DEADLINE_EXCEEDED"
    async with asyncio.timeout(60):
        await service.cancelled.wait()


async def test_a_call_that_is_given_up_is_cancelled_there(service: Service, channel: Channel) -> None:
    waiting = asyncio.create_task(call(channel, "Wait", timeout=None))
    assert await call(channel, "Upper", "x") == "X"
    waiting.cancel()
    async with asyncio.timeout(60):
        await service.cancelled.wait()


async def test_a_stream_of_answers(channel: Channel) -> None:
    numbers = [answer.get("number", 0) async for answer in channel.stream("/t.S/Count", NUMBER, NUMBER, {"number": 3})]
    assert numbers == [0, 1, 2]
    numbers = []
    with pytest.raises(GrpcError, match="that is all"):
        async for answer in channel.stream("/t.S/Count", NUMBER, NUMBER, {"number": 5}):
            numbers.append(answer.get("number", 0))
    assert numbers == [0, 1, 2, 3, 4]


async def test_a_server_that_is_not_there() -> None:
    channel = Channel("unix:///nowhere/s")
    with pytest.raises(GrpcError, match="dial unix /nowhere/s: connect: no such file or directory") as error:
        await call(channel, "Upper")
    assert error.value.code == "UNAVAILABLE"


async def test_a_server_that_goes_and_comes_back(service: Service, channel: Channel) -> None:
    waiting = asyncio.create_task(call(channel, "Wait", timeout=None))
    assert await call(channel, "Upper", "x") == "X"
    await service.stop()
    with pytest.raises(GrpcError) as error:
        await waiting
    assert error.value.code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN")
    with pytest.raises(GrpcError):
        await call(channel, "Upper", "x")
    await service.start()
    assert await call(channel, "Upper", "y") == "Y"
