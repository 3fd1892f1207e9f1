"""The queue: order, back-off, hints; and that nobody is ever stranded, whatever happens."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from shipwheel.api.clock import ManualClock
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.queue import Queued, SchedulingQueue

NODE_ADDED = ClusterEvent("Node", Action.ADD, None, {"metadata": {"name": "n"}})
POD_GONE = ClusterEvent("AssignedPod", Action.DELETE, {"metadata": {"name": "p"}})
INTERESTS = {
    "default-scheduler": {
        "Room": (Interest("AssignedPod", Action.DELETE), Interest("Node", Action.ADD)),
        "Labels": (Interest("Node", Action.ADD | Action.UPDATE_LABELS, lambda pod, event: "picky" not in pod["spec"]),),
    }
}


def pod(name: str, priority: int = 0, **spec) -> dict:
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"priority": priority, **spec}}


def queue(clock: ManualClock, **more) -> SchedulingQueue:
    return SchedulingQueue(clock, lambda pod, at: (-pod["spec"]["priority"], at), INTERESTS, **more)


def popped(queue: SchedulingQueue) -> Queued:
    found = queue.pop()
    assert found is not None
    return found


async def test_priority_goes_first_then_who_came_first() -> None:
    clock = ManualClock()
    pods = queue(clock)
    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        pods.add(pod(name, priority))
        await clock.advance(0.1)
    assert [popped(pods).pod["metadata"]["name"] for _ in range(4)] == ["b", "d", "a", "c"]
    assert pods.pop() is None


async def test_only_events_of_interest_wake_a_pod() -> None:
    pods = queue(ManualClock())
    pods.add(pod("a"))
    pods.give_back(popped(pods), {"Labels"})
    pods.happened(POD_GONE)
    assert pods.pop() is None and pods.size("unschedulable") == 1
    pods.happened(NODE_ADDED)
    assert popped(pods).attempts == 2


async def test_a_hint_that_says_no_is_believed_until_the_time_is_up() -> None:
    clock = ManualClock()
    pods = queue(clock)
    pods.add(pod("a", picky=True))
    pods.give_back(popped(pods), {"Labels"})
    pods.happened(NODE_ADDED)
    assert pods.pop() is None
    task = asyncio.create_task(pods.run())
    await clock.advance(299)
    assert pods.pop() is None
    await clock.advance(40)
    assert popped(pods).flushed
    task.cancel()


async def test_a_hint_that_fails_wakes_the_pod() -> None:
    def fail(pod: dict, event: ClusterEvent) -> bool:
        raise RuntimeError("no idea")

    interests = {"default-scheduler": {"Broken": (Interest("Node", Action.ADD, fail),)}}
    pods = SchedulingQueue(ManualClock(), lambda pod, at: (at,), interests)
    pods.add(pod("a"))
    pods.give_back(popped(pods), {"Broken"})
    pods.happened(NODE_ADDED)
    assert popped(pods).attempts == 2


async def test_an_event_during_the_attempt_is_not_missed() -> None:
    pods = queue(ManualClock())
    pods.add(pod("a"))
    trying = popped(pods)
    pods.happened(POD_GONE)
    pods.give_back(trying, {"Room"})
    assert popped(pods) is trying


async def test_errors_wait_ever_longer_to_the_end() -> None:
    clock = ManualClock()
    pods = queue(clock)
    pods.add(pod("a"))
    for seconds in (1, 2, 4, 8, 10, 10):
        pods.give_back(popped(pods), error=True)
        await clock.advance(seconds - 0.1)
        assert pods.pop() is None
        await clock.advance(0.2)
    assert popped(pods).attempts == 7


async def test_gated_pods_are_not_tried_until_the_gates_are_gone() -> None:
    pods = queue(ManualClock(), gate=lambda pod: "gated" if pod["spec"].get("schedulingGates") else "")
    pods.add(pod("a", schedulingGates=[{"name": "wait"}]))
    assert pods.pop() is None and pods.size("gated") == 1
    pods.update(pod("a"), None)
    assert popped(pods).key == "default/a"


async def test_a_pod_whose_binding_failed_comes_back_once() -> None:
    clock = ManualClock()
    pods = queue(clock)
    pods.add(pod("a"))
    trying = popped(pods)
    pods.done(trying)
    assert len(pods) == 0
    pods.give_back(trying, error=True)
    assert len(pods) == 1 and pods.pop() is None
    await clock.advance(1.1)
    assert popped(pods) is trying


async def test_a_pod_that_was_made_anew_is_not_confused_with_the_old_one() -> None:
    pods = queue(ManualClock())
    pods.add(pod("a"))
    old = popped(pods)
    pods.remove("default/a")
    pods.add(pod("a"))
    pods.give_back(old, {"Room"})
    assert popped(pods) is not old


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "pop", "refuse", "error", "done", "node", "gone", "time", "update"]),
        st.integers(0, 4),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_nobody_is_stranded(steps: list[tuple[str, int]]) -> None:
    """After any history, everybody who was not removed or placed gets a turn once something happens and time passes."""
    asyncio.run(_history(steps))


async def _history(steps: list[tuple[str, int]]) -> None:
    clock = ManualClock()
    pods = queue(clock)
    there: set[str] = set()
    trying: dict[str, Queued] = {}
    for step, number in steps:
        key = f"default/{number}"
        match step:
            case "add" if key not in there:
                pods.add(pod(str(number)))
                there.add(key)
            case "update" if key in there:
                event = ClusterEvent("UnschedulablePod", Action.UPDATE_LABELS)
                pods.update(pod(str(number), 1), event)
            case "remove":
                pods.remove(key)
                there.discard(key)
                trying.pop(key, None)
            case "pop":
                found = pods.pop()
                if found is not None:
                    assert found.key in there and found.key not in trying, "a pod has one turn at a time"
                    trying[found.key] = found
            case "refuse" if key in trying:
                pods.give_back(trying.pop(key), {"Room"})
            case "error" if key in trying:
                pods.give_back(trying.pop(key), error=True)
            case "done" if key in trying:
                pods.done(trying.pop(key))
                there.discard(key)
            case "node":
                pods.happened(NODE_ADDED)
            case "gone":
                pods.happened(POD_GONE)
            case "time":
                await clock.advance(number, turns=1)
    for each in trying.values():
        pods.give_back(each, {"Room"})
    pods.happened(NODE_ADDED)
    await clock.advance(11, turns=1)
    turns = set()
    while (found := pods.pop()) is not None:
        turns.add(found.key)
    assert turns == there
    assert sum(pods.size(place) for place in ("active", "backoff", "unschedulable", "gated", "in flight")) == len(there)
