"""The kubelet's API as the API server and kubectl use it, on a simulated runtime."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.clock import SystemClock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.httpclient import Pool, Response
from shipwheel.client.httpserver import HttpServer
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS
from shipwheel.client.streams import portforward
from shipwheel.client.streams.channel import Channel, read_all
from shipwheel.client.streams.remotecommand import V4, V5, Endpoint, StreamOptions, open_spdy, open_websocket
from shipwheel.client.streams.spdy_session import SpdySession
from shipwheel.client.streams.websocket import TUNNEL_PREFIX, TunnelWire, WebSocket, client_headers
from shipwheel.client.streams.wire import connect
from shipwheel.kubelet.measures import ServerMetrics
from shipwheel.kubelet.observed import CONTAINER_NAME, POD_UID
from shipwheel.kubelet.runtime.base import ContainerConfig, SandboxConfig
from shipwheel.kubelet.runtime.simulated import SimulatedRuntime
from shipwheel.kubelet.server.auth import AuthConfig, Gate, subresources
from shipwheel.kubelet.server.node import ServedNode
from shipwheel.kubelet.server.sampling import Sampler
from shipwheel.kubelet.server.server import KubeletServer


class Reviews:
    """An API server that knows two tokens: `admin` may do everything, `reader` what `allowed` says."""

    def __init__(self) -> None:
        self.allowed: set[tuple[str, str]] = set()
        self.asked: list[Obj] = []
        self.broken = False

    async def create(self, resource: Any, obj: Obj) -> Obj:
        if self.broken:
            raise ApiError(500, "InternalError", "broken")
        self.asked.append(obj)
        if resource == TOKEN_REVIEWS:
            name = obj["spec"]["token"]
            known = name in ("admin", "reader")
            return {"status": {"authenticated": known, "user": {"username": name, "groups": ["g"]}}}
        assert resource == SUBJECT_ACCESS_REVIEWS
        spec = obj["spec"]
        wanted = spec["resourceAttributes"]
        assert (wanted["resource"], wanted["name"]) == ("nodes", "node-1")
        allowed = spec["user"] == "admin" or (wanted["verb"], wanted["subresource"]) in self.allowed
        return {"status": {"allowed": allowed}}


class Kubelet:
    """A node with one pod, `ns/web`, whose container `main` runs and `gone` has ended."""

    def __init__(self, port: int, reviews: Reviews, pods: list[Obj], serving: KubeletServer, metrics: Metrics) -> None:
        self._serving = serving
        self.metrics = metrics
        self.port = port
        self.reviews = reviews
        self.pods = pods
        self.pool = Pool("127.0.0.1", port, tls=None)
        self.problem = ""

    def off(self, setting: str) -> None:
        self._serving._node = dataclasses.replace(self._serving._node, **{setting: False})  # type: ignore[arg-type]

    async def ask(self, path: str, *, method: str = "GET", token: str = "admin") -> Response:
        headers = [("Authorization", f"Bearer {token}")] if token else []
        return await self.pool.request(method, path, headers, b"", timeout=10)

    async def text(self, path: str, **options: str) -> tuple[int, str]:
        answer = await self.ask(path, **options)
        return answer.status, answer.body.decode()

    def endpoint(self, path: str) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, path, headers=[("Authorization", "Bearer admin")])


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    clock = SystemClock()
    runtime = SimulatedRuntime(clock)
    image = await runtime.pull_image("busybox", None, None)
    config = SandboxConfig(name="web", namespace="ns", uid="u1", hostname="web", log_directory=str(tmp_path / "pods"))
    sandbox = await runtime.run_sandbox(config)
    ids = {}
    for name, script in (
        ("main", "echo hello; echo world; sleep 1000"),
        ("gone", "echo bye; exit 1"),
    ):
        ids[name] = await runtime.create_container(
            sandbox,
            ContainerConfig(
                name=name,
                image=image,
                command=["sh", "-c", script],
                log_path=f"{name}.log",
                labels={POD_UID: "u1", CONTAINER_NAME: name},
            ),
            config,
        )
        await runtime.start_container(ids[name])
    statuses = [
        {"name": "main", "containerID": f"simulated://{ids['main']}", "state": {"running": {}}},
        {
            "name": "gone",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"containerID": f"simulated://{ids['gone']}"}},
        },
    ]
    pod: Obj = {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u1"},
        "spec": {"containers": [{"name": "main"}, {"name": "gone"}, {"name": "new"}]},
        "status": {"containerStatuses": statuses},
    }
    reviews = Reviews()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "syslog").write_text("the node's own\n")

    class Pods:
        def all(self) -> list[Obj]:
            return [pod]

        def find(self, namespace: str, name: str) -> Obj | None:
            return pod if (namespace, name) == ("ns", "web") else None

    found: list[Kubelet] = []
    metrics = Metrics(process=False)
    node = ServedNode(
        name="node-1",
        pods=Pods(),
        runtime=runtime,
        clock=clock,
        healthz=lambda: found[0].problem,
        configz=lambda: {"kubeletconfig": {"kind": "KubeletConfiguration"}},
        metrics=(lambda: b"metric 1\n",),
        measures=ServerMetrics(metrics),
        sampler=Sampler(runtime, clock, pods=lambda: [pod], root=tmp_path),
        cpus=4,
        log_directory=str(tmp_path / "log"),
        root_directory=str(tmp_path / "root"),
    )
    gate = Gate(reviews, clock, "node-1", AuthConfig())  # type: ignore[arg-type]
    serving = KubeletServer(node, gate)
    server = HttpServer(serving.handle)
    kubelet = Kubelet(await server.listen("127.0.0.1", 0), reviews, [pod], serving, metrics)
    found.append(kubelet)
    yield kubelet
    await kubelet.pool.close()
    await server.close()
    await runtime.close()


# --- Who may ask


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/pods", ["pods", "proxy"]),
        ("/pods/", ["pods", "proxy"]),
        ("/podsnot", ["proxy"]),
        ("/runningpods/", ["pods", "proxy"]),
        ("/healthz", ["healthz", "proxy"]),
        ("/configz", ["configz", "proxy"]),
        ("/metrics", ["metrics"]),
        ("/metrics/cadvisor", ["metrics"]),
        ("/stats/summary", ["stats"]),
        ("/logs/syslog", ["log"]),
        ("/checkpoint/ns/p/c", ["checkpoint"]),
        ("/exec/ns/p/c", ["proxy"]),
        ("/containerLogs/ns/p/c", ["proxy"]),
    ],
)
def test_what_a_path_needs(path: str, wanted: list[str]) -> None:
    assert subresources(path) == wanted


async def test_nobody_and_strangers_are_refused(kubelet: Kubelet) -> None:
    assert await kubelet.text("/pods", token="") == (401, "Unauthorized")
    assert await kubelet.text("/pods", token="stranger") == (401, "Unauthorized")


async def test_rights_are_asked_for_once(kubelet: Kubelet) -> None:
    assert await kubelet.text("/exec/ns/web/main", token="reader", method="POST") == (
        403,
        "Forbidden (user=reader, verb=create, resource=nodes, subresource(s)=[proxy])",
    )
    kubelet.reviews.allowed.add(("get", "proxy"))
    kubelet.reviews.asked.clear()
    for _ in range(3):
        assert (await kubelet.ask("/configz", token="reader")).status == 200
    asked = [review["spec"]["resourceAttributes"]["subresource"] for review in kubelet.reviews.asked]
    assert asked == ["configz", "proxy"]


async def test_nobody_gets_in_while_the_api_server_is_broken(kubelet: Kubelet) -> None:
    kubelet.reviews.broken = True
    assert (await kubelet.ask("/pods")).status == 401


# --- What is answered


async def test_requests_are_counted_by_what_is_served(kubelet: Kubelet) -> None:
    for path in ("/pods", "/metrics/probes", "/metrics/made-up", "/made/up", "/exec/ns/web/none"):
        await kubelet.ask(path)
    told = kubelet.metrics.exposition().decode()
    for path, times, lasts in (("pods", 1, "false"), ("metrics/probes", 1, "false"), ("other", 2, "false"),
                               ("exec", 1, "true")):  # fmt: skip
        labels = f'long_running="{lasts}",method="GET",path="{path}",server_type="readwrite"'
        assert f"kubelet_http_requests_total{{{labels}}} {times}.0" in told
        assert f"kubelet_http_inflight_requests{{{labels}}} 0.0" in told
        assert f"kubelet_http_requests_duration_seconds_count{{{labels}}} {times}.0" in told


async def test_pods_and_configuration(kubelet: Kubelet) -> None:
    pods = json.loads((await kubelet.ask("/pods")).body)
    assert (pods["kind"], pods["items"]) == ("PodList", kubelet.pods)
    running = json.loads((await kubelet.ask("/runningpods/")).body)
    [pod] = running["items"]
    assert (pod["metadata"]["name"], [each["name"] for each in pod["spec"]["containers"]]) == (
        "web",
        ["main"],
    )
    assert json.loads((await kubelet.ask("/configz")).body)["kubeletconfig"]["kind"] == "KubeletConfiguration"
    assert await kubelet.text("/metrics") == (200, "metric 1\n")


async def test_health(kubelet: Kubelet) -> None:
    assert await kubelet.text("/healthz") == (200, "ok")
    kubelet.problem = "PLEG is not healthy"
    assert (await kubelet.ask("/healthz")).status == 500


async def test_what_is_not_there(kubelet: Kubelet) -> None:
    assert (await kubelet.ask("/nothing")).status == 404
    assert (await kubelet.ask("/pods", method="POST")).status == 405
    assert await kubelet.text("/containerLogs/ns/no/main") == (404, 'pod "no" does not exist')
    assert await kubelet.text("/containerLogs/ns/web/no") == (404, 'container "no" not found in pod "web"')
    assert await kubelet.text("/exec/ns/no/main?output=1", method="POST") == (404, "pod does not exist")
    assert await kubelet.text("/exec/ns/web/new?output=1", method="POST") == (
        500,
        'container not found ("new")',
    )
    assert await kubelet.text("/exec/ns/web/main", method="POST") == (
        400,
        "you must specify at least 1 of stdin, stdout, stderr",
    )


async def test_what_is_turned_off(kubelet: Kubelet) -> None:
    kubelet.off("system_logs")
    assert await kubelet.text("/logs/") == (405, "logs endpoint is disabled.\n")
    assert (await kubelet.ask("/runningpods/")).status == 200
    kubelet.off("debugging")
    for path in ("/runningpods/", "/logs/", "/containerLogs/ns/web/main", "/exec/ns/web/main"):
        assert await kubelet.text(path) == (405, "Debug endpoints are disabled.\n")
    assert (await kubelet.ask("/pods")).status == 200


async def test_logs(kubelet: Kubelet) -> None:
    assert await kubelet.text("/containerLogs/ns/web/main") == (200, "hello\nworld\n")
    assert await kubelet.text("/containerLogs/ns/web/main?tailLines=1") == (200, "world\n")
    assert await kubelet.text("/containerLogs/ns/web/gone") == (200, "bye\n")
    assert await kubelet.text("/containerLogs/ns/web/gone?previous=true") == (200, "bye\n")
    assert await kubelet.text("/containerLogs/ns/web/main?previous=true") == (
        400,
        'previous terminated container "main" in pod "web" not found',
    )
    assert (await kubelet.ask("/containerLogs/ns/web/main?tailLines=-1")).status == 422
    assert (await kubelet.ask("/containerLogs/ns/web/main?tailLines=x")).status == 400
    assert await kubelet.text("/containerLogs/ns/web/new") == (
        400,
        'container "new" in pod "web" is not available',
    )


async def test_logs_that_are_followed_end_with_the_container(kubelet: Kubelet) -> None:
    stream = await kubelet.pool.stream(
        "GET", "/containerLogs/ns/web/main?follow=true", [("Authorization", "Bearer admin")], b"", timeout=60
    )
    async with asyncio.timeout(60):
        pieces = stream.__aiter__()
        assert await anext(pieces) == b"hello\nworld\n"
        assert await kubelet.text("/run/ns/web/main?cmd=kill%201", method="POST") == (200, "")
        assert [piece async for piece in pieces] == []


async def test_the_nodes_own_logs(kubelet: Kubelet, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    (tmp_path / "log" / "out").symlink_to(tmp_path / "secret")
    assert await kubelet.text("/logs/syslog") == (200, "the node's own\n")
    assert "syslog" in (await kubelet.text("/logs/"))[1]
    assert (await kubelet.ask("/logs/../secret")).status == 404
    assert (await kubelet.ask("/logs/out")).status == 404


async def test_run(kubelet: Kubelet) -> None:
    assert await kubelet.text("/run/ns/web/main?cmd=echo%20hi", method="POST") == (200, "hi\n")
    assert (await kubelet.ask("/run/ns/web/u2/main?cmd=true", method="POST")).status == 404


async def test_checkpoints_are_the_runtimes_to_make(kubelet: Kubelet) -> None:
    status, text = await kubelet.text("/checkpoint/ns/web/main", method="POST")
    assert (status, text.startswith("checkpointing of ns/web/main failed (rpc error: code = Unimplemented")) == (
        500,
        True,
    )
    assert await kubelet.text("/checkpoint/ns/web/no", method="POST") == (404, "container no does not exist")
    assert (await kubelet.ask("/checkpoint/ns/web/main?timeout=x", method="POST")).status == 404


async def test_usage(kubelet: Kubelet) -> None:
    found = json.loads((await kubelet.ask("/stats/summary")).body)
    assert found["node"]["nodeName"] == "node-1"
    [pod] = found["pods"]
    assert pod["podRef"] == {"name": "web", "namespace": "ns", "uid": "u1"}
    assert [(each["name"], each["memory"]["workingSetBytes"]) for each in pod["containers"]] == [("main", 8 << 20)]
    brief = json.loads((await kubelet.ask("/stats/summary?only_cpu_and_memory=true")).body)
    assert "fs" in found["node"] and "fs" not in brief["node"]
    _, resource = await kubelet.text("/metrics/resource")
    assert 'container_memory_working_set_bytes{container="main",namespace="ns",pod="web"} 8388608 ' in resource
    assert resource.endswith("resource_scrape_error 0\n")
    _, cadvisor = await kubelet.text("/metrics/cadvisor")
    assert "\nmachine_cpu_cores 4 " in cadvisor
    assert (await kubelet.ask("/metrics/probes")).status == 200
    assert (await kubelet.ask("/metrics/nothing")).status == 404
    assert (await kubelet.ask("/stats/nothing")).status == 404


# --- Streams


async def first(channel: Channel) -> bytes:
    while not (data := await channel.read()):
        pass
    return data


@pytest.mark.parametrize("way", ["spdy", V5, V4])
async def test_exec(kubelet: Kubelet, way: str) -> None:
    endpoint = kubelet.endpoint("/exec/ns/web/main?command=sh&command=-c&command=echo+hi%3B+exit+2&output=1")
    options = StreamOptions(stdout=True)
    opening = open_spdy(endpoint, options) if way == "spdy" else open_websocket(endpoint, options, protocols=[way])
    async with asyncio.timeout(60), opening as session:
        assert session.stdout
        out, status = await asyncio.gather(first(session.stdout), first(session.error))
    assert out == b"hi\n"
    assert json.loads(status)["details"]["causes"] == [{"reason": "ExitCode", "message": "2"}]


@pytest.mark.parametrize("way", ["spdy", "tunneled"])
async def test_port_forward(kubelet: Kubelet, way: str) -> None:
    target = "/portForward/ns/web"
    authorized = ("Authorization", "Bearer admin")
    if way == "spdy":
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", portforward.PROTOCOL),
        ]
        wire: Any = (await connect("127.0.0.1", kubelet.port, target, [*headers, authorized], method="POST")).wire
    else:
        headers = client_headers([TUNNEL_PREFIX + portforward.PROTOCOL])
        upgraded = await connect("127.0.0.1", kubelet.port, target, [*headers, authorized])
        wire = TunnelWire(WebSocket(upgraded.wire, server=False))
    session = SpdySession(wire, server=False)
    reader = asyncio.create_task(session.run())
    async with asyncio.timeout(60):
        names = [("port", "80"), ("requestid", "0")]
        await session.open([("streamtype", "error"), *names])
        [data] = await session.open([("streamtype", "data"), *names])
        await data.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await read_all(data, 1000)).endswith(b"Hello from web\n")
    await session.close()
    await reader
