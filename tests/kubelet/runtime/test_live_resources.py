"""What containers really get of a machine: devices, CPUs, memory, processes, time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shipwheel.admin.containerd import Containerd, remove_sandboxes
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import value
from shipwheel.client import resources as r
from shipwheel.client.grpc.channel import Channel
from shipwheel.kubelet.managers.tables import pod_resources_messages
from tests.kubelet.managers.plugins import ClaimDriver, DevicePlugin
from tests.kubelet.runtime.live import LiveKubelet, shell
from tests.sweep import swept

pytestmark = [pytest.mark.root, pytest.mark.containerd]

RESOURCE = "example.com/dev"


@pytest.fixture
def directory() -> Iterator[Path]:
    """The path of a socket is short."""
    with tempfile.TemporaryDirectory(prefix="swt-") as made:
        yield Path(made)


@pytest.fixture
async def node(directory: Path, containerd: Containerd) -> AsyncIterator[LiveKubelet]:
    """Not started yet."""
    made = LiveKubelet(directory, containerd)
    with swept(directory, cgroup=made.cgroup_root.strip("/")):
        try:
            yield made
            await made.empty()
        finally:
            await made.kill()
            await remove_sandboxes(containerd.config.endpoint)


def resources(**amounts: str) -> Obj:
    return {"requests": dict(amounts), "limits": dict(amounts)}


async def ended(node: LiveKubelet, name: str) -> str:
    """What the pod's container left as its termination message."""
    await node.until(lambda: node.phase(name) in ("Succeeded", "Failed"))
    state = node.container(name)["state"]["terminated"]
    assert state["exitCode"] == 0, state
    return str(state["message"])


def says(script: str, **fields: object) -> Obj:
    return shell(f"{{ {script}; }} > /dev/termination-log", terminationMessagePath="/dev/termination-log", **fields)


def node_resources(node: LiveKubelet) -> tuple[str | None, str | None]:
    """(capacity, allocatable) of the extended resource."""
    found = (node.api.get(r.NODES, "n1") or {}).get("status") or {}
    return tuple((found.get(part) or {}).get(RESOURCE) for part in ("capacity", "allocatable"))  # type: ignore[return-value]


async def pod_resources(node: LiveKubelet, method: str, request: str, response: str) -> Obj:
    tables = pod_resources_messages()
    channel = Channel(str(node.directory / "root/pod-resources/kubelet.sock"))
    try:
        path = f"/v1.PodResourcesLister/{method}"
        return await channel.call(path, tables[request], tables[response], {}, timeout=30)
    finally:
        await channel.close()


async def test_devices(node: LiveKubelet) -> None:
    """A plugin's devices are in the container, and stay its own over a restart of kubelet and plugin."""
    plugins = node.directory / "root/device-plugins"
    first, second = (DevicePlugin(RESOURCE, {"d0": ("Healthy", ()), "d1": ("Healthy", ())}) for _ in range(2))
    first.cdi = second.cdi = False
    await node.start()
    await node.until((plugins / "kubelet.sock").exists)
    await first.start(plugins)
    await node.until(lambda: node_resources(node) == ("2", "2"))

    wanted = resources(**{RESOURCE: "1"})
    node.create("p", shell("ls -l /dev/d0; echo $DEVICES; exec sleep 1000", resources=wanted))
    await node.until(lambda: node.is_ready("p"))
    logs = next((node.directory / "logs").glob("ns_p_*/c/0.log"))
    await node.until(lambda: " d0\n" in logs.read_text())
    assert " F crw" in logs.read_text() and "1,   3" in logs.read_text(), "it is not the null device"
    shown = [{"name": RESOURCE, "resources": [{"resourceID": "d0", "health": "Healthy"}]}]
    assert node.container("p")["allocatedResourcesStatus"] == shown

    first.change("d0", "Unhealthy")
    await node.until(lambda: node_resources(node) == ("2", "1"))
    await node.until(
        lambda: node.container("p")["allocatedResourcesStatus"][0]["resources"][0]["health"] == "Unhealthy"
    )
    await node.kill()
    await first.stop()
    await node.start()
    await node.until((plugins / "kubelet.sock").exists)
    await second.start(plugins)
    await node.until(lambda: node_resources(node) == ("2", "2"))
    assert node.container("p")["restartCount"] == 0 and node.phase("p") == "Running"
    node.create("q", says("echo $DEVICES", resources=wanted), restartPolicy="Never")
    assert (await ended(node, "q")).strip() == "d1", "the other one has its device still"
    listed = await pod_resources(node, "List", "ListPodResourcesRequest", "ListPodResourcesResponse")
    found = {each["name"]: each["containers"][0].get("devices") for each in listed["pod_resources"]}
    assert found["p"] == [{"resource_name": RESOURCE, "device_ids": ["d0"]}]
    node.create("r", shell("true", resources=resources(**{RESOURCE: "2"})), restartPolicy="Never")
    await node.until(lambda: node.phase("r") == "Failed")
    assert node.status("r")["reason"] == "UnexpectedAdmissionError"
    assert node.status("r")["message"] == (
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/dev. "
        "Requested: 2, Available: 1, which is unexpected"
    )
    await second.stop()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
