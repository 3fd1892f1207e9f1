"""Custom resources, through HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

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


def two_versions(plural: str) -> Obj:
    """A kind of which each version has fields, subresources and selectable fields of its own."""
    crd = definition(plural)
    first = crd["spec"]["versions"][0]
    numbers = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    properties = {"a": {"type": "string"}, "b": {"type": "string"}, "spec": numbers, "status": numbers}
    first["schema"] = {"openAPIV3Schema": {"type": "object", "properties": properties}}
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    first["subresources"] = {"status": {}, "scale": scale}
    first["selectableFields"] = [{"jsonPath": ".a"}]
    second = {"name": "v2", "served": True, "storage": False}
    second["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    crd["spec"]["versions"].append(second)
    crd["spec"]["scope"] = "Namespaced"
    return crd


async def test_each_version_has_its_own_selectable_fields(admin: Client, namespace: str) -> None:
    kind = await serve(admin, two_versions("pickers"))
    other = kind._replace(version="v2")
    for name in ("x", "y"):
        made: Obj = {"apiVersion": "example.com/v1", "kind": "Picker", "metadata": {"name": name}, "a": name}
        await admin.create(kind, made, namespace)
    found = await admin.list(kind, namespace, field_selector="a=y")
    assert [each["metadata"]["name"] for each in found["items"]] == ["y"]
    with pytest.raises(ApiError) as caught:
        await admin.list(other, namespace, field_selector="a=y")
    assert (caught.value.code, caught.value.message) == (400, "field label not supported: a")


async def apply(
    admin: Client, kind: GroupVersionResource, config: Obj, namespace: str, manager: str, **more: Any
) -> Obj:
    return await admin.patch(kind, "x", namespace, config, kind="apply", field_manager=manager, **more)


async def test_owners_are_kept_across_versions_and_by_scale(admin: Client, namespace: str) -> None:
    kind = await serve(admin, two_versions("owners"))
    about = {"kind": "Owner", "metadata": {"name": "x"}}
    await apply(admin, kind, {**about, "apiVersion": "example.com/v1", "a": "1"}, namespace, "one")
    changed = {**about, "apiVersion": "example.com/v2", "a": "2"}
    with pytest.raises(ApiError) as caught:
        await apply(admin, kind._replace(version="v2"), changed, namespace, "two")
    assert caught.value.reason == "Conflict"
    assert 'conflict with "one": .a' in caught.value.message
    await apply(admin, kind._replace(version="v2"), changed, namespace, "two", force=True)
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"}, "spec": {"replicas": 3}}
    await apply(admin, kind, scale, namespace, "three", subresource="scale")
    found = await admin.get(kind, "x", namespace)
    assert (found["a"], found["spec"]) == ("2", {"replicas": 3})
    owners = [
        (each["manager"], each["operation"], each["apiVersion"], each.get("subresource", ""), each["fieldsV1"])
        for each in found["metadata"]["managedFields"]
    ]
    assert sorted(owners, key=str) == [
        ("three", "Apply", "example.com/v1", "scale", {"f:spec": {"f:replicas": {}}}),
        ("two", "Apply", "example.com/v2", "", {"f:a": {}}),
    ]
    await apply(admin, kind, {**about, "apiVersion": "example.com/v1", "b": "2"}, namespace, "one")
    found = await admin.get(kind._replace(version="v2"), "x", namespace)
    assert "b" not in found


async def test_a_field_that_a_definition_lost_is_seen_no_more(admin: Client) -> None:
    kind = await serve(admin, definition("losers"))
    await admin.create(kind, {"apiVersion": "example.com/v1", "kind": "Loser", "metadata": {"name": "x"}, "b": "gone"})
    gone = {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/b"}
    await admin.patch(DEFINITIONS, "losers.example.com", "", [gone], kind="json")
    async with asyncio.timeout(10):
        while "b" in await admin.get(kind, "x"):
            await asyncio.sleep(0.01)


async def test_what_was_allowed_before_may_stay(admin: Client) -> None:
    """Ratcheting (KEP-4008): a stricter schema minds only what changes."""
    kind = await serve(admin, definition("ratchets"))
    about = {"apiVersion": "example.com/v1", "kind": "Ratchet", "metadata": {"name": "x"}}
    await admin.create(kind, {**about, "a": "old", "b": "old"})
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/a/enum"
    await admin.patch(
        DEFINITIONS, "ratchets.example.com", "", [{"op": "add", "path": path, "value": ["new"]}], kind="json"
    )
    async with asyncio.timeout(10):
        while True:
            try:
                await admin.patch(kind, "x", "", {"a": "other"})
            except ApiError as error:
                assert error.reason == "Invalid"
                break
            await admin.patch(kind, "x", "", {"a": "old"})
    assert (await admin.patch(kind, "x", "", {"b": "changed"}))["b"] == "changed"


async def test_a_scale_is_refused_as_built_in_kinds_refuse_it(admin: Client, namespace: str) -> None:
    kind = await serve(admin, two_versions("sizers"))
    made: Obj = {"apiVersion": "example.com/v1", "kind": "Sizer", "metadata": {"name": "s"}, "spec": {"replicas": 2}}
    await admin.create(kind, made, namespace)
    scale = await admin.get(kind, "s", namespace, subresource="scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 0})
    with pytest.raises(ApiError) as negative:
        await admin.update(kind, {**scale, "spec": {"replicas": -1}}, subresource="scale")
    assert negative.value.code == 422
    await admin.update(kind, {**scale, "spec": {"replicas": 5}}, subresource="scale")
    with pytest.raises(ApiError) as stale:
        await admin.update(kind, scale, subresource="scale")
    assert stale.value.reason == "Conflict"
    assert (await admin.get(kind, "s", namespace))["spec"] == {"replicas": 5}


async def test_rules_in_cel(admin: Client) -> None:
    """Told when they are broken; on an update of what was so before, only warned of."""
    crd = definition("gizmos")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [{"rule": "self.nope == 1"}]
    with pytest.raises(ApiError, match="compilation failed: ERROR: <input>:1:5: undefined field 'nope'"):
        await admin.create(DEFINITIONS, crd)
    schema["x-kubernetes-validations"] = [{"rule": "!has(self.a) || self.a.startsWith('a')"}]
    kind = await serve(admin, crd)
    gizmo: Obj = {"apiVersion": "example.com/v1", "kind": "Gizmo", "metadata": {"name": "g"}, "a": "b"}
    with pytest.raises(ApiError, match="failed rule") as refused:
        await admin.create(kind, gizmo)
    assert refused.value.code == 422
    await admin.create(kind, {**gizmo, "a": "ab"})
    with pytest.raises(ApiError, match="failed rule"):
        await admin.patch(kind, "g", "", {"a": "b"})
    assert (await admin.patch(kind, "g", "", {"a": "ac"}))["a"] == "ac"
