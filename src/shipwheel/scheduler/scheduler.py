"""The scheduler: pods without a node are decided upon one by one, and bound.

A pod that no node will have waits until something changes that may help it. What was decided counts at once, before
the API has said so; should the binding fail, it is taken back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import uuid
from typing import Any

from shipwheel.api.clock import Clock, SystemClock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, key_of, name_of, namespace_of, split_key
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.informer import Informer, InformerFactory
from shipwheel.client.leader import ElectionConfig, LeaderElector
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import NODES, PODS
from shipwheel.client.serving import ComponentServer, ServingConfig
from shipwheel.client.workqueue import ShutDown, WorkQueue
from shipwheel.scheduler.cluster import TERMINAL, Cluster
from shipwheel.scheduler.config import SchedulerConfig
from shipwheel.scheduler.placement import Decision, decide

log = logging.getLogger(__name__)

BINDERS = 16


async def run(
    config: SchedulerConfig,
    *,
    client: Client,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
    rng: random.Random | None = None,
) -> None:
    """Schedule until cancelled, while leading if leader election is on. Raises LeadershipLost."""
    clock = clock or SystemClock()
    metrics = metrics or Metrics()
    recorder = EventRecorder(client, clock, component=config.scheduler_name)
    scheduler = Scheduler(config, client, clock, recorder, metrics, rng or random.Random())
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_serve(config, client, metrics), name="serve"),
            group.create_task(recorder.run(), name="record events"),
        ]
        try:
            await _lead(config, client, clock, metrics, scheduler)
        finally:
            for task in tasks:
                task.cancel()


async def _serve(config: SchedulerConfig, client: Client, metrics: Metrics) -> None:
    server = ComponentServer(metrics=metrics, client=client)
    await server.run(
        ServingConfig(
            bind_address=config.bind_address,
            port=config.secure_port,
            cert_file=config.tls_cert_file,
            key_file=config.tls_private_key_file,
            client_ca_file=config.client_ca_file,
            always_allow_paths=config.authorization_always_allow_paths,
        )
    )


async def _lead(config: SchedulerConfig, client: Client, clock: Clock, metrics: Metrics, scheduler: Scheduler) -> None:
    if not config.leader_elect:
        await scheduler.run()
        return
    election = ElectionConfig(
        name=config.leader_elect_resource_name,
        namespace=config.leader_elect_resource_namespace,
        identity=f"{socket.gethostname()}_{uuid.uuid4()}",
        lease_duration=config.leader_elect_lease_duration,
        renew_deadline=config.leader_elect_renew_deadline,
        retry_period=config.leader_elect_retry_period,
    )
    await LeaderElector(client, election, clock, metrics=metrics.election).run(scheduler.run)


class Scheduler:
    def __init__(
        self,
        config: SchedulerConfig,
        client: Client,
        clock: Clock,
        recorder: EventRecorder,
        metrics: Metrics,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._rng = rng
        self._cluster = Cluster()
        self._queue: WorkQueue[str] = WorkQueue("scheduler", clock, metrics=metrics.queues)
        self._waiting: set[str] = set()
        """Pods that no node will have until something changes."""
        self._assumed: set[str] = set()
        self._binding = asyncio.Semaphore(BINDERS)
        self._pods: Informer

    async def run(self) -> None:
        """Follow pods and nodes, and schedule."""
        informers = InformerFactory(self._client, self._clock)
        nodes = informers.informer(NODES)
        self._pods = informers.informer(PODS)
        nodes.add_handler(self._on_node)
        self._pods.add_handler(self._on_pod)
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run(), name="informers")
            group.create_task(self._queue.run_delayed(), name="delays")
            await informers.wait_synced()
            while True:
                try:
                    key = await self._queue.get()
                except ShutDown:
                    return
                try:
                    self._schedule(key, group)
                finally:
                    self._queue.done(key)

    def _on_node(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._cluster.remove_node(name_of(old))
            return
        self._cluster.set_node(new)
        if old is None or _matters(new) != _matters(old):
            self._wake()

    def _on_pod(self, kind: str, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        assert pod is not None
        key = key_of(pod)
        if new is None or (new.get("status") or {}).get("phase") in TERMINAL:
            self._cluster.remove_pod(key)
            self._forget(key)
            self._wake()
        elif new["spec"].get("nodeName"):
            self._cluster.set_pod(new)
            self._forget(key)
        elif (
            self._is_ours(new)
            and key not in self._assumed
            and (
                old is None
                or old["spec"] != new["spec"]
                or old["metadata"].get("labels") != new["metadata"].get("labels")
            )
        ):
            self._waiting.discard(key)
            self._queue.add(key)

    def _forget(self, key: str) -> None:
        self._waiting.discard(key)
        self._assumed.discard(key)
        self._queue.forget(key)

    def _is_ours(self, pod: Obj) -> bool:
        return (
            pod["spec"].get("schedulerName", "default-scheduler") == self._config.scheduler_name
            and not pod["spec"].get("schedulingGates")
            and not is_being_deleted(pod)
        )

    def _wake(self) -> None:
        """Something has changed that may help those who wait."""
        for key in self._waiting:
            self._queue.add(key)
        self._waiting.clear()

    def _schedule(self, key: str, group: asyncio.TaskGroup) -> None:
        pod = self._pods.get(*split_key(key))
        if pod is None or pod["spec"].get("nodeName") or not self._is_ours(pod) or key in self._assumed:
            return
        decision = decide(pod, self._cluster.nodes.values(), rng=self._rng)
        if decision.node:
            self._assumed.add(key)
            self._cluster.set_pod({**pod, "spec": {**pod["spec"], "nodeName": decision.node}})
            group.create_task(self._bind(key, pod, decision.node))
        else:
            self._waiting.add(key)
            group.create_task(self._report(key, pod, decision))

    async def _bind(self, key: str, pod: Obj, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name_of(pod), "namespace": namespace_of(pod), "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        async with self._binding:
            try:
                await self._client.create(PODS, binding, namespace_of(pod), name=name_of(pod), subresource="binding")
            except (ApiError, ConnectionFailed) as error:
                self._take_back(key, error)
                return
        where = f"{namespace_of(pod)}/{name_of(pod)}"
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {where} to {node}")

    def _take_back(self, key: str, error: Exception) -> None:
        log.warning("binding %s failed: %s", key, error)
        self._assumed.discard(key)
        pod = self._pods.get(*split_key(key))
        if pod is None or not pod["spec"].get("nodeName"):
            self._cluster.remove_pod(key)
        if not (isinstance(error, ApiError) and error.reason == "NotFound"):
            self._queue.add_rate_limited(key)

    async def _report(self, key: str, pod: Obj, decision: Decision) -> None:
        self._recorder.event(pod, "Warning", "FailedScheduling", decision.message)
        known = next(
            (each for each in (pod.get("status") or {}).get("conditions") or () if each["type"] == "PodScheduled"),
            None,
        )
        wanted: dict[str, Any] = {"status": "False", "reason": "Unschedulable", "message": decision.message}
        if known is not None and all(known.get(field) == value for field, value in wanted.items()):
            return
        condition = {
            "type": "PodScheduled",
            "observedGeneration": pod["metadata"].get("generation"),
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(self._clock.now()),
            **wanted,
        }
        if known is not None and known["status"] == "False":
            del condition["lastTransitionTime"]
        try:
            await self._client.patch(
                PODS,
                name_of(pod),
                namespace_of(pod),
                {"status": {"conditions": [condition]}},
                kind="strategic",
                subresource="status",
            )
        except (ApiError, ConnectionFailed) as error:
            log.warning("the condition of %s could not be set: %s", key, error)


def _matters(node: Obj) -> tuple[Any, ...]:
    """What of a node scheduling depends on."""
    return (
        node["spec"].get("unschedulable"),
        node["spec"].get("taints"),
        node["metadata"].get("labels"),
        (node.get("status") or {}).get("allocatable"),
    )
