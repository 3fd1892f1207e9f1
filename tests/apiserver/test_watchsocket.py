"""Watches and logs over WebSocket, as a browser has them."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime

import pytest

from shipwheel.admin import pki
from shipwheel.apiserver.forward import Destination, Forwarder
from shipwheel.client.client import Client
from shipwheel.client.credentials import tls_context
from shipwheel.client.httpserver import Answer, HttpServer, Request, Stream, StreamWriter, in_task
from shipwheel.client.resources import CONFIG_MAPS
from shipwheel.client.streams.websocket import WebSocket, client_headers
from shipwheel.client.streams.wire import connect
from tests.apiserver.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


def admin_tls(world: World) -> ssl.SSLContext:
    authority = pki.load(world.directory / "pki/ca")
    pair = pki.issue(authority, pki.user("admin", "system:masters"), datetime.now(UTC))
    return tls_context(world.config(), (pair.certificate_pem, pair.key_pem))


async def test_each_event_is_a_message(admin: Client, world: World, namespace: str) -> None:
    since = (await admin.list(CONFIG_MAPS, namespace))["metadata"]["resourceVersion"]
    target = f"{CONFIG_MAPS.path(namespace)}?watch=true&resourceVersion={since}"
    upgraded = await connect(
        "127.0.0.1", world.port, target, list(client_headers([])), tls=admin_tls(world), server_name="127.0.0.1"
    )
    socket = WebSocket(upgraded.wire, server=False)
    try:
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, namespace)
        await admin.delete(CONFIG_MAPS, "a", namespace)
        async with asyncio.timeout(10):
            events = [json.loads(await socket.receive() or b"null") for _ in range(2)]
    finally:
        socket.close()
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "a"), ("DELETED", "a"),
    ]  # fmt: skip


async def test_a_log_comes_whole_and_ends() -> None:
    async def kubelet(request: Request) -> Answer:
        assert not request.is_upgrade and request.path == "/containerLogs/n/p/c"

        async def run(writer: StreamWriter) -> None:
            for line in (b"one\n", b"two\n"):
                writer.write(line)
                await writer.drain()

        return Stream(run, content_type="text/plain")

    forwarder, node = Forwarder(), HttpServer(kubelet)
    to = Destination("127.0.0.1", await node.listen("127.0.0.1", 0))

    async def api(request: Request) -> Answer:
        await in_task()
        return await forwarder.forward_streams(request, to, "/containerLogs/n/p/c")

    front = HttpServer(api)
    try:
        port = await front.listen("127.0.0.1", 0)
        upgraded = await connect("127.0.0.1", port, "/log", list(client_headers(["binary.k8s.io"])))
        socket = WebSocket(upgraded.wire, server=False)
        async with asyncio.timeout(10):
            pieces = []
            while (piece := await socket.receive()) is not None:
                pieces.append(piece)
        assert b"".join(pieces) == b"one\ntwo\n"
        socket.close()
    finally:
        await front.close()
        await node.close()
        await forwarder.close()
