"""Python's client libraries, unchanged, against a cluster."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest


def deployment(client: Any, name: str) -> Any:
    labels = {"app": name}
    container = client.V1Container(name="c", image="example.com/web")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec)


def test_kubernetes(kubeconfig: str) -> None:
    from kubernetes import client, config, watch
    from kubernetes.dynamic import DynamicClient
    from kubernetes.stream import stream

    api = config.new_client_from_config(kubeconfig)
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    assert [node.metadata.name for node in core.list_node().items] == ["node-1"]
    apps.create_namespaced_deployment("default", deployment(client, "k"))
    running = set()
    watching = watch.Watch()
    for event in watching.stream(core.list_namespaced_pod, "default", label_selector="app=k", timeout_seconds=30):
        if event["object"].status.phase == "Running":
            running.add(event["object"].metadata.name)
        if len(running) == 2:
            watching.stop()
    assert len(running) == 2
    name = min(running)
    output = stream(
        core.connect_get_namespaced_pod_exec, name, "default", command=["env"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip
    assert f"HOSTNAME={name}" in output
    apps.patch_namespaced_deployment_scale("k", "default", {"spec": {"replicas": 1}})
    assert apps.read_namespaced_deployment_scale("k", "default").spec.replicas == 1
    maps = DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "k"}, "data": {"a": "b"}}
    maps.server_side_apply(body=body, namespace="default", field_manager="test")
    assert maps.get(name="k", namespace="default").data.to_dict() == {"a": "b"}
    apps.delete_namespaced_deployment("k", "default")


def test_kubernetes_asyncio(kubeconfig: str) -> None:
    async def use() -> set[str]:
        from kubernetes_asyncio import client, config

        async with await config.new_client_from_config(kubeconfig) as api:
            namespaces = await client.CoreV1Api(api).list_namespace()
            return {each.metadata.name for each in namespaces.items}

    assert {"default", "kube-system"} <= asyncio.run(use())


def test_kr8s(kubeconfig: str) -> None:
    async def use() -> dict[str, str]:
        import kr8s
        from kr8s.asyncio.objects import ConfigMap

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of servers newer than itself
            api = await kr8s.asyncio.api(kubeconfig=kubeconfig)
        made = await ConfigMap({"metadata": {"name": "kr8s", "namespace": "default"}, "data": {"a": "b"}}, api=api)
        await made.create()
        await made.patch({"data": {"c": "d"}})
        data = dict(made.data)
        await made.delete()
        return data

    assert asyncio.run(use()) == {"a": "b", "c": "d"}


def test_lightkube(kubeconfig: str) -> None:
    async def use() -> tuple[dict[str, str], list[str]]:
        from lightkube import AsyncClient, KubeConfig
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.core_v1 import ConfigMap, Node

        client = AsyncClient(config=KubeConfig.from_file(kubeconfig), field_manager="test")
        metadata = ObjectMeta(name="lightkube", namespace="default")
        await client.create(ConfigMap(metadata=metadata, data={"a": "b"}))
        await client.apply(ConfigMap(metadata=metadata, data={"a": "c"}), force=True)
        found = await client.get(ConfigMap, "lightkube", namespace="default")
        await client.delete(ConfigMap, "lightkube", namespace="default")
        return found.data, [node.metadata.name async for node in client.list(Node)]

    assert asyncio.run(use()) == ({"a": "c"}, ["node-1"])


def test_kopf(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator on a built-in kind: it notes in every config map with a label that it has seen it."""
    import kopf
    from kubernetes import client, config

    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    core = client.CoreV1Api(config.new_client_from_config(kubeconfig))
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.create("", "v1", "configmaps", labels={"operated": "yes"}, registry=registry)
    def seen(patch: kopf.Patch, **_: Any) -> None:
        patch.metadata.annotations["example.com/seen"] = "yes"

    async def operate() -> str:
        ready, stop = asyncio.Event(), asyncio.Event()
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        operator = asyncio.create_task(
            kopf.operator(
                registry=registry, settings=settings, ready_flag=ready, stop_flag=stop, namespaces=["default"],
                standalone=True,
            )
        )  # fmt: skip
        await ready.wait()
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="operated", labels={"operated": "yes"}))
        await asyncio.to_thread(core.create_namespaced_config_map, "default", body)
        note = ""
        async with asyncio.timeout(30):
            while not note:
                found = await asyncio.to_thread(core.read_namespaced_config_map, "operated", "default")
                note = (found.metadata.annotations or {}).get("example.com/seen", "")
                await asyncio.sleep(0.05)
        stop.set()
        await operator
        return note

    assert asyncio.run(operate()) == "yes"
