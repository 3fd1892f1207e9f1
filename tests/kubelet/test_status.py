"""Statuses: phases, conditions and container states in upstream's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.kubelet import status
from shipwheel.kubelet.container_status import Waiting
from shipwheel.kubelet.lifecycle import ProbeResults
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.runtime.base import LinuxResources
from shipwheel.kubelet.status import Facts, pod_phase, pod_status
from shipwheel.kubelet.status_patch import same, status_patch
from tests.kubelet.builders import container, observe, pod, sandbox, seen

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIDE = container("side", restartPolicy="Always")


def make(owner: Obj, state: PodObservation, previous: Obj | None = None, **facts: Any) -> Obj:
    terminal = facts.pop("terminal", False)
    now = facts.pop("now", NOW)
    known = Facts(runtime_name="containerd", host_ips=("192.168.0.1",), **facts)
    return pod_status(owner, state, previous, known, now=now, terminal=terminal)


def condition(made: Obj, kind: str) -> Obj:
    return next(each for each in made["conditions"] if each["type"] == kind)


def states(made: Obj) -> list[str]:
    """`waiting ContainerCreating`, `running`, `terminated Error 1`."""
    texts = []
    for each in (*(made.get("initContainerStatuses") or ()), *made["containerStatuses"]):
        ((kind, detail),) = each["state"].items()
        texts.append(
            " ".join(str(part) for part in (kind, detail.get("reason"), detail.get("exitCode")) if part is not None)
        )
    return texts


def test_a_pod_without_anything_is_pending() -> None:
    made = make(pod(container("a"), meta={"generation": 3}), observe(boxes=()))
    assert (made["phase"], made["qosClass"], made["observedGeneration"]) == ("Pending", "BestEffort", 3)
    assert states(made) == ["waiting ContainerCreating"]
    assert condition(made, "PodReadyToStartContainers")["status"] == "False"
    assert condition(made, "Ready")["message"] == "containers with unready status: [a]"
    assert condition(made, "Ready")["reason"] == "ContainersNotReady"
    assert condition(made, "PodScheduled")["observedGeneration"] == 3
    assert made["startTime"] == "2026-01-01T00:00:00Z"
    assert "podIP" not in made


def test_containers_wait_for_initialization() -> None:
    owner = pod(container("a"), init=(container("i"),))
    made = make(owner, observe(seen(owner, "i")))
    assert states(made) == ["running", "waiting PodInitializing"]
    assert condition(made, "Initialized")["message"] == "containers with incomplete status: [i]"
    assert condition(made, "Initialized")["reason"] == "ContainersNotInitialized"


def test_a_running_pod_is_ready() -> None:
    owner = pod(container("a"))
    made = make(owner, observe(seen(owner, "a")))
    assert made["phase"] == "Running"
    only = made["containerStatuses"][0]
    assert (only["ready"], only["started"], only["containerID"]) == (True, True, "containerd://a-0")
    assert only["state"]["running"]["startedAt"] == "1970-01-01T00:00:10Z"
    assert {kind: condition(made, kind)["status"] for kind in ("Ready", "ContainersReady", "Initialized")} == {
        "Ready": "True", "ContainersReady": "True", "Initialized": "True",
    }  # fmt: skip
    assert (made["podIP"], made["hostIP"], made["podIPs"]) == (
        "10.0.0.5",
        "192.168.0.1",
        [{"ip": "10.0.0.5"}],
    )


def test_a_pod_on_the_hosts_network_has_its_addresses() -> None:
    owner = pod(container("a"), hostNetwork=True)
    made = make(owner, observe(seen(owner, "a"), boxes=(sandbox(host=True, ip=""),)))
    assert made["podIP"] == "192.168.0.1"


@pytest.mark.parametrize(
    ("spec", "results", "started", "ready"),
    [
        ({}, ProbeResults(), True, True),
        ({"readinessProbe": {}}, ProbeResults(), True, False),
        ({"readinessProbe": {}}, ProbeResults(readiness={"a-0": "Success"}), True, True),
        ({"readinessProbe": {}}, ProbeResults(readiness={"a-0": "Failure"}), True, False),
        ({"startupProbe": {"exec": {}}}, ProbeResults(), False, False),
        ({"startupProbe": {"exec": {}}}, ProbeResults(startup={"a-0": "Unknown"}), False, False),
        ({"startupProbe": {"exec": {}}}, ProbeResults(startup={"a-0": "Success"}), True, True),
    ],
)
def test_probes_make_a_container_started_and_ready(
    spec: Obj, results: ProbeResults, started: bool, ready: bool
) -> None:
    spec = {key: value or {"exec": {}} for key, value in spec.items()}
    owner = pod(container("a", **spec))
    only = make(owner, observe(seen(owner, "a")), probes=results)["containerStatuses"][0]
    assert (only["started"], only["ready"]) == (started, ready)


def test_readiness_survives_a_restart_of_the_kubelet() -> None:
    before = {"conditions": [{"type": "Ready", "status": "True"}]}
    owner = pod(container("a", readinessProbe={"exec": {}}), status=before)
    state = observe(seen(owner, "a"))
    later = 1_000 * 1_000_000_000
    assert make(owner, state, kubelet_started_at=later)["containerStatuses"][0]["ready"]
    assert not make(owner, state, kubelet_started_at=0)["containerStatuses"][0]["ready"]


def test_readiness_gates_hold_the_pod_back() -> None:
    owner = pod(container("a"), readinessGates=[{"conditionType": "x/y"}])
    made = make(owner, observe(seen(owner, "a")))
    assert condition(made, "Ready")["reason"] == "ReadinessGatesNotReady"
    assert condition(made, "Ready")["message"] == 'corresponding condition of pod readiness gate "x/y" does not exist.'
    owner["status"] = {"conditions": [{"type": "x/y", "status": "False"}]}
    made = make(owner, observe(seen(owner, "a")))
    assert condition(made, "Ready")["message"] == 'the status of pod readiness gate "x/y" is not "True", but False'
    owner["status"]["conditions"][0]["status"] = "True"
    assert condition(make(owner, observe(seen(owner, "a"))), "Ready")["status"] == "True"


def test_a_crashing_container_waits_and_its_last_end_is_told() -> None:
    owner = pod(container("a"))
    state = observe(seen(owner, "a", "EXITED", code=3, count=2))
    made = make(owner, state, reasons={"a": Waiting("CrashLoopBackOff", "back-off 20s ...")})
    only = made["containerStatuses"][0]
    assert made["phase"] == "Running"
    assert only["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s ..."}}
    assert only["lastState"]["terminated"]["exitCode"] == 3
    assert only["restartCount"] == 2


def test_two_ends_are_told_while_it_runs_again() -> None:
    owner = pod(container("a"))
    state = observe(seen(owner, "a", "EXITED", code=1, count=0), seen(owner, "a", count=1))
    only = make(owner, state)["containerStatuses"][0]
    assert "running" in only["state"]
    assert only["lastState"]["terminated"]["exitCode"] == 1
    assert only["restartCount"] == 1


def test_a_container_that_disappeared_did_run() -> None:
    owner = pod(container("a"))
    before = make(owner, observe(seen(owner, "a")))
    made = make(owner, observe(), before)
    only = made["containerStatuses"][0]
    assert only["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert only["lastState"]["terminated"]["exitCode"] == 137
    assert only["restartCount"] == 1
    assert made["phase"] == "Running"


def test_an_init_container_that_was_removed_completed() -> None:
    owner = pod(container("a"), init=(container("i"),))
    made = make(owner, observe(seen(owner, "a")))
    assert states(made) == ["terminated Completed 0", "running"]


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
        ("Always", (0, 0), "Running"),
    ],
)
def test_ends_add_up_to_a_phase(policy: str, codes: tuple[int, int], phase: str) -> None:
    owner = pod(container("a"), container("b"), restartPolicy=policy)
    state = observe(*(seen(owner, name, "EXITED", code=code) for name, code in zip("ab", codes, strict=True)))
    assert make(owner, state)["phase"] == phase


def test_a_terminated_pod_is_over_whatever_its_policy() -> None:
    owner = pod(container("a"))
    state = observe(seen(owner, "a", "EXITED", code=137), boxes=(sandbox(ready=False),))
    assert make(owner, state, terminal=True)["phase"] == "Failed"
    state = observe(seen(owner, "a", "EXITED", code=0), boxes=(sandbox(ready=False),))
    assert make(owner, state, terminal=True)["phase"] == "Succeeded"


def test_a_failed_init_container_fails_a_pod_that_never_restarts() -> None:
    owner = pod(container("a"), init=(container("i"),), restartPolicy="Never")
    made = make(owner, observe(seen(owner, "i", "EXITED", code=1)))
    assert made["phase"] == "Failed"
    assert condition(made, "Ready")["reason"] == "PodFailed"


def test_completed_pods_say_so() -> None:
    owner = pod(container("a"), restartPolicy="Never")
    made = make(owner, observe(seen(owner, "a", "EXITED")))
    assert [condition(made, kind)["reason"] for kind in ("Ready", "ContainersReady", "Initialized")] == [
        "PodCompleted"
    ] * 3


def test_a_terminal_phase_is_never_left() -> None:
    owner = pod(container("a"), status={"phase": "Failed", "reason": "Evicted", "message": "why"})
    made = make(owner, observe(seen(owner, "a")))
    assert (made["phase"], made["reason"], made["message"]) == ("Failed", "Evicted", "why")


def test_sidecars_do_not_count_for_the_end() -> None:
    owner = pod(container("a"), init=(SIDE,), restartPolicy="Never")
    made = make(owner, observe(seen(owner, "side", "EXITED", code=137), seen(owner, "a", "EXITED", at=20)))
    assert made["phase"] == "Succeeded"


def test_transition_times_move_only_with_the_status() -> None:
    owner = pod(container("a"))
    first = make(owner, observe(seen(owner, "a")))
    later = make(owner, observe(seen(owner, "a")), first, now=NOW + timedelta(hours=1))
    assert condition(later, "Ready")["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    stopped = make(owner, observe(seen(owner, "a", "EXITED", code=1)), first, now=NOW + timedelta(hours=1))
    assert condition(stopped, "Ready")["lastTransitionTime"] == "2026-01-01T01:00:00Z"


def test_conditions_of_others_are_kept() -> None:
    owner = pod(container("a"), status={"conditions": [{"type": "x/y", "status": "True"}]})
    assert condition(make(owner, observe(seen(owner, "a"))), "x/y")["status"] == "True"


def test_resources_in_force_are_told() -> None:
    limits = {"cpu": "500m", "memory": "64Mi"}
    owner = pod(container("a", resources={"limits": limits, "requests": {"cpu": "250m"}}))
    applied = LinuxResources(cpu_period=100_000, cpu_quota=25_000, cpu_shares=256, memory_limit_bytes=32 << 20)
    only = make(owner, observe(replace(seen(owner, "a"), resources=applied)))["containerStatuses"][0]
    assert only["resources"] == {"limits": {"cpu": "250m", "memory": "32Mi"}, "requests": {"cpu": "250m"}}
    assert only["allocatedResources"] == {"cpu": "250m"}


def test_long_messages_are_cut() -> None:
    owner = pod(container("a"), container("b"))
    state = observe(replace(seen(owner, "a", "EXITED", code=1), message="x" * 20_000), seen(owner, "b"))
    assert len(make(owner, state)["containerStatuses"][0]["state"]["terminated"]["message"]) == 6 * 1024


def test_what_did_not_end_by_itself_has_failed() -> None:
    owner = pod(container("a"))
    last = status.terminated(owner, make(owner, observe(seen(owner, "a"))))
    assert last["phase"] == "Failed"
    assert last["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_a_terminal_phase_waits_until_nothing_can_run() -> None:
    owner = pod(container("a"), restartPolicy="Never")
    running = make(owner, observe(seen(owner, "a")))
    ended = make(owner, observe(seen(owner, "a", "EXITED")), running)
    assert status.merge(running, ended, could_be_running=True, now=NOW)["phase"] == "Running"
    assert status.merge(running, ended, could_be_running=False, now=NOW)["phase"] == "Succeeded"


def test_rejected_pods_say_why() -> None:
    made = status.rejected(pod(), "OutOfcpu", "too little", now=NOW)
    assert (made["phase"], made["reason"], made["message"]) == (
        "Failed",
        "OutOfcpu",
        "Pod was rejected: too little",
    )


state_kinds = st.sampled_from([None, "CREATED", "RUNNING", "EXITED", "UNKNOWN"])


@given(
    kinds=st.lists(state_kinds, min_size=1, max_size=3),
    codes=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    terminal=st.booleans(),
)
def test_any_observation_has_a_status(kinds: list[str | None], codes: list[int], policy: str, terminal: bool) -> None:
    names = [f"c{index}" for index in range(len(kinds))]
    owner = pod(*(container(name) for name in names), restartPolicy=policy)
    state = observe(
        *(seen(owner, name, kind, code=code) for name, kind, code in zip(names, kinds, codes, strict=False) if kind)
    )
    made = make(owner, state, terminal=terminal)
    assert [each["name"] for each in made["containerStatuses"]] == sorted(names)
    assert all(len(each["state"]) == 1 for each in made["containerStatuses"])
    if made["phase"] in ("Succeeded", "Failed"):
        assert not any("running" in each["state"] for each in made["containerStatuses"])
    if condition(made, "Ready")["status"] == "True":
        assert all("running" in each["state"] for each in made["containerStatuses"])
    again = make(owner, state, made, terminal=terminal)
    assert same(made, again), "the same observation says the same again"
    assert status_patch("u", made, again) is None


def test_phase_of_unknown_containers_is_pending() -> None:
    assert pod_phase(pod(container("a")), [], terminal=False, initialized=False) == "Pending"


def test_a_patch_holds_only_what_changed() -> None:
    owner = pod(container("a"))
    old = make(owner, observe(boxes=()))
    new = make(owner, observe(seen(owner, "a")), old)
    patch = status_patch("u", old, new)
    assert patch is not None
    assert patch["metadata"] == {"uid": "u"}
    assert patch["status"]["podIPs"] == [{"ip": "10.0.0.5"}, {"$patch": "replace"}]
    assert {each["type"] for each in patch["status"]["conditions"]} == {
        "PodReadyToStartContainers",
        "Ready",
        "ContainersReady",
    }
    gone = next(each for each in patch["status"]["conditions"] if each["type"] == "Ready")
    assert (gone["reason"], gone["message"]) == (None, None)
    assert "hostIP" not in patch["status"]


def test_a_patch_leaves_the_conditions_of_others_alone() -> None:
    foreign = {"type": "x/y", "status": "True"}
    old = {"conditions": [foreign, {"type": "PodResizePending", "status": "True"}]}
    patch = status_patch("u", old, {"conditions": [foreign]})
    assert patch == {
        "metadata": {"uid": "u"},
        "status": {"conditions": [{"type": "PodResizePending", "$patch": "delete"}]},
    }
