"""Too much of everything: bodies, requests, watches, readers that do not read, clients that do not write."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.apiserver import watch as watches
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS
from tests.apiserver.wire import PATIENCE, until, wire
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("head", ["Content-Length: 10485760", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large_is_refused_and_its_sender_hears_it(
    world: World, tmp_path: Path, namespace: str, head: str
) -> None:
    async with wire(world, tmp_path) as peer:
        path = CONFIG_MAPS.path(namespace)
        await peer.send(f"POST {path} HTTP/1.1", "Content-Type: application/json", head)
        for _ in range(160):
            piece = b" " * 65536
            peer.writer.write(b"10000\r\n" + piece + b"\r\n" if "chunked" in head else piece)
            await peer.writer.drain()
        code, _, status = await peer.status()
    assert (code, status["reason"]) == (413, "RequestEntityTooLarge")
    assert status["message"] == "Request entity too large: limit is 3145728"


@pytest.mark.parametrize("body", [b'{"data":' + b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000])
async def test_a_body_that_is_too_deep(admin: Client, namespace: str, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        await admin.call("POST", CONFIG_MAPS.path(namespace), body=body)
    assert caught.value.code == 400


async def test_who_does_not_say_everything_in_time_is_told_so(world: World, tmp_path: Path, namespace: str) -> None:
    async with wire(world, tmp_path) as peer:
        path = f"{CONFIG_MAPS.path(namespace)}?timeout=50ms"
        await peer.send(f"POST {path} HTTP/1.1", "Content-Length: 1000", body=b'{"metadata":')
        code, headers, status = await peer.status()
    assert (code, status["reason"]) == (504, "Timeout")
    assert status["message"] == "Timeout: request did not complete within the allotted timeout"
    assert headers["connection"] == "close"


async def test_an_odd_timeout(admin: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await admin.call("GET", CONFIG_MAPS.path(namespace), query={"timeout": "soon"})
    assert caught.value.code == 400
    assert caught.value.message == ('invalid timeout specified in the request URL - time: invalid duration "soon"')
    await admin.call("GET", CONFIG_MAPS.path(namespace), query={"timeout": "0s"})


async def make_many(admin: Client, namespace: str, count: int, size: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            obj = {"metadata": {"name": f"c{number:03}"}, "data": {"x": "x" * size}}
            group.create_task(admin.create(CONFIG_MAPS, obj, namespace))


async def test_a_list_holds_its_place_until_it_is_read(
    world: World, admin: Client, tmp_path: Path, namespace: str
) -> None:
    flow = world.server.flow
    await make_many(admin, namespace, 40, 500_000)
    before = flow.serving("readOnly")
    async with wire(world, tmp_path) as slow:
        await slow.send(f"GET {CONFIG_MAPS.path(namespace)} HTTP/1.1")
        assert (await slow.head())[0] == 200
        assert flow.serving("readOnly") == before + 1
    await until(lambda: flow.serving("readOnly") == before)
    assert b'apiserver_current_inflight_requests{request_kind="readOnly"}' in world.server.metrics.exposition()


async def test_a_list_that_is_not_read_in_time_is_broken_off(
    world: World, admin: Client, tmp_path: Path, namespace: str
) -> None:
    await make_many(admin, namespace, 40, 500_000)
    async with wire(world, tmp_path) as slow:
        await slow.send(f"GET {CONFIG_MAPS.path(namespace)}?timeout=100ms HTTP/1.1")
        assert (await slow.head())[0] == 200
        await asyncio.sleep(0.2)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(PATIENCE):
                await slow.reader.readexactly(20_000_000)


async def test_too_many_watches(world: World, tmp_path: Path, namespace: str) -> None:
    watches = world.server.watches
    limit = watches.limit
    watches.limit = watches.running + 1
    request = f"GET {CONFIG_MAPS.path(namespace)}?watch=1 HTTP/1.1"
    try:
        async with wire(world, tmp_path) as first:
            await first.send(request)
            assert (await first.head())[0] == 200
            async with wire(world, tmp_path) as second:
                await second.send(request)
                code, headers = await second.head()
            assert (code, headers["retry-after"]) == (429, "1")
        await until(lambda: watches.running < watches.limit)
        async with wire(world, tmp_path) as third:
            await third.send(request)
            assert (await third.head())[0] == 200
    finally:
        watches.limit = limit


async def test_a_watcher_that_does_not_read_is_cut_off(
    world: World, admin: Client, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "SLOW_READER_BYTES", 1 << 20)
    cache = world.server.cache.caches["configmaps"]
    before = len(cache.watchers)
    async with wire(world, tmp_path) as slow:
        await slow.send(f"GET {CONFIG_MAPS.path(namespace)}?watch=1 HTTP/1.1")
        assert (await slow.head())[0] == 200
        await until(lambda: len(cache.watchers) == before + 1)
        for number in range(200):
            await admin.create(
                CONFIG_MAPS, {"metadata": {"name": f"w{number}"}, "data": {"x": "x" * 200_000}}, namespace
            )
            if len(cache.watchers) == before:
                break
        assert len(cache.watchers) == before


@pytest.mark.parametrize("query", ["resourceVersion=0", "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"])
async def test_what_changes_while_a_watch_begins_comes_after_it(
    world: World, admin: Client, tmp_path: Path, namespace: str, query: str
) -> None:
    await make_many(admin, namespace, 40, 500_000)
    async with wire(world, tmp_path) as slow:
        path = CONFIG_MAPS.path(namespace)
        await slow.send(f"GET {path}?watch=1&allowWatchBookmarks=true&{query} HTTP/1.0")
        assert (await slow.head())[0] == 200
        # Twenty megabytes are on their way, which nobody reads yet.
        await admin.delete(CONFIG_MAPS, "c039", namespace)
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "late"}}, namespace)
        seen: list[tuple[str, str]] = []
        while ("ADDED", "late") not in seen:
            async with asyncio.timeout(PATIENCE):
                event = json.loads(await slow.reader.readline())
            seen.append((event["type"], event["object"]["metadata"].get("name", "")))
    events = [each for each in seen if each[0] != "BOOKMARK"]
    assert events == [("ADDED", f"c{number:03}") for number in range(40)] + [("DELETED", "c039"), ("ADDED", "late")]
    if "sendInitial" in query:
        assert seen.index(("BOOKMARK", "")) == 40
