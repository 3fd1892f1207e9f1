"""Nodes without containers: several kubelets, and lightweight ones whose pods live by declared stages."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.live import Cluster, wait_for
from tests.e2e.test_kubectl import deployment

STAGES = """
stages:
- {name: crash, from: Running, match: {labels: app=flaky}, delay: 1s, to: Exited, exit: 7}
usage:
- {match: {labels: app=a}, cpu: 250m, memory: 64Mi}
"""
GOOD = 40


def phases(cluster: Cluster, app: str) -> list[str]:
    return [each["status"]["phase"] for each in cluster.get("pods", "-l", f"app={app}")["items"]]


def restarts(cluster: Cluster) -> list[int]:
    pods = cluster.get("pods", "-l", "app=flaky")["items"]
    return [status["restartCount"] for each in pods for status in each["status"].get("containerStatuses") or ()]


def test_simulated_nodes(tmp_path: Path) -> None:
    stages = tmp_path / "stages.yaml"
    stages.write_text(STAGES)
    cluster = Cluster(tmp_path, f"many-{os.getpid()}", "--port", "0", "--runtime", "simulated")
    try:
        cluster.up("--nodes", "2", "--simulated-nodes", "20", "--stages", str(stages))
        nodes = cluster.get("nodes")["items"]
        assert len(nodes) == 22
        assert len({each["spec"]["podCIDR"] for each in nodes}) == 22
        cluster.apply(deployment("a", GOOD), deployment("flaky", 2))
        wait_for(lambda: phases(cluster, "a") == ["Running"] * GOOD)
        addresses = [each["status"]["podIP"] for each in cluster.get("pods", "-l", "app=a")["items"]]
        assert len(set(addresses)) == GOOD
        wait_for(lambda: max(restarts(cluster)) >= 2)
        placed = {each["spec"]["nodeName"] for each in cluster.get("pods", "-l", "app=a")["items"]}
        node = next(each for each in sorted(placed) if each.startswith("simulated-"))
        path = f"/api/v1/nodes/{node}/proxy/metrics/nodes/{node}/metrics/resource"
        assert "pod_memory_working_set_bytes" in cluster.kubectl("get", "--raw", path)
        # Kubelets that are not lightweight have ports of their own.
        for name in ("node-1", "node-2"):
            assert cluster.kubectl("get", "--raw", f"/api/v1/nodes/{name}/proxy/healthz") == "ok"
        # What runs is left alone by whoever comes next.
        os.kill(cluster.processes()["simulated-nodes"], signal.SIGKILL)
        cluster.up("--simulated-nodes", "25")
        assert len(cluster.get("nodes")["items"]) == 27
        assert addresses == [each["status"]["podIP"] for each in cluster.get("pods", "-l", "app=a")["items"]]
        cluster.kubectl("delete", "deployment", "a", "flaky", "--wait=false")
        wait_for(lambda: not cluster.get("pods")["items"])
        assert cluster.shipwheel("node", "stop", "node-2").out == 'node "node-2" stopped\n'
        assert cluster.shipwheel("node", "remove", "node-2").out == 'node "node-2" removed\n'
    finally:
        cluster.down()
