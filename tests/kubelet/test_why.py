"""What is told about pods that do not run, by what the kubelet leaves in their status and events."""

from __future__ import annotations

from typing import Any

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.cli.why import describe
from shipwheel.client import resources as r
from shipwheel.kubelet.why import Evidence, Obstacle, explain, obstacles
from shipwheel.scheduler.why import Explanation
from tests.controllers.fakeapi import FakeApi
from tests.kubelet.builders import container, pod
from tests.kubelet.world import NODE_KINDS

READY: Obj = {"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
_CLOCK = iter(range(10, 100))


def event(reason: str, message: str = "", *, of: str = "", count: int = 1) -> Obj:
    return {
        "metadata": {},
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": f"2026-01-01T00:00:{next(_CLOCK)}Z",
        "involvedObject": {"fieldPath": f"spec.containers{{{of}}}"} if of else {},
    }


def found(
    *events: Obj, phase: str = "Pending", logs: Any = None, node: Obj | None = READY, spec: Obj | None = None, **of: Any
) -> list[Obstacle]:
    """Of a pod with one container, `web`, whose status is `of`."""
    status = {"phase": phase, "containerStatuses": [{"name": "web", "ready": False, "state": {}, **of}]}
    owner = pod(container("web", **(spec or {})), status=status, nodeName="n1")
    return obstacles(Evidence(owner, node, events, logs or {}))


def waiting(reason: str, message: str = "") -> Obj:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", **more: Any) -> Obj:
    return {"terminated": {"exitCode": code, "reason": reason, **more}}


def test_a_pod_that_runs_well_has_nothing_in_its_way() -> None:
    assert found(phase="Running", ready=True, started=True, state={"running": {}}) == []
    assert found(phase="Succeeded", state=ended(0, "Completed")) == []


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image(reason: str) -> None:
    (one,) = found(state=waiting(reason, "not found"))
    assert one.subject == "container web" and f"image:1 cannot be had: {reason}: not found" in one.problem
    assert one.remedy


def test_what_the_container_refers_to() -> None:
    (one,) = found(state=waiting("CreateContainerConfigError", 'configmap "c" not found'))
    assert 'cannot be started: CreateContainerConfigError: configmap "c" not found' in one.problem


def test_a_command_that_is_not_there() -> None:
    (one,) = found(state=waiting("RunContainerError", 'exec: "nothing": executable file not found in $PATH'))
    assert "executable file not found" in one.problem


def test_a_limit() -> None:
    (one,) = found(
        phase="Running",
        state=waiting("CrashLoopBackOff", "back-off 40s"),
        lastState=ended(137, "OOMKilled"),
        restartCount=3,
        spec={"resources": {"limits": {"memory": "64Mi"}}},
        logs={"web": ["allocating"]},
    )
    assert "OOMKilled (it used more memory than its limit of 64Mi); started again 3 times" in one.problem
    assert list(one.evidence) == ["back-off 40s", "log: allocating"]
    assert "raise" in one.remedy


def test_a_crash_tells_its_exit_code_and_what_it_wrote() -> None:
    (one,) = found(phase="Failed", state=ended(127, message="sh: nothing: not found\n"))
    assert one.problem == "it ended with exit code 127, Error (the command was not found)"
    assert list(one.evidence) == ["sh: nothing: not found"]


def test_a_hook() -> None:
    (one,) = found(
        event("FailedPostStartHook", "PostStartHook failed", of="web"),
        phase="Running",
        state=waiting("CrashLoopBackOff", "back-off 10s"),
        lastState=ended(137),
    )
    assert one.evidence[0] == "FailedPostStartHook: PostStartHook failed"


def test_a_liveness_probe() -> None:
    (one,) = found(
        event("Unhealthy", "Liveness probe failed: 500", of="web", count=4),
        event("Killing", "Container web failed liveness probe, will be restarted", of="web"),
        phase="Running",
        state=waiting("CrashLoopBackOff", "back-off 10s"),
        lastState=ended(137),
    )
    assert list(one.evidence)[:2] == [
        "Killing: Container web failed liveness probe, will be restarted",
        "Unhealthy: Liveness probe failed: 500 (4 times)",
    ]


@pytest.mark.parametrize(("probe", "started"), [("startup", False), ("readiness", True)])
def test_other_probes(probe: str, started: bool) -> None:
    said = event("Unhealthy", "probe failed: refused", of="web")
    spec = {f"{probe}Probe": {"tcpSocket": {"port": 80}}}
    (one,) = found(said, phase="Running", started=started, state={"running": {}}, spec=spec)
    assert f"its {probe} probe" in one.problem and list(one.evidence) == ["Unhealthy: probe failed: refused"]


def test_a_volume() -> None:
    events = [event("Scheduled"), event("FailedMount", 'secret "s" not found', count=3)]
    (one,) = found(*events, state=waiting("ContainerCreating"))
    assert (one.subject, list(one.evidence)) == ("volume", ['FailedMount: secret "s" not found (3 times)'])
    # What was overcome is not told.
    assert found(*events, event("Pulled", of="web"), state=waiting("ContainerCreating")) == []


def test_a_network_that_is_not_there() -> None:
    (one,) = found(event("NetworkNotReady", "cni plugin not initialized"), state=waiting("ContainerCreating"))
    assert one.subject == "network" and one.remedy


def test_a_node_that_is_away() -> None:
    gone = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "stopped posting"}]}}
    (one,) = found(phase="Running", ready=True, state={"running": {}}, node=gone)
    assert (one.subject, one.problem) == ("node n1", "it is not heard of: stopped posting")
    (one,) = found(phase="Running", ready=True, state={"running": {}}, node=None)
    assert one.problem == "there is no such node"


