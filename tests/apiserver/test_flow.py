"""Places for requests: so many at once, a queue, and nobody keeps the cluster's own life waiting."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flow import Flow, Place
from shipwheel.apiserver.requestinfo import RequestInfo

USER = UserInfo("u", ("g",))
ADMIN = UserInfo("root", ("system:masters",))
LIST = RequestInfo("list", "/api/v1/pods", True, "", "v1", "", "pods")
CREATE = RequestInfo("create", "/api/v1/pods", True, "", "v1", "", "pods")
LEASE = RequestInfo("update", "/apis/coordination.k8s.io/v1/leases", True, "coordination.k8s.io", "v1", "", "leases")


async def fill(flow: Flow, info: RequestInfo, count: int) -> list[Place]:
    async with asyncio.timeout(1):
        return [await flow.enter(info, USER) for _ in range(count)]


async def queue(flow: Flow, info: RequestInfo, count: int) -> list[asyncio.Task[Place]]:
    tasks = [asyncio.create_task(flow.enter(info, USER)) for _ in range(count)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_the_next_in_line_gets_the_place() -> None:
    flow = Flow(max_requests=2, max_mutating=1)
    first, _ = await fill(flow, LIST, 2)
    waiting = await queue(flow, LIST, 3)
    first.leave()
    first.leave()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    assert flow.reads.used == 2
    for task in waiting:
        (await task).leave() if task.done() else task.cancel()


async def test_reads_and_writes_do_not_hinder_each_other() -> None:
    flow = Flow(max_requests=1, max_mutating=1)
    await fill(flow, LIST, 1)
    await fill(flow, CREATE, 1)
    for task in [*await queue(flow, LIST, 1), *await queue(flow, CREATE, 1)]:
        task.cancel()


async def test_too_many() -> None:
    flow = Flow(max_requests=2, max_mutating=2)
    await fill(flow, LIST, 2)
    waiting = await queue(flow, LIST, 16)
    with pytest.raises(ApiError) as caught:
        await flow.enter(LIST, USER)
    assert (caught.value.code, caught.value.reason) == (429, "TooManyRequests")
    assert caught.value.message == "Too many requests, please try again later."
    for task in waiting:
        task.cancel()


async def test_what_keeps_the_cluster_alive_is_not_starved() -> None:
    flow = Flow(max_requests=1, max_mutating=1)
    await fill(flow, LIST, 1)
    await fill(flow, CREATE, 1)
    waiting = [*await queue(flow, LIST, 8), *await queue(flow, CREATE, 8)]
    await fill(flow, LEASE, 1)
    async with asyncio.timeout(1):
        await flow.enter(LIST, ADMIN)
    for task in waiting:
        task.cancel()


@pytest.mark.parametrize("info", [
    RequestInfo("watch", "/api/v1/pods", True, "", "v1", "", "pods"),
    RequestInfo("create", "/api/v1/pods/p/exec", True, "", "v1", "ns", "pods", "exec", "p"),
])  # fmt: skip
async def test_what_lasts_long_takes_no_place(info: RequestInfo) -> None:
    flow = Flow(max_requests=1, max_mutating=1)
    await fill(flow, info, 50)
    assert (flow.reads.used, flow.writes.used) == (0, 0)


async def test_who_gives_up_leaves_no_place_behind() -> None:
    flow = Flow(max_requests=1, max_mutating=1)
    (held,) = await fill(flow, LIST, 1)
    gives_up, stays = await queue(flow, LIST, 2)
    held.leave()
    gives_up.cancel()  # its turn has just come
    async with asyncio.timeout(1):
        (await stays).leave()
    assert flow.reads.used == 0
    (place,) = await fill(flow, LIST, 1)
    (waits,) = await queue(flow, LIST, 1)
    waits.cancel()
    await asyncio.sleep(0)
    place.leave()
    assert flow.reads.used == 0


async def test_no_limit() -> None:
    flow = Flow(max_requests=0, max_mutating=0)
    await fill(flow, LIST, 100)
