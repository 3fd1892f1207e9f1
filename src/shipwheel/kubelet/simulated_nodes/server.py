"""What simulated nodes answer in a kubelet's stead: that they are well, and what their pods use.

All of them share an address, so the path says which is meant; a node's annotation tells the metrics server.
"""

from __future__ import annotations

from collections.abc import Iterator

from shipwheel.api.clock import Clock, parse_time
from shipwheel.client.httpserver import Answer, Request, Response
from shipwheel.kubelet.server.auth import Gate
from shipwheel.kubelet.server.exposition import CONTENT_TYPE, Family, Labels, render
from shipwheel.kubelet.simulated_nodes.nodes import Nodes
from shipwheel.kubelet.simulated_nodes.pods import Pod, Pods
from shipwheel.kubelet.simulated_nodes.stages import Stages

_TEXT = "text/plain; charset=utf-8"
_LIVE = ("containerLogs", "exec", "attach", "portForward", "run")


class SimulatedServer:
    """`handle` is an `httpserver.Handler`."""

    def __init__(self, nodes: Nodes, pods: Pods, stages: Stages, gate: Gate, clock: Clock) -> None:
        self._nodes = nodes
        self._pods = pods
        self._stages = stages
        self._gate = gate
        self._clock = clock

    async def handle(self, request: Request) -> Answer:
        refusal = await self._gate.refusal(request)
        if refusal is not None:
            return refusal
        match request.path.strip("/").split("/"):
            case ["healthz"]:
                return Response(200, b"ok", content_type=_TEXT)
            case ["metrics", "nodes", name, "metrics", "resource"]:
                return self._usage(name)
            case [call, *_] if call in _LIVE:
                text = f"{call}: no container runs: the pods of simulated nodes live by stages alone\n"
                return Response(501, text.encode(), content_type=_TEXT)
        return Response(404, b"404 page not found\n", content_type=_TEXT)

    def _usage(self, name: str) -> Response:
        if self._nodes.get(name) is None:
            return Response(404, f'no simulated node "{name}"\n'.encode(), content_type=_TEXT)
        now = self._clock.now().timestamp()
        found = list(self._containers(name, now))
        return Response(200, render(_families(found), int(now * 1e9)), content_type=CONTENT_TYPE)

    def _containers(self, name: str, now: float) -> Iterator[tuple[Pod, str, float, float, int]]:
        """(pod, container, when it started, core-seconds used, bytes)"""
        for pod in self._pods.on(name):
            if pod.life.state not in ("Running", "NotReady"):
                continue
            usage = self._stages.usage(pod.facts)
            started = parse_time(pod.life.started).timestamp()
            for container, _ in pod.shape.containers:
                yield pod, container, started, usage.cpu * max(now - started, 0.0), usage.memory


def _families(found: list[tuple[Pod, str, float, float, int]]) -> Iterator[Family]:
    cpu: dict[str, float] = {}
    memory: dict[str, int] = {}
    labels = {pod.uid: {"pod": pod.name, "namespace": pod.namespace} for pod, *_ in found}
    for pod, _, _, seconds, size in found:
        cpu[pod.uid] = cpu.get(pod.uid, 0.0) + seconds
        memory[pod.uid] = memory.get(pod.uid, 0) + size
    own = [({"container": name, **labels[pod.uid]}, start, used, size) for pod, name, start, used, size in found]
    cpu_points: dict[str, list[tuple[Labels, float]]] = {
        "container": [(where, used) for where, _, used, _ in own],
        "pod": [(labels[uid], used) for uid, used in cpu.items()],
        "node": [({}, sum(cpu.values()))],
    }
    memory_points: dict[str, list[tuple[Labels, float]]] = {
        "container": [(where, size) for where, _, _, size in own],
        "pod": [(labels[uid], size) for uid, size in memory.items()],
        "node": [({}, sum(memory.values()))],
    }
    for scope, points in cpu_points.items():
        help = f"[STABLE] CPU time the {scope} has used, in core-seconds"
        yield Family(f"{scope}_cpu_usage_seconds_total", help, "counter", tuple(points))
    for scope, sizes in memory_points.items():
        help = f"[STABLE] Memory of the {scope} that is not easily freed, in bytes"
        yield Family(f"{scope}_memory_working_set_bytes", help, "gauge", tuple(sizes))
    help = "[STABLE] When the container started, in seconds since 1970"
    yield Family("container_start_time_seconds", help, "gauge", tuple((where, start) for where, start, _, _ in own))
