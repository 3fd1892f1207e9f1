"""What every engine must do: the promises of `store.base.Store`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from storehelpers import events, fill, opened, watching

from shipwheel.store.base import (
    ABSENT,
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    Mismatch,
    Store,
    StoreError,
)

pytestmark = pytest.mark.timeout(60)


class TestPut:
    async def test_gives_what_get_then_finds(self, store: Store) -> None:
        written = await store.put("/a", b"1")
        assert written == KeyValue("/a", b"1", written.mod_revision, written.mod_revision)
        assert await store.get("/a") == written
        assert await store.revision() == written.mod_revision

    async def test_of_a_key_that_exists_keeps_its_create_revision(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        assert second.mod_revision == first.mod_revision + 1
        assert second.create_revision == first.create_revision
        assert await store.get("/a") == second

    async def test_with_the_expected_revision(self, store: Store) -> None:
        first = await store.put("/a", b"1", expected=ABSENT)
        second = await store.put("/a", b"2", expected=first.mod_revision)
        assert (await store.get("/a")) == second

    async def test_with_another_revision_changes_nothing(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        for expected in (ABSENT, first.mod_revision, second.mod_revision + 5):
            with pytest.raises(Mismatch) as mismatch:
                await store.put("/a", b"3", expected=expected)
            assert mismatch.value.current == second
        assert await store.revision() == second.mod_revision

    async def test_of_an_absent_key_with_an_expected_revision(self, store: Store) -> None:
        with pytest.raises(Mismatch) as mismatch:
            await store.put("/a", b"1", expected=7)
        assert mismatch.value.current is None
        assert await store.get("/a") is None

    async def test_only_one_of_many_who_expect_the_same_succeeds(self, store: Store) -> None:
        first = await store.put("/a", b"0")
        puts = (store.put("/a", b"%d" % n, expected=first.mod_revision) for n in range(20))
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, KeyValue)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, Mismatch)]
        assert len(losers) == 19
        assert {loser.current for loser in losers} == {winner}
        assert await store.get("/a") == winner

    async def test_each_has_a_revision_of_its_own(self, store: Store) -> None:
        before = await store.revision()
        written = await asyncio.gather(*(store.put(f"/{n}", b"") for n in range(50)))
        assert sorted(kv.mod_revision for kv in written) == list(range(before + 1, before + 51))

    @pytest.mark.parametrize("key", ["/ä/ключ/鍵/🔑", "/a b%\"'\\", "/" + "k" * 2000, "/a\0b", "/\ue000\uffff"])
    async def test_of_any_key(self, store: Store, key: str) -> None:
        written = await store.put(key, b"1")
        assert await store.get(key) == written
        assert (await store.range(key)).items == [written]

    @pytest.mark.parametrize("value", [b"", b"\0\xff" * 10, b"x" * 1_400_000], ids=["empty", "binary", "big"])
    async def test_of_any_value(self, store: Store, value: bytes) -> None:
        await store.put("/a", value)
        found = await store.get("/a")
        assert found is not None
        assert found.value == value

    async def test_that_is_abandoned_harms_nobody(self, store: Store) -> None:
        puts = [asyncio.ensure_future(store.put(f"/{n}", b"")) for n in range(10)]
        await asyncio.sleep(0)
        for put in puts[::2]:
            put.cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert all(isinstance(outcome, KeyValue) for outcome in outcomes[1::2])
        assert await store.put("/after", b"")


class TestDelete:
    async def test_gives_what_the_key_held(self, store: Store) -> None:
        written = await store.put("/a", b"1")
        deleted = await store.delete("/a")
        revision = written.mod_revision + 1
        assert deleted == KeyValue("/a", b"1", revision, written.create_revision)
        assert await store.get("/a") is None
        assert await store.revision() == revision

    async def test_of_nothing(self, store: Store) -> None:
        before = await store.revision()
        assert await store.delete("/a") is None
        with pytest.raises(Mismatch) as mismatch:
            await store.delete("/a", expected=5)
        assert mismatch.value.current is None
        assert await store.revision() == before

    async def test_with_the_expected_revision(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        with pytest.raises(Mismatch) as mismatch:
            await store.delete("/a", expected=first.mod_revision)
        assert mismatch.value.current == second
        assert await store.delete("/a", expected=second.mod_revision)

    async def test_lets_the_key_begin_anew(self, store: Store) -> None:
        await store.put("/a", b"1")
        await store.delete("/a")
        written = await store.put("/a", b"2", expected=ABSENT)
        assert written.create_revision == written.mod_revision

    async def test_happens_once_however_many_ask(self, store: Store) -> None:
        written = await store.put("/a", b"1")
        outcomes = await asyncio.gather(*(store.delete("/a") for _ in range(10)))
        assert [outcome for outcome in outcomes if outcome] == [
            KeyValue("/a", b"1", written.mod_revision + 1, written.create_revision)
        ]


class TestRange:
    async def test_is_in_the_order_of_bytes(self, store: Store) -> None:
        keys = ["/p/", "/p/A", "/p/a", "/p/a-b", "/p/a/b", "/p/é", "/p/\ue000", "/p/\U0001f511"]
        for key in reversed(keys):
            await store.put(key, b"")
        assert [kv.key for kv in (await store.range("/p/")).items] == keys
        assert keys == sorted(keys, key=str.encode)

    async def test_has_its_prefix_only(self, store: Store) -> None:
        for key in ("/a", "/a/1", "/ab", "/a/2/x", "/a0", "/b", "/\U0010ffff", "/\U0010ffff1", "0"):
            await store.put(key, b"")

        async def keys(prefix: str) -> list[str]:
            return [kv.key for kv in (await store.range(prefix)).items]

        assert await keys("/a/") == ["/a/1", "/a/2/x"]
        assert await keys("/a") == ["/a", "/a/1", "/a/2/x", "/a0", "/ab"]
        assert await keys("/\U0010ffff") == ["/\U0010ffff", "/\U0010ffff1"]
        assert await keys("/none/") == []
        assert len(await keys("/")) == 8

    async def test_of_nothing_has_a_revision(self, store: Store) -> None:
        written = await store.put("/other", b"")
        page = await store.range("/p/")
        assert (page.items, page.revision, page.remaining) == ([], written.mod_revision, 0)

    @pytest.mark.parametrize("limit", [1, 7, 299, 300, 301])
    async def test_in_pages(self, store: Store, limit: int) -> None:
        await fill(store, "/before/", 3)
        written = await fill(store, "/p/", 300)
        await fill(store, "/p0", 3)
        first = await store.range("/p/", limit=limit)
        items, page = list(first.items), first
        for _ in range(3 if limit == 1 else 300):
            assert page.remaining == 300 - len(items)
            if not page.remaining:
                break
            await store.put("/p/9", b"later")
            page = await store.range("/p/", start=page.items[-1].key + "\0", limit=limit, revision=first.revision)
            assert len(page.items) <= limit
            assert page.revision == first.revision
            items += page.items
        assert items == written[: len(items)]

    async def test_from_a_start(self, store: Store) -> None:
        written = await fill(store, "/p/", 5)
        assert (await store.range("/p/", start="/p/0002")).items == written[2:]
        assert (await store.range("/p/", start="/p/00021")).items == written[3:]
        assert (await store.range("/p/", start="/a")).items == written
        assert (await store.range("/p/", start="/q")).items == []

    async def test_in_the_past(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        other = await store.put("/b", b"1")
        second = await store.put("/a", b"2")
        deletion = await store.delete("/b")
        again = await store.put("/b", b"3")
        assert deletion is not None

        async def at(revision: int) -> list[KeyValue]:
            page = await store.range("/", revision=revision)
            assert page.revision == revision
            return list(page.items)

        assert await at(first.mod_revision) == [first]
        assert await at(other.mod_revision) == [first, other]
        assert await at(second.mod_revision) == [second, other]
        assert await at(deletion.mod_revision) == [second]
        assert await at(again.mod_revision) == [second, again]

    async def test_in_the_future(self, store: Store) -> None:
        current = await store.revision()
        with pytest.raises(FutureRevision) as error:
            await store.range("/", revision=current + 10)
        assert (error.value.revision, error.value.current) == (current + 10, current)


class TestCompaction:
    async def test_forgets_the_past(self, store: Store) -> None:
        first = await store.put("/a", b"1")
        second = await store.put("/a", b"2")
        third = await store.put("/a", b"3")
        await store.compact(second.mod_revision)
        with pytest.raises(Compacted) as error:
            await store.range("/", revision=first.mod_revision)
        assert error.value.revision == first.mod_revision
        assert error.value.oldest == second.mod_revision
        assert (await store.range("/", revision=second.mod_revision)).items == [second]
        assert (await store.range("/", revision=third.mod_revision)).items == [third]
        with pytest.raises(Compacted):
            async with watching(store, "/", first.mod_revision) as progress:
                await anext(progress)
        async with watching(store, "/", second.mod_revision) as progress:
            assert await events(progress, 1) == [Event(third.mod_revision, "/a", third, second)]

    async def test_keeps_what_is_current(self, store: Store) -> None:
        kept = await fill(store, "/kept/", 20)
        for _ in range(3):
            await fill(store, "/changed/", 20)
        for key in await fill(store, "/deleted/", 20):
            await store.delete(key.key)
        changed = (await store.range("/changed/")).items
        await store.compact(await store.revision())
        await store.put("/new", b"")
        assert (await store.range("/kept/")).items == kept
        assert (await store.range("/changed/")).items == changed
        assert (await store.range("/deleted/")).items == []
        assert await store.get("/deleted/0001") is None

    async def test_can_be_repeated_and_come_late(self, store: Store) -> None:
        await fill(store, "/a/", 10)
        revision = await store.revision()
        await store.compact(revision)
        await store.compact(revision)
        await store.compact(revision - 3)
        with pytest.raises(Compacted) as error:
            await store.range("/", revision=revision - 2)
        assert error.value.oldest == revision

    async def test_of_the_future(self, store: Store) -> None:
        with pytest.raises(FutureRevision):
            await store.compact(await store.revision() + 5)

    async def test_between_two_pages(self, store: Store) -> None:
        await fill(store, "/p/", 30)
        page = await store.range("/p/", limit=10)
        await store.put("/x", b"")
        await store.compact(await store.revision())
        with pytest.raises(Compacted):
            await store.range("/p/", start=page.items[-1].key + "\0", limit=10, revision=page.revision)


class TestWatch:
    async def test_tells_creation_change_and_deletion(self, store: Store) -> None:
        after = await store.revision()
        async with watching(store, "/", after) as progress:
            first = await store.put("/a", b"1")
            second = await store.put("/a", b"2")
            deleted = await store.delete("/a")
            assert deleted is not None
            assert await events(progress, 3) == [
                Event(first.mod_revision, "/a", first, None),
                Event(second.mod_revision, "/a", second, first),
                Event(deleted.mod_revision, "/a", None, second),
            ]

    async def test_from_the_past_goes_on_into_the_present(self, store: Store) -> None:
        written = await fill(store, "/p/", 400)
        async with watching(store, "/p/", written[9].mod_revision) as progress:
            past = await events(progress, 390)
            assert [event.current for event in past] == written[10:]
            more = await fill(store, "/p/x", 5)
            assert [event.current for event in await events(progress, 5)] == more

    async def test_from_the_future_waits_for_it(self, store: Store) -> None:
        after = await store.revision() + 3
        async with watching(store, "/", after) as progress:
            task = asyncio.ensure_future(events(progress, 2))
            await asyncio.sleep(0)
            written = await fill(store, "/a", 5)
            assert [event.current for event in await task] == written[3:]

    async def test_has_its_prefix_only(self, store: Store) -> None:
        after = await store.revision()
        for key in ("/a", "/a/1", "/ab", "/a/2", "/b"):
            await store.put(key, b"")
        async with watching(store, "/a/", after) as progress:
            assert [event.key for event in await events(progress, 2)] == ["/a/1", "/a/2"]
            await store.put("/ab", b"")
            await store.put("/a/3", b"")
            assert [event.key for event in await events(progress, 1)] == ["/a/3"]

    async def test_many_at_once_see_the_same(self, store: Store) -> None:
        after = await store.revision()
        async with contextlib.AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(watching(store, "/", after)) for _ in range(20)]
            tasks = [asyncio.ensure_future(events(watch, 30)) for watch in watches]
            await asyncio.sleep(0)
            written = await fill(store, "/a", 30)
            for task in tasks:
                assert [event.current for event in await task] == written

    async def test_progress_can_be_asked_for(self, store: Store) -> None:
        written = await store.put("/other", b"")
        async with watching(store, "/a/", written.mod_revision) as progress:
            later = await store.put("/other", b"2")
            waiting = asyncio.ensure_future(anext(progress))
            while not waiting.done():
                await store.request_progress()
                await asyncio.wait((waiting,), timeout=0.2)
            told = waiting.result()
            assert told.events == []
            assert told.revision in (written.mod_revision, later.mod_revision)
            while told.revision < later.mod_revision:
                waiting = asyncio.ensure_future(anext(progress))
                await store.request_progress()
                told = await asyncio.wait_for(waiting, 5)
            assert told.revision == later.mod_revision

    async def test_progress_can_be_asked_for_by_many_at_once(self, store: Store) -> None:
        async with watching(store, "/", await store.revision()) as progress:
            first = asyncio.ensure_future(events(progress, 1))
            await store.put("/a", b"")
            await first
            waiting = asyncio.ensure_future(anext(progress))
            await asyncio.gather(*(store.request_progress() for _ in range(100)))
            assert (await asyncio.wait_for(waiting, 5)).events == []
            written = await store.put("/b", b"")
            assert [event.current for event in await events(progress, 1)] == [written]

    async def test_progress_never_runs_ahead_of_events(self, store: Store) -> None:
        after = await store.revision()

        async def write() -> None:
            for batch in range(20):
                await fill(store, f"/{batch}/", 5)
                await store.request_progress()

        async with watching(store, "/", after) as progress:
            writing = asyncio.ensure_future(write())
            seen = after
            while seen < after + 100:
                told = await asyncio.wait_for(anext(progress), 10)
                assert [event.revision for event in told.events] == list(range(seen + 1, seen + 1 + len(told.events)))
                seen += len(told.events)
                assert told.revision >= seen
                if told.revision > seen:
                    raise AssertionError("told of progress before its events")
            await writing

    async def test_a_slow_reader_misses_nothing(self, store: Store) -> None:
        after = await store.revision()
        async with watching(store, "/", after) as progress:
            first = await store.put("/a", b"")
            assert await events(progress, 1) == [Event(first.mod_revision, "/a", first, None)]
            for _ in range(30):
                await fill(store, "/p/", 100)
            found = await events(progress, 3000)
            assert [event.revision for event in found] == list(range(after + 2, after + 3002))

    async def test_can_be_left_while_it_waits(self, store: Store) -> None:
        async with watching(store, "/", await store.revision()) as progress:
            waiting = asyncio.ensure_future(anext(progress))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await store.put("/a", b"")


class TestTtl:
    async def test_key_goes_by_itself(self, store: Store) -> None:
        written = await store.put("/a", b"1", ttl=1)
        kept = await store.put("/b", b"1")
        async with watching(store, "/a", written.mod_revision) as progress:
            (event,) = await events(progress, 1)
        assert event == Event(event.revision, "/a", None, written)
        assert event.revision > kept.mod_revision
        assert await store.get("/a") is None
        assert await store.get("/b") == kept

    async def test_a_later_write_decides(self, store: Store) -> None:
        await store.put("/a", b"1", ttl=1)
        kept = await store.put("/a", b"2")
        await store.put("/b", b"1", ttl=1)
        async with watching(store, "/b", kept.mod_revision + 1) as progress:
            await events(progress, 1)
        assert await store.get("/a") == kept


class TestRestart:
    async def test_finds_everything_again(self, make_store: Callable[[], Store]) -> None:
        async with opened(make_store()) as store:
            written = await fill(store, "/a/", 10)
            changed = await store.put("/a/0003", b"changed")
            await store.delete("/a/0004")
            revision = await store.revision()
        async with opened(make_store()) as store:
            assert await store.revision() == revision
            expected = [*written[:3], changed, *written[5:]]
            assert (await store.range("/a/")).items == expected
            assert (await store.range("/a/", revision=written[-1].mod_revision)).items == written
            async with watching(store, "/a/", written[-1].mod_revision) as progress:
                assert [event.revision for event in await events(progress, 2)] == [revision - 1, revision]
            assert (await store.put("/b", b"")).mod_revision == revision + 1

    async def test_never_uses_a_revision_again(self, make_store: Callable[[], Store]) -> None:
        async with opened(make_store()) as store:
            for kv in await fill(store, "/a/", 200):
                await store.delete(kv.key)
            revision = await store.revision()
            await store.compact(revision)
        for _ in range(3):
            async with opened(make_store()) as store:
                assert await store.revision() == revision
                await store.compact(revision)
        async with opened(make_store()) as store:
            assert (await store.put("/a", b"")).mod_revision == revision + 1

    async def test_after_close_nothing_works(self, make_store: Callable[[], Store]) -> None:
        store = make_store()
        with pytest.raises(StoreError):
            await store.put("/a", b"")
        await store.open()
        waiting = asyncio.ensure_future(anext(store.watch("/", after=await store.revision())))
        await asyncio.sleep(0.01)
        await store.close()
        with pytest.raises(StoreError):
            await waiting
        with pytest.raises(StoreError):
            await store.put("/a", b"")
