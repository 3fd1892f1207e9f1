"""A request's time: what it may ask for, and what becomes of it when it is over."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.apiserver.timing import in_time
from shipwheel.client.httpserver import Answer, Response


async def never() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_answer_in_time() -> None:
    async def soon() -> Answer:
        await asyncio.sleep(0)
        return Response(200)

    assert isinstance(await in_time(30, soon()), Response)


async def test_no_answer_in_time_leaves_the_task_as_it_was() -> None:
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            await in_time(0.01, never())
        assert (caught.value.code, caught.value.reason) == (504, "Timeout")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_time_out_of_its_own_is_not_mistaken() -> None:
    async def impatient() -> Answer:
        async with asyncio.timeout(0.01):
            return await never()

    with pytest.raises(TimeoutError):
        await in_time(30, impatient())


async def test_who_is_cancelled_stays_cancelled() -> None:
    task = asyncio.create_task(in_time(30, never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