async def test_cpus_and_memory_of_its_own(node: LiveKubelet) -> None:
    """A Guaranteed pod's container gets a CPU for itself, and all of its time; those that run already move away."""
    last = sorted(os.sched_getaffinity(0))[-1]
    await node.start(
        cpu_manager_policy="static",
        cpu_manager_reconcile_period=0.2,
        system_reserved={"cpu": "1", "memory": "256Mi"},
        memory_manager_policy="Static",
        reserved_memory=({"numaNode": 0, "limits": {"memory": "256Mi"}},),
        topology_manager_policy="single-numa-node",
    )
    allowed = "grep _allowed_list /proc/self/status"
    everywhere = "while true; do grep Cpus_allowed_list /proc/self/status; sleep 0.1; done"
    node.create("shared", shell(everywhere))
    await node.until(lambda: node.is_ready("shared"))
    logs = next((node.directory / "logs").glob("ns_shared_*/c/0.log"))
    pinned = f"{allowed}; cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max; sleep 2"
    node.create("p", says(pinned, resources=resources(cpu="1", memory="64Mi")), restartPolicy="Never")
    await node.until(lambda: logs.read_text().splitlines()[-1].split()[-1] == "0")
    said = (await ended(node, "p")).split()
    assert said[:4] == ["Cpus_allowed_list:", str(last), "Mems_allowed_list:", "0"]
    assert said[4] in ("-1", "max"), "its time is not limited"
    await node.until(lambda: logs.read_text().splitlines()[-1].split()[-1] == f"0-{last}")
    assert (node.directory / "root/cpu_manager_state").exists()
    told = await pod_resources(
        node, "GetAllocatableResources", "AllocatableResourcesRequest", "AllocatableResourcesResponse"
    )
    assert told["cpu_ids"] == list(range(1, last + 1)) and told["memory"][0]["memory_type"] == "memory"


async def test_processes_of_a_pod_are_limited(node: LiveKubelet) -> None:
    await node.start(pod_pids_limit=20)
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do sleep 30 & done; echo all"
    node.create("p", shell(f"({script}) 2>&1; exit 0"), restartPolicy="Never")
    await node.until(lambda: node.phase("p") in ("Succeeded", "Failed"))
    logs = next((node.directory / "logs").glob("ns_p_*/c/0.log")).read_text()
    assert "can't fork" in logs and " all" not in logs


async def test_a_limit_slows_a_container_down(node: LiveKubelet) -> None:
    await node.start()
    node.create("p", shell("while true; do :; done", resources=resources(cpu="50m", memory="32Mi")))
    await node.until(lambda: node.is_ready("p"))
    uid = (node.api.get(r.PODS, "p", "ns") or {})["metadata"]["uid"]
    v1 = Path("/sys/fs/cgroup/cpu") / node.cgroup_root.strip("/") / f"kubepods/pod{uid}"
    v2 = Path("/sys/fs/cgroup") / node.cgroup_root.strip("/") / f"kubepods/pod{uid}"
    group = v1 if v1.is_dir() else v2

    def throttled() -> int:
        lines = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        return int(lines["nr_throttled"])

    await node.until(lambda: throttled() > 3)


