"""Custom resources, through HTTP."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj, condition
from shipwheel.client.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEFINITIONS = GroupVersionResource("apiextensions.k8s.io", "v1", "customresourcedefinitions")


def definition(plural: str) -> Obj:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].title(), "listKind": plural + "List"}
    return {
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]},
    }


async def serve(admin: Client, crd: Obj) -> GroupVersionResource:
    """Create the definition and wait until its kind is served."""
    await admin.create(DEFINITIONS, crd)
    async with asyncio.timeout(10):
        while not condition(await admin.get(DEFINITIONS, crd["metadata"]["name"]), "Established"):
            await asyncio.sleep(0.01)
        kind = GroupVersionResource("example.com", "v1", crd["spec"]["names"]["plural"])
        while True:
            try:
                await admin.list(kind)
                return kind
            except ApiError as error:
                assert error.code == 404
                await asyncio.sleep(0.01)


async def test_a_default_is_seen_in_what_was_stored_before_it(admin: Client) -> None:
    kind = await serve(admin, definition("widgets"))
    widget: Obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "b": "mine"}
    await admin.create(kind, widget)
    default = {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/a/default", "value": "A"}
    other = {**default, "path": default["path"].replace("/a/", "/b/")}
    await admin.patch(DEFINITIONS, "widgets.example.com", "", [default, other], kind="json")
    async with asyncio.timeout(10):
        while "a" not in (found := await admin.get(kind, "w")):
            await asyncio.sleep(0.01)
    assert (found["a"], found["b"]) == ("A", "mine")
    assert (await admin.list(kind))["items"][0]["a"] == "A"
