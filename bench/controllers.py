"""How fast the controllers are: `python -m bench controllers [rollout|namespaces|cronjobs|idle ...]`.

Each measurement has a cluster of its own: an API server, a controller manager and a scheduler of ours, each a process,
and nodes that live only in the API (`bench.hollow`). What is measured is what a watch sees, so it is the whole way
there and back.

- rollout: a Deployment of 5,000 pods appears, and is then rolled over to another template.
- namespaces: 100 namespaces with 50 objects each are deleted.
- cronjobs: 200 CronJobs that are due every minute; how late their Jobs are.
- idle: the processor time and memory of a manager with 1,000 Deployments that nobody touches.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.processes import cpu_seconds, listening_on, memory
from bench.report import machine, megabytes, percentile, rate, table
from bench.scheduler import own_cluster
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj, condition, is_being_deleted, name_of
from shipwheel.client.client import Client
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.kubeconfig import load_config
from shipwheel.client.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)

Rows = list[tuple[str, str, str]]
"""(what, measured, wanted)."""

_WRITERS = 16
_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A client, and process ids."""

    client: Client
    manager: int
    apiserver: int

    def cpu(self) -> tuple[float, float]:
        """Processor time used by the manager and by the API server, in seconds."""
        return cpu_seconds([self.manager]), cpu_seconds([self.apiserver])


@contextlib.contextmanager
def _process(log: Path, *command: str) -> Iterator[int]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process.pid
        finally:
            if process.poll() is not None:
                print(f"{command[1:3]} has ended:", log.read_text()[-2000:], sep="\n", file=sys.stderr)
            process.terminate()
            process.wait()


@contextlib.asynccontextmanager
async def cluster(port: int, nodes: int) -> AsyncIterator[Cluster]:
    """A cluster that is ready, for as long as the context lasts."""
    program = str(Path(sys.executable).with_name("shipwheel"))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-controllers-")))
        kubeconfig = stack.enter_context(own_cluster(directory, port))
        async with Client(load_config(str(kubeconfig)), user_agent="bench") as client:
            await _until(lambda: _answers(client))
            manager = stack.enter_context(
                _process(
                    directory / "manager.log",
                    program,
                    "kube-controller-manager",
                    f"--kubeconfig={kubeconfig}",
                    "--leader-elect=false",
                    "--secure-port=0",
                    "--kube-api-qps=-1",
                )
            )
            hollow = [sys.executable, "-m", "bench.hollow", f"--kubeconfig={kubeconfig}", f"--nodes={nodes}"]
            stack.enter_context(_process(directory / "hollow.log", *hollow))
            await _until(lambda: _has_default_account(client))
            yield Cluster(client, manager, listening_on(port)[0])


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_TIMEOUT):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def _answers(client: Client) -> bool:
    with contextlib.suppress(ConnectionFailed, ApiError):
        await client.get(NAMESPACES, "default")
        return True
    return False


async def _has_default_account(client: Client) -> bool:
    """The manager works."""
    with contextlib.suppress(ApiError):
        await client.get(SERVICE_ACCOUNTS, "default", "default")
        return True
    return False


async def _all(calls: list[Callable[[], Awaitable[object]]]) -> None:
    """All the calls, several at a time."""
    left = iter(calls)

    async def worker() -> None:
        for call in left:
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(_WRITERS):
            group.create_task(worker())


async def _follow(client: Client, gvr: GroupVersionResource, namespace: str, seen: Callable[[str, Obj], bool]) -> None:
    """Tell `seen` of every change from now on, until it returns True."""
    listed = await client.list(gvr, namespace)
    async with asyncio.timeout(_TIMEOUT):
        async for event in client.watch(gvr, namespace, resource_version=listed["metadata"]["resourceVersion"]):
            if event.type != "BOOKMARK" and seen(event.type, event.object):
                return


# A Deployment's roll-out


