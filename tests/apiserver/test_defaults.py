"""The API services, flow schemas and priority levels that every cluster has."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj, condition
from shipwheel.apiserver import apiservices
from shipwheel.apiserver.flowcontrol.objects import AUTO_UPDATE, dangling, revised
from shipwheel.client.client import Client
from tests.apiserver.test_customresources import DEFINITIONS, definition

pytestmark = pytest.mark.asyncio(loop_scope="module")

API_SERVICES = GroupVersionResource("apiregistration.k8s.io", "v1", "apiservices")
SCHEMAS = GroupVersionResource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas")
LEVELS = GroupVersionResource("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations")
MANAGED = "kube-aggregator.kubernetes.io/automanaged"


async def until_there(admin: Client, name: str, *, there: bool = True) -> Obj:
    async with asyncio.timeout(30):
        while True:
            try:
                found = await admin.get(API_SERVICES, name)
            except ApiError as error:
                assert error.reason == "NotFound"
                found = {}
            if bool(found) == there:
                return found
            await asyncio.sleep(0.02)


async def test_every_built_in_group_has_its_api_services(admin: Client) -> None:
    listed = {each["metadata"]["name"]: each for each in (await admin.list(API_SERVICES))["items"]}
    assert {"v1.", "v1.apps", "v2.autoscaling", "v1.resource.k8s.io"} <= set(listed)
    assert not any(name.endswith("apiregistration.k8s.io") for name in listed)
    apps = listed["v1.apps"]
    assert apps["metadata"]["labels"] == {MANAGED: "onstart"}
    assert apps["spec"] == {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}
    assert listed["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    available = condition(apps, "Available")
    assert available is not None and (available["status"], available["reason"]) == ("True", "Local")


async def test_api_services_of_custom_resources_come_and_go_with_them(admin: Client) -> None:
    crd = definition("comers")
    crd["spec"]["group"] = "come.example.com"
    crd["metadata"]["name"] = "comers.come.example.com"
    await admin.create(DEFINITIONS, crd)
    made = await until_there(admin, "v1.come.example.com")
    assert made["metadata"]["labels"] == {MANAGED: "true"}
    assert (made["spec"]["groupPriorityMinimum"], made["spec"]["versionPriority"]) == (1000, 100)
    await admin.delete(API_SERVICES, "v1.come.example.com")
    await until_there(admin, "v1.come.example.com")
    await admin.delete(DEFINITIONS, "comers.come.example.com")
    await until_there(admin, "v1.come.example.com", there=False)


async def test_flow_schemas_and_levels_are_there_and_told_of_each_other(admin: Client) -> None:
    levels = {each["metadata"]["name"] for each in (await admin.list(LEVELS))["items"]}
    assert levels == {
        "catch-all", "exempt", "global-default", "leader-election", "node-high", "system", "workload-high",
        "workload-low",
    }  # fmt: skip
    rules = [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
              "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}]}]  # fmt: skip
    mine: Obj = {"metadata": {"name": "mine"},
                 "spec": {"priorityLevelConfiguration": {"name": "absent"}, "rules": rules}}  # fmt: skip
    await admin.create(SCHEMAS, mine)
    async with asyncio.timeout(30):
        while True:
            schemas = {each["metadata"]["name"]: each for each in (await admin.list(SCHEMAS))["items"]}
            told = {name: condition(each, "Dangling") for name, each in schemas.items()}
            if all(told.values()):
                break
            await asyncio.sleep(0.02)
    assert len(schemas) == 12 and schemas["probes"]["metadata"]["annotations"] == {AUTO_UPDATE: "true"}
    assert {name for name, entry in told.items() if entry and entry["status"] == "True"} == {"mine"}
    assert schemas["service-accounts"]["spec"]["matchingPrecedence"] == 9000


def level(spec: Obj, annotation: str = "", generation: int = 1) -> Obj:
    annotations = {AUTO_UPDATE: annotation} if annotation else {}
    return {"metadata": {"name": "x", "generation": generation, "annotations": annotations}, "spec": spec}


@pytest.mark.parametrize(
    ("current", "always", "expected"),
    [
        (level({"a": 1}, "true"), False, ({"a": 2}, "true")),
        (level({"a": 1}, "false"), False, None),
        (level({"a": 1}, "false"), True, ({"a": 2}, "true")),
        (level({"a": 1}), False, ({"a": 2}, "true")),
        (level({"a": 1}, generation=2), False, ({"a": 1}, "false")),
        (level({"a": 2}, "true"), False, None),
    ],
)
async def test_what_follows_a_release_and_what_its_administrator_has(
    current: Obj, always: bool, expected: tuple[Obj, str] | None
) -> None:
    found = revised(current, {"a": 2}, always=always)
    assert (found and (found["spec"], found["metadata"]["annotations"][AUTO_UPDATE])) == expected


async def test_the_exempt_level_keeps_its_administrators_shares() -> None:
    current = level({"type": "Exempt", "exempt": {"lendablePercent": 10}}, "true")
    assert revised(current, {"type": "Exempt", "exempt": {"lendablePercent": 0}}, always=True) is None


async def test_a_missing_priority_level_is_named() -> None:
    schema = {"spec": {"priorityLevelConfiguration": {"name": "gone"}}}
    assert dangling(schema, {"other"})["message"] == (
        'This FlowSchema references the PriorityLevelConfiguration object named "gone" but there is no such object'
    )


async def test_kinds_that_have_moved_are_found_where_they_are_today() -> None:
    """Clients take the first group that has a kind."""
    order = list(apiservices.PRIORITIES)
    assert order.index("extensions") > max(map(order.index, ("apps", "networking.k8s.io", "policy")))
    priorities = [priority for priority, _ in apiservices.PRIORITIES.values()]
    assert priorities == sorted(priorities, reverse=True)
