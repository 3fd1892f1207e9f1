"""Work queues: a key is queued once, worked on by one, and comes back after its time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shipwheel.api.clock import ManualClock
from shipwheel.client.metrics import Metrics, QueueMetrics
from shipwheel.client.workqueue import RateLimiter, ShutDown, WorkQueue


def queue(clock: ManualClock | None = None) -> WorkQueue[str]:
    return WorkQueue("test", clock or ManualClock())


async def take(queue: WorkQueue[str]) -> list[str]:
    """All that is queued, done at once."""
    keys = []
    while len(queue):
        keys.append(await queue.get())
        queue.done(keys[-1])
    return keys


class TestQueueing:
    async def test_first_come_first_served_and_once(self) -> None:
        q = queue()
        for key in "abcab":
            q.add(key)
        assert await take(q) == ["a", "b", "c"]
        assert q.idle

    async def test_what_is_added_while_worked_on_comes_again_afterwards(self) -> None:
        q = queue()
        q.add("a")
        assert await q.get() == "a"
        q.add("a")
        q.add("a")
        assert len(q) == 0 and not q.idle
        q.done("a")
        assert await take(q) == ["a"]

    async def test_getters_wait_their_turn(self) -> None:
        q = queue()
        getters = [asyncio.create_task(q.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in "abc":
            q.add(key)
        assert await asyncio.gather(*getters) == ["a", "b", "c"]

    async def test_a_getter_that_gives_up_takes_nothing_with_it(self) -> None:
        q = queue()
        gives_up, stays = asyncio.create_task(q.get()), asyncio.create_task(q.get())
        await asyncio.sleep(0)
        q.add("a")
        gives_up.cancel()
        assert await stays == "a"

    async def test_shutting_down_gives_out_the_rest(self) -> None:
        q = queue()
        q.add("a")
        q.shut_down()
        q.add("b")
        q.add_after("c", 1)
        assert await q.get() == "a"
        with pytest.raises(ShutDown):
            await q.get()

    async def test_shutting_down_wakes_who_waits(self) -> None:
        q = queue()
        getter = asyncio.create_task(q.get())
        await asyncio.sleep(0)
        q.shut_down()
        with pytest.raises(ShutDown):
            await getter


class TestDelays:
    async def test_the_soonest_counts(self) -> None:
        clock = ManualClock()
        q = queue(clock)
        running = asyncio.create_task(q.run_delayed())
        q.add_after("a", 10)
        q.add_after("a", 3)
        q.add_after("a", 20)
        q.add_after("b", 5)
        q.add_after("now", 0)
        assert await take(q) == ["now"]
        await clock.advance(2.9)
        assert await take(q) == []
        await clock.advance(0.2)
        assert await take(q) == ["a"]
        await clock.advance(2)
        assert await take(q) == ["b"]
        await clock.advance(60)
        assert await take(q) == []
        running.cancel()

    async def test_a_new_delay_may_come_before_the_one_waited_for(self) -> None:
        clock = ManualClock()
        q = queue(clock)
        running = asyncio.create_task(q.run_delayed())
        q.add_after("late", 100)
        await clock.advance(1)
        q.add_after("soon", 1)
        await clock.advance(1)
        assert await take(q) == ["soon"]
        running.cancel()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50)), max_size=20))
    def test_each_key_comes_at_its_soonest(self, delays: list[tuple[str, int]]) -> None:
        async def scenario() -> None:
            clock = ManualClock()
            q = queue(clock)
            for key, seconds in delays:
                q.add_after(key, seconds)
            came: dict[str, float] = {}
            for _ in range(60):
                q.move_due()
                for key in await take(q):
                    # A key due at once is queued at once, and its later delays stand.
                    came.setdefault(key, clock.monotonic())
                await clock.advance(1, turns=1)
            soonest = {key: min(seconds for each, seconds in delays if each == key) for key, _ in delays}
            assert came == soonest

        asyncio.run(scenario())


class TestBackOff:
    def test_doubles_up_to_the_longest(self) -> None:
        limiter: RateLimiter[str] = RateLimiter(ManualClock(), burst=10_000)
        waits = [limiter.when("a") for _ in range(30)]
        assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
        assert waits[-1] == 1000
        assert limiter.when("b") == 0.005
        assert limiter.failures("a") == 30
        limiter.forget("a")
        assert (limiter.failures("a"), limiter.when("a")) == (0, 0.005)

    async def test_all_together_wait_for_the_bucket(self) -> None:
        clock = ManualClock()
        limiter: RateLimiter[int] = RateLimiter(clock)
        waits = [limiter.when(key) for key in range(120)]
        assert waits[:100] == [0.005] * 100
        assert waits[100:] == pytest.approx([(n + 1) / 10 for n in range(20)])
        await clock.advance(100)
        assert limiter.when(999) == 0.005

    async def test_a_key_comes_back_later_and_later_until_it_is_forgotten(self) -> None:
        clock = ManualClock()
        q = queue(clock)
        for wait in (0.005, 0.01, 0.02):
            q.add_rate_limited("a")
            await clock.advance(wait * 0.99)
            q.move_due()
            assert len(q) == 0
            await clock.advance(wait * 0.02)
            q.move_due()
            assert await take(q) == ["a"]
        assert q.failures("a") == 3
        q.forget("a")
        assert q.failures("a") == 0


async def test_metrics() -> None:
    metrics = Metrics()
    clock = ManualClock()
    q: WorkQueue[str] = WorkQueue("test", clock, metrics=QueueMetrics(metrics))
    q.add("a")
    q.add("a")
    await clock.advance(2)
    await q.get()
    await clock.advance(3)
    shown = metrics.exposition().decode()
    assert 'workqueue_adds_total{name="test"} 1.0' in shown
    assert 'workqueue_depth{name="test"} 0.0' in shown
    assert 'workqueue_queue_duration_seconds_sum{name="test"} 2.0' in shown
    assert 'workqueue_longest_running_processor_seconds{name="test"} 3.0' in shown
    q.done("a")
    q.add_rate_limited("a")
    shown = metrics.exposition().decode()
    assert 'workqueue_work_duration_seconds_sum{name="test"} 3.0' in shown
    assert 'workqueue_retries_total{name="test"} 1.0' in shown


class Model(RuleBasedStateMachine):
    """The queue against a model: what is dirty, and what is being worked on."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = queue()
        self.order: list[str] = []
        self.working: set[str] = set()
        self.again: set[str] = set()

    def teardown(self) -> None:
        self.loop.close()

    @rule(key=st.sampled_from("abcde"))
    def add(self, key: str) -> None:
        self.queue.add(key)
        if key in self.working:
            self.again.add(key)
        elif key not in self.order:
            self.order.append(key)

    @precondition(lambda self: self.order)
    @rule()
    def get(self) -> None:
        key = self.loop.run_until_complete(self.queue.get())
        assert key == self.order.pop(0)
        assert key not in self.working
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.remove(key)
        if key in self.again:
            self.again.remove(key)
            self.order.append(key)

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.order)
        assert self.queue.idle == (not self.order and not self.working)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
