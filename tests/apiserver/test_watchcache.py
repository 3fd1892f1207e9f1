"""What a cache remembers of the past is bounded in number and in bytes."""

from __future__ import annotations

import pytest

from shipwheel.apiserver import watchcache
from shipwheel.apiserver.watchcache import Filter, ResourceCache
from shipwheel.store.base import Event, KeyValue
from tests.apiserver.test_forms import THINGS


def written(cache: ResourceCache, revision: int, size: int) -> None:
    value = THINGS.type_meta + b'"metadata":{"name":"a"},"x":"' + b"x" * size + b'"}'
    key = f"{cache.prefix}ns/a"
    cache.apply(Event(revision, key, KeyValue(key, value, revision), None))


@pytest.mark.parametrize(("size", "remembered"), [(10, 5), (400, 2), (5000, 1)])
def test_the_past_that_is_remembered(monkeypatch: pytest.MonkeyPatch, size: int, remembered: int) -> None:
    monkeypatch.setattr(watchcache, "HISTORY_BYTES", 1000)
    cache = ResourceCache(THINGS, history=5)
    cache.load((), 1)
    for revision in range(2, 22):
        written(cache, revision, size)
    assert len(cache.recent) == remembered
    since = 21 - remembered
    known = cache.changes_since(since)
    assert known is not None and [change.revision for change in known] == list(range(since + 1, 22))
    assert cache.changes_since(since - 1) is None


def test_pages_say_what_is_left() -> None:
    cache = ResourceCache(THINGS)
    keys = [f"{cache.prefix}{key}" for key in ("a/1", "a/2", "a/3", "b/1", "b/2")]
    cache.load([KeyValue(key, THINGS.type_meta + b'"metadata":{"name":"x"}}', 1) for key in keys], 1)

    def page(wanted: Filter, start: str = "", limit: int = 0) -> tuple[list[str], int]:
        entries, left = cache.select(wanted, start=start, limit=limit)
        return [entry.key for entry in entries], left

    assert page(Filter(), limit=2) == (["a/1", "a/2"], 3)
    assert page(Filter(), "a/2\0", 2) == (["a/3", "b/1"], 1)
    assert page(Filter("a"), "a/2\0", 2) == (["a/3"], 0)
    assert page(Filter("b"), limit=2) == (["b/1", "b/2"], 0)
    assert page(Filter("c")) == ([], 0)
