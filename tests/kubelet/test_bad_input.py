"""What is wrong with one pod: it is told in upstream's words, and no other pod notices."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client import resources as r
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.volumes import atomic
from tests.kubelet.builders import container, pod
from tests.kubelet.world import World, world

NEIGHBOUR = "neighbour"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    """With a pod that runs, and must go on as if nothing had happened."""
    (tmp_path / "manifests").mkdir()
    async with world(tmp_path, start=False) as found:
        found.start(static_pod_path=str(tmp_path / "manifests"))
        found.create(pod(container("n"), meta={"name": NEIGHBOUR}))
        await found.until(lambda: found.phase(NEIGHBOUR) == "Running")
        before = found.only(NEIGHBOUR)
        yield found
        assert found.phase(NEIGHBOUR) == "Running"
        after = found.only(NEIGHBOUR)
        assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


@dataclass(frozen=True)
class Case:
    spec: Obj
    reason: str
    """The container's waiting reason, or an event's."""
    text: str
    """What the message says, among other things."""
    life: Obj = field(default_factory=dict)
    volumes: tuple[Obj, ...] = ()


CASES: dict[str, Case] = {
    "an image that does not exist": Case(
        container("c", imagePullPolicy="Always"), "ImagePullBackOff", 'Back-off pulling image "image:1"',
        {"pull": {"error": "not found"}},
    ),
    "an image's name that is none": Case(
        container("c", image="Not/Lower:x"), "InvalidImageName", "repository name must be lowercase"
    ),
    "an image that may not be pulled": Case(
        container("c", image="nowhere:1", imagePullPolicy="Never"), "ErrImageNeverPull",
        'Container image "nowhere:1" is not present with pull policy of Never',
    ),
    "a command that is not there": Case(
        container("c", command=["nothing"]), "CrashLoopBackOff", "back-off 10s restarting failed container=c",
        {"containers": {"c": {"run": "0s", "exit": 128, "message": "executable file not found"}}},
    ),
    "a container that the runtime cannot start": Case(
        container("c"), "RunContainerError", "permission denied",
        {"containers": {"c": {"start": {"error": "permission denied"}}}},
    ),
    "a secret that is not there": Case(
        container("c", env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "CreateContainerConfigError", 'secret "s" not found',
    ),
    "a volume that cannot mount": Case(
        container("c", volumeMounts=[{"name": "v", "mountPath": "/v"}]), "FailedMount",
        'MountVolume.SetUp failed for volume "v" : hostPath type check failed: /nowhere is not a directory',
        volumes=({"name": "v", "hostPath": {"path": "/nowhere", "type": "Directory"}},),
    ),
    "a volume of a kind that nobody has": Case(
        container("c", volumeMounts=[{"name": "v", "mountPath": "/v"}]), "FailedMount", "no volume plugin matched",
        volumes=({"name": "v", "fc": {"targetWWNs": ["500a"], "lun": 1}},),
    ),
    "a sandbox that cannot be made": Case(
        container("c"), "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = ",
        {"sandbox": {"error": "no address left"}},
    ),
    "a path that leads out of its volume": Case(
        container("c", volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "../x"}]),
        "CreateContainerConfigError", "must not contain '..'",
        volumes=({"name": "v", "emptyDir": {}},),
    ),
}  # fmt: skip


def told(made: World, reason: str) -> str:
    """What the container's state, or the newest event, says for this reason; empty when nothing does."""
    waiting = made.only()["state"].get("waiting") or {}
    if waiting.get("reason") == reason:
        return waiting["message"]
    events = [each for each in made.api.list(r.EVENTS) if each["reason"] == reason]
    return events[-1]["message"] if events else ""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_the_reason_is_on_the_pod(made: World, case: Case) -> None:
    made.create(pod(case.spec, volumes=list(case.volumes)), json.dumps(case.life) if case.life else "")
    await made.until(lambda: told(made, case.reason))
    assert case.text in told(made, case.reason)
    assert made.phase() in ("Pending", "Running")
    made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=0)
    await made.until(lambda: made.phase() == "gone")


async def test_a_full_disk(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write = atomic.write

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/kubelet/x")

    monkeypatch.setattr(atomic, "write", full)
    made.api.create(r.CONFIG_MAPS, {"metadata": {"name": "c"}, "data": {"a": "b"}}, "ns")
    mount = [{"name": "v", "mountPath": "/v"}]
    made.create(pod(container("c", volumeMounts=mount), volumes=[{"name": "v", "configMap": {"name": "c"}}]))
    await made.until(lambda: told(made, "FailedMount"))
    assert "/var/lib/kubelet/x: no space left on device" in told(made, "FailedMount")
    monkeypatch.setattr(atomic, "write", write)
    await made.until(lambda: made.phase() == "Running")


async def test_a_probe_that_hangs(made: World) -> None:
    probe = {"exec": {"command": ["sleep", "100000"]}, "timeoutSeconds": 1, "periodSeconds": 2, "failureThreshold": 2}
    made.create(pod(container("c", livenessProbe={**probe, "successThreshold": 1})))
    await made.until(lambda: made.only().get("restartCount") == 1)
    assert "timed out" in told(made, "Unhealthy")
    assert "failed liveness probe, will be restarted" in told(made, "Killing")


Broken = Callable[..., Any]


@pytest.mark.parametrize(
    "fault",
    [RuntimeFault("UNAVAILABLE", "connection refused"), RuntimeFault("INTERNAL", "bad"), ValueError("nonsense")],
    ids=["dead", "refusing", "nonsense"],
)
async def test_a_runtime_that_fails_for_one_pod(made: World, fault: Exception) -> None:
    status = made.runtime.container_status
    broken = True

    async def failing(container_id: str) -> Any:
        found = await status(container_id)
        if broken and found.name == "c":
            raise fault
        return found

    made.runtime.container_status = failing  # type: ignore[method-assign]
    made.create(pod(container("c")))
    await made.until(lambda: "Started" in made.reasons())
    await made.clock.advance(30)
    assert made.phase() == "Pending"
    broken = False
    await made.until(lambda: made.phase() == "Running")


@pytest.mark.parametrize(
    "text",
    ["", ":{[", "\x00\xff", "[]", "kind: Pod", "apiVersion: v1\nkind: Pod\nmetadata: 3\nspec: {}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: 7}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [3]}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: 3}]}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\nspec: {containers: [{name: a, image: b}]}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {volumes: 3, containers: [{name: a, image: b}]}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"
     "spec: {containers: [{name: a, image: b, livenessProbe: 3}]}\n",
     "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: []}\nspec: {containers: [{name: a, image: b}]}\n",
     "apiVersion: v1\nkind: PodList\nitems: 3\n"],
)  # fmt: skip
async def test_a_static_pod_file_of_garbage(made: World, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifests" / "a.yaml").write_text(text)
    good = "kind: Pod\nmetadata: {name: good, namespace: ns}\nspec: {containers: [{name: a, image: i}]}\n"
    (tmp_path / "manifests" / "b.yaml").write_text(f"apiVersion: v1\n{good}")
    await made.until(lambda: made.phase("good-node1") == "Running")
