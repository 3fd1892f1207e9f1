"""Informers against a real socket: a copy that lags but never goes back, handlers that see each change once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import ApiError, expired
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.httpserver import Request
from shipwheel.client.informer import Informer, InformerFactory, Store
from shipwheel.client.resources import CONFIG_MAPS, PODS
from tests.client.fakeserver import FakeServer, fake_server, until


class Journal:
    """A handler that checks what it is told: every transition follows from the one before."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.state: dict[str, Obj] = {}

    def __call__(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        some = new or old
        assert some is not None
        name = some["metadata"]["name"]
        self.lines.append(f"{kind} {name} {some.get('n', '')}".strip())
        if kind == "ADDED":
            assert old is None and name not in self.state
        elif kind == "MODIFIED":
            assert self.state[name] is old and new is not None
            assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
            assert new["metadata"]["uid"] == old["metadata"]["uid"]
        else:
            assert new is None and name in self.state
        if new is None:
            del self.state[name]
        else:
            self.state[name] = new

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class Scene:
    def __init__(self, server: FakeServer, client: Client) -> None:
        self.server = server
        self.clock = ManualClock()
        self.journal = Journal()
        self.informer = Informer(client, CONFIG_MAPS, clock=self.clock)
        self.informer.add_handler(self.journal)

    async def caught_up(self) -> None:
        """The informer knows all that the server knows; its waits are cut short."""
        async with asyncio.timeout(10):
            while self.informer.resource_version != str(self.server.revision):
                await self.clock.advance(60, turns=1)
                await asyncio.sleep(0.002)

    async def watching(self) -> None:
        await until(lambda: self.server.watching)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with fake_server() as server, server.client() as client:
        server.put(CONFIG_MAPS, "a", n="1")
        scene = Scene(server, client)
        running = asyncio.create_task(scene.informer.run())
        async with asyncio.timeout(10):
            await scene.informer.wait_synced()
        await scene.watching()
        assert scene.journal.take() == ["ADDED a 1"]
        try:
            yield scene
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def lists(server: FakeServer) -> list[str]:
    """The resource versions that lists were asked at."""
    return [query.get("resourceVersion", "") for _, _, query in server.asked if "watch" not in query]


async def test_every_change_once(scene: Scene) -> None:
    server = scene.server
    server.put(CONFIG_MAPS, "b", n="1")
    server.put(CONFIG_MAPS, "b", n="2")
    server.remove(CONFIG_MAPS, "a")
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1", "MODIFIED b 2", "DELETED a 1"]
    assert [obj["n"] for obj in scene.informer.list()] == ["2"]
    assert lists(server) == [""]


async def test_items_know_their_kind(scene: Scene) -> None:
    obj = scene.informer.get("default", "a")
    assert obj is not None
    assert (obj["apiVersion"], obj["kind"]) == ("v1", "Thing")


async def test_a_late_handler_hears_of_everything(scene: Scene) -> None:
    late = Journal()
    scene.informer.add_handler(late)
    assert late.take() == ["ADDED a 1"]
    scene.informer.remove_handler(late)
    scene.server.put(CONFIG_MAPS, "b")
    await scene.caught_up()
    assert late.take() == []


async def test_a_handler_that_fails_harms_nobody(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*event: object) -> None:
        raise KeyError("that")

    scene.informer._handlers.insert(0, fails)
    scene.server.put(CONFIG_MAPS, "b", n="1")
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1"]
    assert "configmaps: a handler failed" in caplog.text


@pytest.mark.parametrize("how", ["abort", "end"])
async def test_a_watch_that_ends_goes_on_where_it_was(scene: Scene, how: str) -> None:
    server = scene.server
    server.break_watches(how)
    server.put(CONFIG_MAPS, "b", n="1")
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1"]
    assert lists(server) == [""]


async def test_bookmarks_move_the_place_to_go_on_from(scene: Scene) -> None:
    server = scene.server
    server.bookmark()
    await scene.caught_up()
    server.compact()
    server.break_watches()
    await until(lambda: not server.watching)
    server.put(CONFIG_MAPS, "b", n="1")
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1"]
    assert lists(server) == [""]


@pytest.mark.parametrize("when", ["resuming", "watching"])
async def test_a_past_that_is_gone_is_listed_again(scene: Scene, when: str) -> None:
    """And handlers see the difference, as if they had watched; a name that is another object is two events."""
    server = scene.server
    server.put(CONFIG_MAPS, "b", n="1")
    server.put(CONFIG_MAPS, "c", n="1")
    server.put(CONFIG_MAPS, "d", n="1")
    await scene.caught_up()
    scene.journal.take()
    before = scene.informer.resource_version
    server.break_watches("expire" if when == "watching" else "abort")
    server.put(CONFIG_MAPS, "b", n="2")
    server.remove(CONFIG_MAPS, "c")
    server.remove(CONFIG_MAPS, "d")
    server.put(CONFIG_MAPS, "d", n="2", uid="another")
    server.put(CONFIG_MAPS, "e", n="1")
    server.compact()
    await scene.caught_up()
    assert sorted(scene.journal.take()) == ["ADDED d 2", "ADDED e 1", "DELETED c 1", "DELETED d 1", "MODIFIED b 2"]
    assert lists(server) == ["", before]


async def test_a_list_at_a_version_the_server_has_not_is_asked_for_the_newest(scene: Scene) -> None:
    server = scene.server

    def refuse(request: Request) -> ApiError | None:
        if request.parameter("watch") or not request.parameter("resourceVersion"):
            return None
        return expired("gone")

    server.refuse = refuse
    server.put(CONFIG_MAPS, "b", n="1")
    server.break_watches("expire")
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1"]
    assert lists(server)[-1] == ""


async def test_failures_are_tried_again_ever_more_slowly(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    server = scene.server
    server.refuse = lambda request: ApiError(403, "Forbidden", "not now")
    server.break_watches()
    server.put(CONFIG_MAPS, "b", n="1")
    await until(lambda: "failed to list and watch configmaps" in caplog.text)
    asked = len(server.asked)
    for _ in range(40):
        await scene.clock.advance(30)
        await asyncio.sleep(0.002)
    assert 10 <= len(server.asked) - asked <= 45
    assert scene.informer.get("default", "b") is None
    server.refuse = lambda request: None
    await scene.caught_up()
    assert scene.journal.take() == ["ADDED b 1"]


async def test_in_the_end_it_is_the_same_whatever_happened(scene: Scene) -> None:
    """A storm of changes, breaks and compactions; the journal checks every step."""
    chance = random.Random(4)
    server = scene.server
    for _ in range(300):
        name = chance.choice("abcdef")
        what = chance.random()
        path = CONFIG_MAPS.path("default", name)
        if what < 0.6:
            server.put(CONFIG_MAPS, name, n=str(chance.random()))
        elif what < 0.75 and path in server.objects:
            server.remove(CONFIG_MAPS, name)
        elif what < 0.8 and path in server.objects:
            server.remove(CONFIG_MAPS, name)
            server.put(CONFIG_MAPS, name, uid=str(chance.random()))
        elif what < 0.85:
            server.break_watches(chance.choice(["end", "abort", "expire"]))
        elif what < 0.88:
            server.compact()
        elif what < 0.9:
            server.bookmark()
        else:
            await scene.clock.advance(5, turns=1)
            await asyncio.sleep(0.001)
    await scene.caught_up()
    assert {obj["metadata"]["name"]: obj for obj in server.objects.values()} == scene.journal.state
    assert sorted(scene.journal.state) == sorted(obj["metadata"]["name"] for obj in scene.informer.list())


async def test_a_factory_shares_and_starts_what_is_asked_for_later() -> None:
    async with fake_server() as server, server.client() as client:
        server.put(CONFIG_MAPS, "a")
        factory = InformerFactory(client)
        first = factory.informer(CONFIG_MAPS)
        assert factory.existing(PODS) is None
        async with asyncio.TaskGroup() as group:
            running = group.create_task(factory.run())
            async with asyncio.timeout(10):
                await factory.wait_synced()
                again = factory.informer(CONFIG_MAPS, indexers={"n": lambda obj: [obj["metadata"]["name"]]})
                assert again is first is factory.existing(CONFIG_MAPS)
                assert len(tuple(first.by_index("n", "a"))) == 1
                later = factory.informer(PODS)
                await later.wait_synced()
            running.cancel()


class TestStore:
    def thing(self, name: str, namespace: str = "default", **labels: str) -> Obj:
        return {"metadata": {"name": name, "namespace": namespace, "labels": labels}}

    def test_by_namespace(self) -> None:
        store = Store()
        store.put(self.thing("a"))
        store.put(self.thing("a", "other"))
        assert len(store) == 2
        assert [obj["metadata"]["namespace"] for obj in store.list("other")] == ["other"]
        assert store.list("none") == [] and store.get("none", "a") is None

    def test_indexes_follow_changes(self) -> None:
        store = Store({"app": lambda obj: obj["metadata"]["labels"].get("app", "").split()})
        store.put(self.thing("a", app="x y"))
        store.put(self.thing("b", app="y"))
        assert sorted(store.index_values("app")) == ["x", "y"]
        store.put(self.thing("a", app="z"))
        assert sorted(store.index_values("app")) == ["y", "z"]
        store.remove("default", "b")
        assert sorted(store.index_values("app")) == ["z"]
        assert store.remove("default", "b") is None
        store.add_indexers({"name": lambda obj: [obj["metadata"]["name"]], "app": lambda obj: []})
        assert [obj["metadata"]["name"] for obj in store.by_index("name", "a")] == ["a"]
        assert len(tuple(store.by_index("app", "z"))) == 1
