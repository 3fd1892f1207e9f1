"""What a Deployment makes of its ReplicaSets: which is which, their revisions, and what is reported."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj, condition
from shipwheel.controllers.deployment import revisions, status
from shipwheel.controllers.deployment.sizing import DESIRED_REPLICAS, MAX_REPLICAS
from tests.controllers.objects import NOW, ago
from tests.controllers.world import template

LABELS = {"app": "web"}
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}


def deployment(replicas: int = 3, *, annotations: dict[str, str] | None = None, **spec: object) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "d", "generation": 2, "annotations": annotations or {},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "strategy": ROLLING,
            "progressDeadlineSeconds": 600,
            "template": template(LABELS),
            **spec,
        },
    }  # fmt: skip


def replica_set(name: str, image: str = "i", *, revision: str = "", replicas: int = 0, **fields: object) -> Obj:
    made = template({**LABELS, revisions.TEMPLATE_HASH: name})
    made["spec"]["containers"][0]["image"] = image
    annotations = {revisions.REVISION: revision} if revision else {}
    return {
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations,
            "generation": 1,
        },
        "spec": {"replicas": replicas, "template": made},
        "status": {"replicas": replicas, "observedGeneration": 1, **fields},
    }  # fmt: skip


# Which set is which


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda t: None, True),
        (lambda t: t["metadata"]["labels"].update({revisions.TEMPLATE_HASH: "x"}), True),
        (lambda t: t["spec"].update(volumes=[]), True),
        (lambda t: t["spec"].update(nodeName=None), True),
        (lambda t: t["metadata"]["labels"].update(more="x"), False),
        (lambda t: t["spec"]["containers"][0].update(image="j"), False),
        (lambda t: t["spec"].update(securityContext={}), False),
    ],
)
def test_when_templates_are_the_same(change, same: bool):
    one = template(LABELS)
    other = copy.deepcopy(one)
    change(other)
    assert revisions.same_template(one, other) is same


def test_the_oldest_set_of_the_template_is_the_new_one():
    sets = [replica_set("b"), replica_set("a"), replica_set("other", "j")]
    new = revisions.new_set(deployment(), sets)
    assert new is not None and new["metadata"]["name"] == "a"
    assert [each["metadata"]["name"] for each in revisions.old_sets(sets, new)] == ["b", "other"]
    assert revisions.new_set(deployment(), sets[2:]) is None
    assert revisions.old_sets(sets, None) == sets


@pytest.mark.parametrize(
    ("numbers", "most", "before"),
    [([], 0, 0), (["1"], 1, 0), (["1", "3", "2"], 3, 2), (["2", "junk"], 2, 0), (["", "4"], 4, 0)],
)
def test_revisions(numbers: list[str], most: int, before: int):
    sets = [replica_set(f"s{index}", revision=number) for index, number in enumerate(numbers)]
    assert revisions.max_revision(sets) == most
    assert revisions.last_revision(sets) == before


def test_a_collision_gives_another_name():
    first, second = (revisions.template_hash(template(LABELS), count) for count in (None, 1))
    assert first != second
    assert first == revisions.template_hash(template({**LABELS, revisions.TEMPLATE_HASH: "x"}), None)


def test_the_set_that_is_made():
    made = revisions.make_set(deployment(4, annotations={"mine": "x", revisions.REVISION: "9"}, minReadySeconds=7), [])
    hashed = made["metadata"]["labels"][revisions.TEMPLATE_HASH]
    assert made["metadata"]["name"] == f"web-{hashed}"
    assert made["spec"]["selector"] == {"matchLabels": {**LABELS, revisions.TEMPLATE_HASH: hashed}}
    assert made["spec"]["template"]["metadata"]["labels"] == {**LABELS, revisions.TEMPLATE_HASH: hashed}
    assert (made["spec"]["replicas"], made["spec"]["minReadySeconds"]) == (4, 7)
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Deployment", "d", True)
    annotations = {"mine": "x", revisions.REVISION: "1", DESIRED_REPLICAS: "4", MAX_REPLICAS: "5"}
    assert made["metadata"]["annotations"] == annotations


@pytest.mark.parametrize(
    ("present", "revision", "expected"),
    [
        ({}, 3, {revisions.REVISION: "3"}),
        ({revisions.REVISION: "3"}, 3, {revisions.REVISION: "3"}),
        ({revisions.REVISION: "1"}, 3, {revisions.REVISION: "3", revisions.REVISION_HISTORY: "1"}),
        (
            {revisions.REVISION: "4", revisions.REVISION_HISTORY: "1,2"},
            6,
            {revisions.REVISION: "6", revisions.REVISION_HISTORY: "1,2,4"},
        ),
        ({revisions.REVISION: "junk"}, 3, {revisions.REVISION: "junk"}),
        ({revisions.REVISION: "5"}, 3, {revisions.REVISION: "5"}),
    ],
)
def test_the_revision_of_a_set_that_is_used_again(present: dict[str, str], revision: int, expected: dict[str, str]):
    rs = replica_set("a")
    rs["metadata"]["annotations"] = present
    assert revisions.annotations_for(deployment(), rs, revision) == expected


def test_a_long_history_loses_its_beginning():
    history = ",".join(str(number) for number in range(1000, 1400))
    rs = replica_set("a")
    rs["metadata"]["annotations"] = {revisions.REVISION: "1400", revisions.REVISION_HISTORY: history}
    kept = revisions.annotations_for(deployment(), rs, 1500)[revisions.REVISION_HISTORY]
    assert len(kept) <= 2000
    assert kept.endswith(",1399,1400") and not kept.startswith("1000,")


@pytest.mark.parametrize(("text", "asked"), [(None, None), ("", None), ("0", 0), ("7", 7), ("x", None), ("-1", None)])
def test_what_the_old_annotation_asks_for(text: str | None, asked: int | None):
    annotations = {} if text is None else {revisions.ROLLBACK_TO: text}
    assert revisions.rollback_revision(deployment(annotations=annotations)) == asked


def test_rolling_back_takes_template_and_annotations():
    asking = deployment(annotations={revisions.ROLLBACK_TO: "1", "new": "x", revisions.REVISION: "2"})
    rs = replica_set("a", "old", revision="1")
    rs["metadata"]["annotations"]["was"] = "y"
    back = revisions.rolled_back(asking, rs)
    assert back["spec"]["template"]["spec"]["containers"][0]["image"] == "old"
    assert back["spec"]["template"]["metadata"]["labels"] == LABELS
    assert back["metadata"]["annotations"] == {revisions.REVISION: "2", "was": "y"}
    stayed = revisions.rolled_back(asking, None)
    assert stayed["spec"] == asking["spec"]
    assert stayed["metadata"]["annotations"] == {"new": "x", revisions.REVISION: "2"}


@pytest.mark.parametrize(
    ("limit", "sets", "gone"),
    [
        (None, ["1", "2", "3"], []),
        (2**31 - 1, ["1", "2"], []),
        (0, ["2", "1"], ["1", "2"]),
        (1, ["3", "1", "2"], ["1", "2"]),
        (3, ["1", "2", "3"], []),
    ],
)
def test_which_old_sets_go(limit: int | None, sets: list[str], gone: list[str]):
    old = [replica_set(revision, revision=revision) for revision in sets]
    found = revisions.to_clean_up(deployment(revisionHistoryLimit=limit), old)
    assert [each["metadata"]["name"] for each in found] == gone


@pytest.mark.parametrize(
    "alive",
    [
        replica_set("a", revision="1", replicas=1),
        {**replica_set("a", revision="1"), "status": {"replicas": 1, "observedGeneration": 1}},
        {**replica_set("a", revision="1"), "status": {"replicas": 0}},
    ],
)
def test_a_set_with_pods_does_not_go(alive: Obj):
    assert revisions.to_clean_up(deployment(revisionHistoryLimit=0), [alive]) == []


# What is reported


def with_progress(reason: str, since: float = 0, value: str = "True", **numbers: int) -> Obj:
    made = deployment()
    entry = status.make_condition("Progressing", value, reason, "", NOW)
    entry["lastUpdateTime"] = ago(since)
    made["status"] = {"conditions": [entry], **numbers}
    return made


def progress(made: Obj, sets: list[Obj], new: Obj | None) -> tuple[str, str, str]:
    found = condition({"status": status.rollout_status(made, sets, new, NOW)}, "Progressing")
    return (found["status"], found["reason"], found["message"]) if found else ("", "", "")


def test_the_numbers():
    new = replica_set("new", replicas=2, readyReplicas=2, availableReplicas=1, terminatingReplicas=1)
    old = replica_set("old", "j", replicas=2, readyReplicas=1, availableReplicas=1, terminatingReplicas=2)
    found = status.base_status(deployment(3), [old, new], new, NOW)
    expected = {
        "observedGeneration": 2,
        "replicas": 4,
        "updatedReplicas": 2,
        "readyReplicas": 3,
        "availableReplicas": 2,
        "unavailableReplicas": 2,
        "terminatingReplicas": 3,
    }
    assert {key: value for key, value in found.items() if key != "conditions"} == expected


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (3, ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")),
        (2, ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")),
        (1, ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")),
    ],
)
def test_availability(available: int, expected: tuple[str, str, str]):
    new = replica_set("new", replicas=3, availableReplicas=available)
    found = condition({"status": status.base_status(deployment(3), [new], new, NOW)}, "Available")
    assert found is not None
    assert (found["status"], found["reason"], found["message"]) == expected


NEW = replica_set("new", replicas=3, readyReplicas=3, availableReplicas=3)
PART = replica_set("new", replicas=3, readyReplicas=1, availableReplicas=1)
SAME = {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 1, "availableReplicas": 1}


@pytest.mark.parametrize(
    ("made", "new", "expected"),
    [
        (
            with_progress("ReplicaSetUpdated"), NEW,
            ("True", "NewReplicaSetAvailable", 'ReplicaSet "new" has successfully progressed.'),
        ),
        (
            with_progress("NewReplicaSetCreated"), PART,
            ("True", "ReplicaSetUpdated", 'ReplicaSet "new" is progressing.'),
        ),
        (with_progress("ReplicaSetUpdated", 10, **SAME), PART, ("True", "ReplicaSetUpdated", "")),
        (
            with_progress("ReplicaSetUpdated", 601, **SAME), PART,
            ("False", "ProgressDeadlineExceeded", 'ReplicaSet "new" has timed out progressing.'),
        ),
        (
            with_progress("ProgressDeadlineExceeded", 10, "False", **SAME), PART,
            ("False", "ProgressDeadlineExceeded", ""),
        ),
        (with_progress("NewReplicaSetAvailable", 10_000, **SAME), PART, ("True", "NewReplicaSetAvailable", "")),
    ],
)  # fmt: skip
def test_progress(made: Obj, new: Obj, expected: tuple[str, str, str]):
    assert progress(made, [new], new) == expected


def test_without_a_deadline_nothing_is_said_of_progress():
    made = with_progress("ReplicaSetUpdated")
    made["spec"]["progressDeadlineSeconds"] = None
    assert progress(made, [NEW], NEW) == ("", "", "")


def test_a_failure_of_a_set_is_passed_on():
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no room",
               "lastTransitionTime": ago(5)}  # fmt: skip
    broken = replica_set("old", "j", replicas=1, conditions=[failure])
    made = deployment()
    made["status"] = status.rollout_status(made, [broken, NEW], NEW, NOW)
    found = condition(made, "ReplicaFailure")
    assert found is not None and found["message"] == "no room"
    assert condition({"status": status.rollout_status(made, [NEW], NEW, NOW)}, "ReplicaFailure") is None


@pytest.mark.parametrize(
    ("paused", "reason", "expected"),
    [
        (True, "ReplicaSetUpdated", "DeploymentPaused"),
        (True, "DeploymentPaused", None),
        (False, "DeploymentPaused", "DeploymentResumed"),
        (False, "ReplicaSetUpdated", None),
        (True, "ProgressDeadlineExceeded", None),
    ],
)
def test_pauses(paused: bool, reason: str, expected: str | None):
    made = with_progress(reason)
    made["spec"]["paused"] = paused
    found = status.paused_condition(made, NOW)
    assert (found["reason"] if found else None) == expected


@pytest.mark.parametrize(
    ("made", "wait"),
    [
        (deployment(), None),
        (with_progress("ReplicaSetUpdated", 100, **SAME), 501),
        (with_progress("ReplicaSetUpdated", 900, **SAME), 1),
        (with_progress("ProgressDeadlineExceeded", 0, "False", **SAME), None),
    ],
)
def test_when_to_judge_progress_again(made: Obj, wait: float | None):
    assert status.next_progress_check(made, made.get("status") or {}, NOW) == wait


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_reporting_twice_changes_nothing(replicas: int, ready: int, old: int):
    """A status is worth writing once."""
    ready = min(ready, replicas)
    new = replica_set("new", replicas=replicas, readyReplicas=ready, availableReplicas=ready)
    sets = [new, replica_set("old", "j", replicas=old)]
    made = deployment(replicas)
    made["status"] = status.rollout_status(made, sets, new, NOW)
    assert status.same_status(made["status"], status.rollout_status(made, sets, new, NOW))