async def test_devices_by_a_claim(node: LiveKubelet) -> None:
    """A driver that the kubelet finds in its plugin directory prepares the claim before the pod's sandbox is made."""
    await node.start()
    driver = ClaimDriver()
    await driver.start(node.directory / "root/plugins_registry/gpu.sock")
    used = {"claims": [{"name": "gpu", "request": "req"}]}
    node.create(
        "p", shell("exec sleep 1000", resources=used), resourceClaims=[{"name": "gpu", "resourceClaimName": "shared"}]
    )
    await node.until(lambda: "FailedPrepareDynamicResources" in {each["reason"] for each in node.api.list(r.EVENTS)})
    user = node.api.get(r.PODS, "p", "ns") or {}
    reserved = [{"resource": "pods", "name": "p", "uid": user["metadata"]["uid"]}]
    result = {"driver": "gpu.example.com", "pool": "pool", "device": "gpu", "request": "req"}
    status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": reserved}
    driver.cdi = []
    node.api.create(r.RESOURCE_CLAIMS, {"metadata": {"name": "shared"}, "spec": {}, "status": status}, "ns")
    await node.until(lambda: node.is_ready("p"))
    assert driver.calls == [("NodePrepareResources", ["shared"])]
    node.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=1)
    await node.until(lambda: driver.calls[1:] == [("NodeUnprepareResources", ["shared"])])
    await driver.stop()


async def test_too_much_on_the_disk(node: LiveKubelet) -> None:
    await node.start()
    limited = {"limits": {"ephemeral-storage": "1Mi"}}
    write = "dd if=/dev/zero of=/big bs=1M count=5; sync; exec sleep 1000"
    node.create("p", shell(write, resources=limited))
    node.create(
        "q",
        shell(write.replace("/big", "/v/big"), volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    )
    for name, message in (
        ("p", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
        ("q", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '),
    ):
        await node.until(lambda name=name: node.phase(name) == "Failed", seconds=120)
        assert (node.status(name)["reason"], node.status(name)["message"]) == ("Evicted", message)


async def test_a_node_that_runs_short(node: LiveKubelet) -> None:
    """Nothing can be reclaimed: the node says so, ends a pod and takes no other."""
    await node.start()
    node.create("p", shell("exec sleep 1000"))
    await node.until(lambda: node.is_ready("p"))
    await node.kill()
    await node.start(eviction_hard={"nodefs.available": "99%"})
    await node.until(lambda: node.phase("p") == "Failed", seconds=60)
    assert node.status("p")["reason"] == "Evicted"
    assert node.status("p")["message"].startswith(
        "The node was low on resource: ephemeral-storage. Threshold quantity: "
    )
    assert {each["type"]: each["status"] for each in node.status("p")["conditions"]}["DisruptionTarget"] == "True"

    def conditions() -> dict[str, str]:
        found = (node.api.get(r.NODES, "n1") or {})["status"]["conditions"]
        return {each["type"]: each["status"] for each in found}

    await node.until(lambda: conditions()["DiskPressure"] == "True")
    node.create("q", shell("exec sleep 1000"))
    await node.until(lambda: node.phase("q") == "Failed")
    assert node.status("q")["message"] == "Pod was rejected: The node had condition: [DiskPressure]. "
    reasons = {each["reason"] for each in node.api.list(r.EVENTS)}
    assert {"EvictionThresholdMet", "Evicted", "NodeHasDiskPressure"} <= reasons


async def test_all_pods_are_held_to_what_is_not_reserved(node: LiveKubelet) -> None:
    await node.start(system_reserved={"memory": "1Gi"}, kube_reserved={"memory": "512Mi", "cpu": "100m"})
    node.create("p", shell("exec sleep 1000"))
    await node.until(lambda: node.is_ready("p"))
    status = (node.api.get(r.NODES, "n1") or {})["status"]
    kept = value(status["capacity"]["memory"]) - value(status["allocatable"]["memory"])
    assert kept == 3 << 29
    root = node.cgroup_root.strip("/")
    v1 = Path("/sys/fs/cgroup/memory") / root / "kubepods/memory.limit_in_bytes"
    v2 = Path("/sys/fs/cgroup") / root / "kubepods/memory.max"
    limit = int((v1 if v1.exists() else v2).read_text())
    assert limit == value(status["allocatable"]["memory"])
    assert "NodeAllocatableEnforced" in {each["reason"] for each in node.api.list(r.EVENTS)}
