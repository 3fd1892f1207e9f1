"""The kubelet's HTTPS server: who asks is checked first, then the path decides who answers.

Errors are plain text, as upstream's are: the API server passes them on as they come.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable
from datetime import timedelta
from html import escape
from pathlib import Path
from urllib.parse import quote

import orjson

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.meta import Obj
from shipwheel.client.httpserver import Answer, ClientGone, Request, Response, Stream, StreamWriter
from shipwheel.client.serving import health_answer
from shipwheel.client.streams.remotecommand import StreamOptions
from shipwheel.kubelet import podspec
from shipwheel.kubelet.measures import timing
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.server import streaming
from shipwheel.kubelet.server.auth import Gate
from shipwheel.kubelet.server.container_logs import (
    ContainerLog,
    LogError,
    LogOptions,
    container_to_read,
    copy_log,
)
from shipwheel.kubelet.server.exposition import (
    CONTENT_TYPE,
    cadvisor_metrics,
    resource_metrics,
    volume_metrics,
)
from shipwheel.kubelet.server.node import ServedNode, ready_sandbox, running_id
from shipwheel.kubelet.server.streaming import BadOptions, options_of
from shipwheel.kubelet.server.summary import summary

_TEXT = "text/plain; charset=utf-8"
_MAX_BUFFERED = 1 << 20
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
_METRIC_PATHS = frozenset(("metrics/cadvisor", "metrics/probes", "metrics/resource"))
_LONG_RUNNING = frozenset(("exec", "attach", "portforward", "debug"))
"""As upstream spells them, with which a port-forward is none."""
_DEBUGGING = frozenset(("run", "exec", "attach", "portForward", "containerLogs", "runningpods", "logs"))
"""What `enableDebuggingHandlers` turns off."""

Route = Callable[[Request, list[str]], Awaitable[Answer]]


class KubeletServer:
    """`handle` is an `httpserver.Handler`."""

    def __init__(self, node: ServedNode, gate: Gate) -> None:
        self._node = node
        self._gate = gate
        self._routes: dict[str, tuple[tuple[str, ...], Route]] = {
            "healthz": (("GET",), self._healthz),
            "pods": (("GET",), self._pods),
            "runningpods": (("GET",), self._running_pods),
            "containerLogs": (("GET",), self._container_logs),
            "exec": (("GET", "POST"), self._exec),
            "attach": (("GET", "POST"), self._attach),
            "portForward": (("GET", "POST"), self._port_forward),
            "run": (("POST",), self._run),
            "checkpoint": (("POST",), self._checkpoint),
            "configz": (("GET",), self._configz),
            "metrics": (("GET",), self._metrics),
            "stats": (("GET",), self._stats),
            "logs": (("GET",), self._logs),
        }

    async def handle(self, request: Request) -> Answer:
        """Counted and timed until there is an answer; the time that a stream then lasts is not in it."""
        measures, labels = self._node.measures, self._labels(request)
        in_flight = measures.in_flight.labels(*labels)
        measures.requests.labels(*labels).inc()
        in_flight.inc()
        try:
            with timing(measures.duration.labels(*labels), self._node.clock):
                return await self._answer(request)
        finally:
            in_flight.dec()

    def _labels(self, request: Request) -> tuple[str, str, str, str]:
        """As metrics tell apart what was asked for; what anybody may make up is not told."""
        method = request.method if request.method in _METHODS else "other"
        root, _, rest = request.path.lstrip("/").partition("/")
        path = f"metrics/{rest.partition('/')[0]}" if root == "metrics" and rest else root
        if root not in self._routes or (path != root and path not in _METRIC_PATHS):
            path = "other"
        return method, path, "readwrite", str(root in _LONG_RUNNING).lower()

    async def _answer(self, request: Request) -> Answer:
        refusal = await self._gate.refusal(request)
        if refusal is not None:
            return refusal
        root, _, rest = request.path.lstrip("/").partition("/")
        methods, route = self._routes.get(root, ((), None))
        if route is None:
            return _text(404, "404 page not found\n")
        if not self._node.debugging and root in _DEBUGGING:
            return _text(405, "Debug endpoints are disabled.\n")
        if not self._node.system_logs and root == "logs":
            return _text(405, "logs endpoint is disabled.\n")
        if request.method not in methods:
            return _text(405, "405: Method Not Allowed")
        # From here on in a task of its own: calls to the runtime have time limits (see `httpserver`).
        await asyncio.sleep(0)
        try:
            return await route(request, [part for part in rest.split("/") if part])
        except RuntimeFault as fault:
            return _text(500, str(fault))

    # Health and configuration

    async def _healthz(self, request: Request, path: list[str]) -> Answer:
        checks = {"syncloop": self._node.healthz}
        verbose = any(key == "verbose" for key, _ in request.query)
        return health_answer("healthz", checks, excluded=set(), verbose=verbose)

    async def _configz(self, request: Request, path: list[str]) -> Answer:
        return _json(dict(self._node.configz()))

    # Usage

    async def _metrics(self, request: Request, path: list[str]) -> Answer:
        node = self._node
        match path:
            case []:
                text = b"".join(part() for part in node.metrics) + volume_metrics(node.sampler.last)
            case ["resource"]:
                try:
                    text = resource_metrics(await node.sampler.sample())
                except RuntimeFault:
                    text = resource_metrics(None)
            case ["cadvisor"]:
                text = cadvisor_metrics(await node.sampler.sample(), cpus=node.cpus)
            case ["probes"]:
                text = node.probe_metrics()
            case _:
                return _text(404, "404 page not found\n")
        return Response(200, text, content_type=CONTENT_TYPE)

    async def _stats(self, request: Request, path: list[str]) -> Answer:
        if path != ["summary"]:
            return _text(404, "404: Page Not Found")
        sample = await self._node.sampler.sample()
        brief = _flag(request, "only_cpu_and_memory")
        return _json(summary(self._node.name, sample, only_cpu_and_memory=brief))

    # Pods

    async def _pods(self, request: Request, path: list[str]) -> Answer:
        return _json(_pod_list(list(self._node.pods.all())))

    async def _running_pods(self, request: Request, path: list[str]) -> Answer:
        """What the runtime runs, whether the kubelet wants it or not."""
        containers: dict[str, list[Obj]] = {}
        for each in await self._node.runtime.containers():
            if each.state == "RUNNING":
                containers.setdefault(each.sandbox_id, []).append({"name": each.name, "image": each.image})
        pods = [
            {
                "metadata": {"name": each.name, "namespace": each.namespace, "uid": each.uid},
                "spec": {"containers": containers.get(each.id, [])},
                "status": {},
            }
            for each in await self._node.runtime.sandboxes()
            if each.ready
        ]
        return _json(_pod_list(pods))

    # Logs of containers

    async def _container_logs(self, request: Request, path: list[str]) -> Answer:
        if len(path) != 3:
            return _text(404, "404: Page Not Found")
        namespace, pod_name, container = path
        try:
            options = self._log_options(request)
        except ValueError as error:
            return _text(400, f'{{"message": "Unable to decode query."}}: {error}')
        if not _valid(options):
            return _text(422, '{"message": "Invalid request."}')
        pod = self._node.pods.find(namespace, pod_name)
        if pod is None:
            return _text(404, f'pod "{pod_name}" does not exist')
        if podspec.find_container(pod, container) is None:
            return _text(404, f'container "{container}" not found in pod "{pod_name}"')
        try:
            container_id = container_to_read(pod, container, previous=options.previous).rpartition("/")[2]
            status = await self._node.runtime.container_status(container_id)
            log = ContainerLog(status.log_path)
        except LogError as error:
            return _text(400, str(error))
        except RuntimeFault as fault:
            return _text(400, f"unable to retrieve container logs for containerd://{container_id}: {fault}")

        async def running() -> bool:
            try:
                return (await self._node.runtime.container_status(container_id)).state == "RUNNING"
            except RuntimeFault as fault:
                return fault.code == "UNAVAILABLE"

        async def run(writer: StreamWriter) -> None:
            async def write(data: bytes) -> None:
                if writer.closed.is_set():
                    raise ClientGone("the client closed the connection")
                writer.write(data)
                if writer.buffered > _MAX_BUFFERED:
                    await writer.drain()

            await copy_log(log, options, write, running=running, clock=self._node.clock)

        return Stream(run, content_type=_TEXT)

    def _log_options(self, request: Request) -> LogOptions:
        """Read the query; ValueError when it is wrong."""
        since = None
        if text := request.parameter("sinceTime"):
            since = parse_time(text)
        elif text := request.parameter("sinceSeconds"):
            since = self._node.clock.now() - timedelta(seconds=int(text))
        tail = request.parameter("tail") or request.parameter("tailLines")
        limit = request.parameter("limitBytes")
        return LogOptions(
            follow=_flag(request, "follow"),
            previous=_flag(request, "previous"),
            timestamps=_flag(request, "timestamps"),
            since=since,
            tail_lines=int(tail) if tail and tail != "all" else None,
            limit_bytes=int(limit) if limit else None,
            stream=request.parameter("stream") or "All",
        )

    # Commands and ports

    async def _exec(self, request: Request, path: list[str]) -> Answer:
        command = [value for name, value in request.query if name == "command"]

        def url(container_id: str, options: StreamOptions) -> Awaitable[str]:
            return self._node.runtime.exec_url(
                container_id,
                command,
                stdin=options.stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                tty=options.tty,
            )

        return await self._stream(request, path, url, 'container not found ("{container}")')

    async def _attach(self, request: Request, path: list[str]) -> Answer:
        def url(container_id: str, options: StreamOptions) -> Awaitable[str]:
            return self._node.runtime.attach_url(
                container_id,
                stdin=options.stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                tty=options.tty,
            )

        return await self._stream(request, path, url, "container {container} not found in pod {pod}")

    async def _stream(
        self,
        request: Request,
        path: list[str],
        url: Callable[[str, StreamOptions], Awaitable[str]],
        not_found: str,
    ) -> Answer:
        """`/exec/NAMESPACE/POD[/UID]/CONTAINER`"""
        if len(path) not in (3, 4):
            return _text(404, "404: Page Not Found")
        try:
            options = options_of(request)
        except BadOptions as error:
            return _text(400, str(error))
        namespace, pod_name, container_name = path[0], path[1], path[-1]
        pod = self._pod(namespace, pod_name, path[2] if len(path) == 4 else "")
        if pod is None:
            return _text(404, "pod does not exist")
        container = await running_id(self._node.runtime, pod, container_name)
        if not container:
            return _text(500, not_found.format(container=container_name, pod=f"{pod_name}_{namespace}"))
        return await streaming.command(request, options, url(container, options))

    async def _port_forward(self, request: Request, path: list[str]) -> Answer:
        """`/portForward/NAMESPACE/POD[/UID]`"""
        if len(path) not in (2, 3):
            return _text(404, "404: Page Not Found")
        try:
            ports = [int(value) for name, value in request.query if name == "port"]
        except ValueError as error:
            return _text(400, f"unable to parse port: {error}")
        pod = self._pod(path[0], path[1], path[2] if len(path) == 3 else "")
        if pod is None:
            return _text(404, "pod does not exist")
        sandbox = await ready_sandbox(self._node.runtime, pod["metadata"]["uid"])
        if sandbox is None:
            return _text(500, f'pod not found ("{path[1]}_{path[0]}")')
        return await streaming.port_forward(request, self._node.runtime.port_forward_url(sandbox, ports))

    async def _run(self, request: Request, path: list[str]) -> Answer:
        """`POST /run/NAMESPACE/POD[/UID]/CONTAINER?cmd=...`: the output of a command, when it has ended."""
        if len(path) not in (3, 4):
            return _text(404, "404: Page Not Found")
        pod = self._pod(path[0], path[1], path[2] if len(path) == 4 else "")
        if pod is None:
            return _text(404, "pod does not exist")
        container = await running_id(self._node.runtime, pod, path[-1])
        if not container:
            return _text(500, f'container not found ("{path[-1]}")')
        command = request.parameter("cmd").split(" ")
        result = await self._node.runtime.exec_sync(container, command, 0)
        output = result.stdout + result.stderr
        if result.exit_code:
            return _text(
                500,
                f"command '{' '.join(command)}' exited with {result.exit_code}: {output.decode(errors='replace')}",
            )
        return Response(200, output, content_type=_TEXT)

    async def _checkpoint(self, request: Request, path: list[str]) -> Answer:
        """`POST /checkpoint/NAMESPACE/POD/CONTAINER`: write a container's state to a file on the node."""
        if len(path) != 3:
            return _text(404, "404: Page Not Found")
        namespace, pod_name, name = path
        pod = self._pod(namespace, pod_name, "")
        if pod is None:
            return _text(404, "pod does not exist")
        if podspec.find_container(pod, name) is None:
            return _text(404, f"container {name} does not exist")
        timeouts = [value for key, value in request.query if key == "timeout"] or ["0"]
        if not timeouts[-1].isdigit():
            return _text(404, "cannot parse value of timeout parameter")
        place = Path(self._node.root_directory) / "checkpoints"
        location = place / f"checkpoint-{pod_name}_{namespace}-{name}-{rfc3339(self._node.clock.now())}.tar"
        container = await running_id(self._node.runtime, pod, name)
        try:
            if not container:
                raise RuntimeFault("NOT_FOUND", f"container {name} not found")
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._node.runtime.checkpoint(container, str(location), int(timeouts[-1]))
        except RuntimeFault as fault:
            return _text(500, f"checkpointing of {namespace}/{pod_name}/{name} failed ({fault})")
        return _json({"items": [str(location)]})

    def _pod(self, namespace: str, name: str, uid: str) -> Obj | None:
        pod = self._node.pods.find(namespace, name)
        return pod if pod is not None and uid in ("", pod["metadata"]["uid"]) else None

    # The node's own logs

    async def _logs(self, request: Request, path: list[str]) -> Answer:
        wanted = _below(Path(self._node.log_directory), path)
        if wanted is None:
            return _text(404, "404 page not found\n")
        if wanted.is_dir():
            return Response(200, _directory_page(wanted), content_type="text/html; charset=utf-8")

        async def run(writer: StreamWriter) -> None:
            with wanted.open("rb") as file:
                while block := file.read(_MAX_BUFFERED // 4):
                    writer.write(block)
                    await writer.drain()

        return Stream(run, content_type=mimetypes.guess_type(wanted.name)[0] or _TEXT)


def _below(base: Path, parts: list[str]) -> Path | None:
    """A file or directory under `base`, if it is there and no link leads out."""
    base = base.resolve()
    wanted = base.joinpath(*parts).resolve()
    return wanted if wanted.is_relative_to(base) and wanted.exists() else None


def _directory_page(directory: Path) -> bytes:
    names = sorted(each.name + ("/" if each.is_dir() else "") for each in directory.iterdir())
    links = "".join(f'<a href="{quote(name)}">{escape(name)}</a>\n' for name in names)
    return f"<pre>\n{links}</pre>\n".encode()


def _flag(request: Request, name: str) -> bool:
    return request.parameter(name) in ("1", "true", "True", "TRUE", "t", "T")


def _valid(options: LogOptions) -> bool:
    return (
        (options.tail_lines is None or options.tail_lines >= 0)
        and (options.limit_bytes is None or options.limit_bytes > 0)
        and options.stream in ("All", "Stdout", "Stderr")
        and (options.stream == "All" or options.tail_lines is None)
    )


def _pod_list(pods: list[Obj]) -> Obj:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}


def _json(value: object) -> Response:
    return Response(200, orjson.dumps(value))


def _text(status: int, message: str) -> Response:
    return Response(status, message.encode(), content_type=_TEXT)
