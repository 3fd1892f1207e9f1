"""What several tests of stores need."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from shipwheel.store.base import Event, KeyValue, Progress, Store


@contextlib.asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def watching(store: Store, prefix: str, after: int) -> AsyncIterator[AsyncIterator[Progress]]:
    progress = store.watch(prefix, after=after)
    try:
        yield progress
    finally:
        await progress.aclose()  # type: ignore[attr-defined]


async def events(progress: AsyncIterator[Progress], number: int) -> list[Event]:
    """The next so many events, and no more than these."""
    found: list[Event] = []
    while len(found) < number:
        found += (await asyncio.wait_for(anext(progress), 10)).events
    assert len(found) == number
    return found


async def fill(store: Store, prefix: str, number: int) -> list[KeyValue]:
    """Put so many keys, one after the other in the order of their names."""
    return [await store.put(f"{prefix}{index:04}", b"%d" % index) for index in range(number)]


class EtcdServer:
    """An etcd process on loopback ports of its own, which keeps its data when it is stopped and started."""

    def __init__(self, directory: Path, *flags: str, scheme: str = "http", name: str = "default") -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._flags = flags
        self._client_port, peer_port = free_ports(2)
        self.url = f"{scheme}://127.0.0.1:{self._client_port}"
        self._name = name
        self._peer_url = f"http://127.0.0.1:{peer_port}"
        self._cluster = f"{name}={self._peer_url}"
        self._process: subprocess.Popen[bytes] | None = None

    def join(self, members: Sequence[EtcdServer]) -> None:
        """Be one of these."""
        self._cluster = ",".join(f"{member._name}={member._peer_url}" for member in members)

    def launch(self) -> None:
        command = [
            "etcd",
            f"--name={self._name}",
            f"--data-dir={self._directory / 'data'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self._peer_url}",
            f"--initial-advertise-peer-urls={self._peer_url}",
            f"--initial-cluster={self._cluster}",
            "--log-level=error",
            *self._flags,
        ]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 20
        while not answers(self._client_port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "log").read_text())
            time.sleep(0.02)

    def start(self) -> None:
        self.launch()
        self.wait()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ctl(self, *arguments: str) -> str:
        command = ["etcdctl", f"--endpoints={self.url}", *arguments]
        return subprocess.run(command, check=True, env={"ETCDCTL_API": "3"}, capture_output=True, text=True).stdout

    def leases(self) -> set[str]:
        return set(self.ctl("lease", "list").splitlines()[1:])


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
