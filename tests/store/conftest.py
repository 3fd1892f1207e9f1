"""One suite, two engines: `store` is an open store of each, on an empty backend of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from storehelpers import opened

from shipwheel.api.clock import SystemClock
from shipwheel.store.base import Store
from shipwheel.store.sqlite import SqliteStore


@pytest.fixture
def sqlite_path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture(params=["sqlite"])
def make_store(request: pytest.FixtureRequest, sqlite_path: str) -> Callable[[], Store]:
    """A maker of stores that all use the same backend, one after the other."""
    return lambda: SqliteStore(sqlite_path, clock=SystemClock())


@pytest.fixture
async def store(make_store: Callable[[], Store]) -> AsyncIterator[Store]:
    async with opened(make_store()) as store:
        yield store