def test_the_pod_itself() -> None:
    gated = pod(
        container("web"),
        meta={"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]},
        status={
            "phase": "Running",
            "containerStatuses": [{"name": "web", "ready": True, "state": {"running": {}}}],
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": "big"}],
        },
        nodeName="n1",
        readinessGates=[{"conditionType": "x/y"}],
    )
    told = {each.subject: each.problem for each in obstacles(Evidence(gated, READY))}
    assert told["pod"].endswith("since 2026-01-01T00:00:00Z, and waits for its finalizers: a/b")
    assert (told["resize"], told["readiness gate"]) == ("Infeasible: big", "condition x/y is not True")
    evicted = pod(status={"phase": "Failed", "reason": "Evicted", "message": "The node was low"}, nodeName="n1")
    assert obstacles(Evidence(evicted, READY))[0].problem == "Evicted: The node was low"


def test_what_is_printed() -> None:
    one = Obstacle("container web", "it ended", ["log: bye"], "more memory")
    text = describe(Explanation("ns/p", "n1", "", "", ()), [one], limit=1)
    assert text.splitlines()[2:] == [
        "What is in its way there:",
        "  container web: it ended",
        "      log: bye",
        "      what helps: more memory",
    ]
    assert "Nothing is in its way there." in describe(Explanation("ns/p", "n1", "", "", ()), limit=1)


async def test_reading_it_from_the_api() -> None:
    api = FakeApi(ManualClock(), kinds=NODE_KINDS)
    status = {"phase": "Pending", "containerStatuses": [{"name": "web", "state": waiting("ErrImagePull", "gone")}]}
    for name, node in (("bound", "n1"), ("unbound", "")):
        made = pod(container("web"), meta={"name": name}, **({"nodeName": node} if node else {}))
        api.create(r.PODS, {**made, "status": status}, "ns")
    async with api.client() as client:
        subjects = [each.subject for each in await explain(client, "ns", "bound")]
        assert subjects == ["node n1", "container web"]
        assert await explain(client, "ns", "unbound") == []
