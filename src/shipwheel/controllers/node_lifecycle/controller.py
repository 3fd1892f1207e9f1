"""The node life cycle loop: every five seconds look at every node; taint, and mark pods not ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    condition,
    is_condition_true,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import LEASES, NODES, PODS
from shipwheel.controllers.framework import Context, each, is_not_found
from shipwheel.controllers.node_lifecycle import health as healthy
from shipwheel.controllers.node_lifecycle import taints
from shipwheel.controllers.node_lifecycle.zones import (
    EvictionRates,
    TaintQueue,
    ZoneState,
    rate_of,
    state_of,
    zone_of,
)

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_TAINT_PERIOD = 0.1
_AT_ONCE = 8
"""Nodes written at once, upstream's: thousands that seem lost must not keep a busy server from hearing otherwise."""
_EXCLUDED = "node.kubernetes.io/exclude-disruption"


class NodeLifecycleController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        config = ctx.config
        self._rates = EvictionRates(
            config.node_eviction_rate,
            config.secondary_node_eviction_rate,
            config.large_cluster_size_threshold,
            config.unhealthy_zone_threshold,
        )
        self._nodes = ctx.informer(NODES)
        self._pods = ctx.pods()
        self._leases = ctx.informers.informer(LEASES, namespace=_LEASE_NAMESPACE)
        self._health: dict[str, healthy.Health] = {}
        self._known: dict[str, str] = {}
        self._was_ready: dict[str, bool] = {}
        self._to_retry: set[str] = set()
        self._zones: dict[str, ZoneState] = {}
        self._queues: dict[str, TaintQueue] = {}
        self._waiting = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._node_loop = ctx.loop("node_lifecycle_controller", self.reconcile, workers=8, informers=(self._nodes,))
        self._nodes.add_handler(self._node_loop.on_event)
        self._pods.add_handler(self._on_pod)
        self._pod_loop = ctx.loop(
            "node_lifecycle_controller_pods",
            self._reconcile_pod,
            workers=4,
            informers=(self._nodes, self._pods),
        )
        metrics, zone = ctx.metrics, ("zone",)
        self._evictions = metrics.counter(
            "node_collector_evictions_total",
            "[STABLE] Number of Node evictions that happened since current instance of NodeController started.",
            zone,
        )
        self._zone_size = metrics.gauge(
            "node_collector_zone_size", "[ALPHA] Gauge measuring number of registered Nodes per zones.", zone
        )
        self._zone_health = metrics.gauge(
            "node_collector_zone_health",
            "[ALPHA] Gauge measuring percentage of healthy nodes per zone.",
            zone,
        )
        self._unhealthy = metrics.gauge(
            "node_collector_unhealthy_nodes_in_zone",
            "[ALPHA] Gauge measuring number of not Ready Nodes per zones.",
            zone,
        )

    async def run(self) -> None:
        for informer in (self._nodes, self._pods, self._leases):
            await informer.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._node_loop.run())
            group.create_task(self._pod_loop.run())
            group.create_task(self._monitor())
            group.create_task(self._taint_waiting())

    # Taints and labels that follow from the node itself

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.get("", key)
        if node is None:
            return None
        wanted = taints.no_schedule_taints(node, rfc3339(self._ctx.clock.now()))
        if wanted is not None:
            await self._write_taints(node, wanted)
        labels = taints.missing_labels(labels_of(node))
        if labels:
            await self._patch(node, {"metadata": {"labels": labels}})
        return None

    # Health

    async def _monitor(self) -> None:
        while True:
            await self.look()
            await self._ctx.clock.sleep(self._ctx.config.node_monitor_period)

    async def look(self) -> None:
        """Look at all nodes once."""
        nodes = self._nodes.list()
        self._note_comings_and_goings(nodes)
        ailing = [node for node in nodes if not self._is_well(node)]
        errors = await asyncio.gather(*(self._judge_in_turn(node) for node in ailing), return_exceptions=True)
        for node, error in zip(ailing, errors, strict=True):
            if isinstance(error, ApiError | ConnectionFailed):
                log.error("update health of node %s failed, no pods will be evicted: %s", name_of(node), error)
            elif isinstance(error, BaseException):
                raise error
        # Only now is it known how many are silent, and so how fast they may be given up.
        await self._handle_disruption(nodes)
        if any(self._queues.values()):
            self._waiting.set()

    def _note_comings_and_goings(self, nodes: Iterable[Obj]) -> None:
        present = {name_of(node): uid_of(node) for node in nodes}
        for name in [name for name in self._known if name not in present]:
            self._node_event(name, self._known.pop(name), "RemovingNode", f"Removing Node {name} from Controller")
            self._health.pop(name, None)
            self._was_ready.pop(name, None)
            self._to_retry.discard(name)
            for queue in self._queues.values():
                queue.remove(name)
        for node in nodes:
            name = name_of(node)
            zone = zone_of(node)
            if zone not in self._queues:
                self._queues[zone] = TaintQueue(self._rates.normal, self._ctx.clock.monotonic())
                self._evictions.labels(zone)
            self._zones.setdefault(zone, ZoneState.INITIAL)
            if name not in self._known:
                self._known[name] = uid_of(node)
                registered = f"Registered Node {name} in Controller"
                self._node_event(name, uid_of(node), "RegisteredNode", registered)

    def _is_well(self, node: Obj) -> bool:
        """Take in what was heard of a node. Of thousands nearly all are well, and nothing is to be done about them."""
        name, known = name_of(node), self._health.get(name_of(node))
        lease = self._leases.get(_LEASE_NAMESPACE, name)
        age = 0.0 if known is not None else self._age(node)
        health = self._health[name] = healthy.observe(known, node, lease, self._ctx.clock.monotonic(), age)
        if not is_condition_true(node, "Ready") or self._is_silent(health, is_known=True):
            return False
        tainted = taints.has(node, taints.NOT_READY) or taints.has(node, taints.UNREACHABLE)
        return not (tainted or name in self._to_retry or name in self._queues[zone_of(node)])

    def _age(self, node: Obj) -> float:
        created = node["metadata"].get("creationTimestamp")
        return max((self._ctx.clock.now() - parse_time(created)).total_seconds(), 0.0) if created else 0.0

    def _is_silent(self, health: healthy.Health, *, is_known: bool) -> bool:
        """Nothing was heard for too long of a node that has ever told its state, or never has."""
        config = self._ctx.config
        grace = config.node_monitor_grace_period if is_known else config.node_startup_grace_period
        return healthy.expired(health, self._ctx.clock.monotonic(), grace)

    async def _judge_in_turn(self, node: Obj) -> None:
        async with self._turns:
            await self._judge(node)

    async def _judge(self, node: Obj) -> None:
        clock, name = self._ctx.clock, name_of(node)
        ready = condition(node, "Ready")
        observed_ready = ready is not None and ready["status"] == "True"
        if self._is_silent(self._health[name], is_known=ready is not None):
            silent = healthy.silent_conditions(node, clock.now())
            if silent is not None:
                status = {**(node.get("status") or {}), "conditions": silent}
                node = await self._ctx.client.update(NODES, {**node, "status": status}, subresource="status")
                ready = condition(node, "Ready")
        if ready is None:
            return
        await self._taint_by_readiness(node, ready["status"])
        await self._follow_readiness(node, is_ready=ready["status"] == "True", observed_ready=observed_ready)

    async def _taint_by_readiness(self, node: Obj, ready: str) -> None:
        """A node's first NoExecute taint comes when its zone's rate allows; it goes or changes at once."""
        queue = self._queues[zone_of(node)]
        if ready == "True":
            queue.remove(name_of(node))
        wanted = taints.no_execute_taints(node, ready, rfc3339(self._ctx.clock.now()))
        if wanted is None:
            return
        if ready == "True" or taints.has(node, taints.NOT_READY) or taints.has(node, taints.UNREACHABLE):
            await self._write_taints(node, wanted)
        else:
            queue.add(name_of(node))

    async def _follow_readiness(self, node: Obj, *, is_ready: bool, observed_ready: bool) -> None:
        """Pods on a node that has just fallen silent are not ready."""
        name = name_of(node)
        fell_silent = observed_ready and not is_ready
        if fell_silent:
            self._event(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        if fell_silent or (name in self._to_retry and not is_ready):
            errors = await each(self._mark_not_ready(pod) for pod in self._pods.by_index("node", name))
            if errors:
                log.error("unable to mark all pods NotReady on node %s: %s", name, errors[0])
                self._to_retry.add(name)
                return
        self._to_retry.discard(name)

    async def _taint_waiting(self) -> None:
        """Taint the nodes that wait for it, as fast as their zones allow."""
        while True:
            await self._waiting.wait()
            for zone, queue in self._queues.items():
                while (name := queue.take(self._ctx.clock.monotonic())) is not None:
                    await self._taint_one(zone, name)
            if not any(self._queues.values()):
                self._waiting.clear()
            else:
                await self._ctx.clock.sleep(_TAINT_PERIOD)

    async def _taint_one(self, zone: str, name: str) -> None:
        node = self._nodes.get("", name)
        ready = condition(node, "Ready") if node else None
        if node is None or ready is None:
            return
        wanted = taints.no_execute_taints(node, ready["status"], rfc3339(self._ctx.clock.now()))
        if ready["status"] == "True" or wanted is None:
            return
        try:
            await self._write_taints(node, wanted)
            self._evictions.labels(zone).inc()
        except (ApiError, ConnectionFailed) as error:
            log.warning("failed to taint node %s: %s", name, error)
            self._queues[zone].add(name)

    # Zones

    async def _handle_disruption(self, nodes: Iterable[Obj]) -> None:
        """Set each zone's pace by the share of its nodes that are silent. When all nodes of all zones are, it is
        we who are cut off: nobody is given up."""
        nodes = list(nodes)
        ready: dict[str, list[bool]] = {}
        for node in nodes:
            if _EXCLUDED not in labels_of(node):
                fresh = self._nodes.get("", name_of(node)) or node
                ready.setdefault(zone_of(node), []).append(is_condition_true(fresh, "Ready"))
        states: dict[str, ZoneState] = {}
        for zone, entries in ready.items():
            bad, states[zone] = state_of(entries, self._rates.unhealthy_threshold)
            self._zone_size.labels(zone).set(len(entries))
            self._zone_health.labels(zone).set(100 * (len(entries) - bad) / len(entries))
            self._unhealthy.labels(zone).set(bad)
        now = self._ctx.clock.monotonic()
        full = ZoneState.FULL_DISRUPTION
        all_are = bool(states) and all(state is full for state in states.values())
        all_were = bool(self._zones) and all(state is full for state in self._zones.values())
        if all_are:
            if not all_were:
                log.warning("controller detected that all nodes are not ready, entering master disruption mode")
                for node in nodes:
                    await self._untaint(node)
            for zone in states:
                self._queues[zone].set_rate(0.0, now)
        else:
            if all_were:
                log.warning("controller detected that some nodes are ready, exiting master disruption mode")
                self._health = {name: healthy.as_if_probed(each_, now) for name, each_ in self._health.items()}
            for zone, state in states.items():
                self._queues[zone].set_rate(rate_of(state, len(ready[zone]), self._rates), now)
        for zone in set(self._zones) - set(states):
            self._zone_size.labels(zone).set(0)
            self._zone_health.labels(zone).set(100)
            self._unhealthy.labels(zone).set(0)
        self._zones = states

    async def _untaint(self, node: Obj) -> None:
        self._queues[zone_of(node)].remove(name_of(node))
        try:
            # The taint may be as new as to be in no cache yet.
            node = await self._ctx.client.get(NODES, name_of(node))
            wanted = taints.no_execute_taints(node, "True", rfc3339(self._ctx.clock.now()))
            if wanted is not None:
                await self._write_taints(node, wanted)
        except (ApiError, ConnectionFailed) as error:
            if not is_not_found(error):
                log.error("failed to remove taints from node %s: %s", name_of(node), error)

    # Pods

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """A pod that comes to a node after it has fallen silent is not ready either."""
        if new is None or not new["spec"].get("nodeName"):
            return
        if old is None or old["spec"].get("nodeName") != new["spec"]["nodeName"]:
            self._pod_loop.add(new)

    async def _reconcile_pod(self, key: str) -> float | None:
        namespace, _, name = key.partition("/")
        pod = self._pods.get(namespace, name)
        node = self._nodes.get("", pod["spec"].get("nodeName", "")) if pod else None
        if pod is None or node is None or name_of(node) not in self._health:
            return None
        ready = condition(node, "Ready")
        if ready is not None and ready["status"] != "True":
            await self._mark_not_ready(pod)
        return None

    async def _mark_not_ready(self, pod: Obj) -> None:
        ready = condition(pod, "Ready")
        if ready is None or ready["status"] != "True":
            return
        changed = {**ready, "status": "False", "lastTransitionTime": rfc3339(self._ctx.clock.now())}
        patch = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [changed]}}
        try:
            await self._ctx.client.patch(
                PODS, name_of(pod), namespace_of(pod), patch, kind="strategic", subresource="status"
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
            return
        self._event(pod, "NodeNotReady", "Node is not ready", kind="Warning")

    # Writing

    async def _write_taints(self, node: Obj, wanted: list[Obj]) -> None:
        """Replace a node's taints, unless somebody else changed the node (then the next look will do it)."""
        version = node["metadata"].get("resourceVersion")
        await self._patch(node, {"metadata": {"resourceVersion": version}, "spec": {"taints": wanted}})

    async def _patch(self, node: Obj, patch: Obj) -> None:
        try:
            await self._ctx.client.patch(NODES, name_of(node), "", patch, kind="strategic")
        except ApiError as error:
            if not is_not_found(error):
                raise

    def _event(self, about: Obj, reason: str, message: str, *, kind: Literal["Normal", "Warning"] = "Normal") -> None:
        self._ctx.recorder.event(about, kind, reason, message)

    def _node_event(self, name: str, uid: str, reason: str, message: str) -> None:
        """About a node that may be gone by now."""
        reference = {"kind": "Node", "name": name, "uid": uid, "apiVersion": "v1"}
        self._ctx.recorder.event(reference, "Normal", reason, f"Node {name} event: {message}")
