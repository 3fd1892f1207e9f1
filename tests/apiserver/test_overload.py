"""Too much of everything: bodies, requests, watches, readers that do not read, clients that do not write."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.apiserver import watch as watches
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, LEASES
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 60.0


@dataclass
class Wire:
    """A connection whose bytes are the test's own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "Host: x", "", ""]).encode() + body)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def status(self) -> tuple[int, dict[str, str], Obj]:
        """The answer, its headers and the Status in it."""
        code, headers = await self.head()
        return code, headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def wire(world: World, directory: Path, user: str = "admin") -> AsyncIterator[Wire]:
    config = world.config(user, "system:masters" if user == "admin" else "team")
    context = ssl.create_default_context(cadata=config.ca_data.decode())
    pair = directory / f"{user}.pem"
    pair.write_bytes(config.client_cert_data + config.client_key_data)
    context.load_cert_chain(pair)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=context, server_hostname="localhost", limit=1 << 20
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def until(condition: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


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
    serving = world.server.flow.serving
    await make_many(admin, namespace, 40, 500_000)
    before = serving["readOnly"]
    async with wire(world, tmp_path) as slow:
        await slow.send(f"GET {CONFIG_MAPS.path(namespace)} HTTP/1.1")
        assert (await slow.head())[0] == 200
        assert serving["readOnly"] == before + 1
    await until(lambda: serving["readOnly"] == before)
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


async def test_a_storm_of_lists_starves_no_lease(world: World, admin: Client, tmp_path: Path, namespace: str) -> None:
    flow = world.server.flow
    binding = {
        "metadata": {"name": "team-reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}],
    }
    await admin.create(GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"), binding)
    await make_many(admin, namespace, 40, 500_000)
    before, limit, queue = flow.reads.used, flow.reads.limit, flow.reads.queue
    async with wire(world, tmp_path, "bob") as first, wire(world, tmp_path, "carl") as second:
        flow.reads.limit, flow.reads.queue = before + 1, 1
        try:
            for peer in (first, second):
                await peer.send(f"GET {CONFIG_MAPS.path(namespace)} HTTP/1.1")
                await until(lambda: flow.reads.used > before)
            await until(lambda: flow.reads.waiting)
            async with world.client("dora", "team") as dora:
                path = CONFIG_MAPS.path(namespace)
                async with wire(world, tmp_path, "dora") as third:
                    await third.send(f"GET {path} HTTP/1.1")
                    code, headers, status = await third.status()
                assert (code, headers["retry-after"], status["reason"]) == (429, "1", "TooManyRequests")
                async with asyncio.timeout(PATIENCE):
                    lease = await dora.create(LEASES, {"metadata": {"name": "l"}, "spec": {}}, namespace)
                    await dora.update(LEASES, lease | {"spec": {"holderIdentity": "dora"}})
                    await admin.list(CONFIG_MAPS, namespace, field_selector="metadata.name=c001")
        finally:
            flow.reads.limit, flow.reads.queue = limit, queue


async def test_too_many_watches(world: World, tmp_path: Path, namespace: str) -> None:
    flow = world.server.flow
    limit = flow.watches.limit
    flow.watches.limit = flow.watches.used + 1
    request = f"GET {CONFIG_MAPS.path(namespace)}?watch=1 HTTP/1.1"
    try:
        async with wire(world, tmp_path) as first:
            await first.send(request)
            assert (await first.head())[0] == 200
            async with wire(world, tmp_path) as second:
                await second.send(request)
                code, headers, status = await second.status()
            assert (code, headers["retry-after"], status["reason"]) == (429, "1", "TooManyRequests")
        await until(lambda: flow.watches.free)
        async with wire(world, tmp_path) as third:
            await third.send(request)
            assert (await third.head())[0] == 200
    finally:
        flow.watches.limit = limit


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
