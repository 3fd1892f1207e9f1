"""One suite, two engines: `store` is an open store of each, on an empty backend of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from storehelpers import EtcdServer, opened

from shipwheel.api.clock import SystemClock
from shipwheel.store.base import Store
from shipwheel.store.etcd import EtcdStore
from shipwheel.store.sqlite import SqliteStore


@pytest.fixture
def sqlite_path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """A real etcd, one for all tests."""
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed")
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def empty_etcd(etcd: EtcdServer) -> EtcdServer:
    """It, without keys; its revision is whatever it is."""
    etcd.ctl("del", "", "--from-key")
    return etcd


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def make_store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """A maker of stores that all use the same backend, one after the other."""
    if request.param == "sqlite":
        path = request.getfixturevalue("sqlite_path")
        return lambda: SqliteStore(path, clock=SystemClock())
    server = request.getfixturevalue("empty_etcd")
    return lambda: EtcdStore([server.url])


@pytest.fixture
async def store(make_store: Callable[[], Store]) -> AsyncIterator[Store]:
    async with opened(make_store()) as store:
        yield store
