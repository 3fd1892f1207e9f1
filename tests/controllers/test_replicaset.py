"""ReplicaSets: how many pods to make or delete and what to report (pure), and what the loop says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from shipwheel.controllers.replicaset import (
    ReplicaSetController,
    ReplicationControllerController,
    age_ratios,
    plan,
    same_status,
    selector_of,
    status_of,
)
from tests.controllers.objects import NOW, ago, pod
from tests.controllers.world import World, template

LABELS = {"app": "web"}


def replica_set(replicas: int | None = 3, **fields: object) -> Obj:
    spec = {"selector": {"matchLabels": LABELS}, "template": template(LABELS)}
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 4},
        "spec": spec | fields,
    }


def active(count: int, **fields: object) -> list[Obj]:
    return [pod(f"p{index}", labels=LABELS, **fields) for index in range(count)]


@pytest.mark.parametrize(
    ("wanted", "present", "create", "delete"),
    [
        (0, 0, 0, 0),
        (3, 0, 3, 0),
        (3, 3, 0, 0),
        (3, 5, 0, 2),
        (0, 4, 0, 4),
        (None, 0, 1, 0),
        (2_000, 0, 500, 0),
        (0, 700, 0, 500),
    ],
)
def test_how_many_come_and_go(wanted: int | None, present: int, create: int, delete: int):
    decided = plan(replica_set(wanted), active(present), (), NOW)
    assert (decided.create, len(decided.delete)) == (create, delete)


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_plan_carried_out_is_enough(wanted: int, present: int):
    decided = plan(replica_set(wanted), active(present), (), NOW)
    assert present + decided.create - len(decided.delete) == wanted
    assert not (decided.create and decided.delete)
    assert len({each["metadata"]["name"] for each in decided.delete}) == len(decided.delete)


def test_those_that_do_least_go_first():
    pods = [pod("ready", labels=LABELS), pod("pending", "Pending", labels=LABELS), pod("unbound", "Pending", node="")]
    assert [each["metadata"]["name"] for each in plan(replica_set(1), pods, pods, NOW).delete] == ["unbound", "pending"]


@pytest.mark.parametrize(
    ("pods", "min_ready", "expected"),
    [
        ([], 0, (0, 0, 0, 0)),
        (active(2), 0, (2, 2, 2, 2)),
        ([*active(1), pod("other", labels={"app": "web", "x": "y"})], 0, (2, 2, 2, 2)),
        ([*active(1), pod("unlabelled")], 0, (2, 1, 2, 2)),
        ([*active(1), pod("slow", ready=False, labels=LABELS)], 0, (2, 2, 1, 1)),
        (active(2, ready_for=10), 30, (2, 2, 2, 0)),
        (active(2, ready_for=30), 30, (2, 2, 2, 2)),
    ],
)
def test_the_numbers_reported(pods: list[Obj], min_ready: int, expected: tuple[int, ...]):
    found = status_of(replica_set(minReadySeconds=min_ready), pods, [], "", NOW)
    keys = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    assert tuple(found[key] for key in keys) == expected
    assert (found["observedGeneration"], found["terminatingReplicas"]) == (4, 0)


def test_a_replication_controller_does_not_count_what_is_on_its_way_out():
    assert "terminatingReplicas" not in status_of(replica_set(), [], None, "", NOW)


@pytest.mark.parametrize(("wanted", "reason"), [(3, "FailedCreate"), (1, "FailedDelete")])
def test_a_failure_is_reported_until_it_is_over(wanted: int, reason: str):
    rs = replica_set(wanted)
    rs["status"] = status_of(rs, active(2), [], "no room", NOW)
    failure = condition(rs, "ReplicaFailure")
    assert failure is not None
    assert (failure["status"], failure["reason"], failure["message"]) == ("True", reason, "no room")
    again = status_of(rs, active(2), [], "another reason", NOW)
    assert again["conditions"] == [failure], "the first one stays"
    assert "conditions" not in status_of(rs, active(wanted), [], "", NOW)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ({}, {"replicas": 0, "readyReplicas": 0}, True),
        ({"replicas": 1}, {"replicas": 2}, False),
        ({"terminatingReplicas": 0}, {}, False),
        ({"conditions": []}, {}, True),
        ({"observedGeneration": 1}, {"observedGeneration": 2}, False),
    ],
)
def test_when_a_status_is_worth_writing(old: Obj, new: Obj, same: bool):
    assert same_status(old, new) is same


def test_the_selector_of_a_replication_controller_is_a_plain_map():
    rc = {"kind": "ReplicationController", "spec": {"selector": LABELS}}
    assert selector_of(rc).matches({**LABELS, "more": "x"})
    assert not selector_of(rc).matches({})


def test_ages_are_compared_with_the_youngest_ready_pod():
    pods = [pod("a", created=100), pod("b", created=250), pod("c", created=10, ready=False)]
    assert age_ratios(pods, pods, NOW) == [1, 2]
    assert age_ratios(pods[2:], pods[2:], NOW) == []
    assert ago(100) == pods[0]["metadata"]["creationTimestamp"]


@pytest.mark.parametrize(
    ("make", "gvr", "source"),
    [
        (ReplicaSetController, REPLICA_SETS, "ReplicaSet"),
        (ReplicationControllerController, REPLICATION_CONTROLLERS, "ReplicationController"),
    ],
)
async def test_a_refused_pod_is_told_with_an_event_and_a_condition(make, gvr, source):
    """What kubectl describe shows when a quota is used up."""
    cluster = World((make,))
    refusal = ApiError(403, "Forbidden", 'pods "web-x" is forbidden: exceeded quota')

    def before_write(method: str, path: str, body: Obj | None) -> None:
        if method == "POST" and path.endswith("/pods"):
            raise refusal

    cluster.api.before_write = before_write
    rs = replica_set(2)
    if source == "ReplicationController":
        rs["spec"]["selector"] = LABELS
    async with cluster.running():
        cluster.api.create(gvr, rs)
        await cluster.settle(1)
        failure = condition(cluster.api.get(gvr, "web", "default"), "ReplicaFailure")
        assert failure is not None and failure["reason"] == "FailedCreate"
        assert failure["message"] == refusal.message
        assert ("FailedCreate", f"Error creating: {refusal.message}") in cluster.events()
        cluster.api.before_write = None
        await cluster.until(lambda: len(cluster.api.list(PODS)) == 2)
        await cluster.until(lambda: condition(cluster.api.get(gvr, "web", "default"), "ReplicaFailure") is None)


async def test_pods_become_available_without_another_event():
    cluster = World((ReplicaSetController,))
    cluster.add_node()
    async with cluster.running():
        cluster.api.create(REPLICA_SETS, replica_set(2, minReadySeconds=30))

        def number(key: str) -> int:
            return cluster.api.get(REPLICA_SETS, "web", "default")["status"].get(key, 0)

        await cluster.run_until(lambda: number("readyReplicas") == 2)
        await cluster.pass_time(25, step=5)
        assert number("availableReplicas") == 0
        await cluster.pass_time(10, step=5)
        assert number("availableReplicas") == 2


async def test_creation_starts_slowly_where_nothing_works():
    """One pod is tried, then two, then four: what cannot work is not tried five hundred times."""
    cluster = World((ReplicaSetController,))
    tried: list[str] = []

    def before_write(method: str, path: str, body: Obj | None) -> None:
        if method == "POST" and path.endswith("/pods"):
            tried.append(path)
            if len(tried) > 3:
                raise ApiError(403, "Forbidden", "no")

    cluster.api.before_write = before_write
    async with cluster.running():
        cluster.api.create(REPLICA_SETS, replica_set(500))
        await cluster.settle(0)
        assert 1 + 2 + 4 <= len(tried) < 20, "each sync stops at its first batch that fails"
