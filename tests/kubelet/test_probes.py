"""Probes: the state machine exhaustively, the workers on a manual clock, the questions against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet.handlers import (
    HandlerFault,
    grpc_probe,
    http_probe,
    http_request,
    resolve_port,
    tcp_probe,
)
from shipwheel.kubelet.hooks import HookFault, Hooks
from shipwheel.kubelet.measures import ProbeMetrics
from shipwheel.kubelet.probes import Kind, Prober, ProbeState, after, initial
from shipwheel.kubelet.runtime.base import ExecResult, RuntimeFault
from tests.kubelet.builders import container, observe, pod, seen

OUTCOMES = st.lists(st.sampled_from(["Success", "Failure"]), max_size=12)


@given(
    kind=st.sampled_from(["startup", "readiness", "liveness"]),
    outcomes=OUTCOMES,
    good=st.integers(1, 3),
    bad=st.integers(1, 4),
)
def test_a_result_holds_until_enough_say_otherwise(kind: Kind, outcomes: list[str], good: int, bad: int) -> None:
    probe = {"successThreshold": good, "failureThreshold": bad}
    state = initial(kind)
    history: list[str] = []
    for outcome in outcomes:
        if state.done:
            break
        before = state.result
        state = after(kind, state, outcome, probe)  # type: ignore[arg-type]
        history.append(outcome)
        needed = good if outcome == "Success" else bad
        if len(history) >= needed and set(history[-needed:]) == {outcome}:
            assert state.result == outcome
        else:
            assert state.result == before
    if state.done:
        assert kind == "startup" or (kind == "liveness" and state.result == "Failure")


def test_defaults_of_a_probe() -> None:
    state = initial("readiness")
    assert after("readiness", state, "Success", {}).result == "Success"
    failing = ProbeState("Success", "Success", 1)
    for _ in range(2):
        failing = after("readiness", failing, "Failure", {})
    assert failing.result == "Success"
    assert after("readiness", failing, "Failure", {}).result == "Failure"


class ExecRuntime:
    """Commands succeed while `healthy` is true."""

    def __init__(self) -> None:
        self.healthy = True
        self.calls: list[tuple[str, Sequence[str]]] = []
        self.fault: RuntimeFault | None = None

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        self.calls.append((container_id, tuple(command)))
        if self.fault:
            raise self.fault
        return ExecResult(b"out", b"", 0 if self.healthy else 1)


PROBES = ProbeMetrics(Metrics(process=False))


class Bench:
    def __init__(self, own: Obj) -> None:
        self.clock = ManualClock()
        self.runtime = ExecRuntime()
        self.events: list[tuple[str, str]] = []
        self.changes = 0
        self.prober = Prober(self.runtime, self.clock, self._record, self._changed, PROBES)  # type: ignore[arg-type]
        self.pod = pod(own)

    def _record(self, owner: Obj, own: Obj | None, kind: str, reason: str, message: str) -> None:
        self.events.append((reason, message))

    def _changed(self, uid: str) -> None:
        self.changes += 1

    def follow(self, *states: object) -> None:
        self.prober.follow(self.pod, observe(*states), "10.0.0.5")  # type: ignore[arg-type]


@asynccontextmanager
async def bench(own: Obj) -> AsyncIterator[Bench]:
    made = Bench(own)
    task = asyncio.ensure_future(made.prober.run())
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def started_now(made: Bench, name: str = "a", count: int = 0) -> object:
    from dataclasses import replace

    now = int(made.clock.now().timestamp() * 1e9)
    return replace(seen(made.pod, name, count=count), started_at=now)


EXEC = {
    "exec": {"command": ["check", "$(A)"]},
    "periodSeconds": 5,
    "failureThreshold": 2,
    "timeoutSeconds": 1,
}


async def test_readiness_follows_the_probe() -> None:
    async with bench(
        container("a", readinessProbe={**EXEC, "initialDelaySeconds": 3}, env=[{"name": "A", "value": "x"}])
    ) as made:
        made.follow(started_now(made))
        assert made.prober.results.readiness == {"a-0": "Failure"}
        await made.clock.advance(2)
        assert made.runtime.calls == []
        await made.clock.advance(1)
        assert made.runtime.calls == [("a-0", ("check", "x"))]
        assert made.prober.results.readiness == {"a-0": "Success"}
        made.runtime.healthy = False
        await made.clock.advance(5)
        assert made.prober.results.readiness == {"a-0": "Success"}
        await made.clock.advance(5)
        assert made.prober.results.readiness == {"a-0": "Failure"}
        assert made.changes == 2
        assert made.events[-1] == ("Unhealthy", "Readiness probe failed: out")


async def test_liveness_waits_for_startup_and_stops_at_a_failure() -> None:
    async with bench(container("a", livenessProbe=EXEC, startupProbe={**EXEC, "periodSeconds": 1})) as made:
        made.runtime.healthy = False
        made.follow(started_now(made))
        await made.clock.advance(1)
        assert made.prober.results.startup == {"a-0": "Failure"}
        calls = len(made.runtime.calls)
        await made.clock.advance(60)
        assert len(made.runtime.calls) == calls

        made.runtime.healthy = True
        made.follow(started_now(made, count=1))
        await made.clock.advance(0)
        assert made.prober.results.startup == {"a-1": "Success"}
        assert made.prober.results.liveness == {"a-1": "Success"}
        made.runtime.healthy = False
        await made.clock.advance(11)
        assert made.prober.results.liveness == {"a-1": "Failure"}


async def test_a_probe_that_cannot_be_asked_says_nothing() -> None:
    async with bench(container("a", livenessProbe=EXEC)) as made:
        made.runtime.fault = RuntimeFault("UNAVAILABLE", "runtime is away")
        made.follow(started_now(made))
        await made.clock.advance(60)
        assert made.prober.results.liveness == {"a-0": "Success"}
        assert made.events[0] == (
            "Unhealthy",
            "Liveness probe errored and resulted in unknown state: "
            "rpc error: code = Unavailable desc = runtime is away",
        )


async def test_a_command_that_hangs_fails() -> None:
    async with bench(container("a", livenessProbe={**EXEC, "failureThreshold": 1})) as made:
        made.runtime.fault = RuntimeFault("DEADLINE_EXCEEDED", "x")
        made.follow(started_now(made))
        await made.clock.advance(0)
        assert made.events == [
            ("Unhealthy", 'Liveness probe failed: command timed out: "check $(A)" timed out after 1s')
        ]
        assert made.prober.results.liveness == {"a-0": "Failure"}


async def test_an_ending_pod_is_not_restarted_by_its_probes() -> None:
    async with bench(container("a", livenessProbe=EXEC, readinessProbe=EXEC)) as made:
        made.follow(started_now(made))
        await made.clock.advance(0)
        made.prober.quiet("uid-1")
        made.runtime.healthy = False
        await made.clock.advance(60)
        assert made.prober.results.liveness == {"a-0": "Success"}
        assert made.prober.results.readiness == {"a-0": "Failure"}
        made.prober.forget("uid-1")
        assert made.prober.results.readiness == {}


async def test_an_adopted_container_keeps_what_it_was() -> None:
    async with bench(container("a", readinessProbe=EXEC, startupProbe=EXEC)) as made:
        state = observe(seen(made.pod, "a", at=10))
        made.prober.follow(made.pod, state, "10.0.0.5", ["a-0"])
        assert made.prober.results.startup == {"a-0": "Success"}
        assert made.prober.results.readiness == {}
        await made.clock.advance(10)
        assert made.prober.results.readiness == {"a-0": "Success"}


# Questions


@asynccontextmanager
async def server(answer: bytes, *, hang: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if not hang:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            await reader.read()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], asked
    finally:
        listener.close()


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("answer", "outcome", "text"),
    [
        (reply("200 OK", b"fine"), "success", "fine"),
        (
            reply("302 Found", b"", "Location: http://elsewhere.example/"),
            "warning",
            "Probe terminated redirects, Response body: ",
        ),
        (reply("304 Not Modified"), "warning", "Probe terminated redirects, Response body: "),
        (reply("404 Not Found"), "failure", "HTTP probe failed with statuscode: 404"),
        (reply("503 Busy", b"x"), "failure", "HTTP probe failed with statuscode: 503"),
        (b"HTTP/1.1 200 OK\nContent-Type: text/plain\n\nsloppy", "success", "sloppy"),
    ],
)
async def test_http_answers(answer: bytes, outcome: str, text: str) -> None:
    async with server(answer) as (port, _):
        assert await http_probe(f"http://127.0.0.1:{port}/", [], 2) == (outcome, text)


async def test_http_failures() -> None:
    async with server(b"", hang=True) as (port, _):
        outcome, text = await http_probe(f"http://127.0.0.1:{port}/x", [], 0.05)
    assert outcome == "failure"
    assert text == (
        f'Get "http://127.0.0.1:{port}/x": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    )
    outcome, text = await http_probe(f"http://127.0.0.1:{port}/x", [], 1)
    assert (outcome, text) == (
        "failure",
        f'Get "http://127.0.0.1:{port}/x": dial tcp 127.0.0.1:{port}: connect: connection refused',
    )
    async with server(b"garbage\r\n\r\n") as (port, _):
        outcome, text = await http_probe(f"http://127.0.0.1:{port}/", [], 1)
    assert outcome == "failure"
    async with server(b"") as (port, _):
        assert await http_probe(f"http://127.0.0.1:{port}/", [], 1) == (
            "failure",
            f'Get "http://127.0.0.1:{port}/": EOF',
        )


def test_http_requests() -> None:
    own = container(ports=[{"name": "web", "containerPort": 8080}])
    url, headers = http_request({"port": "web", "path": "x?y=1"}, own, "10.0.0.5")
    assert url == "http://10.0.0.5:8080/x?y=1"
    assert dict(headers) == {"User-Agent": "kube-probe/1.36", "Accept": "*/*"}
    action = {
        "port": 443,
        "scheme": "HTTPS",
        "host": "h",
        "httpHeaders": [{"name": "Accept", "value": ""}, {"name": "Host", "value": "v"}],
    }
    url, headers = http_request(action, own, "")
    assert url == "https://h:443/"
    assert dict(headers) == {"Host": "v", "User-Agent": "kube-probe/1.36"}
    assert http_request({"port": 80}, own, "fd00::5")[0] == "http://[fd00::5]:80/"


@pytest.mark.parametrize("port", ["none", 0, 70000, ""])
def test_wrong_ports(port: int | str) -> None:
    with pytest.raises(HandlerFault):
        resolve_port(port, container())


async def test_own_host_headers_are_sent() -> None:
    async with server(reply("200 OK")) as (port, asked):
        await http_probe(f"http://127.0.0.1:{port}/", [("Host", "virtual.example")], 1)
    assert asked[0].count(b"Host:") == 1
    assert b"Host: virtual.example" in asked[0]


async def test_tcp() -> None:
    async with server(b"") as (port, _):
        assert await tcp_probe("127.0.0.1", port, 1) == ("success", "")
    assert await tcp_probe("127.0.0.1", port, 1) == (
        "failure",
        f"dial tcp 127.0.0.1:{port}: connect: connection refused",
    )


async def test_grpc() -> None:
    import grpc
    import grpc.aio

    answers = {b"": b"\x08\x01", b"\x0a\x03bad": b"\x08\x02"}

    async def check(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return answers[request]

    listener = grpc.aio.server()
    port = listener.add_insecure_port("127.0.0.1:0")
    handler = grpc.unary_unary_rpc_method_handler(check)
    listener.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    await listener.start()
    try:
        assert (await grpc_probe("127.0.0.1", port, "", 2))[0] == "success"
        outcome, text = await grpc_probe("127.0.0.1", port, "bad", 2)
        assert (outcome, text) == ("failure", 'service unhealthy (responded with "NOT_SERVING")')
    finally:
        await listener.stop(0)
    outcome, text = await grpc_probe("127.0.0.1", port, "", 0.2)
    assert outcome == "failure"
    assert text.startswith(f'timeout: failed to connect service "127.0.0.1:{port}" within 0.2s')


# Hooks


async def test_hooks() -> None:
    runtime, clock = ExecRuntime(), ManualClock()
    hooks = Hooks(runtime, clock)  # type: ignore[arg-type]
    owner = pod(container("a"))
    own = owner["spec"]["containers"][0]
    await hooks.run(owner, own, "id", {"exec": {"command": ["hi"]}}, "")
    assert runtime.calls == [("id", ("hi",))]
    runtime.healthy = False
    with pytest.raises(
        HookFault, match=r'Exec lifecycle hook \(\[hi\]\) for Container "a" in Pod "p_ns\(uid-1\)" failed'
    ):
        await hooks.run(owner, own, "id", {"exec": {"command": ["hi"]}}, "")
    async with server(reply("500 Oops")) as (port, asked):
        await hooks.run(owner, own, "id", {"httpGet": {"port": port, "path": "/x"}}, "127.0.0.1")
    assert b"kube-lifecycle/1.36" in asked[0]
    with pytest.raises(HookFault, match="connection refused"):
        await hooks.run(owner, own, "id", {"httpGet": {"port": port, "path": "/x"}}, "127.0.0.1")
    sleeping = asyncio.ensure_future(hooks.run(owner, own, "id", {"sleep": {"seconds": 5}}, ""))
    await clock.advance(4)
    assert not sleeping.done()
    await clock.advance(1)
    await sleeping
