"""How fast an API server is, ours or another: `python -m bench.api [--kubeconfig FILE | --server URL --token TOKEN]`.

In a namespace of its own it creates pods that no scheduler looks at, reads them in all ways, watches them with many
watchers, and says after each step what memory the server uses. Clients are closed loops over TLS connections that are
kept alive; the figures are medians of several rounds. "client" is how much of one core the clients themselves used:
near 100 % they are what limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import string
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import uvloop

from bench.http import Answer, Connection, Server
from bench.processes import listening_on, memory
from bench.report import machine, median, megabytes, milliseconds, percentile, rate, table
from shipwheel.client.kubeconfig import ClientConfig, load_config

ROUNDS = 5
LABELS = 10
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
HEAD = ("work", "rate", "p50", "p99", "data", "client", "server memory")


class Load:
    """The steps, each of which adds a row to the report."""

    def __init__(self, server: Server, arguments: argparse.Namespace) -> None:
        self.server = server
        self.seconds = arguments.seconds
        self.pods = arguments.pods
        self.watchers = arguments.watchers
        self.pids: list[int] = arguments.pid or (
            listening_on(server.port) if server.host in ("127.0.0.1", "localhost", "::1") else []
        )
        suffix = "".join(random.choices(string.ascii_lowercase, k=5))
        self.namespace = f"bench-{suffix}"
        self.base = f"/api/v1/namespaces/{self.namespace}/pods"
        self.rows: list[tuple[str, ...]] = []

    # Steps

    async def prepare(self) -> None:
        async with self.connections(1) as (connection,):
            body = json.dumps({"metadata": {"name": self.namespace}}).encode()
            _expect(await connection.ask(self.server.request("POST", "/api/v1/namespaces", body=body), keep=True), 201)
            # Where no controller does it, pods need it all the same.
            account = self.server.request(
                "POST",
                f"/api/v1/namespaces/{self.namespace}/serviceaccounts",
                body=json.dumps({"metadata": {"name": "default"}}).encode(),
            )
            _expect(await connection.ask(account, keep=True), 201, 409)
        self._row("idle", "", [], 0, 0)

    async def create(self, clients: int) -> None:
        names = iter(range(self.pods))

        async def client(connection: Connection, latencies: list[float]) -> None:
            for number in names:
                if number % (self.pods // ROUNDS) == 0:
                    marks.append(time.perf_counter())
                request = self.server.request("POST", self.base, body=self._pod(number))
                begin = time.perf_counter()
                _expect(await connection.ask(request), 201)
                latencies.append(time.perf_counter() - begin)

        marks: list[float] = []
        latencies: list[float] = []
        async with self.connections(clients) as connections:
            cpu = time.process_time()
            await asyncio.gather(*(client(connection, latencies) for connection in connections))
            cpu = time.process_time() - cpu
        marks.append(time.perf_counter())
        rates = [self.pods / ROUNDS / (end - begin) for begin, end in pairwise(marks)]
        used = cpu / (marks[-1] - marks[0])
        self._row(f"create a pod, {clients} connections", rate(median(rates)), latencies, 0, used)

    async def get(self, clients: int) -> None:
        def one() -> bytes:
            return self.server.request("GET", f"{self.base}/{self._name(random.randrange(self.pods))}")

        await self.closed_loops(f"GET a pod, {clients} connections", clients, one)

    async def list(self, clients: int) -> None:
        for work, query, accept in (
            ("LIST", "", "application/json"),
            ("LIST by label", "?labelSelector=app%3Dweb-3", "application/json"),
            ("LIST as Table", "", TABLE),
            ("LIST as protobuf", "", "application/vnd.kubernetes.protobuf"),
        ):
            request = self.server.request("GET", self.base + query, accept=accept)
            await self.closed_loops(f"{work}, {clients} connections", clients, lambda request=request: request)

    async def list_paged(self, clients: int) -> None:
        """A rate counts whole lists."""
        latencies: list[float] = []
        size = 0

        async def client(connection: Connection, end: float) -> int:
            nonlocal size
            done = 0
            while time.perf_counter() < end:
                token, begin = "", time.perf_counter()
                while True:
                    request = self.server.request("GET", f"{self.base}?limit=500{token}")
                    answer = _expect(await connection.ask(request, keep=True), 200)
                    size += answer.size
                    following = _continue(answer.body)
                    if not following:
                        break
                    token = f"&continue={following}"
                latencies.append(time.perf_counter() - begin)
                done += 1
            return done

        work = f"LIST in pages of 500, {clients} connections"
        async with self.connections(clients) as connections:
            await self.rounds(work, lambda end: [client(each, end) for each in connections], latencies, lambda: size)

    async def get_under_lists(self) -> None:
        """GETs at a steady pace while two clients LIST as fast as they can."""
        request = self.server.request("GET", self.base)
        latencies: list[float] = []
        stop = asyncio.Event()

        async def lister(connection: Connection) -> None:
            while not stop.is_set():
                _expect(await connection.ask(request), 200)

        async def getter(connection: Connection, end: float) -> int:
            done = 0
            while (begin := time.perf_counter()) < end:
                one = self.server.request("GET", f"{self.base}/{self._name(random.randrange(self.pods))}")
                _expect(await connection.ask(one), 200)
                latencies.append(time.perf_counter() - begin)
                done += 1
                await asyncio.sleep(0.005)
            return done

        async with self.connections(2) as listing, self.connections(4) as getting:
            listers = [asyncio.ensure_future(lister(each)) for each in listing]
            await self.rounds(
                "GET while 2 connections LIST", lambda end: [getter(each, end) for each in getting], latencies
            )
            stop.set()
            await asyncio.gather(*listers)

    async def watch(self, changes: int, pause: float) -> None:
        """From the sending of a change to its arrival at the last of all watchers."""
        arrived = 0
        last = 0.0
        everywhere = asyncio.Event()

        def on_event(now: float) -> None:
            nonlocal arrived, last
            arrived += 1
            last = now
            if arrived == self.watchers:
                everywhere.set()

        gate = asyncio.Semaphore(20)

        async def begin_watch():
            async with gate:
                watch = await self.server.watch(f"{self.base}?watch=1&resourceVersion={version}", on_event)
                head = await watch.begun
                if b" 200 " not in head[:20]:
                    raise RuntimeError(f"watch: {head[:300]!r}")
                return watch

        async with self.connections(1) as (connection,):
            answer = await connection.ask(self.server.request("GET", f"{self.base}?limit=1"), keep=True)
            version = json.loads(answer.body)["metadata"]["resourceVersion"]
            watches = await asyncio.gather(*(begin_watch() for _ in range(self.watchers)))
            self._row(f"{self.watchers} watchers, idle", "", [], 0, 0)
            latencies: list[float] = []
            cpu, begun = time.process_time(), time.perf_counter()
            for change in range(changes):
                body = b'{"metadata":{"annotations":{"change":"%d"}}}' % change
                path = f"{self.base}/{self._name(change % self.pods)}"
                request = self.server.request("PATCH", path, body=body, kind="application/merge-patch+json")
                arrived = 0
                everywhere.clear()
                begin = time.perf_counter()
                answering = asyncio.ensure_future(connection.ask(request))
                await asyncio.wait_for(everywhere.wait(), 60)
                latencies.append(last - begin)
                _expect(await answering, 200)
                await asyncio.sleep(pause)
            used = (time.process_time() - cpu) / (time.perf_counter() - begun)
            self._row(f"a change to the last of {self.watchers} watchers", "", latencies, 0, used)
            for watch in watches:
                watch.close()

    async def clean(self) -> None:
        async with self.connections(1) as (connection,):
            for path in (self.base, f"/api/v1/namespaces/{self.namespace}"):
                query = "?gracePeriodSeconds=0" if path == self.base else ""
                _expect(await connection.ask(self.server.request("DELETE", path + query), keep=True), 200, 202, 409)
        self._row("after deleting all of it", "", [], 0, 0)

    # How steps are measured

    async def closed_loops(self, work: str, clients: int, request: Callable[[], bytes]) -> None:
        latencies: list[float] = []
        size = 0

        async def client(connection: Connection, end: float) -> int:
            nonlocal size
            done = 0
            while (begin := time.perf_counter()) < end:
                size += _expect(await connection.ask(request()), 200).size
                latencies.append(time.perf_counter() - begin)
                done += 1
            return done

        async with self.connections(clients) as connections:
            await self.rounds(work, lambda end: [client(each, end) for each in connections], latencies, lambda: size)

    async def rounds(
        self, work: str, clients: Callable[[float], Sequence], latencies: list[float], size: Callable[[], int] = int
    ) -> None:
        rates: list[float] = []
        cpu, begun = time.process_time(), time.perf_counter()
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            done = await asyncio.gather(*clients(begin + self.seconds / ROUNDS))
            rates.append(sum(done) / (time.perf_counter() - begin))
        elapsed = time.perf_counter() - begun
        used = (time.process_time() - cpu) / elapsed
        self._row(work, rate(median(rates)), latencies, size() / elapsed, used)

    @asynccontextmanager
    async def connections(self, number: int) -> AsyncIterator[list[Connection]]:
        connections = [await self.server.connect() for _ in range(number)]
        try:
            yield connections
        finally:
            for connection in connections:
                connection.close()

    def _row(self, work: str, rate: str, latencies: list[float], data: float, used: float) -> None:
        resident = memory(self.pids).resident
        row = (
            work,
            rate,
            milliseconds(percentile(latencies, 50)) if latencies else "",
            milliseconds(percentile(latencies, 99)) if latencies else "",
            f"{megabytes(data)}/s" if data >= 1e6 else "",
            f"{used:.0%}" if used else "",
            megabytes(resident) if resident else "unknown",
        )
        self.rows.append(row)
        print("  ".join(cell for cell in row if cell), flush=True)

    def _name(self, number: int) -> str:
        return f"web-{number:05}"

    def _pod(self, number: int) -> bytes:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self._name(number), "labels": {"app": f"web-{number % LABELS}"}},
            "spec": {
                "schedulerName": "nobody",
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "web",
                        "image": "registry.example.com/web:1.0",
                        "ports": [{"containerPort": 80}],
                        "env": [{"name": "LEVEL", "value": "info"}],
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    }
                ],
            },
        }
        return json.dumps(pod).encode()


def _expect(answer: Answer, *statuses: int) -> Answer:
    if answer.status not in statuses:
        raise RuntimeError(f"the server answered {answer.status}: {answer.body[:500].decode(errors='replace')}")
    return answer


def _continue(body: bytes) -> str:
    """A list's continue token, which stands before its items or after them."""
    for part in (body[:600], body[-600:]):
        _, found, rest = part.partition(b'"continue":"')
        if found:
            return rest.partition(b'"')[0].decode()
    return ""