def _deployment(name: str, replicas: int, image: str = "one") -> Obj:
    labels = {"app": name}
    container = {"name": "main", "image": image, "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


class _Rollout:
    """When pods of an image were made, and when the Deployment was complete with it."""

    def __init__(self, client: Client, image: str, replicas: int) -> None:
        self._client = client
        self._image = image
        self._replicas = replicas
        self._started = time.perf_counter()
        self._created: list[float] = []
        self._complete = 0.0

    async def measure(self, start: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_pods())
            group.create_task(_follow(self._client, DEPLOYMENTS, "default", self._is_complete))
            await asyncio.sleep(0.5)
            self._started = time.perf_counter()
            await start()

    async def _watch_pods(self) -> None:
        """Pods are counted, not decoded: the bench shares the machine with what it measures."""
        # One page of one pod, and not `list`, which would go through all of them page by page.
        listed = await self._client.call("GET", PODS.path("default"), query={"limit": "1"})
        query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
        stream = await self._client.stream("GET", PODS.path("default"), query=query)
        image = f'"image":"{self._image}"'.encode()
        rest = b""
        try:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b'{"type":"ADDED"') and image in line:
                        self._created.append(time.perf_counter())
                if len(self._created) >= self._replicas:
                    return
        finally:
            stream.close()

    def _is_complete(self, kind: str, deployment: Obj) -> bool:
        status = deployment.get("status") or {}
        numbers = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        current = deployment["spec"]["template"]["spec"]["containers"][0]["image"] == self._image
        observed = status.get("observedGeneration") == deployment["metadata"]["generation"]
        self._complete = time.perf_counter()
        return current and observed and numbers == {self._replicas}

    def rows(self, what: str, wanted: str) -> Rows:
        created = self._created[-1] - self._started
        complete = self._complete - self._started
        return [
            (f"{what}: pods created", rate(len(self._created) / created), wanted),
            (f"{what}: pods available", rate(self._replicas / complete), ""),
            (f"{what}: complete after", f"{complete:.1f} s", ""),
        ]


async def rollout(made: Cluster, arguments: argparse.Namespace) -> Rows:
    client, replicas = made.client, arguments.pods
    out = _Rollout(client, "one", replicas)
    before = made.cpu()
    await out.measure(lambda: client.create(DEPLOYMENTS, _deployment("big", replicas)))
    between = made.cpu()
    over = _Rollout(client, "two", replicas)
    patch = _deployment("big", replicas, "two")["spec"]["template"]
    await over.measure(lambda: client.patch(DEPLOYMENTS, "big", "default", {"spec": {"template": patch}}))
    after = made.cpu()
    return [
        *out.rows(f"{replicas} pods out", "≥ 300/s"),
        *_processor_rows(before, between),
        *over.rows(f"{replicas} pods over", ""),
        *_processor_rows(between, after),
        ("manager's memory", megabytes(memory([made.manager]).proportional), ""),
    ]


def _processor_rows(before: tuple[float, float], after: tuple[float, float]) -> Rows:
    """What it cost: on a shared machine these tell more than the time that has passed."""
    names = ("manager", "API server")
    return [
        (f"processor time: {name}", f"{end - begin:.1f} s", "")
        for name, begin, end in zip(names, before, after, strict=True)
    ]


# Namespaces


def _contents(namespace: str, objects: int) -> Iterator[tuple[GroupVersionResource, Obj]]:
    """Such objects as namespaces have: mostly ConfigMaps and Secrets, some Services, Deployments, accounts."""
    for index in range(objects):
        metadata = {"name": f"bench-{index}", "namespace": namespace}
        match index % 10:
            case 0:
                yield SERVICES, {"metadata": metadata, "spec": {"ports": [{"port": 80}], "selector": {"app": "x"}}}
            case 1:
                yield DEPLOYMENTS, {**_deployment(metadata["name"], 0), "metadata": metadata}
            case 2:
                yield SERVICE_ACCOUNTS, {"metadata": metadata}
            case 3 | 4 | 5:
                yield SECRETS, {"metadata": metadata, "stringData": {"key": "value"}}
            case _:
                yield CONFIG_MAPS, {"metadata": metadata, "data": {"key": "value"}}


async def namespaces(made: Cluster, arguments: argparse.Namespace) -> Rows:
    client = made.client
    names = [f"bench-{index}" for index in range(arguments.namespaces)]
    await _all([lambda name=name: client.create(NAMESPACES, {"metadata": {"name": name}}) for name in names])
    for name in names:
        calls = [
            lambda gvr=gvr, obj=obj: client.create(gvr, obj) for gvr, obj in _contents(name, arguments.objects)
        ]  # fmt: skip
        await _all(calls)
    await asyncio.sleep(5)  # what controllers add: service accounts, root CAs, endpoints
    left = set(names)

    def gone(kind: str, namespace: Obj) -> bool:
        if kind == "DELETED":
            left.discard(name_of(namespace))
        return not left

    async with asyncio.TaskGroup() as group:
        group.create_task(_follow(client, NAMESPACES, "", gone))
        await asyncio.sleep(0.5)
        started = time.perf_counter()
        await _all([lambda name=name: client.delete(NAMESPACES, name) for name in names])
    seconds = time.perf_counter() - started
    return [
        (f"{arguments.namespaces} namespaces of {arguments.objects} objects gone after", f"{seconds:.1f} s", "≤ 10 s")
    ]


