"""The pods of simulated nodes: each goes from state to state as the stages say.

One watch tells of all of them, one timer has all that is to come, and a few workers write what has come. Of a pod
only that is kept which its stages and its status need, and what pods of a template have in common is kept once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_condition_true
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.informer import EventType, Informer, version_number
from shipwheel.client.resources import PODS
from shipwheel.kubelet.runtime.base import RuntimeFault
from shipwheel.kubelet.simulated_nodes import pod_status
from shipwheel.kubelet.simulated_nodes.nodes import Node
from shipwheel.kubelet.simulated_nodes.pod_status import Life, Shape, life_of
from shipwheel.kubelet.simulated_nodes.stages import Facts, Stage, Stages, after_exit, backoff
from shipwheel.kubelet.simulated_nodes.timers import Timers

log = logging.getLogger(__name__)

WORKERS = 16
RETRY_SECONDS = 2.0
BY_NODE = "node"
AGAIN = Stage("again", (), "Running")
"""What was told of a pod is told once more: somebody marked it as not ready, its node having been silent a while."""
OVER = ("Succeeded", "Failed")


@dataclass(slots=True)
class Pod:
    namespace: str
    name: str
    uid: str
    node: str
    shape: Shape
    facts: Facts
    life: Life
    host_network: bool
    finalizers: bool
    addresses: tuple[str, ...] = ()
    started: str = ""
    """When its node took it on."""
    deleting: bool = False
    written: int = 0
    """The version of its object with what was last told of it."""
    turn: int = 0
    """What was planned in an earlier one does not count any more."""


Plan = tuple[Pod, int, Stage]


class Pods:
    def __init__(
        self,
        client: Client,
        clock: Clock,
        stages: Stages,
        node_of: Callable[[str], Node | None],
        host_ip: str,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._stages = stages
        self._node_of = node_of
        self._host_ip = host_ip
        self._chance = chance
        self._pods: dict[str, Pod] = {}
        self._timers: Timers[Plan] = Timers(clock)
        self._common: WeakValueDictionary[Any, Any] = WeakValueDictionary()
        """What pods have in common, as long as there is one that has it."""
        self._informer = Informer(
            client,
            PODS,
            field_selector="spec.nodeName!=",
            indexers={BY_NODE: lambda pod: (pod["node"],)},
            transform=self._slim,
            clock=clock,
        )
        self._informer.add_handler(self._on_pod)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._informer.run(), name="pods")
            tasks.create_task(self._timers.run(), name="pod timers")
            for number in range(WORKERS):
                tasks.create_task(self._work(), name=f"pod worker {number}")

    def node_changed(self, name: str) -> None:
        """A node came, or can take pods from now on."""
        for found in self._informer.by_index(BY_NODE, name):
            self._on_pod("ADDED", found, None)

    def on(self, node: str) -> Iterable[Pod]:
        """The pods of a node."""
        found = (self._pods.get(each["metadata"]["uid"]) for each in self._informer.by_index(BY_NODE, node))
        return [each for each in found if each is not None]

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._forget(self._pods.pop(old["metadata"]["uid"], None))
            return
        node = self._node_of(new["node"])
        if node is None:
            return
        pod = self._pods.get(new["metadata"]["uid"])
        if pod is None:
            pod = self._pods[new["metadata"]["uid"]] = self._take_on(new)
            if node.addresses is not None and not pod.host_network:
                node.addresses.claim(pod.addresses)
            self._plan(pod)
        if new["deleting"] and not pod.deleting:
            pod.deleting = True
            self._plan(pod)
        elif pod.life.state == "Running" and not new["ready"] and version_number(new["metadata"]) > pod.written:
            self._timers.add(0, (pod, pod.turn, AGAIN))

    def _take_on(self, found: Obj) -> Pod:
        meta = found["metadata"]
        return Pod(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            node=found["node"],
            shape=found["shape"],
            facts=found["facts"],
            life=life_of(found["status"]) if found["status"] else Life(),
            host_network=found["host_network"],
            finalizers=found["finalizers"],
            started=(found["status"] or {}).get("startTime", ""),
            addresses=tuple(each["ip"] for each in (found["status"] or {}).get("podIPs") or ()),
        )

    def _forget(self, pod: Pod | None) -> None:
        if pod is None:
            return
        pod.turn += 1
        node = self._node_of(pod.node)
        if node is not None and node.addresses is not None and not pod.host_network:
            node.addresses.give_back(pod.addresses)

    def _plan(self, pod: Pod) -> None:
        """Decide what comes next, and when."""
        pod.turn += 1
        state = "Deleting" if pod.deleting else pod.life.state
        stage = self._stages.next(state, pod.facts, self._chance())
        if stage is None:
            return
        delay = stage.delay(self._chance())
        if state == "BackOff" and not stage.max_delay:
            delay = backoff(pod.life.restarts)
        self._timers.add(delay, (pod, pod.turn, stage))

    async def _work(self) -> None:
        while True:
            plan = await self._timers.due.get()
            pod, turn, stage = plan
            if turn != pod.turn:
                continue
            try:
                if not await self._carry_out(pod, stage):
                    self._timers.add(RETRY_SECONDS, plan)
            except (ApiError, ConnectionFailed) as error:
                if isinstance(error, ApiError) and error.code in (404, 409, 422):
                    # It is gone, or another one of its name is there: the watch tells.
                    continue
                log.warning("simulated pod %s/%s: %s", pod.namespace, pod.name, error)
                self._timers.add(RETRY_SECONDS, plan)

    async def _carry_out(self, pod: Pod, stage: Stage) -> bool:
        """False when it has to wait."""
        if stage.goal == "Deleted":
            await self._delete(pod)
            return True
        if not self._has_addresses(pod):
            return False
        await self._go(pod, stage, pod.facts.restart_policy)
        if stage is AGAIN:
            return True
        if pod.life.state not in OVER or pod.deleting:
            self._plan(pod)
        return True

    def _has_addresses(self, pod: Pod) -> bool:
        if pod.addresses:
            return True
        if pod.host_network:
            pod.addresses = (self._host_ip,)
            return True
        node = self._node_of(pod.node)
        if node is None or node.addresses is None:
            return False
        try:
            pod.addresses = node.addresses.take()
        except RuntimeFault:
            return False
        return True

    async def _go(self, pod: Pod, stage: Stage, restart_policy: str) -> None:
        """Follow a stage. What cannot be written has not happened."""
        now = rfc3339(self._clock.now())
        life, started = follow(pod.life, stage, restart_policy, now), pod.started or now
        patch = pod_status.status_patch(
            pod.uid, life, pod.shape, started=started, host_ip=self._host_ip, addresses=pod.addresses
        )
        written = await self._client.patch(
            PODS, pod.name, pod.namespace, patch, kind="strategic", subresource="status", metadata_only=True
        )
        pod.life, pod.started, pod.written = life, started, version_number(written["metadata"])

    async def _delete(self, pod: Pod) -> None:
        if pod.finalizers and pod.life.state not in OVER and pod.started:
            # Somebody will look at how it ended before it is gone.
            await self._go(pod, Stage("killed", (), "Exited", exit=143), "Never")
        await self._client.delete(PODS, pod.name, pod.namespace, grace_period=0, uid=pod.uid)

    def _slim(self, pod: Obj) -> Obj:
        """All that is kept of a pod."""
        meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
        return {
            "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")},
            "node": sys.intern(spec["nodeName"]),
            "shape": self._shape(spec),
            "facts": self._facts(meta, spec),
            "host_network": bool(spec.get("hostNetwork")),
            "deleting": "deletionTimestamp" in meta,
            "ready": is_condition_true(pod, "Ready"),
            "finalizers": bool(meta.get("finalizers")),
            # Only who starts anew needs to read what was written before.
            "status": None if meta["uid"] in self._pods else status if status.get("startTime") else None,
        }

    def _facts(self, meta: Obj, spec: Obj) -> Facts:
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        owner = next((each["kind"] for each in meta.get("ownerReferences") or () if each.get("controller")), "")
        policy = spec.get("restartPolicy", "Always")
        key = (meta["namespace"], tuple(labels.items()), tuple(annotations.items()), owner, policy)
        found = self._common.get(key)
        if found is None:
            found = self._common[key] = Facts(meta["namespace"], labels, annotations, owner, policy)
        return found

    def _shape(self, spec: Obj) -> Shape:
        shape = shape_of(spec)
        return self._common.setdefault(shape, shape)


def follow(life: Life, stage: Stage, restart_policy: str, now: str) -> Life:
    """The life after a stage."""
    reason, message = stage.reason, stage.message
    if stage.goal == "Exited":
        life = Life(life.state, life.since, life.started, life.restarts, stage.exit, reason, message, life.ended)
        how = pod_status.ended(life, now)
        state = after_exit(restart_policy, stage.exit, life.restarts)
        if state in OVER:
            return Life(state, now, life.started, life.restarts, stage.exit, reason, message, how)
        # The first time they are started again at once.
        started = now if state == "Running" else life.started
        return Life(state, now, started, life.restarts + 1, stage.exit, reason, message, how)
    if stage.goal == "Running":
        again = life.state in ("Pending", "Waiting", "BackOff")
        return Life("Running", now, now if again else life.started, life.restarts, ended=life.ended)
    ended = None if stage.goal in OVER else life.ended
    return Life(stage.goal, now, life.started, life.restarts, reason=reason, message=message, ended=ended)


def shape_of(spec: Obj) -> Shape:
    return Shape(
        tuple((each["name"], each.get("image", "")) for each in spec["containers"]),
        tuple(
            (each["name"], each.get("image", ""), each.get("restartPolicy") == "Always")
            for each in spec.get("initContainers") or ()
        ),
    )
