"""Finished Jobs go when their time is over, and not before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.client.resources import JOBS
from shipwheel.controllers.ttl_after_finished import TtlAfterFinishedController, seconds_left
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago
from tests.controllers.world import World, without_faults


def job(ttl: int | None, *conditions: tuple[str, str, float], **meta: object) -> Obj:
    """`conditions`: (type, status, seconds ago)."""
    return {
        "metadata": {"name": "j", "namespace": "default", **meta},
        "spec": {} if ttl is None else {"ttlSecondsAfterFinished": ttl},
        "status": {
            "conditions": [
                {"type": kind, "status": status, "lastTransitionTime": ago(since)} for kind, status, since in conditions
            ]
        },
    }


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (job(None, ("Complete", "True", 50)), None),
        (job(100), None),
        (job(100, ("Complete", "False", 50)), None),
        (job(100, ("Suspended", "True", 50)), None),
        (job(100, ("SuccessCriteriaMet", "True", 50)), None),
        (job(100, ("Complete", "True", 50)), 50),
        (job(100, ("Failed", "True", 30)), 70),
        (job(0, ("Complete", "True", 0)), 0),
        (job(10, ("Complete", "True", 50)), -40),
        (job(10, ("Complete", "True", 50), deletionTimestamp=ago(1)), None),
    ],
)
def test_how_long_a_job_stays(made, expected):
    assert seconds_left(made, NOW) == expected


def add(world: World, ttl: int | None, name: str = "j") -> None:
    spec = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    world.api.create(JOBS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def finish(world: World, name: str = "j", kind: str = "Complete") -> None:
    done = {"type": kind, "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
    world.api.change(JOBS, name, "default", lambda obj: obj["status"].update(conditions=[done]))


def exists(world: World, name: str = "j") -> bool:
    found = world.api.get(JOBS, name, "default")
    return found is not None and not found["metadata"].get("deletionTimestamp")


def cluster(faults: Faults | None = None) -> World:
    return World((TtlAfterFinishedController,), faults or Faults())


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
async def test_it_goes_in_the_foreground_when_its_time_is_over(kind):
    world = cluster()
    async with world.running():
        add(world, 100)
        await world.pass_time(500, step=50)
        assert exists(world)
        finish(world, kind=kind)
        await world.pass_time(99)
        assert exists(world)
        await world.pass_time(2)
        assert world.api.get(JOBS, "j", "default")["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_without_a_time_it_stays():
    world = cluster()
    async with world.running():
        add(world, None)
        finish(world)
        await world.pass_time(1000, step=100)
        assert exists(world)
        world.api.change(JOBS, "j", "default", lambda obj: obj["spec"].update(ttlSecondsAfterFinished=10))
        await world.settle(1)
        assert not exists(world)


async def test_a_time_that_is_prolonged_counts():
    world = cluster()
    async with world.running():
        add(world, 10)
        finish(world)
        await world.pass_time(5)
        world.api.change(JOBS, "j", "default", lambda obj: obj["spec"].update(ttlSecondsAfterFinished=100))
        await world.pass_time(90, step=10)
        assert exists(world)
        await world.pass_time(10)
        assert not exists(world)


async def test_the_server_has_the_last_word():
    """The cache has not heard yet that the time was prolonged."""
    world = cluster()
    async with world.running():
        add(world, 10)
        finish(world)
        await world.pass_time(9.5, step=0.5)
        world.api.faults = Faults(lag=1.0, seed=1)
        world.api.change(JOBS, "j", "default", lambda obj: obj["spec"].update(ttlSecondsAfterFinished=60))
        await world.pass_time(1, step=0.1)
        assert exists(world)


async def test_a_year_passes_in_a_moment():
    world = cluster()
    async with world.running():
        year = timedelta(days=365).total_seconds()
        add(world, int(year))
        finish(world)
        await world.pass_time(year - 10, step=year / 50)
        assert exists(world)
        await world.pass_time(20)
        assert not exists(world)


@pytest.mark.parametrize("seed", range(5))
async def test_none_goes_early_and_all_go_whatever_fails(seed):
    faults = Faults(fail_before=0.2, fail_after=0.1, conflict=0.2, break_watch=0.1, expire=0.3, lag=0.3, seed=seed)
    world = cluster(faults)
    async with world.running():
        for number in range(6):
            add(world, 20 * number, f"j{number}")
            finish(world, f"j{number}")
        for second in range(60):
            assert all(exists(world, f"j{number}") for number in range(6) if 20 * number > second)
            await world.settle(1)
        without_faults(world)
        await world.until(lambda: not any(exists(world, f"j{number}") for number in range(6)), within=3000, step=20)
