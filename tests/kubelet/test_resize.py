"""In-place resize: what is due, what is granted, and a kubelet that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shipwheel.api import quantity
from shipwheel.api.meta import Obj, condition
from shipwheel.client import resources as r
from shipwheel.kubelet.allocation import Allocation, Allocations, pending_resizes
from shipwheel.kubelet.resizing import Fixed, MemoryInUse, squeezes, too_small
from shipwheel.kubelet.runtime.base import Usage
from tests.kubelet.builders import container, observe, pod, seen
from tests.kubelet.world import World, world


def sized(cpu: str, memory: str = "64Mi", name: str = "a", **fields: object) -> Obj:
    amounts = {"cpu": cpu, "memory": memory}
    return container(name, resources={"requests": amounts, "limits": dict(amounts)}, **fields)


def test_what_is_due() -> None:
    owner = pod(
        sized("1"),
        sized("1", "32Mi", "b"),
        sized("1", name="c", resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]),
    )
    state = observe(seen(owner, "a"), seen(owner, "b"), seen(owner, "c"))
    now = {each["name"]: each["resources"] for each in owner["spec"]["containers"]}
    assert pending_resizes(owner, state, now) == []
    before = {name: sized("2", "64Mi")["resources"] for name in now}
    due = pending_resizes(owner, state, before)
    assert [(each.name, each.restart, each.growth) for each in due] == [
        ("b", False, -(32 << 20)),
        ("a", False, 0),
        ("c", True, 0),
    ]
    assert pending_resizes(owner, observe(seen(owner, "a", "EXITED")), before) == []


MI = 1 << 20


@pytest.mark.parametrize(
    ("before", "used", "why"),
    [
        pytest.param("64Mi", 31 * MI, "", id="enough"),
        pytest.param(
            "64Mi",
            32 * MI,
            f"cannot decrease memory limits: [attempting to set pod memory limit ({32 * MI}) below current usage"
            f' ({32 * MI}), attempting to set container "a" memory limit ({32 * MI}) below current usage ({32 * MI})]',
            id="too much in use",
        ),
        pytest.param("16Mi", 48 * MI, "", id="it grows"),
        pytest.param(
            "64Mi", None, 'cannot decrease memory limits: missing container "a" memory usage', id="use not known"
        ),
    ],
)
def test_memory_in_use_is_not_taken_away(before: str, used: int | None, why: str) -> None:
    owner = pod(sized("1", "32Mi"))
    state = observe(seen(owner, "a"))
    due = pending_resizes(owner, state, {"a": sized("1", before)["resources"]})
    limit = quantity.value(before)
    assert squeezes(owner, due, limit) == (before != "16Mi")
    containers = {} if used is None else {due[0].container_id: used}
    assert too_small(owner, due, MemoryInUse(used or 0, limit, containers)) == why


def test_equal_amounts_are_no_resize() -> None:
    owner = pod(sized("1000m", "1024Ki"))
    assert pending_resizes(owner, observe(seen(owner, "a")), {"a": sized("1", "1Mi")["resources"]}) == []


def test_an_allocation_holds_against_the_specification(tmp_path: Path) -> None:
    owner = pod(sized("1"))
    allocation = Allocation()
    allocation.take(owner)
    wanting = pod(sized("2"))
    assert not allocation.fits(wanting)
    assert allocation.applied_to(wanting)["spec"] == owner["spec"]
    assert allocation.applied_to(owner) is owner
    store = Allocations(tmp_path)
    store.save("uid-1", allocation)
    assert store.load(wanting) == allocation
    (tmp_path / "pods/uid-1/allocation.json").write_text("garbage")
    assert store.load(wanting).fits(wanting)


def resize(made: World, cpu: str, memory: str = "64Mi", name: str = "p") -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["containers"][0]["resources"] = sized(cpu, memory)["resources"]

    made.api.change(r.PODS, name, "ns", change)


def held(made: World, name: str = "p") -> str:
    return made.only(name).get("resources", {}).get("limits", {}).get("cpu", "")


async def test_a_pod_grows_and_shrinks_in_place(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(sized("1")))
        await made.until(lambda: made.phase() == "Running")
        before = made.only()["containerID"]
        for cpu in ("2", "500m"):
            resize(made, cpu, "128Mi")
            await made.until(lambda: held(made) == cpu)  # noqa: B023
        assert made.only()["containerID"] == before
        assert made.only()["restartCount"] == 0
        assert made.only()["allocatedResources"] == {"cpu": "500m", "memory": "128Mi"}
        await made.until(lambda: condition(made.pod() or {}, "PodResizeInProgress") is None)
        await made.until(lambda: made.reasons().count("ResizeCompleted") == 2)


async def test_a_resize_waits_for_room(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first, second = pod(sized("2")), pod(sized("1"))
        second["metadata"]["name"] = "q"
        made.create(first)
        made.create(second)
        await made.until(lambda: made.phase() == made.phase("q") == "Running")
        resize(made, "3", name="q")
        await made.until(lambda: condition(made.pod("q") or {}, "PodResizePending"))
        pending = condition(made.pod("q") or {}, "PodResizePending") or {}
        assert pending["reason"] == "Deferred"
        assert (
            pending["message"] == "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"
        )
        assert held(made, "q") == "1"

        await made.stop()
        made.start()
        await made.clock.advance(5)
        assert held(made, "q") == "1", "a restarted kubelet knows what was granted"

        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=1)
        await made.until(lambda: held(made, "q") == "3")
        assert condition(made.pod("q") or {}, "PodResizePending") is None
        await made.until(lambda: "ResizeDeferred" in made.reasons())


@pytest.mark.parametrize(
    ("fixed", "qos", "change", "why"),
    [
        (Fixed(), "Guaranteed", {"cpu": "2"}, ""),
        (
            Fixed(cpus=True), "Guaranteed", {"cpu": "2"},
            'Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"',
        ),
        (Fixed(cpus=True), "Guaranteed", {"memory": "2Gi"}, ""),
        (
            Fixed(memory=True), "Guaranteed", {"memory": "2Gi"},
            'Resize is infeasible for Guaranteed Pods alongside Memory Manager policy "Static"',
        ),
        (Fixed(cpus=True, memory=True), "Burstable", {"cpu": "2", "memory": "2Gi"}, ""),
        (
            Fixed(swap=True), "Burstable", {"memory": "2Gi"},
            "In-place resize of containers with swap is not supported.",
        ),
        (Fixed(swap=True), "Burstable", {"cpu": "2"}, ""),
        (Fixed(swap=True), "Guaranteed", {"memory": "2Gi"}, ""),
    ],
)  # fmt: skip
def test_what_cannot_be_changed(fixed: Fixed, qos: str, change: dict[str, str], why: str) -> None:
    def asking(amounts: dict[str, str]) -> Obj:
        limits = {"limits": dict(amounts)} if qos == "Guaranteed" else {}
        return pod(container(resources={"requests": amounts, **limits}))

    before = {"cpu": "1", "memory": "1Gi"}
    assert fixed.forbids(asking({**before, **change}), asking(before)) == why


async def test_a_resize_that_can_never_be(tmp_path: Path) -> None:
    async with world(tmp_path, start=False) as made:
        made.start(cpu_manager_policy="static")
        made.create(pod(sized("1")))
        await made.until(lambda: made.phase() == "Running")
        resize(made, "2")
        await made.until(lambda: condition(made.pod() or {}, "PodResizePending"))
        assert (condition(made.pod() or {}, "PodResizePending") or {})["reason"] == "Infeasible"
        assert held(made) == "1"
        await made.until(lambda: "ResizeInfeasible" in made.reasons())


async def test_a_resize_that_would_kill_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(sized("1")))
        await made.until(lambda: made.phase() == "Running")

        async def usage() -> dict[str, Usage]:
            return {each.id: Usage(each.id, memory_usage=used) for each in await made.runtime.containers()}

        used = 48 * MI
        made.runtime.usage = usage  # type: ignore[method-assign]
        resize(made, "1", "32Mi")
        await made.until(lambda: (condition(made.pod() or {}, "PodResizeInProgress") or {}).get("reason") == "Error")
        told = (made.pod() or {})["status"]
        assert "memory limit (33554432) below current usage (50331648)" in json.dumps(told["conditions"])
        assert (told["allocatedResources"]["memory"], told["resources"]["limits"]["memory"]) == ("32Mi", "64Mi")
        used = 8 * MI
        await made.until(lambda: (made.pod() or {})["status"]["resources"]["limits"]["memory"] == "32Mi")


async def test_a_resize_may_restart_the_container(tmp_path: Path) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    async with world(tmp_path) as made:
        made.create(pod(sized("1", resizePolicy=policy)))
        await made.until(lambda: made.phase() == "Running")
        resize(made, "1", "128Mi")
        await made.until(lambda: made.only().get("restartCount") == 1 and "running" in made.only()["state"])
        assert made.only()["resources"]["limits"]["memory"] == "128Mi"


async def test_a_pod_as_a_whole(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        amounts = {"cpu": "1", "memory": "64Mi"}
        made.create(pod(container("a"), resources={"requests": amounts, "limits": amounts}))
        await made.until(lambda: made.phase() == "Running")

        def grow(obj: Obj) -> None:
            obj["metadata"]["generation"] = 2
            obj["spec"]["resources"] = {part: {"cpu": "2", "memory": "64Mi"} for part in ("requests", "limits")}

        made.api.change(r.PODS, "p", "ns", grow)
        await made.until(lambda: (made.pod() or {})["status"]["allocatedResources"]["cpu"] == "2")
        await made.until(lambda: condition(made.pod() or {}, "PodResizeInProgress") is None)
        assert {"ResizeStarted", "ResizeCompleted"} <= set(made.reasons())
        (only,) = await made.runtime.containers()
        limits = (await made.runtime.container_status(only.id)).resources
        # The container has no limit of its own.
        assert limits is not None
        assert limits.cpu_quota == 2 * limits.cpu_period
        assert made.only()["restartCount"] == 0
