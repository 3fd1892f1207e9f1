"""The simulated nodes themselves: registered, ready, and their leases renewed, a few at a time.

Every Node with the label is looked after, whoever made it: one of other capacity, labels or taints is made with
kubectl, and one that is deleted is gone.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from shipwheel import KUBERNETES_VERSION
from shipwheel.api.clock import Clock, rfc3339, rfc3339_micro
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.informer import EventType, Informer
from shipwheel.client.resources import LEASES, NODES
from shipwheel.kubelet.machine import default_address, read_machine
from shipwheel.kubelet.node import LEASE_NAMESPACE
from shipwheel.kubelet.node_status import NodeFacts, initial_node, node_status
from shipwheel.kubelet.runtime.simulated.addresses import Addresses
from shipwheel.kubelet.simulated_nodes.config import Config

log = logging.getLogger(__name__)

LABEL = "shipwheel.dev/simulated"
METRICS_PATH = "metrics.k8s.io/resource-metrics-path"
"""Where the metrics server is to ask for a node's usage, if not at the usual path."""
AT_ONCE = 16
BEATS_AT_ONCE = 64
"""Heartbeats under way: a server that is slow must not make nodes look lost, as it does not with real kubelets."""
BATCH = 8
"""Nodes that are woken for together: a timer for each would be a timer every few milliseconds."""
RETRY_SECONDS = 5.0
STORAGE = 1 << 40


@dataclass(slots=True)
class Node:
    name: str
    uid: str
    addresses: Addresses | None
    """Of its pods; None before the control plane has given it a range."""
    lease: str = ""
    """The resource version of its lease; empty when it has to be looked at."""


