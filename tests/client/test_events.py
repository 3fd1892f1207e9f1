"""Events: repeated ones are counted, similar ones combined, floods dropped, and nothing is written twice."""

from __future__ import annotations

import asyncio

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import connect
from shipwheel.client.events import EventCorrelator, EventKind, EventRecorder, involved_object, make_event
from tests.client.fakeserver import FakeServer, fake_server, until

POD: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
}


def event(
    clock: ManualClock, message: str = "m", *, reason: str = "R", about: Obj = POD, kind: EventKind = "Normal"
) -> Obj:
    return make_event(involved_object(about), kind, reason, message, component="c", host="h", now=clock.now())


class TestMaking:
    def test_what_is_in_one(self) -> None:
        clock = ManualClock()
        made = make_event(
            involved_object(POD, "spec.containers{c}"), "Warning", "Failed", "it failed", component="kubelet",
            host="n1",
            now=clock.now(), annotations={"a": "b"},
        )  # fmt: skip
        name = made["metadata"].pop("name")
        assert name.startswith("p.") and int(name.removeprefix("p."), 16)
        assert made == {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": "ns", "annotations": {"a": "b"}},
            "involvedObject": {
                "kind": "Pod", "namespace": "ns", "name": "p", "uid": "u", "apiVersion": "v1", "resourceVersion": "7",
                "fieldPath": "spec.containers{c}",
            },
            "reason": "Failed",
            "message": "it failed",
            "type": "Warning",
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "count": 1,
            "reportingComponent": "kubelet",
            "reportingInstance": "n1",
        }  # fmt: skip

    def test_about_what_has_no_namespace(self) -> None:
        node = {"kind": "Node", "metadata": {"name": "n"}}
        made = event(ManualClock(), about=node)
        assert made["metadata"]["namespace"] == "default"
        assert made["involvedObject"] == {"kind": "Node", "name": "n"}

    def test_about_a_reference(self) -> None:
        assert involved_object({"kind": "Node", "name": "n"}) == {"kind": "Node", "name": "n"}
        assert involved_object({"kind": "Node", "name": "n"}, "f") == {"kind": "Node", "name": "n", "fieldPath": "f"}


