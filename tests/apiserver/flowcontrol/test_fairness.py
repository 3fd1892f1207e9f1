"""The edge of flow control: seats for requests, and a configuration that changes under them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shipwheel.api.clock import SystemClock
from shipwheel.api.meta import Obj
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flowcontrol.fairness import PriorityAndFairness, SeatPlace
from shipwheel.apiserver.flowcontrol.places import NO_PLACE, TooMany
from shipwheel.apiserver.flowcontrol.watches import Watches
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.kinds.flowcontrol import mandatory, suggested

EVERYBODY = ("system:authenticated",)
ADMIN = UserInfo("root", ("system:masters", *EVERYBODY))
BOB, CARL = UserInfo("bob", EVERYBODY), UserInfo("carl", EVERYBODY)
NODE = UserInfo("system:node:n", ("system:nodes", *EVERYBODY))
GET = RequestInfo("get", "/api/v1/pods/p", True, "", "v1", "ns", "pods", "", "p")
CREATE = RequestInfo("create", "/api/v1/pods", True, "", "v1", "ns", "pods")
LEASE = RequestInfo("update", "/x", True, "coordination.k8s.io", "v1", "kube-node-lease", "leases", "", "n")
REQUEST: Any = None


def obj(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name, "uid": f"uid-of-{name}"}, "spec": spec}


class Cluster:
    """The objects that there are."""

    def __init__(self, seats: int = 30) -> None:
        tables = (suggested.PRIORITY_LEVELS, mandatory.PRIORITY_LEVELS)
        self.levels = {name: obj(name, spec) for table in tables for name, spec in table.items()}
        tables = (suggested.FLOW_SCHEMAS, mandatory.FLOW_SCHEMAS)
        self.schemas = {name: obj(name, spec) for table in tables for name, spec in table.items()}
        self.watches = Watches()
        self.flow = PriorityAndFairness(
            seats=seats,
            clock=SystemClock(),
            watches=self.watches,
            read=lambda: ([*self.schemas.values()], [*self.levels.values()]),
            stored=lambda info: None,
        )

    def add(self, name: str, user: str, limited: Obj, level: str = "") -> None:
        """A priority level, and a schema for what a user asks of it."""
        self.levels[name] = obj(name, {"type": "Limited", "limited": limited})
        rules = [{"subjects": [{"kind": "User", "user": {"name": user}}], **mandatory.EVERYTHING}]
        spec = {"priorityLevelConfiguration": {"name": level or name}, "matchingPrecedence": 50, "rules": rules}
        self.schemas[name] = obj(name, spec)
        self.flow.forget()

    def get(self, user: UserInfo = BOB, info: RequestInfo = GET) -> SeatPlace:
        place = self.flow.admit(info, user, REQUEST)
        assert isinstance(place, SeatPlace)
        return place

    def fill(self, user: UserInfo) -> list[SeatPlace]:
        """Requests until one has to wait, which is the last."""
        places = [self.get(user)]
        while places[-1].turn is None:
            places.append(self.get(user))
        return places


ONE = {"nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0}
QUEUED = {**ONE, "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 1, "queueLengthLimit": 3}}}
REJECTED = {**ONE, "limitResponse": {"type": "Reject"}}


async def test_who_finds_no_seat_waits_for_one() -> None:
    cluster = Cluster()
    *held, waiting = cluster.fill(BOB)
    task = asyncio.create_task(cluster.flow.wait(waiting, 60))
    await asyncio.sleep(0)
    assert not task.done()
    assert (cluster.flow.serving("readOnly"), cluster.flow.waiting("readOnly")) == (len(held), 1)
    held[0].leave()
    held[0].leave()
    await task
    for place in (*held, waiting):
        place.leave()
    assert cluster.flow.serving("readOnly") == 0


async def test_levels_do_not_hinder_each_other() -> None:
    cluster = Cluster()
    cluster.fill(BOB)
    assert cluster.get(NODE, LEASE).turn is None
    assert cluster.get(ADMIN).turn is None
    assert cluster.get(UserInfo("system:kube-scheduler", EVERYBODY)).turn is None


async def test_who_waits_too_long_is_sent_away() -> None:
    cluster = Cluster()
    *held, waiting = cluster.fill(BOB)
    with pytest.raises(TooMany) as caught:
        await cluster.flow.wait(waiting, 0.01)
    assert caught.value.retry_after == 1
    assert dict(caught.value.headers)["X-Kubernetes-Pf-Flowschema-Uid"] == "uid-of-global-default"
    assert cluster.flow.waiting("readOnly") == 0
    tally = cluster.flow.tallies["global-default", "global-default"]
    assert tally.rejected == {"time-out": 1}
    for place in held:
        place.leave()


async def test_who_gives_up_leaves_no_seat_behind() -> None:
    cluster = Cluster()
    *held, first = cluster.fill(BOB)
    second = cluster.get(CARL)
    tasks = [asyncio.create_task(cluster.flow.wait(place, 60)) for place in (first, second)]
    await asyncio.sleep(0)
    held[0].leave()
    held[1].leave()
    for task in tasks:
        task.cancel()  # their turn has just come
    await asyncio.gather(*tasks, return_exceptions=True)
    third = cluster.get(CARL)
    assert third.turn is None
    gone = cluster.fill(CARL)[-1]
    task = asyncio.create_task(cluster.flow.wait(gone, 60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert cluster.flow.waiting("readOnly") == 0


async def test_a_level_that_rejects() -> None:
    cluster = Cluster()
    cluster.add("strict", "bob", REJECTED)
    seats: list[SeatPlace] = []
    with pytest.raises(TooMany) as caught:
        while True:
            seats.append(cluster.get())
    assert len(seats) == cluster.flow.levels["strict"].current == 1
    assert dict(caught.value.headers)["X-Kubernetes-Pf-Prioritylevel-Uid"] == "uid-of-strict"
    assert cluster.flow.tallies["strict", "strict"].rejected == {"concurrency-limit": 1}
    seats[0].leave()
    cluster.get()


async def test_a_full_queue() -> None:
    cluster = Cluster()
    cluster.add("short", "bob", QUEUED)
    places = [cluster.get() for _ in range(4)]
    assert [place.turn is None for place in places] == [True, False, False, False]
    with pytest.raises(TooMany):
        cluster.get()
    assert cluster.flow.tallies["short", "short"].rejected == {"queue-full": 1}
    assert cluster.flow.tallies["short", "short"].lengths.counts[:2] == [0, 3]


async def test_what_lasts_long_takes_no_seat() -> None:
    cluster = Cluster()
    exec_ = RequestInfo("create", "/x", True, "", "v1", "ns", "pods", "exec", "p")
    assert cluster.flow.admit(exec_, BOB, REQUEST) is NO_PLACE


async def test_the_configuration_is_followed() -> None:
    cluster = Cluster()
    assert cluster.get().flow.schema == "global-default"
    cluster.add("new", "bob", REJECTED)
    assert cluster.get().flow.schema == "new"
    assert cluster.get(CARL).flow.schema == "global-default"
    del cluster.schemas["new"]
    cluster.flow.forget()
    assert cluster.get().flow.schema == "global-default"


async def test_a_schema_without_its_level_is_passed_over() -> None:
    cluster = Cluster()
    cluster.add("mine", "bob", REJECTED, level="missing")
    assert cluster.get().flow.schema == "global-default"
    cluster.levels["missing"] = obj("missing", {"type": "Limited", "limited": REJECTED})
    cluster.flow.forget()
    assert cluster.get().headers == (
        ("X-Kubernetes-Pf-Flowschema-Uid", "uid-of-mine"), ("X-Kubernetes-Pf-Prioritylevel-Uid", "uid-of-missing"),
    )  # fmt: skip


async def test_without_any_objects_there_are_the_mandatory_ones() -> None:
    cluster = Cluster()
    cluster.levels.clear()
    cluster.schemas.clear()
    assert cluster.get(ADMIN).flow.schema == "exempt"
    assert cluster.get().flow.schema == "catch-all"
    assert cluster.flow.levels["catch-all"].current == 30
    assert cluster.get(UserInfo("nobody", ())).flow.schema == "catch-all"


async def test_a_level_goes_with_its_last_request() -> None:
    cluster = Cluster()
    cluster.add("short", "bob", QUEUED)
    running, waiting = cluster.get(), cluster.get()
    del cluster.levels["short"], cluster.schemas["short"]
    cluster.flow.forget()
    assert cluster.get().flow.schema == "global-default"
    assert cluster.flow.levels["short"].quiescing
    running.leave()
    async with asyncio.timeout(60):
        await cluster.flow.wait(waiting, 60)
    waiting.leave()
    cluster.get(ADMIN)
    await asyncio.sleep(0)
    assert "short" not in cluster.flow.levels


async def test_more_seats_let_those_in_that_wait() -> None:
    cluster = Cluster()
    cluster.add("short", "bob", QUEUED)
    _, waiting = cluster.get(), cluster.get()
    cluster.levels["short"] = obj("short", {"type": "Limited", "limited": {**QUEUED, "nominalConcurrencyShares": 200}})
    cluster.flow.forget()
    async with asyncio.timeout(60):
        await cluster.flow.wait(waiting, 60)


async def test_a_busy_level_borrows_and_gives_back() -> None:
    cluster = Cluster(600)
    cluster.get(ADMIN).leave()
    level = cluster.flow.levels["global-default"]
    flow, start = cluster.flow, cluster.flow.clock.monotonic()
    assert level.limits.nominal == 49
    busy = [cluster.get(BOB) for _ in range(290)]
    flow.adjust(start + 10)
    borrowed = level.current
    assert borrowed > 200
    scheduler = UserInfo("system:kube-scheduler", EVERYBODY)
    other = flow.levels["workload-high"]
    waking = [cluster.get(scheduler, RequestInfo("get", "/x", True, "", "v1", f"n{n % 9}", "pods")) for n in range(98)]
    flow.adjust(start + 20)
    assert other.current >= other.limits.nominal == 98
    assert level.current < borrowed
    for place in (*busy, *waking):
        place.leave()


async def test_a_widely_watched_write_lingers() -> None:
    cluster = Cluster()
    watch = RequestInfo("watch", "/x", True, "", "v1", "", "services")
    cluster.get(ADMIN).leave()
    flow = cluster.flow
    for _ in range(10):
        cluster.watches.begin(watch, Request())  # type: ignore[arg-type]
    write = RequestInfo("create", "/x", True, "", "v1", "ns", "services")
    place = cluster.get(BOB, write)
    assert (place.width.final, place.width.linger) == (1, 0.005)
    place.leave()
    queues = flow.levels["global-default"].queues
    assert (queues.executing, queues.seats_in_use) == (0, 1)
    async with asyncio.timeout(60):
        while queues.seats_in_use:
            await asyncio.sleep(0.001)
    assert flow.tallies["global-default", "global-default"].watches.sum == 10


class Request:
    """Without a query."""

    def parameter(self, name: str) -> str:
        return ""
