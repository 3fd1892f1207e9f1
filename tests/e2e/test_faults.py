"""What must not be lost when things break: writes that were acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import Cluster, wait_for
from tests.sweep import swept

KILLS = 20


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, f"faults-{os.getpid()}", "--port", "0", "--runtime", "simulated")
    try:
        made.up()
        yield made
    finally:
        made.down()


class Writers:
    """Threads that create and change config maps without rest, and remember what the server acknowledged."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        from tests.e2e.test_bad_input import Raw

        self._raw = Raw(cluster)
        self.acknowledged: dict[str, int] = {}
        self.attempted: dict[str, int] = {}
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for each in self._threads:
            each.start()

    def _write(self, number: int) -> None:
        import json

        path = "/api/v1/namespaces/default/configmaps"
        serial = 0
        while not self._done.is_set():
            serial += 1
            name = f"w{number}-{serial // 5}"
            self.attempted[name] = serial
            obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"serial": str(serial)}}
            patch = json.dumps({**obj, "metadata": {"name": name, "namespace": "default"}}).encode()
            try:
                written = self._raw(
                    "PATCH", f"{path}/{name}?fieldManager=w&force=true", patch, "application/apply-patch+yaml"
                )
            except (OSError, ValueError):  # no connection, or half an answer
                time.sleep(0.02)
                continue
            if written.get("kind") == "ConfigMap":
                self.acknowledged[name] = serial

    def stop(self) -> None:
        self._done.set()
        for each in self._threads:
            each.join()


@pytest.mark.timeout(300)
def test_no_acknowledged_write_is_lost_when_the_api_server_is_killed(simulated: Cluster) -> None:
    writers = Writers(simulated, 2)
    try:
        for _ in range(KILLS):
            count = len(writers.acknowledged)
            wait_for(lambda count=count: len(writers.acknowledged) > count + 2, every=0.01)
            old = simulated.processes()["kube-apiserver"]
            os.kill(old, signal.SIGKILL)
            wait_for(lambda old=old: simulated.processes()["kube-apiserver"] not in (0, old), every=0.02)
    finally:
        writers.stop()
    wait_for(lambda: simulated.try_kubectl("get", "--raw", "/readyz", timeout=60).code == 0)
    items = [each for each in simulated.get("configmaps")["items"] if each["metadata"]["name"].startswith("w")]
    found = {each["metadata"]["name"]: int(each["data"]["serial"]) for each in items}
    assert len(found) == len(items), "nothing appears twice"
    assert len(writers.acknowledged) > KILLS
    for name, serial in writers.acknowledged.items():
        # What was tried after it, and may or may not have been written, is newer.
        assert serial <= found.get(name, 0) <= writers.attempted[name], name
    versions = [int(each["metadata"]["resourceVersion"]) for each in items]
    assert len(set(versions)) == len(versions)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    """Writes fail with a clear error, reads go on, and when there is room again so do writes."""
    small = tmp_path / "small"
    small.mkdir()
    cluster = Cluster(small, f"full-{os.getpid()}", "--port", "0", "--runtime", "simulated")
    with swept(small):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=True)
        try:
            fill_up(cluster, small / "ballast")
        finally:
            cluster.down()


def fill_up(cluster: Cluster, ballast: Path) -> None:
    cluster.up()
    cluster.kubectl("create", "configmap", "before", "--from-literal=a=b")
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    errors = set()
    for number in range(200):
        result = cluster.try_kubectl("create", "configmap", f"c{number}", f"--from-literal=a={'x' * 20000}")
        if result.code:
            errors.add(result.err)
            break
    assert errors
    assert all("full" in each or "no space left" in each.lower() for each in errors), errors
    assert cluster.get("configmap", "before")["data"] == {"a": "b"}
    ballast.unlink()
    wait_for(lambda: cluster.try_kubectl("create", "configmap", "after", timeout=10).code == 0)
    names = {each["metadata"]["name"] for each in cluster.get("configmaps")["items"]}
    assert {"before", "after"} <= names
