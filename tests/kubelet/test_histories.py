"""Histories of whole pods: recorded ones of real containers, and random ones of a node that breaks at random."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.client import resources as r
from shipwheel.kubelet import podspec
from shipwheel.kubelet.lifecycle import decide
from shipwheel.kubelet.observed import CONTAINER_NAME, POD_UID
from shipwheel.kubelet.runtime.base import Container, RuntimeFault
from tests.kubelet import recording
from tests.kubelet.builders import container, pod
from tests.kubelet.recording import Decision
from tests.kubelet.world import World, world

RECORDED = sorted((Path(__file__).parent / "histories").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDED, ids=[each.stem for each in RECORDED])
def test_recorded_histories(path: Path) -> None:
    decisions = recording.read(path)
    assert decisions
    for each in decisions:
        assert decide(each.pod, each.observed, each.probes, **each.options) == each.actions
        check(each)
    starts = defaultdict(set)
    for each in decisions:
        starts[each.pod["metadata"]["uid"]] |= set(each.actions.starts)
    assert any(starts.values())


def check(decision: Decision) -> None:
    """What holds for every decision, whatever was observed."""
    owner, observed, actions = decision.pod, decision.observed, decision.actions
    names = {each["name"] for each in podspec.all_containers(owner)}
    stopped = {each.name for each in actions.kill} | {each.name for each in actions.reset}
    for name in actions.starts:
        assert name in names, "nothing runs that the specification does not want"
        last = observed.latest(name)
        spec = podspec.find_container(owner, name)
        assert spec is not None
        if last is not None and last.running and not actions.kill_pod:
            assert name in stopped, "nothing is started beside itself"
        if last is not None and last.exited and not is_sidecar(owner, name) and not actions.create_sandbox:
            assert podspec.should_restart(owner, spec, last.exit_code), "nothing is started again against policy"
    if is_being_deleted(owner):
        assert not actions.start, "nothing is started in a pod that goes"


def is_sidecar(owner: Obj, name: str) -> bool:
    return any(each["name"] == name and podspec.is_sidecar(each) for each in podspec.init_containers(owner))


# --- A node that breaks at random


_BREAKABLE = ("containers", "sandboxes", "container_status", "create_container", "run_sandbox", "stop_container")


class Breaking:
    """Drives a whole kubelet; what it may not do is checked at the end."""

    def __init__(self, made: World, chance: random.Random) -> None:
        self.made = made
        self.chance = chance
        self.serial = 0
        self.broken = False
        for name in (
            "containers",
            "sandboxes",
            "container_status",
            "create_container",
            "run_sandbox",
            "stop_container",
        ):
            self._make_breakable(name)

    def _make_breakable(self, name: str) -> None:
        real = getattr(self.made.runtime, name)

        async def perhaps(*arguments: object, **options: object) -> object:
            if self.broken:
                raise RuntimeFault("UNAVAILABLE", "connection refused")
            return await real(*arguments, **options)

        setattr(self.made.runtime, name, perhaps)

    def create(self) -> None:
        self.serial += 1
        policy = self.chance.choice(["Always", "OnFailure", "Never"])
        lives = ["{}", '{"containers": {"a": {"run": "3s", "exit": 1}}}', '{"containers": {"a": {"run": "2s"}}}']
        inits = (container("i", command=["true"]), container("side", restartPolicy="Always"))
        self.made.create(
            pod(
                container("a"),
                container("b"),
                meta={"name": f"p{self.serial}"},
                init=inits[: self.chance.randrange(3)],
                restartPolicy=policy,
            ),
            self.chance.choice(lives),
        )

    def delete(self) -> None:
        pods = [each for each in self.made.api.list(r.PODS) if not is_being_deleted(each)]
        if pods:
            name = self.chance.choice(pods)["metadata"]["name"]
            self.made.api.delete(r.PODS, name, "ns", gracePeriodSeconds=self.chance.choice([0, 1, 20]))

    async def kill_a_container(self) -> None:
        if self.broken:
            return
        running = [each for each in await self.made.runtime.containers() if each.state == "RUNNING"]
        if running:
            await self.made.runtime.stop_container(self.chance.choice(running).id, 0)

    async def step(self) -> None:
        match self.chance.randrange(8):
            case 0 | 1 | 2:
                self.create()
            case 3 | 4:
                self.delete()
            case 5 | 6:
                await self.kill_a_container()
            case 7:
                await self.made.stop()
                self.made.start()
            case 8:
                self.broken = not self.broken
            case _:
                pass
        await self.made.clock.advance(self.chance.choice([0.1, 1, 5]))


def runs(containers: Iterable[Container]) -> dict[tuple[str, str], int]:
    """How often each container of each pod was made."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for each in containers:
        found[each.labels[POD_UID], each.labels[CONTAINER_NAME]] += 1
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_a_node_that_breaks_at_random(tmp_path: Path, seed: int) -> None:
    async with world(tmp_path) as made:
        breaking = Breaking(made, random.Random(seed))
        await made.until(lambda: made.api.get(r.NODES, "node1"))
        for _ in range(40):
            await breaking.step()
        breaking.broken = False

        def pods() -> list[Obj]:
            return made.api.list(r.PODS)

        await made.until(
            lambda: not any(is_being_deleted(each) for each in pods()), seconds=400, step=1
        )  # no pod is left terminating
        await made.clock.advance(5)
        present = {each["metadata"]["uid"]: each for each in pods()}
        known = await made.runtime.containers()
        running = [each for each in known if each.state == "RUNNING"]
        assert {each.labels[POD_UID] for each in running} <= present.keys(), "nothing runs that nobody wants"
        names = [(each.labels[POD_UID], each.labels[CONTAINER_NAME]) for each in running]
        assert len(names) == len(set(names)), "nothing runs twice"
        for (uid, name), count in runs(known).items():
            owner = present.get(uid)
            if owner is not None and podspec.restart_policy(owner) == "Never" and name in ("a", "b"):
                assert count == 1, f"{name} was started again against policy"
        for owner in present.values():
            phase = podspec.phase_of(owner)
            assert phase in ("Pending", "Running", "Succeeded", "Failed")
            if podspec.restart_policy(owner) == "Always":
                assert phase in ("Pending", "Running")