# CronJobs


def _cronjob(index: int) -> Obj:
    container = {"name": "main", "image": "one"}
    pod = {"containers": [container], "restartPolicy": "Never"}
    job = {"spec": {"template": {"spec": pod}}}
    return {
        "metadata": {"name": f"every-minute-{index}", "namespace": "default"},
        "spec": {"schedule": "* * * * *", "jobTemplate": job, "successfulJobsHistoryLimit": 0},
    }


async def cronjobs(made: Cluster, arguments: argparse.Namespace) -> Rows:
    client = made.client
    await _all([lambda index=index: client.create(CRON_JOBS, _cronjob(index)) for index in range(arguments.cronjobs)])
    wanted = arguments.cronjobs * arguments.minutes
    late: dict[str, float] = {}

    def started(kind: str, job: Obj) -> bool:
        if kind == "ADDED":
            # A Job's name ends with the minute it is for.
            late[name_of(job)] = time.time() - int(name_of(job).rpartition("-")[2]) * 60
        return len(late) >= wanted

    await _follow(client, JOBS, "default", started)
    delays = list(late.values())
    return [
        (f"{wanted} Jobs, {arguments.cronjobs} a minute, later than their minute by: median",
         f"{percentile(delays, 50):.2f} s", ""),
        ("the last one", f"{max(delays):.2f} s", "≤ 1 s"),
    ]  # fmt: skip


# An idle manager


async def idle(made: Cluster, arguments: argparse.Namespace) -> Rows:
    client = made.client
    number = arguments.deployments
    names = [f"idle-{index}" for index in range(number)]
    await _all([lambda name=name: client.create(DEPLOYMENTS, _deployment(name, 1)) for name in names])

    async def settled() -> bool:
        await asyncio.sleep(1)
        items = (await client.list(DEPLOYMENTS, "default"))["items"]
        return all(_is_settled(each) for each in items)

    await _until(settled)
    await asyncio.sleep(arguments.settle)
    before = cpu_seconds([made.manager])
    await asyncio.sleep(arguments.window)
    used = (cpu_seconds([made.manager]) - before) / arguments.window
    size = memory([made.manager])
    return [
        (f"{number} idle Deployments: of one core", f"{used:.1%}", "≤ 1%"),
        ("resident", megabytes(size.resident), "≤ 150 MB"),
        ("proportional", megabytes(size.proportional), ""),
    ]


def _is_settled(deployment: Obj) -> bool:
    progressing = condition(deployment, "Progressing")
    return (
        not is_being_deleted(deployment)
        and progressing is not None
        and progressing.get("reason") == "NewReplicaSetAvailable"
    )


MEASUREMENTS = {"rollout": rollout, "namespaces": namespaces, "cronjobs": cronjobs, "idle": idle}


async def measure(arguments: argparse.Namespace) -> None:
    rows: Rows = []
    for name in arguments.measurement or MEASUREMENTS:
        async with cluster(arguments.port, arguments.nodes) as made:
            found = await MEASUREMENTS[name](made, arguments)
        print(*(f"{row[0]}: {row[1]}" for row in found), sep="\n", file=sys.stderr)
        rows += found
    print(table(("what", "measured", "wanted"), rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("measurement", nargs="*", choices=[*MEASUREMENTS, []], help="all of them by default")
    parser.add_argument("--port", type=int, default=18563, help="for the API servers that are started")
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--pods", type=int, default=5_000)
    parser.add_argument("--namespaces", type=int, default=100)
    parser.add_argument("--objects", type=int, default=50, help="in each namespace")
    parser.add_argument("--cronjobs", type=int, default=200)
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--deployments", type=int, default=1_000)
    parser.add_argument("--settle", type=float, default=20.0, help="seconds before the manager counts as idle")
    parser.add_argument("--window", type=float, default=60.0, help="seconds of idling that are measured")
    arguments = parser.parse_args()
    print(machine())
    uvloop.run(measure(arguments))


if __name__ == "__main__":
    main()
