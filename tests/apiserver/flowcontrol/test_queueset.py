"""The queues of a priority level: who begins, who waits, who is sent away, and that nobody starves."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipwheel.apiserver.flowcontrol.queueset import (
    NARROW,
    SERVICE_SECONDS,
    Claim,
    QueueSet,
    Queuing,
    Verdict,
    Width,
)

A, B = (0, 1), (2, 3)


def made(limit: int, *, queues: int = 8, length: int = 50) -> QueueSet:
    queueset = QueueSet()
    queueset.configure(Queuing(queues, 2, length), limit, 0.0)
    return queueset


@dataclass
class Simulation:
    """Requests of flows, each of which takes its time; `order` is that in which they began."""

    queueset: QueueSet
    now: float = 0.0
    ends: list[tuple[float, int, Claim, bool]] = field(default_factory=list)
    flows: dict[Claim, str] = field(default_factory=dict)
    lasting: dict[Claim, float] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    serial: int = 0

    def arrive(self, flow: str, hand: tuple[int, ...], lasts: float = 1.0, width: Width = NARROW) -> Verdict:
        claim = Claim(width, hand)
        self.flows[claim], self.lasting[claim] = flow, lasts
        verdict = self.queueset.arrive(claim, self.now)
        if verdict is Verdict.EXECUTE:
            self._begun(claim)
        elif verdict is Verdict.WAIT:
            self._dispatch()
        self.check()
        return verdict

    def _dispatch(self) -> None:
        for claim in self.queueset.dispatch(self.now):
            self._begun(claim)

    def _begun(self, claim: Claim) -> None:
        self.order.append(self.flows[claim])
        self._at(self.lasting[claim], claim, False)

    def _at(self, after: float, claim: Claim, lingered: bool) -> None:
        self.serial += 1
        heapq.heappush(self.ends, (self.now + after, self.serial, claim, lingered))

    def step(self) -> None:
        """Go on to the next end of something."""
        self.now, _, claim, lingered = heapq.heappop(self.ends)
        if lingered:
            self.queueset.release(claim, self.now)
        else:
            self.queueset.finish(claim, self.now)
            if claim.width.linger:
                self._at(claim.width.linger, claim, True)
        self._dispatch()
        self.check()

    def until(self, moment: float) -> None:
        while self.ends and self.ends[0][0] <= moment:
            self.step()
        self.now = moment

    def finish(self) -> None:
        while self.ends:
            self.step()

    def check(self) -> None:
        """What always holds."""
        queueset = self.queueset
        waiting = [claim for queue in queueset.queues.values() for claim in queue.waiting]
        executing = [claim for queue in queueset.queues.values() for claim in queue.executing] + [*queueset.unqueued]
        lingering = [claim for _, _, claim, lingered in self.ends if lingered]
        assert queueset.waiting == len(waiting)
        assert queueset.executing == len(executing)
        assert queueset.seats_waiting == sum(claim.width.seats for claim in waiting)
        assert queueset.seats_in_use == sum(claim.width.seats for claim in (*executing, *lingering))
        assert queueset.active == sum(bool(queue.waiting or queue.executing) for queue in queueset.queues.values())
        too_wide = any(claim.width.seats > queueset.limit for claim in executing)
        alone = len(executing) + len(lingering) == 1
        assert queueset.exempt or queueset.seats_in_use <= queueset.limit or (too_wide and alone)
        if waiting and queueset.limit:
            assert queueset.seats_in_use, "seats are free, but somebody waits"


def test_seats_are_taken_and_given_back() -> None:
    world = Simulation(made(2))
    assert [world.arrive("a", A) for _ in range(3)] == [Verdict.EXECUTE, Verdict.EXECUTE, Verdict.WAIT]
    world.finish()
    assert world.now == 2.0
    assert world.queueset.idle
    assert world.queueset.dispatched == 3


def test_a_full_queue() -> None:
    world = Simulation(made(1, length=2))
    verdicts = [world.arrive("a", (0,)) for _ in range(5)]
    assert verdicts == [Verdict.EXECUTE, Verdict.WAIT, Verdict.WAIT, Verdict.QUEUE_FULL, Verdict.QUEUE_FULL]
    assert world.queueset.rejected == 2
    # Another flow's queues are not full.
    assert world.arrive("b", B) is Verdict.WAIT


def test_without_queues_nobody_waits() -> None:
    queueset = QueueSet()
    queueset.configure(None, 2, 0.0)
    world = Simulation(queueset)
    assert [world.arrive("a", ()) for _ in range(3)] == [Verdict.EXECUTE, Verdict.EXECUTE, Verdict.TOO_BUSY]
    world.finish()
    assert world.arrive("a", ()) is Verdict.EXECUTE


def test_exempt() -> None:
    queueset = QueueSet(exempt=True)
    queueset.configure(None, 0, 0.0)
    world = Simulation(queueset)
    assert {world.arrive("a", (), width=Width(7)) for _ in range(100)} == {Verdict.EXECUTE}
    assert queueset.seats_in_use == 700
    world.finish()
    assert queueset.seats_in_use == 0


def test_a_small_flow_goes_ahead_of_a_crowd() -> None:
    world = Simulation(made(1))
    for _ in range(20):
        world.arrive("crowd", (0,))
    world.until(2.5)
    world.arrive("small", (2,))
    world.until(4.5)
    assert world.order[3] == "small"


def test_two_crowds_take_turns() -> None:
    world = Simulation(made(1))
    for _ in range(10):
        world.arrive("a", (0,))
    for _ in range(10):
        world.arrive("b", (2,))
    world.until(16.5)
    counts = Counter(world.order[:16])
    assert abs(counts["a"] - counts["b"]) <= 2


def test_who_takes_longer_gets_fewer_turns() -> None:
    world = Simulation(made(1))
    for _ in range(50):
        world.arrive("slow", (0,), lasts=3.0)
        world.arrive("fast", (2,), lasts=1.0)
    world.until(60.0)
    counts = Counter(world.order)
    assert 2 < counts["fast"] / counts["slow"] < 4


def test_the_emptiest_queue_of_a_hand_is_chosen() -> None:
    world = Simulation(made(1))
    world.arrive("x", (5,))
    for _ in range(6):
        world.arrive("a", (0,))
    world.arrive("b", (0, 1))
    world.arrive("b", (0, 1))
    assert {index: len(queue.waiting) for index, queue in world.queueset.queues.items()} == {5: 0, 0: 6, 1: 2}


def test_a_wide_request_waits_for_enough_seats() -> None:
    world = Simulation(made(4))
    for _ in range(3):
        world.arrive("a", A)
    assert world.arrive("wide", B, width=Width(3)) is Verdict.WAIT
    assert world.queueset.blocked is not None
    world.finish()
    assert world.order[-1] == "wide"


def test_what_is_too_wide_is_carried_out_alone() -> None:
    world = Simulation(made(2))
    assert world.arrive("wide", A, width=Width(10)) is Verdict.EXECUTE
    assert world.arrive("b", B) is Verdict.WAIT
    world.finish()
    assert world.order == ["wide", "b"]


def test_seats_of_a_write_linger() -> None:
    world = Simulation(made(2))
    world.arrive("writer", A, lasts=1.0, width=Width(1, 2, 5.0))
    world.arrive("b", B)
    world.until(1.5)
    assert world.order == ["writer"]
    assert world.queueset.executing == 0
    world.until(6.5)
    assert world.order == ["writer", "b"]


def test_more_final_seats_than_there_are_linger_longer() -> None:
    assert Width(1, 10, 1.0).within(4) == Width(1, 4, 2.5)
    assert NARROW.within(4) is NARROW
    assert NARROW.work == SERVICE_SECONDS


def test_who_gives_up_leaves_nothing_behind() -> None:
    world = Simulation(made(1))
    world.arrive("a", A)
    claim = Claim(NARROW, B)
    assert world.queueset.arrive(claim, 0.0) is Verdict.WAIT
    assert world.queueset.withdraw(claim, 1.0)
    assert not world.queueset.withdraw(claim, 1.0)
    world.check()
    assert (world.queueset.cancelled, world.queueset.rejected) == (1, 1)
    world.finish()
    assert world.queueset.idle


def test_queues_change_while_somebody_waits() -> None:
    world = Simulation(made(1))
    for hand in (A, B, (6, 7)):
        world.arrive("x", hand)
    world.queueset.configure(Queuing(2, 1, 5), 1, world.now)
    world.arrive("x", (0,))
    world.finish()
    assert world.queueset.dispatched == 4
    world.queueset.configure(Queuing(2, 1, 5), 1, world.now)
    assert not world.queueset.queues


def test_a_new_limit_lets_others_in() -> None:
    world = Simulation(made(1))
    for _ in range(4):
        world.arrive("a", A)
    world.queueset.configure(world.queueset.queuing, 3, 0.0)
    world._dispatch()
    assert world.queueset.executing == 3
    world.finish()


def test_how_full_it_was() -> None:
    world = Simulation(made(1))
    world.arrive("a", A, lasts=2.0)
    world.until(1.0)
    world.arrive("b", B, lasts=2.0, width=Width(3))
    world.until(10.0)
    assert world.queueset.take_occupancy(12.0) == {(1, 0, 1, 0): 1.0, (1, 3, 1, 1): 1.0, (3, 0, 1, 0): 2.0}
    assert world.queueset.take_occupancy(13.0) == {}


arrivals = st.lists(
    st.tuples(
        st.integers(0, 3),  # flow
        st.floats(0.0, 0.5),  # after the one before
        st.floats(0.001, 2.0),  # how long it takes
        st.sampled_from([NARROW, NARROW, Width(2), Width(5), Width(1, 3, 0.5)]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(1, 6))
def test_everybody_is_served_in_the_end(events: list[tuple[int, float, float, Width]], limit: int) -> None:
    world = Simulation(made(limit))
    hands = [(0, 1), (2, 3), (1, 2), (5, 7)]
    for flow, after, lasts, width in events:
        world.until(world.now + after)
        assert world.arrive(str(flow), hands[flow], lasts, width) in (Verdict.EXECUTE, Verdict.WAIT)
    world.finish()
    assert Counter(world.order) == Counter(str(flow) for flow, *_ in events)
    assert world.queueset.idle
    assert world.queueset.seats_in_use == world.queueset.seats_waiting == world.queueset.active == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 30), st.floats(0.01, 1.0))
def test_no_flow_starves(limit: int, crowd: int, lasts: float) -> None:
    """A request of a quiet flow is overtaken by little more than a round of a crowd that never ends."""
    world = Simulation(made(limit))
    for _ in range(crowd):
        world.arrive("crowd", (0,), lasts)
    world.until(2 * lasts)
    for _ in range(3):
        for _ in range(limit + 1):
            world.arrive("crowd", (0,), lasts)
        before = len(world.order)
        world.arrive("quiet", (4,), lasts / 2)
        while "quiet" not in world.order[before:]:
            world.step()
            world.arrive("crowd", (0,), lasts)
        assert world.order[before:].index("quiet") <= 2 * limit + 1
        world.until(world.now + lasts)


@pytest.mark.parametrize("limit", [1, 4])
def test_an_idle_queue_saves_nothing_up(limit: int) -> None:
    queueset = made(limit, length=1000)
    world = Simulation(queueset)
    for _ in range(40 * limit):
        world.arrive("a", (0,))
    world.until(20.5)
    before = len(world.order)
    for _ in range(20 * limit):
        world.arrive("b", (2,))
    world.until(30.5)
    counts = Counter(world.order[before:])
    assert abs(counts["b"] - counts["a"]) <= 2 * limit
