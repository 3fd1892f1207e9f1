"""How fast a scheduler is: `python -m bench scheduler [--kubeconfig FILE ...] [--nodes N] [--pods N] [WORKLOAD ...]`.

End to end: nodes are created, then pods, through the API; the time is that from the first pod's creation to the last
one's binding, seen by a watch. Without `--kubeconfig` an API server and a scheduler of ours are started for the
occasion; with several, the clusters (each with its scheduler running, and nobody who minds nodes without a kubelet)
are measured one after the other and printed side by side: so upstream is compared. Beside pods a second stands the
processor time that a pod took of each process, in milliseconds, which on a shared machine tells more; those of other
clusters are named by `--process`.

`--decisions` measures decisions alone, without any API: p50 and p99 at 5,000 and 15,000 nodes, and the memory that
5,000 nodes with 150,000 pods take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench.processes import cpu_seconds
from bench.report import machine, megabytes, milliseconds, percentile, rate, table
from shipwheel.api.errors import ApiError
from shipwheel.client.client import Client
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.kubeconfig import load_config
from shipwheel.client.resources import NAMESPACES, NODES, PODS, PRIORITY_CLASSES

Obj = dict[str, Any]
WORKLOADS = ("basic", "antiaffinity", "spread", "preemption", "mixed")
ZONES = 10
CREATORS = 16
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


def node(index: int, *, cpu: str = "32", pods: str = "110") -> Obj:
    name = f"bench-{index}"
    room = {"cpu": cpu, "memory": "256Gi", "pods": pods}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name, ZONE: f"zone-{index % ZONES}"}},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}],
        },
    }


def pod(kind: str, index: int, namespace: str, nodes: int) -> Obj:
    """One of a workload's pods."""
    if kind == "mixed":
        kind = ("basic", "antiaffinity", "spread")[index % 3]
    labels = {"app": kind}
    spec: Obj = {
        "containers": [
            {"name": "main", "image": "pause", "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}}}
        ]
    }
    match kind:
        case "antiaffinity":
            # As many groups as it takes for every pod to find a node.
            labels["group"] = str(index // max(nodes // 2, 1))
            term = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": dict(labels)}}
            spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        case "spread":
            spec["topologySpreadConstraints"] = [
                {
                    "topologyKey": key,
                    "maxSkew": 5,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": labels},
                }
                for key in (ZONE, HOSTNAME)
            ]
        case "filler":
            spec["containers"][0]["resources"]["requests"]["cpu"] = "8"
            spec["terminationGracePeriodSeconds"] = 0
        case "preemption":
            spec["containers"][0]["resources"]["requests"]["cpu"] = "8"
            spec["priorityClassName"] = "bench-high"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{kind}-{index}", "namespace": namespace, "labels": labels},
        "spec": spec,
    }


class Cluster:
    """An API server with a scheduler, to be measured."""

    def __init__(self, kubeconfig: Path, processes: Mapping[str, int]) -> None:
        self.client = Client(load_config(str(kubeconfig)), user_agent="bench")
        self.processes = processes
        """Whose processor time is told, by what they are called."""
        self._nodes = 0

    def used(self) -> dict[str, float]:
        """Seconds of processor time so far."""
        return {name: cpu_seconds([pid]) for name, pid in self.processes.items()}

    async def ready(self) -> None:
        for _ in range(600):
            with contextlib.suppress(ConnectionFailed, ApiError):
                await self.client.version()
                return
            await asyncio.sleep(0.1)
        sys.exit("the API server does not answer")

    async def set_nodes(self, number: int) -> None:
        async def create(index: int) -> None:
            created = await self.client.create(NODES, node(index))
            created["status"] = node(index)["status"]
            created["spec"].pop("taints", None)  # that the node is not ready yet; nobody else takes it away
            created = await self.client.update(NODES, created)
            created["status"] = node(index)["status"]
            await self.client.update(NODES, created, subresource="status")

        await _all(create, range(self._nodes, number))
        self._nodes = max(number, self._nodes)

    async def measure(self, kind: str, nodes: int, pods: int) -> tuple[str, str]:
        """Pods a second, and the processor time of each process for a pod."""
        namespace = "bench-" + "".join(random.choices(string.ascii_lowercase, k=5))
        await self.client.create(NAMESPACES, {"metadata": {"name": namespace}})
        if kind == "preemption":
            with contextlib.suppress(ApiError):
                await self.client.create(PRIORITY_CLASSES, {"metadata": {"name": "bench-high"}, "value": 1000})
            await self._create_and_wait("filler", namespace, nodes, nodes * 4)
            namespace = await self._sibling(namespace)
            pods = min(pods, nodes)
        before, started = self.used(), time.perf_counter()
        await self._create_and_wait(kind, namespace, nodes, pods)
        elapsed, after = time.perf_counter() - started, self.used()
        await self._clear()
        each = (f"{name} {(after[name] - before[name]) * 1000 / pods:.2f}" for name in self.processes)
        return rate(pods / elapsed), " + ".join(each) or "-"

    async def _sibling(self, namespace: str) -> str:
        await self.client.create(NAMESPACES, {"metadata": {"name": f"{namespace}-2"}})
        return f"{namespace}-2"

    async def _clear(self) -> None:
        for each in (await self.client.list(NAMESPACES))["items"]:
            name = each["metadata"]["name"]
            if name.startswith("bench-"):
                await self.client.delete_collection(PODS, name, grace_period=0)

    async def _create_and_wait(self, kind: str, namespace: str, nodes: int, pods: int) -> None:
        async with asyncio.TaskGroup() as group:
            listed = await self.client.list(PODS, namespace)
            since = listed["metadata"]["resourceVersion"]
            group.create_task(self._bound(namespace, since, pods))
            await _all(lambda index: self.client.create(PODS, pod(kind, index, namespace, nodes)), range(pods))

    async def _bound(self, namespace: str, since: str, pods: int) -> None:
        """Return when so many pods have a node. Events are counted, not read: the clients share the machine."""
        query = {"watch": "true", "fieldSelector": "spec.nodeName!=", "resourceVersion": since}
        stream = await self.client.stream("GET", PODS.path(namespace), query=query, accept="application/json")
        seen = 0
        rest = b""
        try:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                seen += sum(line.startswith(b'{"type":"ADDED"') for line in lines)
                if seen >= pods:
                    return
        finally:
            stream.close()


async def _all(work: Callable[[int], Any], indexes: range) -> None:
    """`work` for every index, several at a time."""
    left = iter(indexes)

    async def worker() -> None:
        for index in left:
            await work(index)

    async with asyncio.TaskGroup() as group:
        for _ in range(CREATORS):
            group.create_task(worker())


@contextlib.contextmanager
def own_cluster(directory: Path, port: int) -> Iterator[tuple[Path, dict[str, int]]]:
    """An API server and a scheduler of ours, and nobody else; what there is to reach them, and their processes."""
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_bytes(
        orjson.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bench",
                "clusters": [
                    {
                        "name": "bench",
                        "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True},
                    }
                ],
                "users": [{"name": "bench", "user": {}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            }
        )
    )
    certificate = f"{directory}/tls.crt"
    key = f"{directory}/tls.key"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days", "1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    commands = (
        [
            "kube-apiserver",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--anonymous-auth=true",
            "--authorization-mode=AlwaysAllow",
            "--disable-admission-plugins=ServiceAccount",
            f"--data-file={directory}/store",
            "--service-account-issuer=https://bench",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/16",
        ],
        [
            "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=-1",
        ],
    )
    program = str(Path(sys.executable).with_name("shipwheel"))
    processes = {}
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((directory / f"{command[0]}.log").open("w"))
            process = subprocess.Popen([program, *command], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            processes[command[0].removeprefix("kube-")] = process.pid
        yield kubeconfig, processes


@contextlib.asynccontextmanager
async def clusters(arguments: argparse.Namespace) -> AsyncIterator[dict[str, Cluster]]:
    with contextlib.ExitStack() as stack:
        named: dict[str, dict[str, int]] = {str(each): {} for each in arguments.kubeconfig}
        for each in arguments.process:
            file, name, pid = each.split("=")
            named[file] = {**named[file], name: int(pid)}
        found = {file: Cluster(Path(file), processes) for file, processes in named.items()}
        if not found:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found = {"shipwheel": Cluster(*stack.enter_context(own_cluster(directory, arguments.port)))}
        try:
            yield found
        finally:
            for each in found.values():
                await each.client.close()


async def end_to_end(arguments: argparse.Namespace) -> None:
    async with clusters(arguments) as found:
        names = list(found)
        rows = []
        for each in found.values():
            await each.ready()
        for size in sorted(arguments.nodes):
            for each in found.values():
                await each.set_nodes(size)
            for kind in arguments.workload or WORKLOADS:
                told = [await each.measure(kind, size, arguments.pods) for each in found.values()]
                rows.append((f"{kind}, {size} nodes", *itertools.chain(*told)))
                print(*rows[-1], file=sys.stderr)
        titles = ((name, "ms of processor time") for name in names)
        print(table(("workload", *itertools.chain(*titles)), rows))


# Decisions alone


def decisions(arguments: argparse.Namespace) -> None:
    from shipwheel.scheduler.configuration import ProfileConfig
    from shipwheel.scheduler.framework import Handle
    from shipwheel.scheduler.listers import Listers
    from shipwheel.scheduler.nodes import NodeRules
    from shipwheel.scheduler.pods import Shapes
    from shipwheel.scheduler.profiles import build
    from shipwheel.scheduler.slimming import Slimmer
    from shipwheel.scheduler.table import NodeTable, PodEntry

    rows = []
    for size in (5_000, 15_000):
        nodes = NodeTable()
        for index in range(size):
            nodes.set_node(node(index))
        profile = build(ProfileConfig(), Handle(nodes, NodeRules(nodes), Listers()))
        shapes = Shapes()
        for kind in ("basic", "antiaffinity", "spread"):
            times = []
            for index in range(arguments.decisions):
                one = pod(kind, index, "default", size)
                started = time.perf_counter()
                cycle = profile.cycle(one, shapes.of(one))
                feasible = profile.feasible(cycle)
                total = profile.total(cycle, feasible)
                total[~feasible] = -1
                chosen = nodes.name(int(total.argmax()))
                nodes.add(PodEntry(cycle.key, one, cycle.shape, chosen))
                times.append(time.perf_counter() - started)
            half, most = percentile(times, 50), percentile(times, 99)
            rows.append((f"{kind}, {size} nodes", milliseconds(half), milliseconds(most)))
    print(table(("decision", "p50", "p99"), rows))
    before = _resident()
    nodes, shapes, slimmer = NodeTable(), Shapes(), Slimmer()
    for index in range(5_000):
        nodes.set_node(orjson.loads(orjson.dumps(node(index))))
    for index in range(150_000):
        one = orjson.loads(orjson.dumps(pod("basic", index, "default", 5_000)))
        one["spec"]["nodeName"] = f"bench-{index % 5_000}"
        one = slimmer(one)
        nodes.add(PodEntry(f"default/{index}", one, shapes.of(one), one["spec"]["nodeName"]))
    print(f"5,000 nodes, 150,000 pods: {megabytes(_resident() - before)}")


def _resident() -> int:
    """Bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workload", nargs="*", choices=[*WORKLOADS, []], help="all of them by default")
    parser.add_argument("--kubeconfig", action="append", default=[], type=Path, help="a cluster; can be repeated")
    parser.add_argument("--process", action="append", default=[], metavar="KUBECONFIG=NAME=PID", help="can be repeated")
    parser.add_argument("--nodes", action="append", type=int, help="how many; can be repeated  [500 and 5000]")
    parser.add_argument("--pods", type=int, default=5_000)
    parser.add_argument("--port", type=int, default=18553, help="for the API server that is started")
    parser.add_argument("--decisions", type=int, nargs="?", const=1_000, help="only decisions, so many of each kind")
    arguments = parser.parse_args()
    arguments.nodes = arguments.nodes or [500, 5_000]
    print(machine())
    if arguments.decisions:
        decisions(arguments)
    else:
        uvloop.run(end_to_end(arguments))


if __name__ == "__main__":
    main()
