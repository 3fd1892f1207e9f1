"""What the stores do, and what the disk costs them: `python -m bench.store [--engine etcd --endpoint URL]`.

Writers are closed loops: each waits for its answer before it writes again. The raw sync at the top is the floor under
every latency below it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bench.processes import memory
from bench.report import machine, median, megabytes, milliseconds, percentile, rate, table
from shipwheel.api.clock import SystemClock
from shipwheel.store.base import Store
from shipwheel.store.etcd import EtcdStore
from shipwheel.store.sqlite import SqliteStore

ROUNDS = 5


class Bench:
    def __init__(self, store: Store, size: int) -> None:
        self.store = store
        self.value = os.urandom(size)
        self.written = 0
        self.rows: list[tuple[str, ...]] = []

    def _row(self, work: str, rates: list[float], latencies: list[float]) -> None:
        middle, high = percentile(latencies, 50), percentile(latencies, 99)
        self.rows.append((work, rate(median(rates)), milliseconds(middle), milliseconds(high)))

    async def writes(self, writers: int, number: int, work: str) -> None:
        """Creates with compare-and-swap."""
        rates, latencies = [], []

        async def write() -> None:
            for _ in range(number // writers):
                self.written += 1
                key = f"/registry/bench/default/web-{self.written * 7919 % 1_000_003:07}"
                begin = time.perf_counter()
                await self.store.put(key, self.value, expected=0)
                latencies.append(time.perf_counter() - begin)

        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await asyncio.gather(*(write() for _ in range(writers)))
            rates.append(number / (time.perf_counter() - begin))
        self._row(work, rates, latencies)

    async def updates(self, writers: int, number: int) -> None:
        rates, latencies = [], []

        async def write(name: str) -> None:
            kv = await self.store.put(f"/registry/bench/other/{name}", self.value)
            for _ in range(number // writers):
                begin = time.perf_counter()
                kv = await self.store.put(kv.key, self.value, expected=kv.mod_revision)
                latencies.append(time.perf_counter() - begin)

        for _ in range(ROUNDS):
            begin = time.perf_counter()
            await asyncio.gather(*(write(f"{n}") for n in range(writers)))
            rates.append(number / (time.perf_counter() - begin))
        self._row(f"update, {writers} writers", rates, latencies)

    async def watch(self, number: int) -> None:
        """From the call of `put` to the event in a watcher's hands."""
        latencies: list[float] = []
        begun = 0.0
        seen = asyncio.Event()

        async def watch() -> None:
            async for progress in self.store.watch("/registry/", after=await self.store.revision()):
                latencies.extend(time.perf_counter() - begun for _ in progress.events)
                seen.set()

        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0.2)
        for n in range(number):
            seen.clear()
            begun = time.perf_counter()
            await self.store.put(f"/registry/bench/watched/{n}", self.value)
            await seen.wait()
        watching.cancel()
        self._row("a put until a watcher has it", [1 / median(latencies)], latencies)

    async def reads(self, work: str, read: Callable[[], Coroutine[Any, Any, Any]], number: int) -> None:
        latencies = []
        for _ in range(number):
            begin = time.perf_counter()
            await read()
            latencies.append(time.perf_counter() - begin)
        self._row(work, [1 / median(latencies)], latencies)

    async def run(self, number: int) -> None:
        await self.writes(16, number, "create, 16 writers")
        await self.writes(1, number // 10, "create, 1 writer")
        await self.updates(16, number)
        await self.watch(min(1000, number // 4))
        (first,) = (await self.store.range("/registry/bench/default/", limit=1)).items
        await self.reads("get", lambda: self.store.get(first.key), 2000)
        keys = len((await self.store.range("/registry/")).items)
        await self.reads(f"range of {keys:,} keys", lambda: self.store.range("/registry/"), 5)
        await self.reads("page of 500 of them", lambda: self.store.range("/registry/", limit=500), 20)


def syncs(directory: str) -> tuple[str, ...]:
    """What every write has to wait for: 8 KiB written over others and synced."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(bytes(4 << 20))
        os.fsync(file.fileno())
        latencies = []
        for n in range(500):
            os.pwrite(file.fileno(), bytes(8192), n % 500 * 8192)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            latencies.append(time.perf_counter() - begin)
    middle = percentile(latencies, 50)
    return ("the disk's own sync", rate(1 / middle), milliseconds(middle), milliseconds(percentile(latencies, 99)))


async def measure(arguments: argparse.Namespace, directory: str) -> None:
    if arguments.engine == "etcd":
        store: Store = EtcdStore([arguments.endpoint])
        rows = []
    else:
        store = SqliteStore(os.path.join(directory, "store.db"), clock=SystemClock())
        rows = [syncs(directory)]
    await store.open()
    try:
        bench = Bench(store, arguments.size)
        before = memory([os.getpid()]).resident
        await bench.run(arguments.number)
        grown = memory([os.getpid()]).resident - before
    finally:
        await store.close()
    print(f"{arguments.engine}, values of {arguments.size} bytes, medians of {ROUNDS} rounds; {machine()}")
    print(table(("work", "rate", "p50", "p99"), [*rows, *bench.rows]))
    print(f"resident memory grown by {megabytes(grown)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench store", description="Measure a store.")
    parser.add_argument("--engine", choices=["sqlite", "etcd"], default="sqlite")
    parser.add_argument("--endpoint", default="http://127.0.0.1:2379", help="of etcd, which should be an empty one")
    parser.add_argument("--directory", help="where the file is made (default: the temporary directory)")
    parser.add_argument("--size", type=int, default=2048, help="of a value, in bytes")
    parser.add_argument("--number", type=int, default=8000, help="of writes in a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=arguments.directory) as directory:
        uvloop.run(measure(arguments, directory))


if __name__ == "__main__":
    main()
