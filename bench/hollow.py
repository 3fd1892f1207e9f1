"""Nodes that live only in the API: `python -m bench.hollow --kubeconfig FILE --nodes N`.

Their pods run as soon as they are bound and are gone as soon as they are deleted; their leases are renewed. It is the
least that a cluster of many nodes needs for its controllers to be measured, in one process of its own. (The kubelet's
simulated runtime does all that a kubelet does, which is more than is wanted here.)
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime

import uvloop

from shipwheel.api.clock import rfc3339, rfc3339_micro
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.client.client import Client
from shipwheel.client.informer import Informer
from shipwheel.client.kubeconfig import load_config
from shipwheel.client.resources import LEASES, NODES, PODS

_WORKERS = 24
_LEASES = "kube-node-lease"
_LEASE_SECONDS = 40
_RENEW_SECONDS = 10.0
_ROOM = {"cpu": "64", "memory": "512Gi", "pods": "250"}


async def run(kubeconfig: str, nodes: int) -> None:
    async with Client(load_config(kubeconfig), user_agent="hollow-nodes") as client, asyncio.TaskGroup() as group:
        names = [f"hollow-{index}" for index in range(nodes)]
        for name in names:
            await _register(client, name)
        group.create_task(_renew_leases(client, names))
        queue: asyncio.Queue[Obj] = asyncio.Queue()
        for _ in range(_WORKERS):
            group.create_task(_tend(client, queue))
        pods = Informer(client, PODS, field_selector="spec.nodeName!=")
        pods.add_handler(lambda kind, new, old: queue.put_nowait(new) if new is not None else None)
        group.create_task(pods.run())


async def _register(client: Client, name: str) -> None:
    now = rfc3339(datetime.now(UTC))
    await client.create(NODES, {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
    status = {"capacity": _ROOM, "allocatable": _ROOM, "conditions": [{**ready, "lastTransitionTime": now}]}
    await client.patch(NODES, name, "", {"status": status}, subresource="status")


async def _renew_leases(client: Client, names: list[str]) -> None:
    spec = {"leaseDurationSeconds": _LEASE_SECONDS}
    while True:
        for name in names:
            renewed = {**spec, "holderIdentity": name, "renewTime": rfc3339_micro(datetime.now(UTC))}
            try:
                await client.patch(LEASES, name, _LEASES, {"spec": renewed})
            except ApiError as error:
                if error.code != 404:
                    raise
                lease = {"metadata": {"name": name, "namespace": _LEASES}, "spec": renewed}
                try:
                    await client.create(LEASES, lease)
                except ApiError as refused:
                    if refused.code != 404:  # the namespace is not there yet
                        raise
        await asyncio.sleep(_RENEW_SECONDS)


async def _tend(client: Client, queue: asyncio.Queue[Obj]) -> None:
    while True:
        pod = await queue.get()
        try:
            if is_being_deleted(pod):
                await client.delete(PODS, name_of(pod), namespace_of(pod), grace_period=0, uid=uid_of(pod))
            elif pod["status"].get("phase") == "Pending":
                patch = {"metadata": {"uid": uid_of(pod)}, "status": _running(pod)}
                await client.patch(PODS, name_of(pod), namespace_of(pod), patch, subresource="status")
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _running(pod: Obj) -> Obj:
    now = rfc3339(datetime.now(UTC))
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "startTime": now,
        "hostIP": "10.0.0.1",
        "podIP": "10.1.0.1",
        "podIPs": [{"ip": "10.1.0.1"}],
        "conditions": [{"type": each, "status": "True", "lastTransitionTime": now} for each in types],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodes", type=int, default=50)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.kubeconfig, arguments.nodes))


if __name__ == "__main__":
    main()
