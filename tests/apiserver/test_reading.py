"""LIST and WATCH: selectors, pages, snapshots, and events that nobody misses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client, WatchEvent
from shipwheel.client.resources import CONFIG_MAPS, PODS
from tests.apiserver.world import Asker

pytestmark = pytest.mark.asyncio(loop_scope="module")


def named(listing: Obj) -> list[str]:
    return [each["metadata"]["name"] for each in listing["items"]]


@pytest_asyncio.fixture(loop_scope="module")
async def ten(admin: Client, namespace: str) -> str:
    """A namespace with ten config maps, c0 to c9, labelled by the remainder of their number by three."""
    for number in range(10):
        metadata = {"name": f"c{number}", "labels": {"third": str(number % 3)}}
        await admin.create(CONFIG_MAPS, {"metadata": metadata, "data": {"n": str(number)}}, namespace)
    return namespace


class TestListing:
    async def test_items_of_a_list_have_no_kind(self, admin: Client, ten: str) -> None:
        listing = await admin.call("GET", CONFIG_MAPS.path(ten))
        assert (listing["kind"], listing["apiVersion"]) == ("ConfigMapList", "v1")
        assert "kind" not in listing["items"][0]

    async def test_selectors(self, admin: Client, ten: str) -> None:
        assert named(await admin.list(CONFIG_MAPS, ten, label_selector="third=0")) == ["c0", "c3", "c6", "c9"]
        assert named(await admin.list(CONFIG_MAPS, ten, label_selector="third notin (0,1)")) == ["c2", "c5", "c8"]
        assert named(await admin.list(CONFIG_MAPS, ten, field_selector="metadata.name=c4")) == ["c4"]
        assert len(named(await admin.list(CONFIG_MAPS, ten, field_selector="metadata.name!=c4"))) == 9

    async def test_an_unknown_field_is_refused(self, admin: Client, ten: str) -> None:
        with pytest.raises(ApiError) as caught:
            await admin.list(CONFIG_MAPS, ten, field_selector="data.n=1")
        assert caught.value.code == 400
        assert caught.value.message == (
            '"data.n" is not a known field selector: only "metadata.name", "metadata.namespace"'
        )

    @pytest.mark.parametrize("limit", ["-3", "0", "9223372036854775807"])
    async def test_limits_that_limit_nothing(self, admin: Client, ten: str, limit: str) -> None:
        path = CONFIG_MAPS.path(ten)
        here = await admin.call("GET", path, query={"limit": limit})
        assert len(here["items"]) == 10
        past = {"limit": limit, "resourceVersion": here["metadata"]["resourceVersion"], "resourceVersionMatch": "Exact"}
        await admin.delete(CONFIG_MAPS, "c9", ten)
        assert len((await admin.call("GET", path, query=past))["items"]) == 10

    async def test_versions_have_their_own_names_for_fields(self, admin: Client, namespace: str) -> None:
        event = {
            "metadata": {"name": "e"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "c",
            "reportingInstance": "c-1",
            "action": "Do",
            "reason": "Done",
            "type": "Normal",
            "regarding": {"kind": "Pod", "namespace": namespace, "name": "p"},
        }
        events = GroupVersionResource("events.k8s.io", "v1", "events")
        await admin.create(events, event, namespace)
        chosen = "reportingController=c,regarding.name=p"
        assert named(await admin.list(events, namespace, field_selector=chosen)) == ["e"]
        assert named(await admin.list(events, namespace, field_selector="reportingController=d")) == []
        with pytest.raises(ApiError):
            await admin.list(events, namespace, field_selector="involvedObject.name=p")

    async def test_pages_are_of_one_moment(self, admin: Client, ten: str) -> None:
        path = CONFIG_MAPS.path(ten)
        first = await admin.call("GET", path, query={"limit": "4"})
        assert named(first) == ["c0", "c1", "c2", "c3"] and first["metadata"]["remainingItemCount"] == 6
        await admin.delete(CONFIG_MAPS, "c5", ten)
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "c55"}}, ten)
        second = await admin.call("GET", path, query={"limit": "4", "continue": first["metadata"]["continue"]})
        third = await admin.call("GET", path, query={"limit": "4", "continue": second["metadata"]["continue"]})
        assert named(second) + named(third) == ["c4", "c5", "c6", "c7", "c8", "c9"]
        assert third["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert "continue" not in third["metadata"]

    async def test_pages_of_the_past_read_what_they_show(
        self, admin: Client, world: object, ten: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = world.server.cache  # type: ignore[attr-defined]
        path = CONFIG_MAPS.path(ten)
        page = await admin.call("GET", path, query={"limit": "3"})
        await admin.delete(CONFIG_MAPS, "c5", ten)
        read: list[int] = []
        ask = cache.store.range

        async def counted(*args: Any, **kwargs: Any) -> Any:
            answer = await ask(*args, **kwargs)
            read.append(len(answer.items))
            return answer

        monkeypatch.setattr(cache.store, "range", counted)
        names, left = named(page), [page["metadata"].get("remainingItemCount")]
        while following := page["metadata"].get("continue"):
            page = await admin.call("GET", path, query={"limit": "3", "continue": following})
            names += named(page)
            left.append(page["metadata"].get("remainingItemCount"))
        assert names == [f"c{index}" for index in range(10)]
        assert left == [7, 4, 1, None]
        assert read == [3, 3, 1]

    async def test_a_list_cannot_go_on_once_its_beginning_is_forgotten(
        self, admin: Client, world: object, ten: str
    ) -> None:
        cache = world.server.cache  # type: ignore[attr-defined]
        path = CONFIG_MAPS.path(ten)
        first = await admin.call("GET", path, query={"limit": "4"})
        await admin.create(
            PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}, ten
        )
        await cache.compact(await cache.store.revision())
        with pytest.raises(ApiError) as caught:
            await admin.call("GET", path, query={"limit": "4", "continue": first["metadata"]["continue"]})
        assert (caught.value.code, caught.value.reason) == (410, "Expired")
        token = caught.value.continue_token
        second = await admin.call("GET", path, query={"limit": "4", "continue": token})
        assert named(second) == ["c4", "c5", "c6", "c7"] and second["metadata"]["remainingItemCount"] == 2

    async def test_the_past_can_be_listed(self, admin: Client, ten: str) -> None:
        before = (await admin.list(CONFIG_MAPS, ten))["metadata"]["resourceVersion"]
        await admin.delete(CONFIG_MAPS, "c5", ten)
        past = await admin.list(CONFIG_MAPS, ten, resource_version=before, resource_version_match="Exact")
        assert "c5" in named(past) and "c5" not in named(await admin.list(CONFIG_MAPS, ten))

    async def test_what_has_not_happened_yet_times_out(self, admin: Client, ten: str) -> None:
        with pytest.raises(ApiError) as caught:
            await admin.get(CONFIG_MAPS, "c1", ten, resource_version="99999999")
        assert caught.value.code == 504
        assert caught.value.message.startswith("Timeout: Too large resource version: 99999999")

    @pytest.mark.parametrize(
        "query",
        [
            {"resourceVersionMatch": "Exact"},
            {"resourceVersionMatch": "Nonsense", "resourceVersion": "1"},
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            {"resourceVersion": "minus one"},
            {"limit": "1_0"},
            {"limit": "9223372036854775808"},
            {"timeoutSeconds": "soon"},
        ],
    )
    async def test_nonsense_is_refused(self, admin: Client, ten: str, query: dict[str, str]) -> None:
        with pytest.raises(ApiError) as caught:
            await admin.call("GET", CONFIG_MAPS.path(ten), query=query)
        assert caught.value.code in (400, 422)

    async def test_tables(self, admin: Client, ten: str) -> None:
        table = await admin.call("GET", CONFIG_MAPS.path(ten), accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert table["rows"][0]["cells"][:2] == ["c0", 1]
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"

    async def test_metadata_alone(self, admin: Client, ten: str) -> None:
        listing = await admin.list(CONFIG_MAPS, ten, metadata_only=True)
        assert listing["kind"] == "PartialObjectMetadataList"
        assert set(listing["items"][0]) == {"kind", "apiVersion", "metadata"}


class Watching:
    """Events of a watch, as they come."""

    def __init__(self, events: AsyncIterator[WatchEvent]) -> None:
        self._events = events

    async def next(self) -> tuple[str, Obj]:
        async with asyncio.timeout(10):
            event = await anext(self._events)
        return event.type, event.object

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = [await self.next() for _ in range(count)]
        return [(kind, obj["metadata"]["name"]) for kind, obj in found]


class TestWatching:
    async def test_from_a_revision_on(self, admin: Client, ten: str) -> None:
        since = (await admin.list(CONFIG_MAPS, ten))["metadata"]["resourceVersion"]
        await admin.delete(CONFIG_MAPS, "c1", ten)
        watch = Watching(admin.watch(CONFIG_MAPS, ten, resource_version=since, bookmarks=False))
        await admin.create(CONFIG_MAPS, {"metadata": {"name": "new"}}, ten)
        await admin.patch(CONFIG_MAPS, "new", ten, {"data": {"a": "b"}})
        assert await watch.names(3) == [("DELETED", "c1"), ("ADDED", "new"), ("MODIFIED", "new")]

    async def test_a_deletion_shows_the_last_state_at_its_own_revision(self, admin: Client, ten: str) -> None:
        listing = await admin.list(CONFIG_MAPS, ten)
        watch = Watching(
            admin.watch(CONFIG_MAPS, ten, resource_version=listing["metadata"]["resourceVersion"], bookmarks=False)
        )
        await admin.delete(CONFIG_MAPS, "c1", ten)
        kind, obj = await watch.next()
        assert kind == "DELETED" and obj["data"] == {"n": "1"}
        assert int(obj["metadata"]["resourceVersion"]) > int(listing["metadata"]["resourceVersion"])

    async def test_what_enters_and_leaves_a_selector(self, admin: Client, ten: str) -> None:
        since = (await admin.list(CONFIG_MAPS, ten))["metadata"]["resourceVersion"]
        watch = Watching(
            admin.watch(CONFIG_MAPS, ten, resource_version=since, label_selector="third=0", bookmarks=False)
        )
        await admin.patch(CONFIG_MAPS, "c1", ten, {"metadata": {"labels": {"third": "0"}}})
        await admin.patch(CONFIG_MAPS, "c2", ten, {"data": {"unseen": "yes"}})
        await admin.patch(CONFIG_MAPS, "c0", ten, {"metadata": {"labels": {"third": "2"}}})
        assert await watch.names(2) == [("ADDED", "c1"), ("DELETED", "c0")]

    async def test_by_a_field(self, admin: Client, namespace: str) -> None:
        def pod(name: str, node: str) -> Obj:
            return {
                "metadata": {"name": name},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            }

        since = (await admin.list(PODS, namespace))["metadata"]["resourceVersion"]
        watch = Watching(
            admin.watch(PODS, namespace, resource_version=since, field_selector="spec.nodeName=n1", bookmarks=False)
        )
        await admin.create(PODS, pod("a", "n2"), namespace)
        await admin.create(PODS, pod("b", "n1"), namespace)
        assert await watch.names(1) == [("ADDED", "b")]

    async def test_what_exists_comes_first_without_a_revision(self, admin: Client, ten: str) -> None:
        watch = Watching(admin.watch(CONFIG_MAPS, ten, resource_version="", bookmarks=False))
        assert await watch.names(10) == [("ADDED", f"c{number}") for number in range(10)]

    async def test_a_revision_nobody_remembers(self, admin: Client, world: object, ten: str) -> None:
        server = world.server  # type: ignore[attr-defined]
        await server.store.compact(server.cache.revision)
        server.cache.of(server.resource("", "configmaps")).recent.clear()
        server.cache.of(server.resource("", "configmaps")).recent_since = server.cache.revision
        with pytest.raises(ApiError) as caught:
            await anext(admin.watch(CONFIG_MAPS, ten, resource_version="5", bookmarks=False))
        assert (caught.value.code, caught.value.reason) == (410, "Expired")


class TestTables:
    TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

    async def test_a_watch_tells_of_columns_once(self, ask: Asker, ten: str) -> None:
        query = (
            "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
        )
        answer = await ask("GET", f"{CONFIG_MAPS.path(ten)}?{query}", accept=self.TABLE)
        events = [orjson.loads(line) for line in answer.body.splitlines()]
        assert {each["object"]["kind"] for each in events} == {"Table"}
        assert [bool(each["object"]["columnDefinitions"]) for each in events[:10]] == [True] + [False] * 9
        (mark,) = events[10]["object"]["rows"]
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}

    async def test_the_row_of_a_pod_that_ended_says_so(self, ask: Asker, admin: Client, namespace: str) -> None:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        await ask("POST", pods, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
        row = orjson.loads((await ask("GET", f"{pods}/p", accept=self.TABLE)).body)["rows"][0]
        assert "conditions" not in row
        body = {"status": {"phase": "Failed"}}
        await ask("PATCH", f"{pods}/p/status", body, content_type="application/merge-patch+json")
        row = orjson.loads((await ask("GET", f"{pods}/p", accept=self.TABLE)).body)["rows"][0]
        assert row["conditions"] == [
            {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}
        ]
