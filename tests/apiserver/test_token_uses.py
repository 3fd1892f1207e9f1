"""When tokens of the old kind were last used."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from shipwheel.apiserver.token_uses import LAST_USED, label_to_write
from shipwheel.client.client import Client
from shipwheel.client.resources import SECRETS
from tests.apiserver.world import World

NOW = datetime(2026, 3, 4, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(None, "2026-03-04"), ("2026-03-03", "2026-03-04"), ("2026-03-04", ""), ("2026-03-05", ""), ("odd", "2026-03-04")],
)
def test_once_a_day(label, expected):
    secret = {"metadata": {"name": "s", "labels": {LAST_USED: label} if label else {}}}
    assert label_to_write(secret, NOW) == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_the_secret_is_labelled(admin: Client, world: World, namespace: str) -> None:
    secret = await admin.create(SECRETS, {"metadata": {"name": "t", "labels": {"a": "b"}}}, namespace)
    world.server.token_uses.note(secret)
    world.server.token_uses.note(secret)
    async with asyncio.timeout(10):
        while LAST_USED not in (labels := (await admin.get(SECRETS, "t", namespace))["metadata"]["labels"]):
            await asyncio.sleep(0.01)
    assert labels == {"a": "b", LAST_USED: world.server.clock.now().strftime("%Y-%m-%d")}
    assert world.server.token_uses._used.empty()
