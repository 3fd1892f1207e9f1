"""What may happen next to a StatefulSet's pods, by tables and by simulation; and who owns their claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj, labels_of, name_of
from shipwheel.controllers.statefulset import claims
from shipwheel.controllers.statefulset.plan import (
    POD_INDEX,
    POD_NAME,
    REVISION,
    Plan,
    Revisions,
    is_member,
    most_unavailable,
    new_pod,
    ordinal_of,
    plan,
    status_of,
    versioned_pod,
    with_identity,
)
from tests.controllers.objects import NOW, pod
from tests.controllers.world import template

OLD, NEW = "db-old", "db-new"


def stateful(replicas: int = 3, *, rolling: Obj | None = None, status: Obj | None = None, **spec: object) -> Obj:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0} if rolling is None else rolling}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default", "uid": "set", "generation": 1},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template({"app": "db"}),
            "updateStrategy": strategy,
            **spec,
        },
        "status": status or {},
    }


def member(ordinal: int, phase: str = "Running", revision: str = NEW, **fields: object) -> Obj:
    name = f"db-{ordinal}"
    labels = {"app": "db", POD_NAME: name, POD_INDEX: str(ordinal), REVISION: revision}
    return pod(name, phase, labels=labels, **fields)


def revisions_of(made: Obj) -> Revisions:
    return Revisions(made, made, OLD, NEW)


def decide(made: Obj, pods: list[Obj]) -> Plan:
    return plan(made, revisions_of(made), pods, NOW, lambda pod: True)


def verbs(made: Obj, pods: list[Obj]) -> list[tuple[str, str]]:
    return [(action.verb, name_of(action.pod)) for action in decide(made, pods).actions]


@pytest.mark.parametrize(
    ("name", "ordinal", "member"),
    [("db-0", 0, True), ("db-12", 12, True), ("db", -1, False), ("db-x", -1, False), ("other-1", 1, False),
     ("db-1-2", 2, False)],
)  # fmt: skip
def test_names(name: str, ordinal: int, member: bool):
    assert ordinal_of(pod(name)) == ordinal
    assert is_member(stateful(), pod(name)) is member


PARALLEL = {"podManagementPolicy": "Parallel"}


@pytest.mark.parametrize(
    ("made", "pods", "expected"),
    [
        # One after the other,
        (stateful(), [], [("create", "db-0")]),
        (stateful(), [member(0, "Pending")], [("provide", "db-0")]),
        (stateful(), [member(0, ready=False)], []),
        (stateful(), [member(0)], [("create", "db-1")]),
        (stateful(), [member(0), member(2)], [("create", "db-1")]),
        (stateful(), [member(0), member(1), member(2)], []),
        (stateful(ordinals={"start": 4}), [member(4)], [("create", "db-5")]),
        # or all at once.
        (stateful(**PARALLEL), [], [("create", f"db-{index}") for index in range(3)]),
        (stateful(**PARALLEL), [member(0, ready=False)], [("create", "db-1"), ("create", "db-2")]),
        # Ended pods make room for new ones; those that are on their way out are waited for.
        (stateful(), [member(0, "Failed")], [("delete", "db-0")]),
        (stateful(), [member(0, "Succeeded"), member(1)], [("delete", "db-0")]),
        (stateful(), [member(0, "Failed", deleted=True)], []),
        (stateful(), [member(0, deleted=True), member(1)], []),
        # Availability takes its time.
        (stateful(minReadySeconds=60), [member(0, ready_for=59)], []),
        (stateful(minReadySeconds=60), [member(0, ready_for=60)], [("create", "db-1")]),
        # Too many: the highest first, one at a time, when the others stand.
        (stateful(1), [member(0), member(1), member(2)], [("delete", "db-2")]),
        (stateful(1), [member(0), member(1), member(2, deleted=True)], []),
        (stateful(1), [member(0), member(1, ready=False), member(2)], [("delete", "db-2")]),
        (stateful(1), [member(0), member(1, ready=False), member(2, ready=False)], []),
        (stateful(1), [member(0, ready=False), member(1)], []),
        (stateful(1, **PARALLEL), [member(0), member(1), member(2)], [("delete", "db-2"), ("delete", "db-1")]),
        (stateful(2, ordinals={"start": 1}), [member(0), member(1), member(2)], [("delete", "db-0")]),
    ],
)
def test_what_comes_next(made: Obj, pods: list[Obj], expected: list[tuple[str, str]]):
    assert verbs(made, pods) == expected


def outdated(*ordinals: int, **fields: object) -> list[Obj]:
    return [member(ordinal, revision=OLD, **fields) for ordinal in ordinals]


TWO = {"maxUnavailable": 2, "partition": 0}


@pytest.mark.parametrize(
    ("made", "pods", "updated"),
    [
        (stateful(), outdated(0, 1, 2), ["db-2"]),
        (stateful(), [*outdated(0, 1), member(2)], ["db-1"]),
        (stateful(), [*outdated(0, 1), member(2, ready=False)], []),
        (stateful(rolling={"partition": 2}), outdated(0, 1, 2), ["db-2"]),
        (stateful(rolling={"partition": 2}), [*outdated(0, 1), member(2)], []),
        (stateful(rolling={"partition": 9}), outdated(0, 1, 2), []),
        (stateful(updateStrategy={"type": "OnDelete"}), outdated(0, 1, 2), []),
        (stateful(rolling=TWO), outdated(0, 1, 2), ["db-2", "db-1"]),
        (stateful(rolling=TWO), [*outdated(0, 1), member(2, deleted=True)], []),
        (stateful(rolling=TWO, **PARALLEL), [*outdated(0, 1), member(2, deleted=True)], ["db-1"]),
        (stateful(rolling={"maxUnavailable": "70%", "partition": 0}, **PARALLEL), outdated(0, 1, 2), ["db-2", "db-1"]),
    ],
)
def test_roll_outs(made: Obj, pods: list[Obj], updated: list[str]):
    decided = decide(made, pods)
    assert [name_of(action.pod) for action in decided.actions if action.verb == "delete"] == updated
    assert decided.updating == len(updated)


@pytest.mark.parametrize(
    ("limit", "most"), [(None, 1), (0, 1), (1, 1), (3, 3), ("10%", 1), ("50%", 5), ("45%", 4), ("100%", 10)]
)
def test_how_many_may_be_unavailable(limit: int | str | None, most: int):
    rolling = {"partition": 0} if limit is None else {"partition": 0, "maxUnavailable": limit}
    assert most_unavailable(stateful(10, rolling=rolling)) == most


@pytest.mark.parametrize(
    ("made", "ordinal", "revision"),
    [
        (stateful(), 0, NEW),
        (stateful(rolling={"partition": 2}), 1, OLD),
        (stateful(rolling={"partition": 2}), 2, NEW),
        (stateful(rolling={"partition": 2}, ordinals={"start": 5}), 6, OLD),
        (stateful(rolling={"partition": 2}, ordinals={"start": 5}), 7, NEW),
        (stateful(updateStrategy={"type": "RollingUpdate"}, status={"currentReplicas": 2}), 1, OLD),
        (stateful(updateStrategy={"type": "RollingUpdate"}, status={"currentReplicas": 2}), 2, NEW),
        (stateful(updateStrategy={"type": "OnDelete"}, status={"currentReplicas": 2}), 0, NEW),
    ],
)
def test_of_which_revision_a_new_pod_is(made: Obj, ordinal: int, revision: str):
    assert labels_of(versioned_pod(made, revisions_of(made), ordinal))[REVISION] == revision


def test_a_pods_identity():
    made = new_pod(stateful(volumeClaimTemplates=[{"metadata": {"name": "data"}}]), 2, NEW)
    assert made["metadata"]["name"] == made["spec"]["hostname"] == "db-2"
    assert made["spec"]["subdomain"] == "db"
    assert labels_of(made) == {"app": "db", POD_NAME: "db-2", POD_INDEX: "2", REVISION: NEW}
    assert made["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-2"}}]
    robbed = {**made, "metadata": {**made["metadata"], "labels": {"app": "db"}}}
    given_back = labels_of(with_identity(stateful(), robbed))
    assert given_back == {"app": "db", POD_NAME: "db-2", POD_INDEX: "2"}


@pytest.mark.parametrize(
    ("pods", "updating", "expected"),
    [
        ([], 0, (0, 0, 0, 0, 0)),
        ([member(0), member(1, ready=False)], 0, (2, 1, 1, 0, 2)),
        ([member(0, revision=OLD), member(1)], 0, (2, 2, 2, 1, 1)),
        (outdated(0, 1, 2), 1, (3, 3, 3, 2, 0)),
        ([member(0, deleted=True, revision=OLD), member(1)], 0, (2, 2, 2, 0, 1)),
        ([member(0), member(1), member(2)], 0, (3, 3, 3, 3, 3)),
    ],
)
def test_the_numbers_reported(pods: list[Obj], updating: int, expected: tuple[int, ...]):
    found = status_of(stateful(), revisions_of(stateful()), pods, 0, updating, NOW)
    keys = ("replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas")
    assert tuple(found[key] for key in keys) == expected
    done = expected[-1] == expected[0] == 3
    assert found["currentRevision"] == (NEW if done else OLD)


@given(
    replicas=st.integers(0, 5),
    start=st.integers(0, 2),
    ordered=st.booleans(),
    present=st.dictionaries(st.integers(0, 7), st.tuples(st.sampled_from([OLD, NEW]), st.booleans()), max_size=6),
)
def test_carried_out_again_and_again_it_arrives(
    replicas: int, start: int, ordered: bool, present: dict[int, tuple[str, bool]]
):
    """Whatever is there: every pod of the range, of the new revision, and no other; ordered sets do one at a time."""
    policy = "OrderedReady" if ordered else "Parallel"
    made = stateful(replicas, ordinals={"start": start}, podManagementPolicy=policy)
    pods = {ordinal: member(ordinal, revision=of, ready=ready) for ordinal, (of, ready) in present.items()}
    for _ in range(60):
        actions = [action for action in decide(made, list(pods.values())).actions if action.verb != "provide"]
        assert not ordered or len(actions) <= 1
        for action in actions:
            ordinal = ordinal_of(action.pod)
            if action.verb == "create":
                revision = labels_of(action.pod)[REVISION]
                pods[ordinal] = member(ordinal, "Pending", revision)
            else:
                del pods[ordinal]
        for ordinal, each in pods.items():  # the kubelet
            pods[ordinal] = member(ordinal, revision=labels_of(each)[REVISION])
    assert {ordinal: labels_of(each)[REVISION] for ordinal, each in pods.items()} == dict.fromkeys(
        range(start, start + replicas), NEW
    )


# Claims


def claim(*references: Obj) -> Obj:
    return {"metadata": {"name": "data-db-0", "ownerReferences": list(references)}}


def reference(kind: str, name: str, uid: str, *, controller: bool = False) -> Obj:
    version = "apps/v1" if kind == "StatefulSet" else "v1"
    made = {"apiVersion": version, "kind": kind, "name": name, "uid": uid}
    return {**made, "controller": True, "blockOwnerDeletion": True} if controller else made


SET, POD = reference("StatefulSet", "db", "set", controller=True), reference("Pod", "db-0", "uid-db-0", controller=True)
EARLIER = reference("Pod", "db-0", "earlier", controller=True)
OTHER, STRANGER = reference("ConfigMap", "c", "x"), reference("ConfigMap", "c", "x", controller=True)


@pytest.mark.parametrize(
    ("deleted", "scaled", "condemned", "present", "wanted"),
    [
        ("Retain", "Retain", False, [], []),
        ("Retain", "Retain", True, [SET], []),
        ("Delete", "Retain", False, [], [SET]),
        ("Delete", "Retain", True, [SET], [SET]),
        ("Retain", "Delete", False, [POD], []),
        ("Retain", "Delete", True, [], [POD]),
        ("Delete", "Delete", False, [POD], [SET]),
        ("Delete", "Delete", True, [SET], [POD]),
        ("Delete", "Delete", True, [OTHER], [OTHER, POD]),
        ("Delete", "Delete", True, [STRANGER], [STRANGER]),
        ("Delete", "Delete", True, [EARLIER], [EARLIER]),
    ],
)
def test_who_owns_a_claim(deleted: str, scaled: str, condemned: bool, present: list[Obj], wanted: list[Obj]):
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    made = stateful(persistentVolumeClaimRetentionPolicy=policy)
    owner = {"apiVersion": "v1", "kind": "Pod", **member(0)}
    found = claims.wanted_references(made, claim(*present), owner, condemned=condemned)
    assert found == wanted
    assert claims.settled(made, claim(*found), owner, condemned=condemned), "what is as it should be is left alone"
