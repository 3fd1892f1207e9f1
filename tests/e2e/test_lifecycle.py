"""A cluster's life: up, up again, killed, gone on with, taken down without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import BIN, Cluster, can_run_containers, page, wait_for
from tests.e2e.test_kubectl import pod

pytestmark = can_run_containers


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that a test may ill-treat."""
    made = Cluster(tmp_path, f"own-{os.getpid()}", "--port", "0")
    try:
        yield made
    finally:
        made.down()


def containers(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """Pod -> (container id, restarts)."""
    return {
        each["metadata"]["name"]: (status["containerID"], status["restartCount"])
        for each in cluster.get("pods", "-A")["items"]
        for status in each["status"].get("containerStatuses") or ()
    }


def test_up_can_be_repeated(own: Cluster) -> None:
    assert "a web site of three pods answers" in own.up("--demo").out
    before = own.processes()
    again = own.up("--demo")
    assert "Waiting for the cluster, which runs already" in again.err
    assert own.processes() == before
    status = own.shipwheel("status").out
    assert f"Cluster     {own.name} (running)" in status
    assert all(f"{each} " in status for each in ("kube-apiserver", "control-plane", "node-1"))
    assert own.shipwheel("kubeconfig").out == f"{own.data}/admin.conf\n"
    assert own.kubectl("config", "current-context") == f"shipwheel-{own.name}\n"
    own.down()
    assert own.kubectl("config", "get-contexts", "-o", "name") == ""
    assert not own.data.exists()


def test_what_is_killed_is_gone_on_with(own: Cluster) -> None:
    """`kill -9` of everything that is ours: the containers run on, the site answers, `up` takes them over."""
    own.up("--demo")
    before = containers(own)
    assert len(before) == 3
    service = own.get("service", "web")["spec"]
    url = f"http://{service['clusterIP']}/"
    own.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    containerd = int(next(Path("/run/shipwheel").glob(f"{own.name}-*/node-1/containerd.pid")).read_text())
    for pid in (*own.processes().values(), containerd):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: own.try_kubectl("get", "pods", timeout=60).code != 0)
    assert page(url)
    own.up()
    assert own.get("configmap", "kept")["data"] == {"a": "b"}
    wait_for(lambda: containers(own) == before)
    own.kubectl("scale", "deployment/web", "--replicas=4")
    own.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    assert before.items() <= containers(own).items()
    assert page(url)


def test_each_component_comes_back(own: Cluster) -> None:
    own.up("--demo")
    for name in ("kube-apiserver", "control-plane", "node-1"):
        old = own.processes()[name]
        os.kill(old, signal.SIGKILL)
        wait_for(lambda name=name, old=old: own.processes()[name] not in (0, old))
    wait_for(lambda: own.try_kubectl("get", "--raw", "/readyz", timeout=60).code == 0)
    own.apply(pod("p"))
    own.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=120s")


def test_stopping_with_the_data_kept(own: Cluster) -> None:
    own.up("--demo")
    own.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    own.apply(pod("p"))
    own.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=120s")
    own.down("--keep-data")
    assert own.shipwheel("status", check=False).code == 1
    own.up()
    assert own.get("configmap", "kept")["data"] == {"a": "b"}
    own.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=120s")


def test_a_damaged_store_is_left_as_it_is(own: Cluster) -> None:
    own.up()
    own.down("--keep-data")
    (database,) = (own.data / "store").glob("*.db")
    database.write_bytes(b"this is no database" * 1000)
    damaged = database.read_bytes()
    failed = own.shipwheel("up", check=False)
    assert failed.code == 1
    assert "error: kube-apiserver ended with code 1: " in failed.err
    assert str(database) in failed.err
    assert database.read_bytes() == damaged
    assert own.shipwheel("status", check=False).code == 1


def test_a_real_etcd(tmp_path: Path) -> None:
    if shutil.which("etcd") is None:
        pytest.skip("needs etcd")
    cluster = Cluster(tmp_path, f"etcd-{os.getpid()}", "--port", "0", "--store", "etcd", "--runtime", "simulated")
    try:
        cluster.up("--demo")
        assert "etcd " in cluster.shipwheel("status").out
        os.kill(cluster.processes()["etcd"], signal.SIGKILL)
        wait_for(lambda: cluster.try_kubectl("create", "configmap", f"c{time.monotonic_ns()}", timeout=20).code == 0)
    finally:
        cluster.down()


def test_simulated_pods(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, f"sim-{os.getpid()}", "--port", "0", "--runtime", "simulated")
    try:
        cluster.up("--demo")
        assert len(containers(cluster)) == 3
        cluster.kubectl("rollout", "restart", "deployment/web")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    finally:
        cluster.down()


@pytest.mark.timeout(360)
@pytest.mark.parametrize("options", [(), ("--nodes", "2")], ids=["the machine", "two nodes"])
def test_down_leaves_no_trace(tmp_path: Path, options: tuple[str, ...]) -> None:
    """In namespaces of its own (network, mounts, processes), so that nothing but the cluster changes anything."""
    name = f"swt-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "ip link set lo up",
            "ip link add out0 type veth peer name out1",
            "ip addr add 192.0.2.2/24 dev out0",
            "ip link set out0 up",
            "ip link set out1 up",
            "ip route add default via 192.0.2.1",
        ):
            subprocess.run(["ip", "netns", "exec", name, *command.split()], check=True)
        # `ip netns exec` would hide the cgroups, nsenter does not.
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--pid", "--fork", "--mount-proc",
             sys.executable, "-m", "tests.e2e.machine_before_and_after", str(tmp_path), *options],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["during"] > 5, "there should have been something to remove"
        assert "\n".join(report["left"]) == ""
        assert "\n".join(report["lost"]) == ""
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        cluster = Cluster(tmp_path, "taken")
        failed = cluster.shipwheel("up", "--port", str(port), check=False)
    assert failed.code == 1
    assert f"error: port {port} is taken by process {os.getpid()} (" in failed.err


def test_two_clusters_side_by_side(own: Cluster, cluster: Cluster) -> None:
    own.up("--demo")
    own.apply(pod("p"))
    own.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=120s")
    ours, theirs = (each.get("service", "kubernetes")["spec"]["clusterIP"] for each in (own, cluster))
    assert ours != theirs
    lookup = own.kubectl("exec", "p", "--", "nslookup", "kubernetes.default.svc.cluster.local")
    assert f"Address: {ours}" in lookup
    service = cluster.get("service", "web")["spec"]["clusterIP"]
    own.down()
    assert page(f"http://{service}/")
