"""Stages as they are declared, and which of them comes next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.client.flags import FlagError
from shipwheel.kubelet.simulated_nodes.config import read_stages
from shipwheel.kubelet.simulated_nodes.pod_status import Life, Shape, life_of, status_patch
from shipwheel.kubelet.simulated_nodes.pods import follow
from shipwheel.kubelet.simulated_nodes.stages import (
    DEFAULT,
    GOALS,
    STATES,
    Facts,
    Stage,
    Stages,
    StagesError,
    after_exit,
    backoff,
    parse,
)

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
WEB = Facts("shop", {"app": "web"}, {"team": "a"}, "ReplicaSet", "Always")
JOB = Facts("shop", {"app": "job"}, {}, "Job", "OnFailure")

TEXT = """
stages:
- name: crash
  from: [Running, NotReady]
  match: {labels: "app=web", annotations: team in (a)}
  delay: {min: 5s, max: 15s}
  weight: 3
  to: Exited
  exit: 1
  reason: Error
  message: no database
- {name: lose, from: Running, match: {owner: ReplicaSet}, delay: 1m, to: NotReady}
- {name: stuck, from: Deleting, match: {namespace: shop, restartPolicy: [OnFailure]}, delay: 600, to: Deleted}
usage:
- {match: {labels: "app=web"}, cpu: 250m, memory: 64Mi}
"""


def test_what_is_declared() -> None:
    stages = parse(TEXT)
    crash = stages.stages[0]
    assert (crash.start, crash.goal, crash.exit, crash.reason) == (("Running", "NotReady"), "Exited", 1, "Error")
    assert (crash.delay(0.0), crash.delay(0.5), crash.delay(1.0)) == (5.0, 10.0, 15.0)
    assert (stages.usage(WEB).cpu, stages.usage(WEB).memory) == (0.25, 64 << 20)
    assert stages.usage(JOB).memory == 8 << 20
    assert parse("") == Stages()


@pytest.mark.parametrize(
    ("state", "pod", "chance", "name"),
    [
        ("Pending", WEB, 0.0, "start"),
        ("Running", WEB, 0.0, "crash"),
        ("Running", WEB, 0.74, "crash"),
        ("Running", WEB, 0.76, "lose"),
        ("NotReady", WEB, 0.99, "crash"),
        ("Running", JOB, 0.5, "complete"),
        ("Deleting", JOB, 0.5, "stuck"),
        ("Deleting", WEB, 0.5, "delete"),
        ("BackOff", WEB, 0.5, "restart"),
        ("Waiting", WEB, 0.5, None),
        ("Succeeded", JOB, 0.5, None),
    ],
)
def test_what_comes_next(state: str, pod: Facts, chance: float, name: str | None) -> None:
    found = parse(TEXT).next(state, pod, chance)
    assert (found.name if found else None) == name


def test_a_server_runs_for_ever_by_default() -> None:
    assert Stages().next("Running", WEB, 0.5) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "expected the node content"),
        ("- a", "the file: expected fields stages, usage"),
        ("stage: []", 'the file: unknown field "stage"'),
        ("stages: {}", "stages: expected a list"),
        ("stages: [{name: a, from: Pending}]", r"stages\[0\]: a stage: to is missing"),
        ("stages: [{name: a, from: Asleep, to: Running}]", 'from: unknown state "Asleep"; there are Pending,'),
        ("stages: [{name: a, from: Pending, to: Asleep}]", 'to: unknown state "Asleep"'),
        ("stages: [{name: a, from: Running, to: Deleted}]", "Deleted can only be reached from Deleting"),
        ("stages: [{name: a, from: Pending, to: Exited}]", "Exited can only be reached from NotReady or Running"),
        ("stages: [{name: a, from: Pending, to: Running, exit: 1}]", "exit: only stages to Exited have one"),
        ("stages: [{name: a, from: Pending, to: Waiting}]", "reason: a pod that waits has one"),
        ("stages: [{name: a, from: Pending, to: Running, delay: soon}]", "invalid duration 'soon'"),
        ("stages: [{name: a, from: Pending, to: Running, delay: {min: 2s, max: 1s}}]", "min is more than max"),
        ("stages: [{name: a, from: Pending, to: Running, weight: 0}]", "weight: must be greater than 0"),
        ("stages: [{name: a, from: Pending, to: Running, match: {labels: 'a in'}}]", r"stages\[0\]: "),
        ("usage: [{cpu: lots}]", r"usage\[0\]: "),
        ("usage: [{disk: 1Gi}]", 'unknown field "disk"'),
    ],
)
def test_what_cannot_be(text: str, complaint: str) -> None:
    with pytest.raises(StagesError, match=complaint):
        parse(text)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FlagError, match=r"--stages: /no/such/file: .*No such file"):
        read_stages("/no/such/file")


@pytest.mark.parametrize(
    ("policy", "exit", "restarts", "state"),
    [
        ("Always", 0, 0, "Running"),
        ("Always", 1, 1, "BackOff"),
        ("OnFailure", 1, 0, "Running"),
        ("OnFailure", 0, 3, "Succeeded"),
        ("Never", 0, 0, "Succeeded"),
        ("Never", 1, 0, "Failed"),
    ],
)
def test_after_an_exit(policy: str, exit: int, restarts: int, state: str) -> None:
    assert after_exit(policy, exit, restarts) == state


def test_back_off() -> None:
    assert [backoff(each) for each in (0, 1, 2, 3, 6, 100)] == [0, 10, 20, 40, 300, 300]


SHAPE = Shape((("app", "image"), ("side", "other")), (("init", "image", False), ("proxy", "image", True)))
stage_lists = st.lists(
    st.builds(
        Stage, st.just("any"), st.just(()), st.sampled_from(GOALS[:-1]), reason=st.just("Why"), exit=st.integers(0, 255)
    ),
    max_size=12,
)


@given(stages=stage_lists, policy=st.sampled_from(["Always", "OnFailure", "Never"]))
def test_every_life_can_be_gone_on_with(stages: list[Stage], policy: str) -> None:
    """Whatever happened: what is written tells who starts anew in which state the pod is."""
    life = Life()
    for stage in (DEFAULT[0], *stages):
        if life.state in ("Succeeded", "Failed") or (stage.goal == "Exited" and life.state not in STATES[2:4]):
            continue
        before, life = life, follow(life, stage, policy, LATER)
        assert life.restarts >= before.restarts
        status = status_patch("uid", life, SHAPE, started=NOW, host_ip="192.0.2.1", addresses=["10.0.0.2"])["status"]
        assert life_of(status).state == life.state
        if life.state not in ("Succeeded", "Failed"):
            assert life_of(status).restarts == life.restarts
        ready = next(each["status"] for each in status["conditions"] if each["type"] == "Ready")
        assert (ready == "True") == (life.state == "Running")
        for each in status["containerStatuses"]:
            assert len(each["state"]) == 1
            assert each["ready"] == (life.state == "Running")
            assert ("terminated" in each["state"]) == (status["phase"] in ("Succeeded", "Failed"))


def test_an_eviction() -> None:
    life = follow(
        Life("Running", NOW, NOW), Stage("evict", (), "Failed", reason="Evicted", message="full"), "Always", NOW
    )
    status = status_patch("uid", life, SHAPE, started=NOW, host_ip="192.0.2.1", addresses=[])["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", "full")
