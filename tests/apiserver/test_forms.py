"""What is made of an object is made once, as long as there is room to keep it."""

from __future__ import annotations

import pytest

from shipwheel.api.resource import Resource, Version
from shipwheel.api.schema import Schema
from shipwheel.apiserver.entries import Entry
from shipwheel.apiserver.forms import Forms
from shipwheel.client.client import Client
from shipwheel.client.resources import PODS
from tests.apiserver.world import World

THINGS = Resource("Thing", "things", (Version("", "v1", Schema({})),))


def entry(name: str) -> Entry:
    return Entry(THINGS, f"ns/{name}", b'"metadata":{"name":"x"}}', 1)


def test_forms_go_when_there_are_too_many() -> None:
    entries = [entry(name) for name in "abc"]
    forms = Forms(lambda: entries, limit=100)
    forms.keep(entries[0], "row", b"0", 40)
    forms.keep(entries[0], "protobuf", b"1", 30)
    forms.keep(entries[1], "row", b"2", 30)
    assert entries[0].forms == {"row": b"0", "protobuf": b"1"} and entries[1].forms == {"row": b"2"}
    forms.keep(entries[2], "row", b"3", 1)
    assert [each.forms for each in entries] == [None, None, {"row": b"3"}]
    forms.keep(entries[1], "row", b"4", 99)
    assert entries[2].forms == {"row": b"3"}


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_made_is_kept_but_not_what_it_is_made_of(world: World, admin: Client, namespace: str) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await admin.create(PODS, pod, namespace)
    entry = world.server.cache.caches["pods"].entries[f"{namespace}/p"]
    for form in (
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf",
    ):
        first, again = [(await admin.request("GET", PODS.path(namespace), accept=form)).body for _ in range(2)]
        assert first == again or "Table" in form
    watch = {"watch": "1", "resourceVersion": "0", "timeoutSeconds": "1"}
    accept = "application/vnd.kubernetes.protobuf;stream=watch,application/vnd.kubernetes.protobuf"
    watched = await admin.request("GET", PODS.path(namespace), query=watch, accept=accept)
    assert watched.body.count(b"ADDED") == 1
    assert entry.forms is not None and len(entry.forms) == 3
    assert entry._obj is None
    await admin.patch(PODS, "p", namespace, {"metadata": {"labels": {"a": "b"}}})
    assert entry.forms is None