class Nodes:
    def __init__(self, client: Client, clock: Clock, config: Config) -> None:
        self._client = client
        self._clock = clock
        self._config = config
        self._listeners: list[Callable[[str], None]] = []
        self._nodes: dict[str, Node] = {}
        self._unready: asyncio.Queue[str] = asyncio.Queue()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._beats = asyncio.Semaphore(BEATS_AT_ONCE)
        self.address = config.node_ip or default_address()
        machine = replace(read_machine(Path("/")), cpus=config.cpus, memory=config.memory, storage=STORAGE, swap=0)
        self._facts = NodeFacts(
            machine=replace(machine, hugepages={}),
            addresses=[self.address],
            hostname="",
            runtime_name="simulated",
            runtime_version=KUBERNETES_VERSION.removeprefix("v"),
            max_pods=config.max_pods,
            port=config.port or 10250,
        )
        self._informer = Informer(client, NODES, label_selector=f"{LABEL}=true", transform=_slim, clock=clock)
        self._informer.add_handler(self._on_node)

    def get(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def subscribe(self, tell: Callable[[str], None]) -> None:
        """Be told the names of nodes that come, or can take pods from now on."""
        self._listeners.append(tell)

    async def wait_synced(self) -> None:
        await self._informer.wait_synced()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._informer.run(), name="nodes")
            tasks.create_task(self._make_ready(), name="node readiness")
            tasks.create_task(self._register(), name="node registration")
            tasks.create_task(self._in_turn(self._config.heartbeat, self._renew), name="node leases")
            tasks.create_task(self._in_turn(self._config.status_period, self._beat), name="node statuses")

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._nodes.pop(old["metadata"]["name"], None)
            return
        meta = new["metadata"]
        node = self._nodes.get(meta["name"])
        if node is None or node.uid != meta["uid"]:
            node = self._nodes[meta["name"]] = Node(meta["name"], meta["uid"], None)
        if node.addresses is None and new["podCIDRs"]:
            node.addresses = Addresses(new["podCIDRs"])
        if kind == "ADDED" or (old is not None and old["podCIDRs"] != new["podCIDRs"]):
            for tell in self._listeners:
                tell(node.name)
        if not new["ready"]:
            self._unready.put_nowait(node.name)

    async def _register(self) -> None:
        await self.wait_synced()
        missing = (f"{self._config.name_prefix}{number}" for number in range(1, self._config.nodes + 1))
        await self._each((name for name in missing if name not in self._nodes), self._create)
        if self._config.nodes:
            log.info("%d simulated nodes are registered", self._config.nodes)

    async def _create(self, name: str) -> None:
        node = initial_node(
            self._facts_of(name),
            name=name,
            labels={LABEL: "true"},
            taints=self._config.taints,
            now=self._clock.now(),
        )
        node["metadata"].setdefault("annotations", {})[METRICS_PATH] = f"/metrics/nodes/{name}/metrics/resource"
        try:
            await self._client.create(NODES, node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            log.warning('there is a node "%s" that is not simulated', name)

    async def _make_ready(self) -> None:
        """Have those that are not ready say that they are."""
        while True:
            names = {await self._unready.get()}
            while not self._unready.empty():
                names.add(self._unready.get_nowait())
            await self._each(names, self._report)

    async def _report(self, name: str) -> None:
        known = self._informer.get("", name)
        if known is None or known["ready"]:
            return
        status = node_status(self._facts_of(name), {}, now=self._clock.now())
        if known["sized"]:
            del status["capacity"], status["allocatable"]
        await self._client.patch(NODES, name, "", {"status": status}, kind="strategic", subresource="status")

    async def _beat(self, name: str) -> None:
        kinds = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
        now = rfc3339(self._clock.now())
        status = {"conditions": [{"type": kind, "lastHeartbeatTime": now} for kind in kinds]}
        await self._client.patch(
            NODES, name, "", {"status": status}, kind="strategic", subresource="status", metadata_only=True
        )

    def _facts_of(self, name: str) -> NodeFacts:
        own = uuid.uuid5(uuid.NAMESPACE_DNS, name)
        machine = replace(self._facts.machine, machine_id=own.hex, system_uuid=str(own))
        return replace(self._facts, machine=machine, hostname=name)

    async def _renew(self, name: str) -> None:
        """As a kubelet does it, by updates: of all kinds of writes they cost the server least."""
        node = self._nodes.get(name)
        if node is None:
            return
        try:
            if not node.lease:
                found = await self._client.get(LEASES, name, LEASE_NAMESPACE)
                node.lease = found["metadata"]["resourceVersion"]
            written = await self._client.update(LEASES, self._lease(node))
        except ApiError as error:
            node.lease = ""
            if error.code != 404:
                raise
            written = await self._client.create(LEASES, self._lease(node))
        node.lease = written["metadata"]["resourceVersion"]

    def _lease(self, node: Node) -> Obj:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
        meta: Obj = {"name": node.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]}
        if node.lease:
            meta["resourceVersion"] = node.lease
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": node.name,
                "leaseDurationSeconds": self._config.lease_duration,
                "renewTime": rfc3339_micro(self._clock.now()),
            },
        }

    async def _in_turn(self, period: float, act: Callable[[str], Awaitable[None]]) -> None:
        """Act on every node once in each period, spread evenly over it."""
        await self.wait_synced()
        while True:
            names = list(self._nodes)
            started = self._clock.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for index, name in enumerate(names):
                    wait = started + period * index / len(names) - self._clock.monotonic()
                    if wait > 0 and index % BATCH == 0:
                        await self._clock.sleep(wait)
                    if name in self._nodes:
                        await self._beats.acquire()
                        tasks.create_task(self._try(name, act, [], self._beats))
            await self._clock.sleep(max(started + period - self._clock.monotonic(), period / 100))

    async def _each(self, names: Iterable[str], act: Callable[[str], Awaitable[None]]) -> None:
        """Act on all of them, some at once; where it fails, again after a while."""
        failed: list[str] = []
        while True:
            async with asyncio.TaskGroup() as tasks:
                for name in names:
                    await self._places.acquire()
                    tasks.create_task(self._try(name, act, failed, self._places))
            if not failed:
                return
            names, failed = failed, []
            await self._clock.sleep(RETRY_SECONDS)

    async def _try(
        self, name: str, act: Callable[[str], Awaitable[None]], failed: list[str], places: asyncio.Semaphore
    ) -> None:
        try:
            await act(name)
        except (ApiError, ConnectionFailed) as error:
            if not (isinstance(error, ApiError) and error.code == 404):
                log.warning("simulated node %s: %s", name, error)
                failed.append(name)
        finally:
            places.release()


def _slim(node: Obj) -> Obj:
    """All that is kept of a node."""
    meta, status = node["metadata"], node.get("status") or {}
    return {
        "metadata": {key: meta[key] for key in ("name", "uid", "resourceVersion")},
        "podCIDRs": tuple(node["spec"].get("podCIDRs") or ()),
        "ready": is_condition_true(node, "Ready"),
        "sized": bool(status.get("capacity")),
    }
