"""The status of ValidatingAdmissionPolicies."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.resources import VALIDATING_ADMISSION_POLICIES
from shipwheel.controllers.admission_policy_status import (
    AdmissionPolicyStatusController,
    expressions_of,
    is_new,
    resources_of,
)
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

POLICIES = VALIDATING_ADMISSION_POLICIES
DEPLOYMENTS = GroupVersionResource("apps", "v1", "deployments")


def rule(groups: list[str], versions: list[str], resources: list[str]) -> Obj:
    return {"apiGroups": groups, "apiVersions": versions, "resources": resources, "operations": ["*"]}


def policy(*validations: Obj, rules: tuple[Obj, ...] = (), **spec: object) -> Obj:
    full = {"validations": list(validations), "matchConstraints": {"resourceRules": list(rules)}, **spec}
    return {"metadata": {"name": "p"}, "spec": full}


@pytest.mark.parametrize(
    ("generation", "observed", "expected"), [(1, None, True), (2, 1, True), (2, 2, False), (2, 3, False)]
)
def test_what_is_new(generation, observed, expected):
    made: Obj = {"metadata": {"generation": generation}}
    if observed is not None:
        made["status"] = {"observedGeneration": observed}
    assert is_new(made) is expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], []),
        ([rule(["apps"], ["v1"], ["deployments"])], ["deployments"]),
        ([rule(["apps"], ["v1"], ["deployments", "deployments/scale", "*"])], ["deployments"]),
        ([rule(["*"], ["v1"], ["deployments"])], []),
        ([rule(["apps"], ["*"], ["deployments"])], []),
        ([rule(["apps"], ["v1"], ["b", "a"]), rule(["apps"], ["v1"], ["a"])], ["a", "b"]),
    ],
)
def test_which_resources_a_policy_names(rules, expected):
    assert [each.resource for each in resources_of(policy(rules=tuple(rules)))] == expected


def test_what_is_checked():
    made = policy({"expression": "a", "messageExpression": "b"}, {"expression": "c"})
    assert list(expressions_of(made)) == [
        ("spec.validations[0].expression", "a"),
        ("spec.validations[0].messageExpression", "b"),
        ("spec.validations[1].expression", "c"),
    ]


def cluster(faults: Faults | None = None) -> World:
    world = World((AdmissionPolicyStatusController,), faults or Faults())
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    spec = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec}, "x-kubernetes-group-version-kind": [kind]}
    world.api.intercept = lambda method, path, body: (
        {"components": {"schemas": {"Deployment": schema}}} if path == "/openapi/v3/apis/apps/v1" else None
    )
    return world


def status(world: World) -> Obj:
    return world.api.get(POLICIES, "p")["status"]


async def test_warnings_by_field_and_kind():
    world = cluster()
    confused = {
        "expression": "object.spec.replicas > '1'",
        "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
    }
    async with world.running():
        world.api.create(POLICIES, policy(confused, rules=(rule(["apps"], ["v1"], ["deployments"]),)))
        await world.settle(1)
        first, second = status(world)["typeChecking"]["expressionWarnings"]
        assert first == {
            "fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:22: found no matching overload "
            "for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
        }
        assert second["fieldRef"] == "spec.validations[0].messageExpression"
        assert "ERROR: <input>:1:28: found no matching overload for '_+_'" in second["warning"]


@pytest.mark.parametrize(
    "made",
    [
        policy({"expression": "object.spec.replicas > 1"}, rules=(rule(["apps"], ["v1"], ["deployments"]),)),
        policy({"expression": "object.spec.replicas > '1'"}, rules=(rule(["apps"], ["v1"], ["strange"]),)),
        policy({"expression": "object.spec.replicas > '1'"}, rules=(rule(["*"], ["*"], ["*"]),)),
        # Nobody tells the schema of its kind.
        policy({"expression": "object.data.x > 1"}, rules=(rule([""], ["v1"], ["configmaps"]),)),
        policy(
            {"expression": "variables.more > 2"},
            rules=(rule(["apps"], ["v1"], ["deployments"]),),
            variables=[{"name": "more", "expression": "object.spec.replicas + 1"}],
        ),
    ],
)
async def test_no_warnings(made):
    world = cluster()
    async with world.running():
        world.api.create(POLICIES, made)
        await world.settle(1)
        assert status(world) == {"observedGeneration": 1, "typeChecking": {}}


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_every_generation_is_observed_once(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.2, conflict=0.2, break_watch=0.1, lag=0.2, seed=seed)
    world = cluster(faults)
    async with world.running():
        world.api.create(POLICIES, policy({"expression": "true"}))
        await world.until(lambda: status(world) == {"observedGeneration": 1, "typeChecking": {}}, within=2000)
        without_faults(world)
        world.api.change(POLICIES, "p", "", lambda policy: policy["spec"].update(failurePolicy="Ignore"))
        await world.until(lambda: status(world)["observedGeneration"] == 2, within=2000)
        before = world.api.writes
        world.api.change(POLICIES, "p", "", lambda obj: obj["metadata"].update(labels={"a": "b"}))
        await world.settle(1)
        assert world.api.writes == before
