"""From nothing to the first pod running, and what the cluster costs when it is idle: `python -m bench.up`.

A cluster is started, given one pod and taken away again, several times; the last one is left alone for a while and
watched. containerd and the containers are not ours and are counted apart. Resident memory counts shared pages in every
process that has them; proportional memory counts them once.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import children, command, cpu_seconds, memory, parent
from bench.report import machine, median, megabytes, table
from shipwheel.admin.images import PAUSE
from shipwheel.admin.layout import Layout
from shipwheel.admin.status import admin_client, components
from shipwheel.api.errors import ApiError
from shipwheel.client.resources import PODS

NAME = "bench"
TIMEOUT = 60.0


class Cluster:
    """A cluster of its own, by the commands that everybody uses."""

    def __init__(self, data: Path, arguments: argparse.Namespace) -> None:
        self.layout = Layout.of(NAME, data)
        self._place = ["--name", NAME, "--data-dir", str(data)]
        self._flags = ["--runtime", arguments.runtime, "--store", arguments.store, "--port", "0"]

    def up(self) -> None:
        self._shipwheel("up", *self._place, *self._flags)

    def down(self) -> None:
        self._shipwheel("down", *self._place)

    def _shipwheel(self, *arguments: str) -> None:
        program = Path(sys.executable).with_name("shipwheel")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"shipwheel {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")

    def run_pod(self) -> None:
        """Create a pod and return when it runs."""
        asyncio.run(self._run_pod())

    async def _run_pod(self) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "first", "namespace": "default"},
            "spec": {"containers": [{"name": "pause", "image": PAUSE}], "terminationGracePeriodSeconds": 0},
        }
        async with admin_client(self.layout) as client, asyncio.timeout(TIMEOUT):
            while True:
                try:
                    await client.create(PODS, pod)
                    break
                except ApiError as error:
                    if error.reason != "Forbidden":  # its service account is not there yet
                        raise
                    await asyncio.sleep(0.02)
            while True:
                created = await client.get(PODS, "first", "default")
                if created.get("status", {}).get("phase") == "Running":
                    return
                await asyncio.sleep(0.02)

    def processes(self) -> tuple[dict[int, str], dict[int, str]]:
        """Names by pid: ours, and those of containerd and its containers."""
        names = {each.pid: each.name for each in components(self.layout) if each.running}
        supervisor = parent(next(iter(names)))
        names[supervisor] = "supervisor"
        ours: dict[int, str] = {}
        foreign: dict[int, str] = {}

        def visit(pid: int, name: str, found: dict[int, str]) -> None:
            name = names.get(pid, name)
            if command(pid).startswith(("containerd", "runc")):
                found, name = foreign, command(pid)
            found[pid] = name
            for child in children(pid):
                visit(child, f"{name} / {command(child)}", found)

        visit(supervisor, "supervisor", ours)
        return ours, foreign


@contextmanager
def cluster(arguments: argparse.Namespace) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="bench-up-") as directory:
        made = Cluster(Path(directory) / "data", arguments)
        try:
            yield made
        finally:
            made.down()


def start(made: Cluster) -> tuple[float, float]:
    """Seconds until `up` returns, and until a pod runs."""
    begin = time.perf_counter()
    made.up()
    ready = time.perf_counter() - begin
    made.run_pod()
    return ready, time.perf_counter() - begin


def watch_idle(made: Cluster, settle: float, window: float) -> str:
    """A table of what every process uses while nothing happens."""
    time.sleep(settle)
    ours, foreign = made.processes()
    before = {pid: cpu_seconds([pid]) for pid in ours}
    foreign_before = cpu_seconds(foreign)
    time.sleep(window)

    def row(name: str, pids: list[int], cpu: float) -> tuple[str, str, str, str]:
        used = memory(pids)
        return name, megabytes(used.resident), megabytes(used.proportional), f"{cpu / window:.1%}"

    cpu = {pid: cpu_seconds([pid]) - before[pid] for pid in ours}
    rows = [row(name, [pid], cpu[pid]) for pid, name in ours.items()]
    rows.append(row("all of these", list(ours), sum(cpu.values())))
    rows.append(row("containerd and containers", list(foreign), cpu_seconds(foreign) - foreign_before))
    return table(("process", "resident", "proportional", "of one core"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench up", description="Start clusters, and watch one idle.")
    parser.add_argument("--runtime", choices=["containerd", "simulated"], default="containerd")
    parser.add_argument("--store", choices=["sqlite", "etcd"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before it counts as idle")
    parser.add_argument("--window", type=float, default=30.0, help="seconds of idling that are measured")
    arguments = parser.parse_args()
    ready, running, idle = [], [], ""
    for left in reversed(range(arguments.rounds)):
        with cluster(arguments) as made:
            seconds = start(made)
            ready.append(seconds[0])
            running.append(seconds[1])
            print(f"up in {seconds[0]:.2f} s, a pod running after {seconds[1]:.2f} s", flush=True)
            if not left:
                idle = watch_idle(made, arguments.settle, arguments.window)
    print(f"\n{arguments.runtime}, {arguments.store}, medians of {arguments.rounds}; {machine()}")
    print(f"`shipwheel up`: {median(ready):.2f} s; to the first pod Running: {median(running):.2f} s\n")
    print(idle)


if __name__ == "__main__":
    main()
