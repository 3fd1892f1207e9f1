"""Protobuf over HTTP: what upstream's components speak by themselves."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS
from shipwheel.kinds import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOBUF = "application/vnd.kubernetes.protobuf"


def config_map(name: str) -> Obj:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": "v"}}


async def create(admin: Client, namespace: str, name: str) -> Obj:
    body = wire.encode_object(config_map(name))
    path = CONFIG_MAPS.path(namespace)
    answer = await admin.request("POST", path, body=body, content_type=PROTOBUF, accept=PROTOBUF)
    assert answer.header("Content-Type") == PROTOBUF
    return wire.decode_object(answer.body)


async def test_an_object(admin: Client, namespace: str) -> None:
    made = await create(admin, namespace, "a")
    assert made["data"] == {"k": "v"} and made["metadata"]["uid"]
    assert made == await admin.get(CONFIG_MAPS, "a", namespace)
    answer = await admin.request("GET", CONFIG_MAPS.path(namespace, "a"), accept=f"{PROTOBUF},application/json")
    assert wire.decode_object(answer.body) == made


async def test_a_list(admin: Client, namespace: str) -> None:
    for name in ("a", "b"):
        await create(admin, namespace, name)
    path = CONFIG_MAPS.path(namespace)
    answer = await admin.request("GET", path, accept=PROTOBUF)
    found, expected = wire.decode_object(answer.body), await admin.call("GET", path)
    assert (found["kind"], found["items"]) == ("ConfigMapList", expected["items"])
    assert found["metadata"]["resourceVersion"] == expected["metadata"]["resourceVersion"]


async def test_a_watch(admin: Client, namespace: str) -> None:
    await create(admin, namespace, "a")
    listed = await admin.list(CONFIG_MAPS, namespace)
    query = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"], "timeoutSeconds": "5"}
    stream = await admin.stream("GET", CONFIG_MAPS.path(namespace), query=query, accept=f"{PROTOBUF};stream=watch")
    try:
        await create(admin, namespace, "b")
        await admin.delete(CONFIG_MAPS, "a", namespace)
        events: list[tuple[str, str]] = []
        buffer = b""
        async with asyncio.timeout(10):
            async for piece in stream:
                buffer += piece
                used = 0
                for kind, obj, end in wire.watch_frames(buffer):
                    events.append((kind, obj["metadata"]["name"]))
                    used = end
                buffer = buffer[used:]
                if len(events) == 2:
                    break
        assert events == [("ADDED", "b"), ("DELETED", "a")]
    finally:
        stream.close()


async def test_an_error(admin: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        await admin.request("GET", CONFIG_MAPS.path(namespace, "none"), accept=PROTOBUF)
    assert caught.value.code == 404


@pytest.mark.parametrize("body", [b"", b"k8s\x00", b"k8s\x00\xff\xff", b"\x0a\x03abc", b"{}"])
async def test_what_is_no_protobuf(admin: Client, namespace: str, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        await admin.request("POST", CONFIG_MAPS.path(namespace), body=body or b"k8s", content_type=PROTOBUF)
    assert caught.value.code == 400
