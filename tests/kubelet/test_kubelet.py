"""The kubelet as a whole, from the API server's side of things."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from shipwheel.api.meta import Obj, condition
from shipwheel.client import resources as r
from shipwheel.kubelet.runtime.base import RuntimeFault
from tests.kubelet.builders import container, pod
from tests.kubelet.world import world


async def test_a_node_registers_and_is_ready(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.until(lambda: made.api.get(r.LEASES, "node1", "kube-node-lease"))
        node = made.api.get(r.NODES, "node1")
        assert node is not None
        assert (condition(node, "Ready") or {})["reason"] == "KubeletReady"
        assert node["status"]["capacity"]["cpu"] == "4"
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("simulated://")
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node1"
        first = (made.api.get(r.LEASES, "node1", "kube-node-lease") or {})["spec"]["renewTime"]
        await made.clock.advance(25)
        assert (made.api.get(r.LEASES, "node1", "kube-node-lease") or {})["spec"]["renewTime"] > first


async def test_a_heartbeat_does_not_write_the_status(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.until(lambda: made.api.get(r.LEASES, "node1", "kube-node-lease"))
        await made.clock.advance(15)
        before = (made.api.get(r.NODES, "node1") or {})["metadata"]["resourceVersion"]
        await made.clock.advance(200)
        assert (made.api.get(r.NODES, "node1") or {})["metadata"]["resourceVersion"] == before
        await made.clock.advance(200)
        assert (made.api.get(r.NODES, "node1") or {})["metadata"]["resourceVersion"] != before


async def test_the_last_volume_in_use_is_not_told_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.until(lambda: made.api.get(r.NODES, "node1"))

        def told() -> list[str]:
            return (made.api.get(r.NODES, "node1") or {})["status"].get("volumesInUse") or []

        volume = made.kubelet.root / "pods/uid-1/volumes/kubernetes.io~csi/v"
        data = {"driverName": "d", "volumeHandle": "h", "volumeLifecycleMode": "Persistent"}
        volume.mkdir(parents=True)
        (volume / "vol_data.json").write_text(json.dumps(data))
        await made.until(lambda: told() == ["kubernetes.io/csi/d^h"])
        (volume / "vol_data.json").unlink()
        await made.until(lambda: told() == [])


async def test_a_machine_that_was_started_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.until(lambda: "NodeReady" in made.reasons() or made.api.get(r.NODES, "node1"))
        await made.stop()
        assert "Rebooted" not in made.reasons()
        made.api.change(r.NODES, "node1", "", lambda node: node["status"]["nodeInfo"].update(bootID="before"))
        made.start()
        await made.until(lambda: "Rebooted" in made.reasons())
        told = [each for each in made.api.list(r.EVENTS) if each["reason"] == "Rebooted"]
        assert [(each["type"], each["message"]) for each in told] == [
            ("Warning", "Node node1 has been rebooted, boot id: b")
        ]


async def test_a_pod_runs_and_ends(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a"), meta={"generation": 1}))
        await made.until(lambda: made.phase() == "Running")
        found = made.pod()
        assert found is not None
        assert (condition(found, "Ready") or {})["status"] == "True"
        assert found["status"]["podIP"]
        assert found["status"]["hostIP"] == "192.168.0.1"
        await made.until(lambda: "Started" in made.reasons())
        assert {"Pulled", "Created", "Started"} <= set(made.reasons())
        uid = found["metadata"]["uid"]
        assert (tmp_path / "root" / "pods" / uid / "etc-hosts").read_text().count("\tp\n") == 1

        made.api.delete(r.PODS, "p", "ns")
        await made.until(lambda: made.phase() == "gone")
        await made.until(lambda: not (tmp_path / "root" / "pods" / uid).exists())
        assert await made.runtime.containers() == []
        assert await made.runtime.sandboxes() == []
        assert not list((tmp_path / "logs").iterdir())


async def test_a_job_completes_and_keeps_its_containers(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a"), restartPolicy="Never"), '{"containers": {"*": {"run": 2, "exit": 0}}}')
        await made.until(lambda: made.phase() == "Succeeded")
        assert made.only()["state"]["terminated"]["reason"] == "Completed"
        assert [each.state for each in await made.runtime.containers()] == ["EXITED"]
        assert [each.ready for each in await made.runtime.sandboxes()] == [False]
        assert (made.pod() or {})["status"]["podIP"]
        made.api.delete(r.PODS, "p", "ns")
        await made.until(lambda: made.phase() == "gone")
        await made.until(lambda: not made.kubelet.table.pods())
        assert await made.runtime.containers() == []


async def test_a_crashing_container_is_restarted_ever_later(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")), '{"containers": {"*": {"run": 1, "exit": 3, "message": "why"}}}')
        await made.until(lambda: made.waiting() == "CrashLoopBackOff")
        assert made.only()["lastState"]["terminated"]["exitCode"] == 3
        starts = []
        count = made.only()["restartCount"]
        while len(starts) < 4:
            await made.until(lambda: made.only()["restartCount"] > count, seconds=400)  # noqa: B023
            count = made.only()["restartCount"]
            starts.append(made.clock.monotonic())
        waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
        # A second of running, and what it takes to notice, come on top.
        assert all(wanted <= wait < wanted + 4 for wait, wanted in zip(waits, (20, 40, 80), strict=True))
        assert made.phase() == "Running"
        assert "BackOff" in made.reasons()


async def test_init_containers_run_in_order(tmp_path: Path) -> None:
    owner = pod(
        container("main"),
        init=(container("first"), container("side", restartPolicy="Always"), container("second")),
    )
    life = {"containers": {"first": {"run": 3, "exit": 0}, "second": {"run": 3, "exit": 0}}}
    async with world(tmp_path) as made:
        made.create(owner, json.dumps(life))
        seen: list[str] = []

        def told() -> bool:
            statuses = (made.pod() or {}).get("status", {}).get("initContainerStatuses") or []
            text = " ".join(next(iter(each["state"]), "?") for each in statuses)
            if text and (not seen or seen[-1] != text):
                seen.append(text)
            return made.phase() == "Running"

        await made.until(told)
        assert seen[-1] == "terminated running terminated"
        assert await made.running() == ["main", "side"]
        assert seen.index("running waiting waiting") < seen.index("terminated running running")


async def test_a_pod_that_cannot_start_says_why_and_recovers(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a", envFrom=[{"configMapRef": {"name": "later"}}])))
        await made.until(lambda: made.waiting() == "CreateContainerConfigError")
        assert made.only()["state"]["waiting"]["message"] == 'configmap "later" not found'
        made.api.create(r.CONFIG_MAPS, {"metadata": {"name": "later"}, "data": {"A": "1"}}, "ns")
        await made.until(lambda: made.phase() == "Running", seconds=30)


async def test_a_missing_volume_holds_a_pod_back(tmp_path: Path) -> None:
    own = container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    async with world(tmp_path) as made:
        made.create(pod(own, volumes=[{"name": "v", "configMap": {"name": "later"}}]))
        await made.until(lambda: "FailedMount" in made.reasons())
        assert made.waiting() == "ContainerCreating"
        made.api.create(r.CONFIG_MAPS, {"metadata": {"name": "later"}, "data": {"A": "1"}}, "ns")
        await made.until(lambda: made.phase() == "Running", seconds=5)
        uid = (made.pod() or {})["metadata"]["uid"]
        file = tmp_path / "root/pods" / uid / "volumes/kubernetes.io~configmap/v/A"
        assert file.read_text() == "1"
        made.api.change(r.CONFIG_MAPS, "later", "ns", lambda obj: obj.update(data={"A": "2"}))
        await made.until(lambda: file.read_text() == "2", seconds=5)


async def test_a_volume_follows_the_pods_own_labels(tmp_path: Path) -> None:
    own = container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    async with world(tmp_path) as made:
        made.create(pod(own, meta={"labels": {"a": "1"}}, volumes=[{"name": "v", "downwardAPI": {"items": [item]}}]))
        await made.until(lambda: made.phase() == "Running")
        uid = (made.pod() or {})["metadata"]["uid"]
        file = tmp_path / "root/pods" / uid / "volumes/kubernetes.io~downward-api/v/labels"
        assert file.read_text() == 'a="1"'
        made.api.change(r.PODS, "p", "ns", lambda obj: obj["metadata"].update(labels={"a": "2"}))
        await made.until(lambda: file.read_text() == 'a="2"', seconds=5)


async def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a", imagePullPolicy="Always")), '{"pull": {"error": "manifest unknown"}}')
        await made.until(lambda: made.waiting() in ("ErrImagePull", "ImagePullBackOff"))
        await made.until(lambda: made.waiting() == "ImagePullBackOff")
        assert "manifest unknown" in made.only()["state"]["waiting"]["message"]
        await made.until(lambda: "Failed" in made.reasons())


async def test_a_sandbox_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")), '{"sandbox": {"error": "no address left"}}')
        await made.until(lambda: made.reasons().count("FailedCreatePodSandBox") >= 1)
        assert made.phase() == "Pending"


async def test_what_does_not_fit_is_rejected(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a", resources={"requests": {"cpu": "9"}})))
        await made.until(lambda: made.phase() == "Failed")
        found = (made.pod() or {})["status"]
        assert found["reason"] == "OutOfcpu"
        assert found["message"] == (
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 4000"
        )
        assert await made.runtime.sandboxes() == []
        await made.until(lambda: "OutOfcpu" in made.reasons())


async def test_a_deadline_ends_a_pod(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a"), activeDeadlineSeconds=20))
        await made.until(lambda: made.phase() == "Running")
        await made.until(lambda: made.phase() == "Failed", seconds=60)
        assert (made.pod() or {})["status"]["reason"] == "DeadlineExceeded"
        assert await made.running() == []


async def test_deletion_takes_the_time_that_the_pod_has(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")), '{"containers": {"*": {"stop": {"delay": 300}}}}')
        await made.until(lambda: made.phase() == "Running")
        began = made.clock.monotonic()
        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=20)
        await made.until(lambda: made.phase() == "gone")
        assert 20 <= made.clock.monotonic() - began < 25


async def test_a_shorter_grace_period_is_taken_over(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")), '{"containers": {"*": {"stop": {"delay": 300}}}}')
        await made.until(lambda: made.phase() == "Running")
        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=100)
        await made.clock.advance(5)
        began = made.clock.monotonic()
        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=3)
        await made.until(lambda: made.phase() == "gone")
        assert made.clock.monotonic() - began < 8


async def test_a_pod_that_ends_does_not_wait_for_a_restart_under_way(tmp_path: Path) -> None:
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1}
    stubborn = pod(container("a", livenessProbe=probe), terminationGracePeriodSeconds=300)
    async with world(tmp_path) as made:
        made.create(stubborn, '{"containers": {"*": {"listens": false, "stop": {"delay": 600}}}}')
        await made.until(lambda: "Killing" in made.reasons())
        began = made.clock.monotonic()
        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=1)
        await made.until(lambda: made.phase() == "gone")
        assert made.clock.monotonic() - began < 8


async def test_sidecars_end_last(tmp_path: Path) -> None:
    owner = pod(container("main"), init=(container("side", restartPolicy="Always"),))
    async with world(tmp_path) as made:
        made.create(owner, '{"containers": {"main": {"stop": {"delay": 5}}}}')
        await made.until(lambda: made.phase() == "Running")
        made.api.delete(r.PODS, "p", "ns")
        await made.clock.advance(3)
        assert await made.running() == ["main", "side"]
        await made.until(lambda: made.phase() == "gone")


async def test_a_restarted_kubelet_keeps_what_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        before = [each.id for each in await made.runtime.containers()]
        await made.stop()
        made.start()
        await made.clock.advance(30)
        assert [each.id for each in await made.runtime.containers()] == before
        assert made.only()["restartCount"] == 0
        assert made.phase() == "Running"


async def test_a_restarted_kubelet_ends_what_was_deleted_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        await made.stop()
        made.api.delete(r.PODS, "p", "ns", gracePeriodSeconds=0)
        assert made.phase() == "gone"
        made.start()
        await made.until(lambda: not made.kubelet.table.pods() and made.kubelet.pleg.known() == [], seconds=60)
        await made.until(lambda: not made.runtime._containers)
        assert await made.runtime.sandboxes() == []


async def test_a_pod_whose_sandbox_died_gets_another(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        (box,) = await made.runtime.sandboxes()
        await made.runtime.stop_sandbox(box.id)
        await made.until(lambda: "SandboxChanged" in made.reasons())
        await made.until(lambda: "running" in made.only()["state"] and made.only()["restartCount"] == 1, seconds=60)


async def test_a_container_that_is_killed_is_started_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        (only,) = await made.runtime.containers()
        await made.runtime.stop_container(only.id, 0)
        await made.until(lambda: made.only()["restartCount"] == 1 and "running" in made.only()["state"], seconds=30)


async def test_a_runtime_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        away = True
        status, listing = made.runtime.status, made.runtime.containers

        async def failing() -> list[object]:
            if away:
                raise RuntimeFault("UNAVAILABLE", "connection refused")
            return await status()  # type: ignore[return-value]

        made.runtime.status = failing  # type: ignore[method-assign,assignment]
        made.runtime.containers = failing  # type: ignore[method-assign,assignment]

        def ready() -> str:
            return (condition(made.api.get(r.NODES, "node1") or {}, "Ready") or {}).get("status", "")

        await made.until(lambda: ready() == "False")
        away = False
        made.runtime.containers = listing  # type: ignore[method-assign]
        await made.until(lambda: ready() == "True")
        assert made.phase() == "Running"
        assert made.only()["restartCount"] == 0


async def test_services_are_in_the_environment(tmp_path: Path) -> None:
    async with world(tmp_path, start=False) as made:
        spec = {"clusterIP": "10.96.0.1", "ports": [{"port": 443, "protocol": "TCP"}]}
        made.api.create(r.SERVICES, {"metadata": {"name": "kubernetes"}, "spec": spec}, "default")
        made.start()
        made.create(pod(container("a")))
        await made.until(lambda: made.phase() == "Running")
        (config,) = [each.config for each in made.runtime._containers.values()]
        assert dict(config.env)["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


def manifest(directory: Path, name: str, text: str) -> None:
    (directory / "manifests").mkdir(exist_ok=True)
    (directory / "manifests" / name).write_text(text)


STATIC = """
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: ns}
spec: {containers: [{name: a, image: "image:1"}]}
"""


async def test_static_pods_run_and_are_mirrored(tmp_path: Path) -> None:
    manifest(tmp_path, "one.yaml", STATIC)
    manifest(tmp_path, "garbage.yaml", ":{[")
    async with world(tmp_path, start=False) as made:
        made.start(static_pod_path=str(tmp_path / "manifests"))
        await made.until(lambda: made.phase("static-node1") == "Running")
        mirror: Obj = made.pod("static-node1") or {}
        assert mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"]
        assert mirror["metadata"]["ownerReferences"][0]["kind"] == "Node"

        made.api.delete(r.PODS, "static-node1", "ns", gracePeriodSeconds=0)
        await made.until(lambda: made.phase("static-node1") == "Running")
        assert len(await made.running()) == 1

        (tmp_path / "manifests" / "one.yaml").unlink()
        await made.until(lambda: made.phase("static-node1") == "gone")
        await made.until(lambda: not made.kubelet.table.pods())
        assert await made.running() == []


async def test_static_pods_run_without_an_api_server(tmp_path: Path) -> None:
    from shipwheel.kubelet.kubelet import Kubelet
    from shipwheel.kubelet.volumes.mounting import NoMounter
    from tests.kubelet.world import MACHINE

    manifest(tmp_path, "one.yaml", STATIC)
    async with world(tmp_path, start=False) as made:
        import asyncio

        config = made.config(static_pod_path=str(tmp_path / "manifests"))
        made.kubelet = Kubelet(
            config, client=None, runtime=made.runtime, clock=made.clock, machine=MACHINE, mounter=NoMounter(),
            simulated=True,
        )  # fmt: skip
        made._task = asyncio.ensure_future(made.kubelet.run())
        await made.until(
            lambda: made.kubelet.table.pods() and made.kubelet.table.pods()[0]["status"].get("phase") == "Running"
        )


async def test_users_of_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.create(pod(container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}]), hostUsers=False,
                        volumes=[{"name": "v", "emptyDir": {}}]))  # fmt: skip
        await made.until(lambda: made.phase() == "Running")
        (config,) = [each.config for each in made.runtime._containers.values()]
        assert config.namespaces.user == "POD"
        assert config.namespaces.uid_mappings == config.namespaces.gid_mappings == ((65536, 0, 65536),)
        (sandbox,) = made.runtime._sandboxes.values()
        assert sandbox.config.namespaces.uid_mappings == ((65536, 0, 65536),)


async def test_image_volumes(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        mount = {"name": "v", "mountPath": "/v", "subPath": "dir"}
        volumes = [{"name": "v", "image": {"reference": "data:1", "pullPolicy": "Always"}}]
        made.create(pod(container("a", volumeMounts=[mount]), volumes=volumes))
        await made.until(lambda: made.phase() == "Running")
        (config,) = [each.config for each in made.runtime._containers.values()]
        (mounted,) = [each for each in config.mounts if each.image]
        image = await made.runtime.image_status("data:1")
        assert image is not None
        assert (mounted.image, mounted.image_sub_path, mounted.container_path) == (image.id, "dir", "/v")


async def test_an_image_volume_without_an_image(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        mount = {"name": "v", "mountPath": "/v"}
        volumes = [{"name": "v", "image": {"reference": "data:1", "pullPolicy": "Never"}}]
        made.create(pod(container("a", volumeMounts=[mount]), container("b"), volumes=volumes))
        await made.until(lambda: made.waiting() == "ErrImageNeverPull")
        assert await made.running() == ["b"]


async def test_a_restarted_kubelet_keeps_volumes_up_to_date(tmp_path: Path) -> None:
    def show(text: str) -> Obj:
        return {"metadata": {"name": "c"}, "data": {"key": text}}

    async with world(tmp_path) as made:
        made.api.create(r.CONFIG_MAPS, show("old"), "ns")
        mount = {"name": "v", "mountPath": "/v"}
        volumes = [{"name": "v", "configMap": {"name": "c", "defaultMode": 0o644}}]
        made.create(pod(container("a", volumeMounts=[mount]), volumes=volumes))
        await made.until(lambda: made.phase() == "Running")
        (file,) = (tmp_path / "root" / "pods").glob("*/volumes/kubernetes.io~configmap/v/key")
        assert file.read_text() == "old"
        await made.stop()
        made.start()
        await made.clock.advance(5)
        made.api.change(r.CONFIG_MAPS, "c", "ns", lambda obj: obj.update(data={"key": "new"}))
        await made.until(lambda: file.read_text() == "new")
        assert made.only()["restartCount"] == 0


async def test_an_exit_may_restart_all_containers(tmp_path: Path) -> None:
    """KEP-5532, with what ends as soon as it was started."""
    rules = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
    ends = "{run: 0.1s, exit: 0}"
    life = f"{{containers: {{init: {ends}, source: [{{run: 0.1s, exit: 42}}, {ends}]}}}}"
    async with world(tmp_path) as made:
        made.create(
            pod(
                container("main"),
                init=(
                    container("sidecar", restartPolicy="Always"),
                    container("init"),
                    container("source", restartPolicy="Never", restartPolicyRules=rules),
                ),
                restartPolicy="Never",
            ),
            life,
        )
        await made.until(lambda: made.phase() == "Running")
        statuses = {each["name"]: each for each in (made.pod() or {})["status"]["initContainerStatuses"]}
        assert {name: each["restartCount"] for name, each in statuses.items()} == dict.fromkeys(statuses, 1)
        reasons = {(each["lastState"].get("terminated") or {}).get("reason") for each in statuses.values()}
        assert reasons == {"RestartingAllContainers"}
        assert await made.running() == ["main", "sidecar"]


async def test_what_is_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
        made.create(pod(container("a", readinessProbe=probe)))
        made.create(pod(container("a", resources={"requests": {"cpu": "99"}}), meta={"name": "big"}))
        await made.until(lambda: made.only().get("ready") and made.phase("big") == "Failed")
        told = made.kubelet.exposition().decode().splitlines()
        for line in (
            'kubelet_node_name{node="node1"} 1.0',
            "kubelet_running_pods 1.0",
            'kubelet_running_containers{container_state="running"} 1.0',
            'kubelet_desired_pods{static="false"} 2.0',
            'kubelet_active_pods{static="false"} 1.0',
            'kubelet_admission_rejections_total{reason="OutOfcpu"} 1.0',
            'kubelet_started_containers_total{container_type="container"} 1.0',
            'kubelet_runtime_operations_total{operation_type="run_podsandbox"} 1.0',
            "kubelet_pod_start_duration_seconds_count 1.0",
            "kubelet_containers_per_pod_count_count 2.0",
            "kubelet_pod_worker_start_duration_seconds_count 2.0",
            'kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""} 1.0',
            'kubelet_working_pods{config="desired",lifecycle="sync",static=""} 1.0',
            'kubelet_working_pods{config="desired",lifecycle="terminated",static=""} 1.0',
            "kubelet_mirror_pods 0.0",
            "kubelet_pod_in_progress_resizes 0.0",
        ):
            assert line in told
        probes = made.kubelet.probe_metrics.exposition().decode()
        uid = (made.pod() or {})["metadata"]["uid"]
        labels = f'container="a",namespace="ns",pod="p",pod_uid="{uid}",probe_type="Readiness",result="successful"'
        assert f"prober_probe_total{{{labels}}}" in probes
        made.api.delete(r.PODS, "p", "ns")
        await made.until(lambda: made.pod() is None)
        await made.until(lambda: uid not in made.kubelet.probe_metrics.exposition().decode())
