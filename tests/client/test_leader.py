"""Leader election: of several candidates one leads, whatever their clocks say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.leader import ElectionConfig, LeaderElector, LeadershipLost
from shipwheel.client.metrics import ElectionMetrics, Metrics
from shipwheel.client.resources import LEASES
from tests.client.fakeserver import FakeServer, fake_server, until

PATH = LEASES.path("kube-system", "job")


class Candidate:
    """A candidate that says when it leads."""

    def __init__(self, client: Client, clock: ManualClock, name: str, *, release: bool = True) -> None:
        config = ElectionConfig(name="job", identity=name, release_on_cancel=release)
        self.metrics = Metrics()
        self.heard: list[str] = []
        self.elector = LeaderElector(
            client, config, clock, metrics=ElectionMetrics(self.metrics), on_new_leader=self.heard.append
        )
        self.leading = False
        self.finish = asyncio.Event()
        self.task = asyncio.create_task(self.elector.run(self.lead))

    async def lead(self) -> None:
        self.leading = True
        try:
            await self.finish.wait()
        finally:
            self.leading = False

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeadershipLost):
            await self.task


class Election:
    def __init__(self, server: FakeServer, client: Client) -> None:
        self.server = server
        self.client = client
        self.clock = ManualClock()
        self.candidates: list[Candidate] = []

    def candidate(self, name: str, *, clock: ManualClock | None = None, release: bool = True) -> Candidate:
        self.candidates.append(Candidate(self.client, clock or self.clock, name, release=release))
        return self.candidates[-1]

    async def pass_time(self, seconds: float, *clocks: ManualClock) -> None:
        """Let time pass in steps, and let requests be answered in between. Never do two lead."""
        for _ in range(int(seconds / 0.5)):
            for clock in clocks or (self.clock,):
                await clock.advance(0.5)
            for _ in range(5):
                await asyncio.sleep(0.001)
                assert sum(each.leading for each in self.candidates) <= 1

    async def overwrite(self, **change: Obj) -> None:
        """Write the lease by hand, whoever has written it since."""
        lease = {**self.server.objects[PATH], **change}
        lease["metadata"] = {key: value for key, value in lease["metadata"].items() if key != "resourceVersion"}
        await self.client.update(LEASES, lease)

    @property
    def spec(self) -> Obj:
        return self.server.objects[PATH]["spec"]


@pytest.fixture
async def election() -> AsyncIterator[Election]:
    async with fake_server() as server, server.client() as client:
        election = Election(server, client)
        try:
            yield election
        finally:
            for each in election.candidates:
                await each.stop()


async def test_the_first_leads_and_keeps_the_lease(election: Election) -> None:
    a = election.candidate("a")
    await until(lambda: a.leading)
    b = election.candidate("b")
    acquired = election.spec["acquireTime"]
    await election.pass_time(60)
    assert a.leading and not b.leading
    assert (election.spec["holderIdentity"], election.spec["leaseTransitions"]) == ("a", 0)
    assert (election.spec["acquireTime"], election.spec["leaseDurationSeconds"]) == (acquired, 15)
    assert election.spec["renewTime"] > acquired
    assert (a.heard, b.heard) == (["a"], ["a"])
    assert 'leader_election_master_status{name="job"} 1.0' in a.metrics.exposition().decode()
    assert 'leader_election_master_status{name="job"} 0.0' in b.metrics.exposition().decode()


async def test_who_stops_gives_the_lease_away(election: Election) -> None:
    a = election.candidate("a")
    await until(lambda: a.leading)
    b = election.candidate("b")
    await election.pass_time(1)
    await a.stop()
    assert (election.spec["holderIdentity"], election.spec["leaseDurationSeconds"]) == ("", 1)
    await election.pass_time(5)
    assert b.leading
    assert election.spec["leaseTransitions"] == 1
    assert b.heard == ["a", "b"]


async def test_who_vanishes_is_waited_for_a_lease_duration(election: Election) -> None:
    a = election.candidate("a", release=False)
    await until(lambda: a.leading)
    b = election.candidate("b")
    await election.pass_time(5)
    await a.stop()
    await election.pass_time(10)
    assert not b.leading
    await election.pass_time(12)
    assert b.leading


async def test_clocks_need_not_agree(election: Election) -> None:
    """A candidate whose clock is a day ahead does not take a lease that is being renewed."""
    ahead = ManualClock(datetime(2026, 1, 2, tzinfo=UTC))
    a = election.candidate("a")
    await until(lambda: a.leading)
    b = election.candidate("b", clock=ahead)
    await election.pass_time(60, election.clock, ahead)
    assert a.leading and not b.leading


async def test_a_leader_that_cannot_renew_stops_before_another_begins(election: Election) -> None:
    a = election.candidate("a")
    await until(lambda: a.leading)
    b = election.candidate("b")
    await election.pass_time(3)
    election.server.refuse = lambda request: ApiError(503, "ServiceUnavailable", "down")
    await election.pass_time(14)
    assert not a.leading and not b.leading
    with pytest.raises(LeadershipLost, match="failed to renew lease kube-system/job"):
        await a.task
    election.server.refuse = lambda request: None
    # The follower may first see the last renewal at its next look, waits from then on, and for the look after that.
    await election.pass_time(15 + 2 * 4.4)
    assert b.leading


async def test_answers_that_never_come_do_not_keep_a_leader(election: Election) -> None:
    a = election.candidate("a", release=False)
    await until(lambda: a.leading)
    election.server.stalled = True
    await election.pass_time(14)
    assert not a.leading
    with pytest.raises(LeadershipLost):
        await a.task


async def test_a_leader_that_is_robbed_notices(election: Election) -> None:
    """Somebody else wrote the lease (by hand): the holder obeys."""
    a = election.candidate("a")
    await until(lambda: a.leading)
    await election.overwrite(spec={**election.spec, "holderIdentity": "b"})
    await election.pass_time(15)
    assert not a.leading and not a.elector.is_leader
    with pytest.raises(LeadershipLost):
        await a.task
    assert election.spec["holderIdentity"] == "b"


async def test_a_lost_answer_is_no_lost_lease(election: Election) -> None:
    """A renewal that was written but not answered: the next one reads the lease again and goes on."""
    a = election.candidate("a")
    await until(lambda: a.leading)
    await election.overwrite(metadata={"name": "job", "namespace": "kube-system", "labels": {"x": "y"}})
    await election.pass_time(30)
    assert a.leading
    assert 'leader_election_slowpath_total{name="job"} 1.0' in a.metrics.exposition().decode()
    assert election.server.objects[PATH]["metadata"]["labels"] == {"x": "y"}


async def test_work_that_ends_by_itself(election: Election) -> None:
    a = election.candidate("a")
    await until(lambda: a.leading)
    a.finish.set()
    async with asyncio.timeout(60):
        await a.task
    assert election.spec["holderIdentity"] == ""


async def test_work_that_ends_quietly_when_the_lease_is_lost(election: Election) -> None:
    """It returns instead of being cancelled; the loss is told all the same."""

    async def lead() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    config = ElectionConfig(name="job", identity="c")
    task = asyncio.create_task(LeaderElector(election.client, config, election.clock).run(lead))
    await election.pass_time(5)
    assert election.spec["holderIdentity"] == "c"
    election.server.refuse = lambda request: ApiError(503, "ServiceUnavailable", "down")
    await election.pass_time(14)
    with pytest.raises(LeadershipLost):
        await task


async def test_work_that_fails(election: Election) -> None:
    """While a renewal is under way, too: the lease is given up all the same."""

    async def lead() -> None:
        raise KeyError("that")

    elector = LeaderElector(election.client, ElectionConfig(name="job", identity="a"), election.clock)
    with pytest.raises(ExceptionGroup) as caught:
        await elector.run(lead)
    assert caught.group_contains(KeyError)
    assert election.spec["holderIdentity"] == ""


async def test_health(election: Election) -> None:
    a = election.candidate("a", release=False)
    await until(lambda: a.leading)
    assert a.elector.check() == ""
    await a.stop()
    await election.clock.advance(36)
    assert a.elector.check() == "failed election to renew leadership on lease job"


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"lease_duration": 10, "renew_deadline": 10}, "leaseDuration must be greater than renewDeadline"),
        ({"renew_deadline": 2}, r"renewDeadline must be greater than retryPeriod\*JitterFactor"),
        ({"retry_period": 0}, "retryPeriod must be greater than zero"),
    ],
)
def test_times_that_make_no_sense(times: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ElectionConfig(name="job", identity="a", **times)  # type: ignore[arg-type]
