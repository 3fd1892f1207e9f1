"""Thousands of nodes on one machine: `python -m bench simulated_nodes [--nodes N] [--pods N]`.

A cluster with so many simulated nodes is started and filled with pods, which are created, scheduled, and run, all
through the API; then it is left to hold them. All the while a user asks for what users ask for, one thing after
another, and the time of each answer is taken. In the end: whether every node is still ready, the age of the oldest
lease, and what the processes take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.processes import cpu_seconds, memory
from bench.report import machine, megabytes, milliseconds, percentile, rate, table
from shipwheel.admin.layout import Layout
from shipwheel.admin.status import admin_client, components
from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, LEASES, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS

NAME = "bench-many"
CREATORS = 16
PODS_A_NAMESPACE = 1_000
PAUSE = 0.05
"""Seconds between two requests of the user."""

Times = dict[str, list[float]]


def pod(index: int) -> Obj:
    requests = {"cpu": "100m", "memory": "100Mi"}
    container = {"name": "main", "image": "example.com/main", "resources": {"requests": requests}}
    meta = {"name": f"pod-{index}", "namespace": namespace(index), "labels": {"app": f"app-{index % 50}"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}


def namespace(index: int) -> str:
    return f"bench-{index // PODS_A_NAMESPACE}"


@contextmanager
def cluster(nodes: int) -> Iterator[tuple[Layout, float]]:
    """One with so many nodes, and the seconds that its start took."""
    with tempfile.TemporaryDirectory() as directory:
        place = ["--name", NAME, "--data-dir", directory]
        began = time.perf_counter()
        try:
            flags = ["--runtime", "simulated", "--port", "0", "--simulated-nodes", str(nodes)]
            _shipwheel("up", *place, *flags)
            yield Layout.of(NAME, Path(directory)), time.perf_counter() - began
        finally:
            _shipwheel("down", *place)


def _shipwheel(*arguments: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shipwheel"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"shipwheel {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


async def fill(client: Client, pods: int) -> float:
    """Have so many pods run; the seconds that it took."""
    for name in sorted({namespace(index) for index in range(pods)}):
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        await _account(client, name)
    began = time.perf_counter()
    watching = asyncio.create_task(_until_running(client, pods))
    indexes = iter(range(pods))

    async def create() -> None:
        for index in indexes:
            await client.create(PODS, pod(index))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CREATORS):
            tasks.create_task(create())
    await watching
    return time.perf_counter() - began


async def _account(client: Client, name: str) -> None:
    while True:
        try:
            await client.get(SERVICE_ACCOUNTS, "default", name)
            return
        except ApiError:
            await asyncio.sleep(0.01)


async def _until_running(client: Client, pods: int) -> None:
    """Until so many pods run, by a watch of those that do."""
    found: set[str] = set()
    running = "status.phase=Running"
    listed = await client.list(PODS, field_selector=running, metadata_only=True)
    found.update(each["metadata"]["uid"] for each in listed["items"])
    version = listed["metadata"]["resourceVersion"]
    while len(found) < pods:
        async for event in client.watch(PODS, field_selector=running, resource_version=version, metadata_only=True):
            version = event.object["metadata"]["resourceVersion"]
            if event.type != "BOOKMARK":
                found.add(event.object["metadata"]["uid"])
            if len(found) >= pods:
                return


async def ask(client: Client, times: Times, pods: int) -> None:
    """What a user does, again and again, until cancelled."""
    number = 0
    await _account(client, "default")
    while True:
        number += 1
        name, place = f"config-{uuid.uuid4()}", namespace(number * 37 % pods)
        config = {"metadata": {"name": name, "namespace": "default"}, "data": {"a": "b"}}
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "get a node": lambda: client.get(NODES, "simulated-1"),
            "list 500 nodes": lambda: client.call("GET", NODES.path(), query={"limit": "500"}),
            "list a namespace's pods": lambda place=place: client.list(PODS, place),  # type: ignore[misc]
            "create": lambda config=config: client.create(CONFIG_MAPS, config),  # type: ignore[misc]
            "patch": lambda name=name: client.patch(CONFIG_MAPS, name, "default", {"data": {"a": "c"}}),  # type: ignore[misc]
            "delete": lambda name=name: client.delete(CONFIG_MAPS, name, "default"),  # type: ignore[misc]
        }
        for what, step in steps.items():
            began = time.perf_counter()
            await step()
            times[what].append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE)


async def asking(client: Client, pods: int, meanwhile: Awaitable[float]) -> tuple[float, Times]:
    """What something gave, and how long the user waited for answers while it was done."""
    times: Times = defaultdict(list)
    user = asyncio.create_task(ask(client, times, pods))
    try:
        return await meanwhile, times
    finally:
        user.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await user


async def lost(client: Client) -> tuple[int, int, float]:
    """How many pods run, how many nodes are not ready, and the age of the oldest lease in seconds."""
    pods = (await client.list(PODS, field_selector="status.phase=Running", limit=500, metadata_only=True))["items"]
    nodes = (await client.list(NODES, limit=500))["items"]
    leases = (await client.list(LEASES, "kube-node-lease", limit=500))["items"]
    now = datetime.now(UTC)
    oldest = max((now - parse_time(each["spec"]["renewTime"])).total_seconds() for each in leases)
    return len(pods), sum(not is_condition_true(each, "Ready") for each in nodes), oldest


def _rows(phase: str, times: Times) -> Iterator[tuple[str, ...]]:
    everything = [each for found in times.values() for each in found]
    for what, found in (*times.items(), ("all", everything)):
        yield (
            f"{phase}: {what}",
            str(len(found)),
            *(milliseconds(percentile(found, percent)) for percent in (50, 99, 100)),
        )


async def measure(layout: Layout, arguments: argparse.Namespace) -> None:
    async with admin_client(layout) as client:
        processes = {each.name: each.pid for each in components(layout)}
        filled, filling = await asking(client, arguments.pods, fill(client, arguments.pods))
        print(f"{arguments.pods} pods run after {filled:.0f} s ({rate(arguments.pods / filled)})", flush=True)
        before = {name: cpu_seconds([pid]) for name, pid in processes.items()}
        held, holding = await asking(client, arguments.pods, _pass(arguments.hold))
        after = {name: cpu_seconds([pid]) for name, pid in processes.items()}
        print(table(("answers", "number", "p50", "p99", "most"), [*_rows("fill", filling), *_rows("hold", holding)]))
        rows = [
            (
                name,
                megabytes(memory([pid]).proportional),
                f"{before[name]:.0f} s",
                f"{100 * (after[name] - before[name]) / held:.0f} %",
            )
            for name, pid in processes.items()
        ]
        print(table(("process", "memory", "until filled", "of a core, held"), rows))
        running, unready, oldest = await lost(client)
        print(f"{running} pods run; {unready} nodes are not ready; the oldest lease was renewed {oldest:.0f} s ago")


async def _pass(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--pods", type=int, default=50_000)
    parser.add_argument("--hold", type=float, default=60.0, help="seconds")
    arguments = parser.parse_args()
    print(machine())
    with cluster(arguments.nodes) as (layout, started):
        print(f"{arguments.nodes} nodes are ready after {started:.0f} s", flush=True)
        uvloop.run(measure(layout, arguments))


if __name__ == "__main__":
    main()