class TestCorrelation:
    async def test_the_same_again_is_counted(self) -> None:
        clock = ManualClock()
        correlator = EventCorrelator(clock)
        first = correlator.correlate(event(clock))
        await clock.advance(5)
        second = correlator.correlate(event(clock))
        assert first is not None and second is not None
        assert (first["count"], second["count"]) == (1, 2)
        assert second["metadata"]["name"] == first["metadata"]["name"]
        assert (second["firstTimestamp"], second["lastTimestamp"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z")

    @pytest.mark.parametrize(
        "other", [{"message": "other"}, {"reason": "O"}, {"kind": "Warning"}, {"about": {**POD, "kind": "Job"}}]
    )
    def test_what_differs_is_another(self, other: dict[str, object]) -> None:
        clock = ManualClock()
        correlator = EventCorrelator(clock)
        correlator.correlate(event(clock))
        found = correlator.correlate(event(clock, **other))  # type: ignore[arg-type]
        assert found is not None and found["count"] == 1

    def test_the_server_knows_the_count_better(self) -> None:
        clock = ManualClock()
        correlator = EventCorrelator(clock)
        written = correlator.correlate(event(clock))
        assert written is not None
        correlator.written({**written, "count": 41})
        again = correlator.correlate(event(clock))
        assert again is not None and again["count"] == 42

    async def test_ten_that_differ_in_their_message_become_one(self) -> None:
        clock = ManualClock()
        correlator = EventCorrelator(clock)
        found = [correlator.correlate(event(clock, f"m{n}")) for n in range(12)]
        messages = [each["message"] for each in found if each is not None]
        assert messages[:9] == [f"m{n}" for n in range(9)]
        assert messages[9:] == [f"(combined from similar events): m{n}" for n in (9, 10, 11)]
        counts = [each["count"] for each in found if each is not None]
        assert counts == [1] * 10 + [2, 3]
        await clock.advance(601)
        fresh = correlator.correlate(event(clock, "m99"))
        assert fresh is not None and fresh["message"] == "m99"

    async def test_a_flood_is_dropped_and_trickles_on(self) -> None:
        clock = ManualClock()
        correlator = EventCorrelator(clock)
        passed = [correlator.correlate(event(clock)) is not None for _ in range(100)]
        assert passed == [True] * 25 + [False] * 75
        assert correlator.correlate(event(clock, about={**POD, "metadata": {"name": "other"}})) is not None
        await clock.advance(299)
        assert correlator.correlate(event(clock)) is None
        await clock.advance(2)
        last = correlator.correlate(event(clock))
        assert last is not None and last["count"] == 102


def stored(server: FakeServer) -> list[Obj]:
    return [obj for path, obj in server.objects.items() if "/events/" in path]


class TestRecording:
    async def test_creates_then_patches(self) -> None:
        clock = ManualClock()
        async with fake_server() as server, server.client() as client:
            recorder = EventRecorder(client, clock, component="c")
            running = asyncio.create_task(recorder.run())
            for _ in range(3):
                recorder.event(POD, "Normal", "R", "m")
            recorder.for_component("other").event(POD, "Normal", "R", "m")
            await until(lambda: len(server.asked) == 4)
            assert [method for method, _, _ in server.asked] == ["POST", "PATCH", "PATCH", "POST"]
            await until(lambda: len(stored(server)) == 2)
            assert [(obj["source"], obj["count"]) for obj in stored(server)] == [
                ({"component": "c"}, 3), ({"component": "other"}, 1),
            ]  # fmt: skip
            running.cancel()

    async def test_what_was_deleted_is_made_again(self) -> None:
        clock = ManualClock()
        async with fake_server() as server, server.client() as client:
            recorder = EventRecorder(client, clock, component="c")
            recorder.event(POD, "Normal", "R", "m")
            await recorder.drain()
            server.objects.clear()
            recorder.event(POD, "Normal", "R", "m")
            await recorder.drain()
            assert [obj["count"] for obj in stored(server)] == [2]

    async def test_what_is_refused_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = ManualClock()
        async with fake_server() as server, server.client() as client:
            server.refuse = lambda request: ApiError(403, "Forbidden", "not you")
            recorder = EventRecorder(client, clock, component="c")
            recorder.event(POD, "Normal", "R", "m")
            await recorder.drain()
            assert len(server.asked) == 1
        assert "server rejected event: not you" in caplog.text

    async def test_an_unreachable_server_is_tried_again(self) -> None:
        clock = ManualClock()
        async with fake_server() as server:
            port, server.port = server.port, 1  # nobody listens there
            client = server.client()
            recorder = EventRecorder(client, clock, component="c")
            running = asyncio.create_task(recorder.run())
            recorder.event(POD, "Normal", "R", "m")
            for _ in range(5):
                await clock.advance(10)
                await asyncio.sleep(0.002)
            assert not running.done() and not server.asked
            server.port = port
            async with server.client() as reaching:
                client._given = client._transport = connect(reaching.config)
                async with asyncio.timeout(10):
                    while not stored(server):
                        await clock.advance(10)
                        await asyncio.sleep(0.002)
                await client.close()
            running.cancel()

    async def test_nobody_waits_for_a_full_queue_and_what_is_dropped_is_told_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with fake_server() as server, server.client() as client:
            recorder = EventRecorder(client, ManualClock(), component="c")
            for number in range(1010):
                recorder.for_component("other").event(POD, "Normal", "R", str(number))
            running = asyncio.create_task(recorder.run())
            async with asyncio.timeout(10):
                while not stored(server):
                    await asyncio.sleep(0.002)
            running.cancel()
        assert [each.getMessage() for each in caplog.records if "dropped" in each.getMessage()] == [
            "unable to record events: too many queued, dropped 10"
        ]

    async def test_events_wait_while_there_is_more_important_work(self) -> None:
        clock = ManualClock()
        work = [1]
        async with fake_server() as server, server.client() as client:
            recorder = EventRecorder(client, clock, component="c", queued=4)
            recorder.defer_to(lambda: bool(work))
            running = asyncio.create_task(recorder.run())
            recorder.event(POD, "Normal", "R", "first")
            await clock.advance(60)
            assert not server.asked
            for number in range(3):  # too many wait
                recorder.event(POD, "Normal", f"R{number}", "m")
            await clock.advance(60)
            await until(lambda: len(stored(server)) == 2)
            work.clear()
            await clock.advance(60)
            await until(lambda: len(stored(server)) == 4)
            running.cancel()