async def measure(server: Server, arguments: argparse.Namespace) -> None:
    load = Load(server, arguments)
    steps = {
        "create": lambda: load.create(16),
        "get": lambda: load.get(16),
        "list": lambda: load.list(2),
        "paged": lambda: load.list_paged(2),
        "mixed": load.get_under_lists,
        "watch": lambda: load.watch(arguments.changes, 0.05),
    }
    chosen = arguments.only.split(",") if arguments.only else list(steps)
    await load.prepare()
    try:
        for name, step in steps.items():
            if name in chosen or name == "create":
                await step()
    finally:
        await load.clean()
    print(f"\n{server.url}, {load.pods:,} pods, medians of {ROUNDS} rounds; {machine()}")
    print(table(HEAD, load.rows))


def client_config(arguments: argparse.Namespace) -> ClientConfig:
    if arguments.kubeconfig or not arguments.server:
        return load_config(arguments.kubeconfig)

    def content(path: str) -> bytes:
        return Path(path).read_bytes() if path else b""

    return ClientConfig(
        server=arguments.server,
        ca_data=content(arguments.certificate_authority),
        client_cert_data=content(arguments.client_certificate),
        client_key_data=content(arguments.client_key),
        token=arguments.token,
        insecure=not arguments.certificate_authority,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench api", description="Put load on an API server.")
    parser.add_argument("--kubeconfig", help="how to reach it (default: what kubectl would use)")
    parser.add_argument("--server", help="its URL, instead of a kubeconfig")
    parser.add_argument("--token", default="", help="who we are")
    parser.add_argument("--client-certificate", default="", help="or who we are, PEM")
    parser.add_argument("--client-key", default="")
    parser.add_argument("--certificate-authority", default="", help="PEM; without it any server is trusted")
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0, help="each step, in all its rounds")
    parser.add_argument("--only", default="", help="steps after `create`: get,list,paged,mixed,watch")
    parser.add_argument("--pid", type=int, action="append", help="of the server (and its etcd) on this machine")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config = client_config(arguments)
    uvloop.run(measure(Server(replace(config, server=config.server.rstrip("/"))), arguments))


if __name__ == "__main__":
    main()
