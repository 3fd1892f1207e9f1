"""Several nodes on one machine: pods of all reach one another, a node dies and its pods move, it returns, it goes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.e2e.live import Cluster, can_run_containers, page, wait_for
from tests.e2e.test_kubectl import deployment, pod
from tests.e2e.test_lifecycle import containers

pytestmark = [pytest.mark.root, pytest.mark.containerd, can_run_containers]

PAGE = "/cgi-bin/index.cgi"
IMPATIENT = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    for key in ("not-ready", "unreachable")
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("nodes"), f"nodes-{os.getpid()}", "--port", "0")
    try:
        made.up("--nodes", "3", "--demo")
        yield made
    finally:
        made.down()


def spread(obj: dict[str, Any]) -> dict[str, Any]:
    """One pod a node, and no patience with nodes that died."""
    template = obj["spec"]["template"]
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": template["metadata"]["labels"]}}
    template["spec"] |= {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        "tolerations": IMPATIENT,
        "terminationGracePeriodSeconds": 1,
    }
    return obj


def by_node(cluster: Cluster, app: str) -> dict[str, dict[str, Any]]:
    """The pods of an application that are neither leaving nor without a place."""
    pods = cluster.get("pods", "-l", f"app={app}")["items"]
    return {
        each["spec"]["nodeName"]: each
        for each in pods
        if "deletionTimestamp" not in each["metadata"] and "nodeName" in each["spec"]
    }


def is_ready(cluster: Cluster, node: str) -> str:
    conditions = cluster.get("node", node)["status"]["conditions"]
    return next(each["status"] for each in conditions if each["type"] == "Ready")


def address_of(cluster: Cluster, node: str) -> str:
    addresses = cluster.get("node", node)["status"]["addresses"]
    return next(each["address"] for each in addresses if each["type"] == "InternalIP")


def machines(cluster: Cluster) -> dict[str, str]:
    """`node list`: node -> how its machine is."""
    rows = [line.split() for line in cluster.shipwheel("node", "list").out.splitlines()[1:]]
    return {row[0]: row[1] for row in rows}


def test_every_pod_reaches_every_other(three: Cluster) -> None:
    pods = wait_for(lambda: len(found := by_node(three, "web")) == 3 and found)
    assert sorted(pods) == ["node-1", "node-2", "node-3"]
    assert len({address_of(three, each) for each in pods}) == 3
    for client in pods.values():
        name = client["metadata"]["name"]
        for server in pods.values():
            url = f"http://{server['status']['podIP']}{PAGE}"
            answer = three.kubectl("exec", name, "--", "timeout", "30", "wget", "-qO-", url)
            assert answer == f"Hello from {server['metadata']['name']}\n"
        seen = {three.kubectl("exec", name, "--", "timeout", "30", "wget", "-qO-", "http://web/") for _ in range(12)}
        assert len(seen) > 1, "its Service leads to more than one node"
        assert three.kubectl("logs", name).startswith("serving on port 80")
        with subprocess.Popen(
            [str(three.kubectl_program), "port-forward", name, ":80"],
            stdout=subprocess.PIPE, text=True, env=three.environment,
        ) as forwarder:  # fmt: skip
            assert forwarder.stdout is not None
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> 80", forwarder.stdout.readline())
            assert found
            with urlopen(f"http://127.0.0.1:{found[1]}{PAGE}", timeout=30) as answer:
                assert answer.read().decode() == f"Hello from {name}\n"
            forwarder.terminate()


def test_node_ports_answer_on_every_node(three: Cluster) -> None:
    port = three.get("service", "web")["spec"]["ports"][0]["nodePort"]
    for node in ("node-1", "node-2", "node-3"):
        with urlopen(f"http://{address_of(three, node)}:{port}{PAGE}", timeout=10) as answer:
            assert answer.read().startswith(b"Hello from web-")


def test_each_node_is_a_machine_of_its_own(three: Cluster) -> None:
    agents = [three.processes()[each] for each in ("node-1", "node-2", "node-3")]
    for kind in ("net", "mnt", "uts", "pid"):
        assert len({os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (os.getpid(), *agents)}) == 4
    infos = [three.get("node", each)["status"]["nodeInfo"] for each in ("node-1", "node-2", "node-3")]
    for key in ("machineID", "systemUUID", "bootID"):
        assert len({each[key] for each in infos}) == 3
    # What is on a node's own network is not on another's.
    three.apply(*(pod(f"host-{n}", hostNetwork=True, nodeName=f"node-{n}") for n in (1, 2)))
    three.kubectl("wait", "--for=condition=Ready", "pod/host-1", "pod/host-2", "--timeout=120s")
    assert three.kubectl("exec", "host-2", "--", "hostname") == "node-2\n"
    assert three.kubectl("get", "pod", "host-2", "-o", "jsonpath={.status.podIP}") == address_of(three, "node-2")
    three.kubectl("delete", "pod", "host-1", "host-2", "--wait=false")


@pytest.mark.timeout(900)
def test_a_node_that_dies_and_returns(three: Cluster) -> None:
    """Its deployment's pods move; those of a stateful set only when somebody vouches for it being gone."""
    stateful = deployment("db", 3)
    stateful |= {"kind": "StatefulSet", "spec": {**stateful["spec"], "serviceName": "db"}}
    stateful["spec"]["podManagementPolicy"] = "Parallel"
    three.apply(spread(deployment("app", 3)), spread(stateful))
    three.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
    three.kubectl("rollout", "status", "statefulset/db", "--timeout=120s")
    # There is room for what moves.
    assert three.shipwheel("node", "add").out == 'node "node-4" added\n'
    three.up("--demo")
    stuck = by_node(three, "db")["node-2"]["metadata"]

    assert three.shipwheel("node", "stop", "node-2").out == 'node "node-2" stopped\n'
    assert machines(three) == {"node-1": "running", "node-2": "stopped", "node-3": "running", "node-4": "running"}
    again = three.shipwheel("node", "stop", "node-2", check=False)
    assert (again.code, again.err) == (1, 'error: the node "node-2" is stopped already\n')
    wait_for(lambda: is_ready(three, "node-2") == "Unknown")
    wait_for(lambda: sorted(by_node(three, "app")) == ["node-1", "node-3", "node-4"])
    three.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
    kept = wait_for(lambda: "deletionTimestamp" in (found := three.get("pod", stuck["name"])["metadata"]) and found)
    assert kept["uid"] == stuck["uid"]
    three.kubectl("taint", "node", "node-2", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
    wait_for(lambda: sorted(by_node(three, "db")) == ["node-1", "node-3", "node-4"])
    three.kubectl("rollout", "status", "statefulset/db", "--timeout=120s")

    # A cluster that is stopped and started knows which of its machines were off.
    three.down("--keep-data")
    three.up()
    assert machines(three)["node-2"] == "stopped"
    assert three.shipwheel("node", "start", "node-2").out == 'node "node-2" started\n'
    three.kubectl("taint", "node", "node-2", "node.kubernetes.io/out-of-service-")
    three.apply(pod("back", nodeName="node-2"))
    three.kubectl("wait", "--for=condition=Ready", "pod/back", "--timeout=120s")
    three.kubectl("delete", "pod", "back")


def test_a_node_is_removed(three: Cluster) -> None:
    three.shipwheel("node", "add", "extra")
    process = three.processes()["extra"]
    assert three.shipwheel("node", "remove", "extra").out == 'node "extra" removed\n'
    assert three.try_kubectl("get", "node", "extra").code == 1
    assert "extra" not in machines(three)
    assert not Path(f"/proc/{process}").exists()
    assert not list(three.data.rglob("*extra*"))
    wait_for(lambda: "extra" not in three.kubectl("get", "leases,endpointslices", "-A", "-o", "name"))
    failed = three.shipwheel("node", "remove", "extra", check=False)
    assert failed.err.startswith('error: there is no node "extra"; there are: node-1, node-2, node-3')


def test_what_is_killed_is_gone_on_with(three: Cluster) -> None:
    """`kill -9` of all that is ours: the machines and their containers run on."""
    wait_for(lambda: len(by_node(three, "web")) == 3)
    three.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    before = {name: found for name, found in containers(three).items() if name.startswith("web-")}
    port = three.get("service", "web")["spec"]["ports"][0]["nodePort"]
    url = f"http://{address_of(three, 'node-3')}:{port}/"
    for pid in three.processes().values():
        if pid:
            os.kill(pid, signal.SIGKILL)
    assert page(url)
    three.up()
    assert before.items() <= wait_for(lambda: containers(three)).items()
    wait_for(lambda: page(url))
