"""The first deployment of a new cluster: a small web site of three pods, made from what the machine has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from shipwheel.admin import images
from shipwheel.admin.errors import ClusterError
from shipwheel.admin.layout import Layout, Settings
from shipwheel.admin.nodes import containerd_config, import_images
from shipwheel.admin.status import admin_client
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import DEPLOYMENTS, EVENTS, SERVICES

NAME = "web"
REPLICAS = 3
TIMEOUT = 60.0
LABELS = {"app": NAME}


@dataclass(frozen=True, slots=True)
class Site:
    service_url: str
    node_url: str


def deploy(layout: Layout, settings: Settings, progress: Callable[[str], AbstractContextManager[None]]) -> Site:
    """Make the image, deploy it, and wait until it answers by the Service's address and by the NodePort.

    With simulated pods nobody answers; it waits until they are ready. Raises `ClusterError`, `ImageError`."""
    if settings.runtime == "containerd":
        with progress("Putting a web image together"):
            arch = images.architecture()
            archive = images.archive([images.web_image(images.host_busybox())], arch=arch)
            for node in settings.running_nodes:
                asyncio.run(import_images(containerd_config(layout, node.name), archive))
    with progress(f"Deploying {REPLICAS} pods of it"):
        service = asyncio.run(_deploy(layout))
    spec = service["spec"]
    site = Site(f"http://{spec['clusterIP']}/", f"http://{settings.address}:{spec['ports'][0]['nodePort']}/")
    if settings.runtime == "containerd":
        with progress("Waiting until it answers"):
            for url in (site.service_url, site.node_url):
                _wait_for_answer(url)
    return site


async def _deploy(layout: Layout) -> Obj:
    """The Service, when all pods are ready."""
    async with admin_client(layout) as client:
        await _create(client, deployment())
        service = await _create(client, the_service())
        deadline = time.monotonic() + TIMEOUT
        async for status in _statuses(client):
            if status.get("readyReplicas", 0) >= REPLICAS:
                return service
            if time.monotonic() > deadline:
                raise ClusterError(f"the pods do not become ready:\n{await _warnings(client)}")
        raise AssertionError


async def _warnings(client: Client) -> str:
    """The last things that went wrong in the namespace."""
    events = (await client.list(EVENTS, "default", field_selector="type=Warning"))["items"]
    events.sort(key=lambda each: each.get("lastTimestamp") or "")
    return "\n".join(f"{each['involvedObject']['name']}: {each['message']}" for each in events[-5:])


async def _statuses(client: Client) -> AsyncIterator[Obj]:
    while True:
        yield (await client.get(DEPLOYMENTS, NAME, "default")).get("status") or {}
        await asyncio.sleep(0.05)


async def _create(client: Client, obj: Obj) -> Obj:
    """Make the object; one that is there already will do."""
    resource = DEPLOYMENTS if obj["kind"] == "Deployment" else SERVICES
    try:
        return await client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        return await client.get(resource, NAME, "default")


def deployment() -> Obj:
    container = {
        "name": NAME,
        "image": images.WEB,
        "ports": [{"name": "http", "containerPort": 80}],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"path": "/cgi-bin/index.cgi", "port": "http"}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": "default", "labels": LABELS},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}},
        },
    }


def the_service() -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": "default", "labels": LABELS},
        "spec": {
            "type": "NodePort",
            "selector": LABELS,
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _wait_for_answer(url: str) -> None:
    host = url.removeprefix("http://").rstrip("/")
    deadline = time.monotonic() + TIMEOUT
    while True:
        connection = HTTPConnection(host, timeout=2)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status < 400:
                return
        except (OSError, HTTPException) as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{url} does not answer: {error}") from error
        finally:
            connection.close()
        time.sleep(0.02)
