from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import NAMESPACES, SERVICE_ACCOUNTS
from tests.apiserver.world import Asker, World, make_keys, running


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_keys(directory)
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running(keys, tmp_path_factory.mktemp("store") / "state.db") as running_world:
        yield running_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(world: World) -> AsyncIterator[Client]:
    async with world.client() as client:
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}}, "default")
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask(world: World, admin: Client) -> AsyncIterator[Asker]:
    """An administrator who is told no."""
    asker = Asker(world.config("admin", "system:masters"))
    yield asker
    await asker.close()


@pytest_asyncio.fixture(loop_scope="module")
async def namespace(admin: Client) -> str:
    """A namespace of the test's own, with the service account that pods need."""
    made: Obj = await admin.create(NAMESPACES, {"metadata": {"generateName": "test-"}})
    name = made["metadata"]["name"]
    await admin.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}}, name)
    return name
