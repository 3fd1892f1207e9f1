"""What a node does with pods, on real containers: `python -m bench node`.

A cluster is started; one pod after another is created and waited for, then many at once; commands are run in one of
them by way of the API server, and by the runtime alone; in the end everything is left alone and the process of the
node's agent is watched (kubelet, proxy, pod network and DNS together: the kubelet itself takes less).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode, urlsplit

from bench.processes import cpu_seconds, memory
from bench.report import machine, median, megabytes, milliseconds, percentile, table
from bench.up import Cluster, cluster
from shipwheel.admin.images import PAUSE, WEB, architecture, archive, host_busybox, import_archive, web_image
from shipwheel.admin.nodes import containerd_config
from shipwheel.admin.status import admin_client, components
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.credentials import tls_context
from shipwheel.client.resources import PODS, SERVICE_ACCOUNTS
from shipwheel.client.streams.remotecommand import Endpoint, StreamOptions, open_spdy, open_websocket
from shipwheel.kubelet.runtime.cri import CriRuntime

NODE = "node-1"
TIMEOUT = 300.0
TARGETS = {"one": 0.600, "many": 25.0, "exec": 0.050, "memory": 80e6, "cpu": 0.02}
"""Seconds, bytes, and a share of a core, for 100 pods."""


def pod(name: str, image: str, *command: str) -> Obj:
    container: Obj = {"name": "c", "image": image, "imagePullPolicy": "Never"}
    if command:
        container["command"] = list(command)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": "node"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def probed_pod(name: str) -> Obj:
    """One that is asked over HTTP whether it is ready, and over TCP whether it lives, every ten seconds each."""
    serve = "mkdir /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
    made = pod(name, WEB, "sh", "-c", serve)
    made["spec"]["containers"][0] |= {
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 80}},
        "livenessProbe": {"tcpSocket": {"port": 80}},
    }
    return made


Done = Callable[[Mapping[str, Obj]], bool]


async def until(client: Client, done: Done) -> None:
    """Follow our pods, by name, until they are as they should be."""
    listed = await client.list(PODS, "default", label_selector="bench=node")
    pods = {each["metadata"]["name"]: each for each in listed["items"]}
    if done(pods):
        return
    version = listed["metadata"]["resourceVersion"]
    async for event in client.watch(PODS, "default", label_selector="bench=node", resource_version=version):
        name = event.object["metadata"].get("name", "")
        if event.type == "DELETED":
            pods.pop(name, None)
        elif event.type != "BOOKMARK":
            pods[name] = event.object
        if done(pods):
            return


def running(*names: str) -> Done:
    return lambda pods: all((pods.get(name, {}).get("status") or {}).get("phase") == "Running" for name in names)


async def one_by_one(client: Client, rounds: int) -> list[float]:
    """Seconds from asking for a pod until it runs, for one after another."""
    took = []
    for number in range(rounds):
        name = f"one-{number}"
        began = time.perf_counter()
        await client.create(PODS, pod(name, PAUSE))
        await until(client, running(name))
        took.append(time.perf_counter() - began)
        await client.delete(PODS, name, "default")
        await until(client, lambda pods: not pods)
    return took


async def all_at_once(client: Client, count: int, *, probes: bool) -> float:
    """Seconds until all of so many pods run."""
    names = [f"many-{number}" for number in range(count)]
    began = time.perf_counter()
    pods = (probed_pod(name) if probes else pod(name, PAUSE) for name in names)
    await asyncio.gather(*(client.create(PODS, each) for each in pods))
    await until(client, running(*names))
    return time.perf_counter() - began


async def exec_times(client: Client, made: Cluster, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds that a command takes by way of the API server, and by the runtime's own stream."""
    await client.create(PODS, pod("shell", WEB, "sleep", "100000"))
    await until(client, running("shell"))
    server = urlsplit(client.config.server)
    query = urlencode({"command": "true", "stdout": "true", "container": "c"})
    there = Endpoint(
        server.hostname or "",
        server.port or 443,
        f"/api/v1/namespaces/default/pods/shell/exec?{query}",
        tls=tls_context(client.config, (client.config.client_cert_data, client.config.client_key_data)),
    )
    options = StreamOptions(stdout=True)
    runtime = CriRuntime(containerd_config(made.layout, NODE).endpoint)
    container = next(each for each in await runtime.containers() if each.labels["io.kubernetes.pod.name"] == "shell")

    async def through_the_cluster() -> None:
        async with open_websocket(there, options) as session:
            await session.outcome()

    async def by_the_runtime() -> None:
        url = urlsplit(
            await runtime.exec_url(container.id, ["true"], stdin=False, stdout=True, stderr=False, tty=False)
        )
        near = Endpoint(url.hostname or "", url.port or 80, url.path)
        async with open_spdy(near, options) as session:
            await session.outcome()

    try:
        # In turns, so that both meet the same machine.
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for work, found in zip((through_the_cluster, by_the_runtime), times, strict=True):
                found.append(await timed(work))
        return times
    finally:
        await runtime.close()


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def agent(made: Cluster) -> int:
    """The process of the node's agent."""
    return next(each.pid for each in components(made.layout) if each.name == NODE)


