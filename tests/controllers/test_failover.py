"""Two whole managers, one lease: when one goes the other goes on, and never do both act."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.leader import LeadershipLost
from shipwheel.client.resources import DEPLOYMENTS, EVENTS, LEASES, PODS
from shipwheel.client.serving import ServingConfig
from shipwheel.controllers import manager
from shipwheel.controllers.config import ControllerManagerConfig
from tests.controllers.fakeapi import Connection, FakeApi
from tests.controllers.world import template

CONFIG = ControllerManagerConfig(controllers=("deployment", "replicaset"), serving=ServingConfig(port=0))
LEASE = CONFIG.leader_elect_lease_duration
"""Seconds for which others wait for a leader that is not heard of."""
RETRY = CONFIG.leader_elect_retry_period * 2.2
"""The longest that a candidate waits from one try to the next."""


class Pair:
    """An API server and managers `a` and `b`; every change of anything but leases and events is written down."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.api = FakeApi(self.clock)
        self.api.on_change = self._note
        self.connections: dict[str, Connection] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.acts: list[tuple[float, str]] = []
        """(when, who)."""

    def start(self, name: str) -> None:
        client, self.connections[name] = self.api.connect()
        run = manager.run(CONFIG, client=client, clock=self.clock, identity=name)
        self.tasks[name] = asyncio.create_task(run)

    def _note(self, gvr: GroupVersionResource, kind: str, obj: Obj, old: Obj | None) -> None:
        writer = next((name for name, each in self.connections.items() if each is self.api.writer), "")
        if writer and gvr not in (LEASES, EVENTS):
            assert writer == self.leader(), f"{writer} acts, but {self.leader()} leads"
            self.acts.append((self.clock.monotonic(), writer))

    def leader(self) -> str:
        lease = self.api.get(LEASES, "kube-controller-manager", "kube-system")
        return lease["spec"]["holderIdentity"] if lease else ""

    def scale(self, replicas: int) -> None:
        self.api.change(DEPLOYMENTS, "web", "default", lambda obj: obj["spec"].update(replicas=replicas))

    async def until(self, condition: Callable[[], bool], *, within: float = 60.0) -> float:
        """Let time pass until something is so; returns how much did."""
        begin = self.clock.monotonic()
        while not condition():
            assert self.clock.monotonic() - begin < within
            await self.clock.advance(0.25)
        return self.clock.monotonic() - begin


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with running() as made:
        yield made


@asynccontextmanager
async def running() -> AsyncIterator[Pair]:
    made = Pair()
    labels = {"app": "web"}
    spec = {"replicas": 4, "selector": {"matchLabels": labels}, "template": template(labels)}
    made.api.create(DEPLOYMENTS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    made.start("a")
    await made.until(lambda: len(made.api.list(PODS)) == 4)
    made.start("b")
    await made.clock.advance(5)
    assert made.leader() == "a"
    try:
        yield made
    finally:
        for name, task in made.tasks.items():
            made.connections[name].cut, made.connections[name].refused = False, True
            task.cancel()
            with suppress(asyncio.CancelledError, BaseExceptionGroup):
                await task


async def test_who_dies_is_followed_within_a_lease(pair: Pair):
    pair.connections["a"].cut = True
    pair.scale(8)
    passed = await pair.until(lambda: len(pair.api.list(PODS)) == 8)
    # The last renewal may be a retry ago; and whoever follows sees it up to a retry late, and looks again up to a retry
    # after the lease's end.
    assert LEASE - RETRY - 1 <= passed <= LEASE + 2 * RETRY + 1
    await pair.clock.advance(30)
    assert len(pair.api.list(PODS)) == 8, "nothing was done twice"
    assert pair.leader() == "b"


async def test_who_is_cut_off_stops_before_another_begins(pair: Pair):
    pair.connections["a"].refused = True
    pair.scale(8)
    stopped = await pair.until(pair.tasks["a"].done)
    assert stopped <= CONFIG.leader_elect_renew_deadline + RETRY
    assert not [who for when, who in pair.acts if who == "b"], "the lease still runs"
    with pytest.raises(BaseExceptionGroup) as caught:
        pair.tasks["a"].result()
    assert caught.group_contains(LeadershipLost)
    pair.connections["a"].refused = False  # too late: it has ended
    await pair.until(lambda: len(pair.api.list(PODS)) == 8, within=LEASE + 2 * RETRY + 1)
    await pair.clock.advance(30)
    assert len(pair.api.list(PODS)) == 8


async def test_who_is_asked_to_stop_gives_the_lease_away(pair: Pair):
    pair.tasks["a"].cancel()
    pair.scale(8)
    passed = await pair.until(lambda: len(pair.api.list(PODS)) == 8)
    assert passed <= RETRY + 1
    messages = {event["message"] for event in pair.api.list(EVENTS) if event["reason"] == "LeaderElection"}
    assert messages >= {"a became leader", "a stopped leading", "b became leader"}


@pytest.mark.parametrize("moment", range(12))
async def test_killed_in_the_middle_of_a_rollout(moment: int):
    """Whatever write was the last, the other manager finishes with as many pods as there should be."""
    async with running() as pair:
        begin = len(pair.acts)
        pair.scale(9)
        while len(pair.acts) < begin + moment:
            await asyncio.sleep(0)
            if len(pair.api.list(PODS)) == 9:
                break
        pair.connections["a"].cut = True
        await pair.until(lambda: pair.leader() == "b" and len(pair.api.list(PODS)) == 9)
        await pair.clock.advance(5)
        assert len(pair.api.list(PODS)) == 9
