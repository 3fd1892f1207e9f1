"""Priority and fairness in a whole server: its answers say whose they are, and a storm starves nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.apiserver.flowcontrol.fairness import PriorityAndFairness
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, LEASES, NAMESPACES
from shipwheel.kinds.flowcontrol.mandatory import EVERYTHING
from tests.apiserver.wire import PATIENCE, until, wire
from tests.apiserver.world import Asker, World, config_for, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMAS = GroupVersionResource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas")
LEVELS = GroupVersionResource("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations")
BINDINGS = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
SEATS = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    file = tmp_path_factory.mktemp("store") / "state.db"
    config = replace(
        config_for(keys, file), max_requests_inflight=20, max_mutating_requests_inflight=10, request_timeout=3600.0
    )
    async with running(keys, file, config=config) as running_world:
        yield running_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(world: World) -> AsyncIterator[Client]:
    async with world.client() as client:
        binding = {
            "metadata": {"name": "team"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}],
        }
        await client.create(BINDINGS, binding)
        yield client


def fairness(world: World) -> PriorityAndFairness:
    assert world.server.fairness is not None
    return world.server.fairness


def schema_for(user: str, level: str) -> Obj:
    rules = [{"subjects": [{"kind": "User", "user": {"name": user}}], **EVERYTHING}]
    spec = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 50, "rules": rules}
    return {"metadata": {"name": f"of-{user}"}, "spec": spec}


def level_of(name: str, response: Obj) -> Obj:
    limited = {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}
    return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}


def uids(answer: Any) -> tuple[str, str]:
    return answer.header("X-Kubernetes-PF-FlowSchema-UID"), answer.header("X-Kubernetes-PF-PriorityLevel-UID")


async def test_answers_say_by_which_rules_they_were_given(world: World, admin: Client) -> None:
    schema = await admin.create(SCHEMAS, schema_for("alice", "of-alice"))
    alice = Asker(world.config("alice"))
    try:
        default = await admin.get(SCHEMAS, "global-default"), await admin.get(LEVELS, "global-default")
        before = await alice("GET", "/version")
        assert uids(before) == tuple(each["metadata"]["uid"] for each in default)
        level = await admin.create(LEVELS, level_of("of-alice", {"type": "Reject"}))
        for path, status in (("/version", 200), ("/api/v1/pods", 403), ("/nowhere", 403)):
            answer = await alice("GET", path)
            assert answer.status == status
            assert uids(answer) == (schema["metadata"]["uid"], level["metadata"]["uid"])
    finally:
        await alice.close()
        await admin.delete(SCHEMAS, "of-alice")
        await admin.delete(LEVELS, "of-alice")


async def test_too_many_requests(world: World, admin: Client, tmp_path: Path) -> None:
    await admin.create(LEVELS, level_of("of-eve", {"type": "Reject"}))
    await admin.create(SCHEMAS, schema_for("eve", "of-eve"))
    await make_many(admin, "eves", 40)
    eve = Asker(world.config("eve", "team"))
    async with wire(world, tmp_path, "eve") as slow:
        await slow.send("GET /api/v1/namespaces/eves/configmaps HTTP/1.1")
        assert (await slow.head())[0] == 200
        answer = await eve("GET", "/api/v1/namespaces/eves")
        assert (answer.status, answer.header("Retry-After")) == (429, "1")
        assert answer.body == b"Too many requests, please try again later.\n"
        assert answer.header("Content-Type") == "text/plain; charset=utf-8"
        assert all(uids(answer))
    await until(lambda: not fairness(world).levels["of-eve"].queues.executing)
    assert (await eve("GET", "/api/v1/namespaces/eves")).status == 200
    await eve.close()


async def test_who_waits_too_long(world: World, admin: Client, tmp_path: Path) -> None:
    queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 10}
    await admin.create(LEVELS, level_of("of-gil", {"type": "Queue", "queuing": queuing}))
    await admin.create(SCHEMAS, schema_for("gil", "of-gil"))
    await make_many(admin, "gils", 40)
    gil = Asker(world.config("gil", "team"))
    async with wire(world, tmp_path, "gil") as slow:
        await slow.send("GET /api/v1/namespaces/gils/configmaps HTTP/1.1")
        assert (await slow.head())[0] == 200
        assert (await gil("GET", "/api/v1/namespaces/gils?timeout=200ms")).status == 429
        waiting = asyncio.create_task(gil("GET", "/api/v1/namespaces/gils"))
        queues = fairness(world).levels["of-gil"].queues
        await until(lambda: queues.waiting)
    async with asyncio.timeout(PATIENCE):
        assert (await waiting).status == 200
    await gil.close()


async def test_a_watch_gives_its_seats_back_once_it_has_begun(world: World, admin: Client, tmp_path: Path) -> None:
    await make_many(admin, "watched", 40)
    flow = fairness(world)
    flow.refresh()
    queues = flow.levels["global-default"].queues
    async with wire(world, tmp_path, "wanda", "team") as watch:
        await watch.send("GET /api/v1/namespaces/watched/configmaps?watch=1 HTTP/1.1")
        assert (await watch.head())[0] == 200
        assert queues.seats_in_use  # twenty megabytes that nobody reads yet
        before = world.server.watches.running

        async def read() -> None:
            while await watch.reader.read(1 << 20):
                pass

        reading = asyncio.create_task(read())
        await until(lambda: not queues.seats_in_use)
        assert world.server.watches.running == before >= 1
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def make_many(admin: Client, namespace: str, count: int) -> None:
    await admin.create(NAMESPACES, {"metadata": {"name": namespace}})
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            obj = {"metadata": {"name": f"c{number:03}"}, "data": {"x": "x" * 500_000}}
            group.create_task(admin.create(CONFIG_MAPS, obj, namespace))


async def test_a_storm_of_lists_starves_no_node_and_no_component(
    world: World, admin: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipwheel.apiserver.flowcontrol.fairness._MOST_PATIENCE", 3600.0)
    await make_many(admin, "stormy", 40)
    flow = fairness(world)
    node = world.client("system:node:n1", "system:nodes")
    manager = world.client("system:kube-controller-manager")
    async with AsyncExitStack() as storm, node, manager:
        # Lists of twenty megabytes which nobody reads: they keep their seats, and the others wait.
        for _ in range(2 * SEATS):
            peer = await storm.enter_async_context(wire(world, tmp_path, "bob"))
            await peer.send("GET /api/v1/namespaces/stormy/configmaps HTTP/1.1")
        level = flow.levels["global-default"]
        await until(lambda: level.queues.waiting + level.queues.executing == 2 * SEATS)
        assert level.queues.waiting >= SEATS // 2
        async with asyncio.timeout(PATIENCE):
            lease = await node.create(LEASES, {"metadata": {"name": "n1"}, "spec": {}}, "kube-node-lease")
            for turn in range(20):
                lease = await node.update(LEASES, lease | {"spec": {"holderIdentity": f"turn-{turn}"}})
            await manager.list(NAMESPACES)
            assert len((await admin.list(CONFIG_MAPS, "stormy"))["items"]) == 40
        assert level.queues.waiting >= SEATS // 2
        assert level.queues.seats_in_use <= SEATS
    await until(lambda: level.queues.idle)


async def test_without_priority_and_fairness(keys: Path, tmp_path: Path) -> None:
    config = replace(
        config_for(keys, tmp_path / "state.db"), enable_priority_and_fairness=False, max_requests_inflight=1
    )
    async with running(keys, tmp_path / "state.db", config=config) as world, world.client() as admin:
        await make_many(admin, "many", 40)
        asker = Asker(world.config("frank"))
        async with wire(world, tmp_path, "admin") as slow:
            await slow.send("GET /api/v1/namespaces/many/configmaps HTTP/1.1")
            assert (await slow.head())[0] == 200
            answer = await asker("GET", "/version")
            assert (answer.status, answer.header("Retry-After")) == (429, "1")
            assert not any(uids(answer))
            await admin.get(NAMESPACES, "many")
        await until(lambda: not world.server.flow.serving("readOnly"))
        assert (await asker("GET", "/version")).status == 200
        await asker.close()