async def measure(made: Cluster, arguments: argparse.Namespace) -> list[tuple[str, str, str]]:
    made.up()
    config = containerd_config(made.layout, NODE)
    arch = architecture()
    await import_archive(archive([web_image(host_busybox())], arch=arch), socket=config.socket)
    async with admin_client(made.layout) as client, asyncio.timeout(TIMEOUT * 3):
        await service_account(client)
        ones = await one_by_one(client, arguments.rounds)
        many = await all_at_once(client, arguments.pods, probes=arguments.probes)
        ours, runtimes = await exec_times(client, made, arguments.rounds)
        await asyncio.sleep(arguments.settle)
        pid = agent(made)
        before = cpu_seconds([pid])
        await asyncio.sleep(arguments.window)
        cpu = (cpu_seconds([pid]) - before) / arguments.window
        used = memory([pid])
    over = median(ours) - median(runtimes)
    return [
        ("create to Running, one pod, p50", milliseconds(median(ones)), milliseconds(TARGETS["one"])),
        ("the same, p90", milliseconds(percentile(ones, 90)), ""),
        (f"{arguments.pods} pods at once, all Running", f"{many:.1f} s", f"{TARGETS['many']:.0f} s"),
        ("exec, p50", milliseconds(median(ours)), ""),
        ("exec by the runtime alone, p50", milliseconds(median(runtimes)), ""),
        ("exec, what we add", milliseconds(over), milliseconds(TARGETS["exec"])),
        (f"agent, {arguments.pods} idle pods, resident", megabytes(used.resident), ""),
        (
            "the same, its own and its share of what is shared",
            megabytes(used.proportional),
            megabytes(TARGETS["memory"]),
        ),
        ("the same, of one core", f"{cpu:.1%}", f"{TARGETS['cpu']:.0%}"),
    ]


async def service_account(client: Client) -> None:
    """Return when pods can be created: their service account is there."""
    while True:
        try:
            await client.get(SERVICE_ACCOUNTS, "default", "default")
            return
        except ApiError:
            await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench node", description="Run pods on one node.")
    parser.add_argument("--rounds", type=int, default=20, help="single pods, and commands")
    parser.add_argument("--pods", type=int, default=100, help="how many at once")
    parser.add_argument("--probes", action="store_true", help="have those probed over HTTP and TCP")
    parser.add_argument("--settle", type=float, default=15.0, help="seconds before it counts as idle")
    parser.add_argument("--window", type=float, default=30.0, help="seconds of idling that are measured")
    parser.set_defaults(runtime="containerd", store="sqlite")
    arguments = parser.parse_args()
    with cluster(arguments) as made:
        rows = asyncio.run(measure(made, arguments))
    print(f"containerd, sqlite; {machine()}\n")
    print(table(("what", "measured", "at most"), rows))


if __name__ == "__main__":
    main()
