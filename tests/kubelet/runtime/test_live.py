"""The kubelet on real containers: what only a kernel can show, and what is left when things break at random.

CHAOS_SECONDS=600 pytest tests/kubelet/runtime/test_live.py -k chaos

With RECORD=file, what the lifecycle core decides meanwhile is written down (see `tests.kubelet.recording`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shipwheel.admin.containerd import Containerd, remove_sandboxes
from shipwheel.api.meta import Obj, condition
from shipwheel.client import resources as r
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.runtime.cri import CriRuntime
from tests.kubelet.recording import recording
from tests.kubelet.runtime.live import NAMESPACE, LiveKubelet, shell
from tests.sweep import swept

pytestmark = [pytest.mark.root, pytest.mark.containerd]

CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
CHAOS_PODS = 20
"""At most at once: a runtime that is killed again and again needs time to find what it had."""


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if path := os.environ.get("RECORD"):
        with recording(Path(path), monkeypatch):
            yield
    else:
        yield


@pytest.fixture
async def node(tmp_path: Path, containerd: Containerd) -> AsyncIterator[LiveKubelet]:
    made = LiveKubelet(tmp_path, containerd)
    with swept(tmp_path, cgroup=made.cgroup_root.strip("/")):
        await made.start()
        try:
            yield made
            await made.empty()
        finally:
            await made.kill()
            # It may have been killed, and what it runs is found through it only.
            await containerd.start()
            await remove_sandboxes(containerd.config.endpoint)


async def test_what_a_container_finds(node: LiveKubelet) -> None:
    node.api.create(r.CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"color": "blue"}}, NAMESPACE)
    script = (
        "{ echo $COLOR $(hostname) $POD_IP; grep -c alias /etc/hosts; cat /config/color; id -u; "
        "cat /proc/self/oom_score_adj; } > /dev/termination-log; touch /work/done"
    )
    env = [
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    node.create(
        "p",
        shell(
            script,
            env=env,
            terminationMessagePath="/dev/termination-log",
            securityContext={"runAsUser": 1000},
            volumeMounts=[{"name": "config", "mountPath": "/config"}, {"name": "work", "mountPath": "/work"}],
        ),
        restartPolicy="Never",
        hostAliases=[{"ip": "10.9.8.7", "hostnames": ["alias"]}],
        volumes=[
            {"name": "config", "configMap": {"name": "settings", "defaultMode": 0o644}},
            {"name": "work", "emptyDir": {}},
        ],
    )
    await node.until(lambda: node.phase("p") in ("Succeeded", "Failed"))
    ended = node.container("p")["state"]["terminated"]
    ip = node.status("p")["podIP"]
    assert ended["exitCode"] == 0, ended
    assert ended["message"].split() == ["blue", "p", ip, "1", "blue1000", "1000"]


async def test_probes_see_the_process(node: LiveKubelet) -> None:
    probe = {"periodSeconds": 1, "failureThreshold": 1}
    serve = "touch /tmp/fine; mkdir /tmp/w; echo hello > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
    node.create(
        "p",
        shell(
            serve,
            livenessProbe={"exec": {"command": ["test", "-e", "/tmp/fine"]}, **probe},
            readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, **probe},
        ),
    )
    await node.until(lambda: node.is_ready("p"))
    (running,) = await node.containers()
    runtime = CriRuntime(node._containerd.config.endpoint)
    await runtime.exec_sync(running.id, ["rm", "/tmp/fine"], 5)
    await runtime.close()
    await node.until(lambda: node.container("p").get("restartCount") == 1 and node.is_ready("p"))
    assert {"Unhealthy", "Killing"} <= {each["reason"] for each in node.api.list(r.EVENTS)}


async def test_too_much_memory(node: LiveKubelet) -> None:
    limits = {"memory": "16Mi", "cpu": "100m"}
    hungry = shell("x=0123456789abcdef; while :; do x=$x$x; done", resources={"limits": limits, "requests": limits})
    node.create("p", hungry, restartPolicy="Never")
    await node.until(lambda: node.phase("p") == "Failed", seconds=60)
    ended = node.container("p")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_hooks_and_grace(node: LiveKubelet, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /told/file"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /told/file"]}},
    }
    script = "trap 'echo term >> /told/file; exit 0' TERM; while :; do sleep 0.1; done"
    mount = [{"name": "told", "mountPath": "/told"}]
    node.create(
        "p",
        shell(script, lifecycle=hooks, volumeMounts=mount),
        volumes=[{"name": "told", "hostPath": {"path": str(told)}}],
        terminationGracePeriodSeconds=10,
    )
    await node.until(lambda: node.is_ready("p"))
    node.api.delete(r.PODS, "p", NAMESPACE)
    await node.until(lambda: not node.api.list(r.PODS))
    assert (told / "file").read_text().split() == ["started", "stopping", "term"]
    assert not [each for each in await node.containers() if each.state == "RUNNING"]


async def test_mounts_of_containers_are_seen_by_others(node: LiveKubelet, tmp_path: Path) -> None:
    def sharing(script: str, name: str, propagation: str) -> Obj:
        mount = [{"name": "v", "mountPath": "/v", "mountPropagation": propagation}]
        return shell(script, name, volumeMounts=mount, securityContext={"privileged": True})

    node.create(
        "p",
        sharing("mount -t tmpfs t /v/m; touch /v/m/file; sleep 1000", "a", "Bidirectional"),
        sharing("until [ -e /v/m/file ]; do sleep 0.1; done; sleep 1000", "b", "HostToContainer"),
        initContainers=[sharing("mkdir /v/m", "init", "None")],
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    directory = tmp_path / "root" / "pods"
    await node.until(lambda: list(directory.glob("*/volumes/kubernetes.io~empty-dir/v/m/file")))
    await node.until(lambda: node.phase("p") == "Running")


async def test_every_way_to_end_and_begin_again(node: LiveKubelet) -> None:
    """Policies, rules, sidecars and init containers, side by side."""
    mount = [{"name": "w", "mountPath": "/w"}]

    def once(code: int, then: str = "exit 0") -> str:
        return f"[ -e /w/x ] || {{ touch /w/x; exit {code}; }}; {then}"

    def rule(action: str, code: int) -> Obj:
        exits = {"operator": "In", "values": [code]}
        return {"restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": exits}]}

    spec = {"restartPolicy": "Never", "volumes": [{"name": "w", "emptyDir": {}}]}
    sleep = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    node.create(
        "stages",
        shell("[ -e /w/init ] && [ -e /w/side ]", volumeMounts=mount),
        initContainers=[
            shell("touch /w/init", "init", volumeMounts=mount),
            shell(f"touch /w/side; {sleep}", "side", volumeMounts=mount, restartPolicy="Always"),
        ],
        **spec,
    )
    node.create("failing", shell(once(1), volumeMounts=mount), **{**spec, "restartPolicy": "OnFailure"})
    node.create("ruled", shell(once(42), volumeMounts=mount, **rule("Restart", 42)), **spec)
    node.create("broken", shell("exit 3", volumeMounts=mount, **rule("Restart", 42)), **spec)
    both = [shell(once(88), volumeMounts=mount, **rule("RestartAllContainers", 88)), shell("sleep 2", "other")]
    node.create("together", *both, **spec)
    probe = {"exec": {"command": ["test", "-e", "/w/y"]}, "periodSeconds": 1, "failureThreshold": 1}
    script = f"[ -e /w/x ] && touch /w/y; touch /w/x; {sleep}"
    node.create("unwell", shell(script, volumeMounts=mount, livenessProbe=probe), **{**spec, "restartPolicy": "Always"})

    def over() -> bool:
        ended = all(node.phase(name) == "Succeeded" for name in ("stages", "failing", "ruled", "together"))
        return ended and node.phase("broken") == "Failed"

    await node.until(over, seconds=90)
    await node.until(lambda: node.container("unwell").get("restartCount") == 1 and node.is_ready("unwell"), seconds=60)
    restarts = {name: node.container(name)["restartCount"] for name in ("failing", "ruled", "broken")}
    assert restarts == {"failing": 1, "ruled": 1, "broken": 0}


async def test_a_dead_runtime_takes_nothing_with_it(node: LiveKubelet, containerd: Containerd) -> None:
    node.create("p", shell("sleep 1000"))
    await node.until(lambda: node.is_ready("p"))
    before = node.container("p")["containerID"]
    pid = containerd.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    def is_ready() -> bool:
        return (condition(node.api.get(r.NODES, "n1") or {}, "Ready") or {}).get("status") == "True"

    await node.until(lambda: not is_ready())
    await containerd.start()
    await node.until(is_ready)
    assert node.container("p")["containerID"] == before
    assert node.container("p")["restartCount"] == 0


@pytest.mark.timeout(CHAOS_SECONDS + 600)
async def test_chaos(node: LiveKubelet, containerd: Containerd) -> None:
    """Containers, the kubelet and the runtime are killed, pods come and go; then everything is as it should be."""
    chance = random.Random(os.environ.get("CHAOS_SEED", "1"))
    serial = 0

    def create() -> None:
        nonlocal serial
        serial += 1
        node.create(f"p{serial}", shell("trap 'exit 0' TERM; sleep 1000000 & wait"))

    def delete() -> None:
        left = [each for each in node.api.list(r.PODS) if "deletionTimestamp" not in each["metadata"]]
        if left:
            name = chance.choice(left)["metadata"]["name"]
            node.api.delete(r.PODS, name, NAMESPACE, gracePeriodSeconds=chance.choice([0, 1, 5]))

    async def kill_a_process() -> None:
        runtime = CriRuntime(containerd.config.endpoint)
        # A runtime that was just started does not answer yet; what runs may end meanwhile.
        with contextlib.suppress(RuntimeFault, ProcessLookupError):
            running = [each for each in await runtime.containers() if each.state == "RUNNING"]
            pid = await runtime.container_process(chance.choice(running).id) if running else 0
            if pid:
                os.kill(pid, signal.SIGKILL)
        await runtime.close()

    async def kill_the_kubelet() -> None:
        await node.kill()
        await asyncio.sleep(chance.random())
        await node.start()

    async def kill_the_runtime() -> None:
        pid = containerd.running_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(chance.random())
        await containerd.start()

    for _ in range(4):
        create()
    loop = asyncio.get_running_loop()
    end = loop.time() + CHAOS_SECONDS
    while loop.time() < end:
        await asyncio.sleep(chance.random())
        match chance.randrange(10):
            case 0 | 1 | 2 if len(node.api.list(r.PODS)) < CHAOS_PODS:
                create()
            case 0 | 1 | 2 | 3 | 4 | 5:
                delete()
            case 6 | 7:
                await kill_a_process()
            case 8:
                await kill_the_kubelet()
            case 9:
                await kill_the_runtime()

    def settled() -> bool:
        pods = node.api.list(r.PODS)
        return all("deletionTimestamp" not in each["metadata"] for each in pods) and all(
            node.is_ready(each["metadata"]["name"]) for each in pods
        )

    # A container that was killed often waits up to five minutes for its next start.
    await node.until(settled, seconds=120 + min(300, CHAOS_SECONDS))
    await asyncio.sleep(1.5)
    wanted = {each["metadata"]["uid"]: node.container(each["metadata"]["name"]) for each in node.api.list(r.PODS)}
    running = [each for each in await node.containers() if each.state == "RUNNING"]
    by_pod = {each.labels["io.kubernetes.pod.uid"]: f"containerd://{each.id}" for each in running}
    assert len(by_pod) == len(running), "no pod runs a container twice"
    assert by_pod == {uid: status["containerID"] for uid, status in wanted.items()}
