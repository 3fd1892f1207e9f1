"""How fast an API server is, ours or another: `python -m bench.api [--kubeconfig FILE | --server URL --token TOKEN]`.

In a namespace of its own it creates pods that no scheduler looks at, reads them in all ways, watches them with many
watchers, and says after each step what memory the server uses. Clients are closed loops over TLS connections that are
kept alive; the figures are medians of several rounds. "server CPU" is what its processes used for one request, which
does not depend on who else has the machine; "client" is how much of one core the clients themselves used: near 100 %
they are what limits.
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
from bench.processes import cpu_seconds, listening_on, memory
from bench.report import duration, machine, median, megabytes, milliseconds, percentile, rate, table
from shipwheel.client.kubeconfig import ClientConfig, load_config

ROUNDS = 5
LABELS = 10
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PROTOBUF = "application/vnd.kubernetes.protobuf"
FORMS = (("", "application/json"), (" as Table", TABLE), (" as protobuf", PROTOBUF))
STATUS_PATCH = "application/strategic-merge-patch+json"
HEAD = ("work", "rate", "p50", "p99", "server CPU", "data", "client", "server memory")


class Cost:
    """What is spent from here on: time, and processor time of the server and of ourselves, all in seconds."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._begun = time.perf_counter(), cpu_seconds(pids), time.process_time()

    def elapsed(self) -> float:
        return time.perf_counter() - self._begun[0]

    def server(self) -> float:
        return cpu_seconds(self._pids) - self._begun[1]

    def client(self) -> float:
        return time.process_time() - self._begun[2]


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
        self._row("idle")

    async def create(self, clients: int) -> None:
        requests = [self.server.request("POST", self.base, body=self._pod(number)) for number in range(self.pods)]
        numbered = enumerate(requests)

        async def client(connection: Connection, latencies: list[float]) -> None:
            for number, request in numbered:
                if number % (self.pods // ROUNDS) == 0:
                    marks.append(time.perf_counter())
                begin = time.perf_counter()
                _expect(await connection.ask(request), 201)
                latencies.append(time.perf_counter() - begin)

        marks: list[float] = []
        latencies: list[float] = []
        async with self.connections(clients) as connections:
            cost = Cost(self.pids)
            await asyncio.gather(*(client(connection, latencies) for connection in connections))
        marks.append(time.perf_counter())
        rates = [self.pods / ROUNDS / (end - begin) for begin, end in pairwise(marks)]
        self._row(f"create a pod, {clients} connections", rate(median(rates)), latencies, cost)

    async def live(self, clients: int) -> None:
        """What becomes of most pods: created, bound, three statuses, deleted. A rate counts whole lives."""
        latencies: list[float] = []
        numbers = iter(range(1 << 30))

        async def client(connection: Connection, end: float) -> int:
            done = 0
            while (begin := time.perf_counter()) < end:
                for request in self._life(f"life-{next(numbers):06}"):
                    _expect(await connection.ask(request), 200, 201)
                latencies.append(time.perf_counter() - begin)
                done += 1
            return done

        async with self.connections(clients) as connections:
            work = f"a pod's life (6 requests), {clients} connections"
            await self.rounds(work, lambda end: [client(each, end) for each in connections], latencies)

    def _life(self, name: str) -> list[bytes]:
        pod, ask = f"{self.base}/{name}", self.server.request
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}}
        statuses = [
            {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}],
                "containerStatuses": [
                    {"name": "web", "image": "i", "imageID": "", "ready": ready == "True", "restartCount": 0}
                ],
            }
            for phase, ready in (("Pending", "False"), ("Running", "False"), ("Running", "True"))
        ]
        return [
            ask("POST", self.base, body=self._pod(0, name)),
            ask("POST", f"{pod}/binding", body=json.dumps({"apiVersion": "v1", "kind": "Binding", **binding}).encode()),
            *(
                ask("PATCH", f"{pod}/status", body=json.dumps({"status": status}).encode(), kind=STATUS_PATCH)
                for status in statuses
            ),
            ask("DELETE", f"{pod}?gracePeriodSeconds=0"),
        ]

    async def get(self, clients: int) -> None:
        def one() -> bytes:
            return self.server.request("GET", f"{self.base}/{self._name(random.randrange(self.pods))}")

        await self.closed_loops(f"GET a pod, {clients} connections", clients, one)

    async def list(self, clients: int) -> None:
        for work, query, accept in (
            ("LIST", "", "application/json"),
            ("LIST by label", "?labelSelector=app%3Dweb-3", "application/json"),
            ("LIST by field", "?fieldSelector=status.phase%3DRunning", "application/json"),
            ("LIST as Table", "", TABLE),
            ("LIST as protobuf", "", PROTOBUF),
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
        for form, accept in FORMS:
            await self._get_under_lists(form, self.server.request("GET", self.base, accept=accept))

    async def _get_under_lists(self, form: str, request: bytes) -> None:
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
                f"GET while 2 connections LIST{form}", lambda end: [getter(each, end) for each in getting], latencies
            )
            stop.set()
            await asyncio.gather(*listers)

    async def watch(self, changes: int, pause: float) -> None:
        """From the sending of a change to its arrival at the last of all watchers."""
        for form, accept in FORMS:
            if accept != TABLE:
                await self._watch(changes, pause, form, accept)

    async def _watch(self, changes: int, pause: float, form: str, accept: str) -> None:
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
                path = f"{self.base}?watch=1&resourceVersion={version}"
                watch = await self.server.watch(path, on_event, accept=accept)
                head = await watch.begun
                if b" 200 " not in head[:20]:
                    raise RuntimeError(f"watch: {head[:300]!r}")
                return watch

        async with self.connections(1) as (connection,):
            answer = await connection.ask(self.server.request("GET", f"{self.base}?limit=1"), keep=True)
            version = json.loads(answer.body)["metadata"]["resourceVersion"]
            watches = await asyncio.gather(*(begin_watch() for _ in range(self.watchers)))
            self._row(f"{self.watchers} watchers{form}, idle")
            latencies: list[float] = []
            cost = Cost(self.pids)
            for change in range(changes):
                # Another text in each form: what changes nothing is no event.
                body = json.dumps({"metadata": {"annotations": {"change": f"{change}{form}"}}}).encode()
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
            self._row(f"a change to the last of {self.watchers} watchers{form}", latencies=latencies, cost=cost)
            for watch in watches:
                watch.close()

    async def clean(self) -> None:
        async with self.connections(1) as (connection,):
            for path in (self.base, f"/api/v1/namespaces/{self.namespace}"):
                query = "?gracePeriodSeconds=0" if path == self.base else ""
                request = self.server.request("DELETE", path + query)
                # On a busy machine all of it may take longer than one request is allowed to.
                while _expect(await connection.ask(request, keep=True), 200, 202, 409, 504).status == 504:
                    pass
        self._row("after deleting all of it")

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
        cost = Cost(self.pids)
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            done = await asyncio.gather(*clients(begin + self.seconds / ROUNDS))
            rates.append(sum(done) / (time.perf_counter() - begin))
        self._row(work, rate(median(rates)), latencies, cost, size())

    @asynccontextmanager
    async def connections(self, number: int) -> AsyncIterator[list[Connection]]:
        connections = [await self.server.connect() for _ in range(number)]
        try:
            yield connections
        finally:
            for connection in connections:
                connection.close()

    def _row(
        self, work: str, rate: str = "", latencies: Sequence[float] = (), cost: Cost | None = None, size: int = 0
    ) -> None:
        resident = memory(self.pids).resident
        row = (
            work,
            rate,
            milliseconds(percentile(latencies, 50)) if latencies else "",
            milliseconds(percentile(latencies, 99)) if latencies else "",
            duration(cost.server() / len(latencies)) if cost and latencies and self.pids else "",
            f"{megabytes(size / cost.elapsed())}/s" if cost and size / cost.elapsed() >= 1e6 else "",
            f"{cost.client() / cost.elapsed():.0%}" if cost else "",
            megabytes(resident) if resident else "unknown",
        )
        self.rows.append(row)
        print("  ".join(cell for cell in row if cell), flush=True)

    def _name(self, number: int) -> str:
        return f"web-{number:05}"

    def _pod(self, number: int, name: str = "") -> bytes:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name or self._name(number), "labels": {"app": f"web-{number % LABELS}"}},
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
        "life": lambda: load.live(16),
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
    parser.add_argument("--only", default="", help="steps after `create`: life,get,list,paged,mixed,watch")
    parser.add_argument("--pid", type=int, action="append", help="of the server (and its etcd) on this machine")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config = client_config(arguments)
    uvloop.run(measure(Server(replace(config, server=config.server.rstrip("/"))), arguments))


if __name__ == "__main__":
    main()
