"""The scheduling loop: the next pod, a decision, and on to the next while the binding is under way.

A decision never waits for the API. It counts in the table at once (the pod is *assumed*); should the binding fail, it
is taken back and the pod is tried again. Many bindings are under way at a time, so that the speed is that of the
decisions and of the API server, not of the way between them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, key_of, name_of, namespace_of, uid_of
from shipwheel.api.selectors import SelectorError
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.httpclient import ConnectionFailed
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import PODS
from shipwheel.scheduler import profiles as building
from shipwheel.scheduler.configuration import Configuration
from shipwheel.scheduler.events import Action, ClusterEvent
from shipwheel.scheduler.extender import Extender, ExtenderError
from shipwheel.scheduler.framework import (
    SUCCESS,
    UNSCHEDULABLE,
    Cycle,
    Diagnosis,
    Handle,
    PluginError,
    PostFilterResult,
    Profile,
    Refusal,
    Waiting,
    failing_as,
    some,
)
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.metrics import ProfileMeter, PrometheusQueueMeter, SchedulerMetrics
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.plugins.basics import SchedulingGates
from shipwheel.scheduler.plugins.preemption import DefaultPreemption
from shipwheel.scheduler.pods import Shapes
from shipwheel.scheduler.queue import Queued, SchedulingQueue
from shipwheel.scheduler.reporting import Reporter
from shipwheel.scheduler.table import Mask, NodeTable, PodEntry
from shipwheel.scheduler.watch import ClusterWatch

log = logging.getLogger(__name__)

BINDERS = 32
"""Bindings under way at a time."""
WAITING_BINDINGS = 128
ASKED_ABOUT_BINDINGS = 60
"""How often, once a second, it is asked what has become of a binding that got no answer."""
TURN_SECONDS = 0.002
"""How long decisions are taken before answers and watches have their turn."""
_FAILURES = (ApiError, ConnectionFailed, ConfigError)


class Failed(Exception):
    """The attempt has failed, by rules (`diagnosis`) or by an error."""

    def __init__(
        self, message: str, diagnosis: Diagnosis | None = None, result: PostFilterResult | None = None
    ) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis
        self.result = result


@dataclass(slots=True)
class Binding:
    """A decision on its way to the API server."""

    queued: Queued
    profile: Profile
    cycle: Cycle
    node: str
    started: float


class Scheduler:
    def __init__(
        self,
        configuration: Configuration,
        client: Client,
        clock: Clock,
        recorder: EventRecorder,
        metrics: Metrics,
        *,
        seed: int | None = None,
        max_unschedulable: float = 300.0,
    ) -> None:
        self._client = client
        self._clock = clock
        self.metrics = SchedulerMetrics(metrics)
        self._reporter = Reporter(client, clock, recorder, self.metrics)
        self._shapes = Shapes()
        listers = Listers()
        self.table = NodeTable(listers.namespace_labels)
        self._handle = Handle(
            self.table,
            NodeRules(self.table),
            listers,
            self._bind_by_api,
            client=client,
            later=self._reporter.later,
            recorder=recorder,
            metrics=metrics,
        )
        if seed is not None:
            self._handle.rng.seed(seed)
        self._extenders = [Extender(each) for each in configuration.extenders]
        ignored = [name for each in configuration.extenders for name, skip in each.managed_resources if skip]
        self.profiles: Mapping[str, Profile] = {
            each.scheduler_name: building.build(each, self._handle, ignored=ignored) for each in configuration.profiles
        }
        for profile in self.profiles.values():
            profile.meter = ProfileMeter(self.metrics, profile.scheduler_name)
        first = next(iter(self.profiles.values()))
        self.queue = SchedulingQueue(
            clock,
            first.at("queueSort")[0].sort_key,
            building.interests(self.profiles),
            gate=self._gate,
            initial_backoff=configuration.initial_backoff,
            max_backoff=configuration.max_backoff,
            max_unschedulable=max_unschedulable,
            meter=PrometheusQueueMeter(self.metrics),
        )
        self.watch = ClusterWatch(client, clock, self.table, self.queue, self._shapes, listers, self.profiles)
        self.watch.on_handled = self.metrics.event_handled
        self._bindings: asyncio.Queue[Binding] = asyncio.Queue(WAITING_BINDINGS)
        self._under_way = 0
        """Bindings that are being written."""
        self._slow: asyncio.TaskGroup
        """For bindings that wait for volumes or for a permit."""

    def is_busy(self) -> bool:
        """There are pods to place, or bindings to write."""
        return self.queue.size("active") > 0 or not self._bindings.empty()

    def refresh_metrics(self) -> None:
        self.metrics.refresh(
            self.queue,
            self.table,
            self.profiles.values(),
            assumed=len(self.watch.assumed),
            binding=self._under_way,
        )

    def _gate(self, pod: Obj) -> str:
        plugin, reason = building.gate(self.profiles, pod)
        if plugin == SchedulingGates.name:
            self._reporter.gated(pod, reason)
        return plugin

    async def run(self) -> None:
        """Follow the cluster and schedule, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._slow = group
                group.create_task(self.watch.informers.run(), name="informers")
                await self.watch.informers.wait_synced()
                group.create_task(self.watch.pod_informers.run(), name="pods")
                await self.watch.pod_informers.wait_synced()
                group.create_task(self.queue.run(), name="queue")
                group.create_task(self._reporter.run(), name="reports")
                for number in range(BINDERS):
                    group.create_task(self._bind_all(), name=f"bind {number}")
                await self._decide_all()
        finally:
            for extender in self._extenders:
                await extender.close()

    async def _decide_all(self) -> None:
        turn = time.perf_counter()
        while True:
            queued = self.queue.pop()
            if queued is None:
                await self.queue.wait()
                turn = time.perf_counter()
                continue
            await self._attempt(queued)
            if time.perf_counter() - turn > TURN_SECONDS:
                await asyncio.sleep(0)
                turn = time.perf_counter()

    # One attempt

    async def _attempt(self, queued: Queued) -> None:
        pod, started = queued.pod, self._clock.monotonic()
        profile = self.profiles[pod["spec"].get("schedulerName", "default-scheduler")]
        if is_being_deleted(pod) or queued.key in self.watch.assumed:
            self.queue.done(queued)
            return
        promised = self.watch.nominated.get(queued.key)
        self.watch.denominate(queued.key)
        try:
            cycle = profile.cycle(pod, self._shapes.of(pod))
            node = await self._place(profile, cycle)
            if self.queue.get(queued.key) is not queued:
                return  # it has gone, or got a node, while extenders were asked
            self._assume(profile, cycle, node)
        except Failed as failure:
            self._fail(queued, profile, failure, started, promised)
        except (PluginError, ExtenderError, SelectorError) as error:
            log.warning("scheduling %s failed: %s", queued.key, error)
            self._fail(queued, profile, Failed(str(error)), started, promised)
        else:
            self.queue.done(queued)
            self._reporter.superseded(pod)
            if promised is not None and promised.node != node:
                self.watch.released(promised)
            binding = Binding(queued, profile, cycle, node, started)
            if cycle.slow:
                self._slow.create_task(self._bind_safely(binding), name=f"bind {queued.key}")
            else:
                await self._bindings.put(binding)

    async def _place(self, profile: Profile, cycle: Cycle) -> str:
        """The best node; Failed when there is none."""
        started = time.perf_counter()
        yielding = [each for each in self.watch.nominated.values() if each.priority < cycle.shape.priority]
        for entry in yielding:
            self.table.remove(entry.key)
        try:
            if not self._extenders:
                return self._place_here(profile, cycle)
            return await self._place_with_extenders(profile, cycle)
        finally:
            for entry in yielding:
                if self.watch.nominated.get(entry.key) is entry:
                    self.table.add(entry)
            self.metrics.algorithm_seconds.observe(time.perf_counter() - started)

    def _place_here(self, profile: Profile, cycle: Cycle) -> str:
        feasible = profile.attempt(cycle)
        if not some(feasible):
            raise self._no_node(profile, cycle)
        return self._pick(profile, cycle, feasible)

    def _no_node(self, profile: Profile, cycle: Cycle) -> Failed:
        """Why there is none, asked again in more detail, and what could be done about it."""
        diagnosis = Diagnosis(self.table.count)
        profile.feasible(cycle, diagnosis)
        return self._unschedulable(profile, cycle, diagnosis)

    def _unschedulable(self, profile: Profile, cycle: Cycle, diagnosis: Diagnosis) -> Failed:
        result = None
        if diagnosis.count:
            said = []
            started = time.perf_counter()
            for plugin in profile.at("postFilter"):
                with failing_as("PostFilter", plugin):
                    result = plugin.post_filter(cycle, diagnosis, profile)
                if plugin.name == DefaultPreemption.name:
                    self.metrics.preemptions.inc()
                if result.node:
                    said = [result.message] if result.message else []
                    break
                said.append(result.message)
            diagnosis.post_filter = ", ".join(said)
            found = result is not None and bool(result.node)
            profile.meter.point("PostFilter", SUCCESS if found else UNSCHEDULABLE, time.perf_counter() - started)
        else:
            diagnosis.plugins.update(each.name for each in profile.at("filter"))
        return Failed(diagnosis.message(), diagnosis, result)

    def _pick(self, profile: Profile, cycle: Cycle, feasible: Mask, extra: Mapping[str, int] | None = None) -> str:
        """The promised node if it will do, else one of those with the highest score."""
        promised = self.table.rows.get((cycle.pod.get("status") or {}).get("nominatedNodeName") or "")
        if promised is not None and feasible[promised]:
            return self.table.name(promised)
        rows = np.flatnonzero(feasible)
        if len(rows) > 1:
            total = profile.total(cycle, feasible)
            for name, score in (extra or {}).items():
                row = self.table.rows.get(name)
                if row is not None:
                    total[row] += score
            scores = total[rows]
            rows = rows[scores == scores.max()]
        return self.table.name(int(rows[self._handle.rng.randrange(len(rows))]))

    async def _place_with_extenders(self, profile: Profile, cycle: Cycle) -> str:
        diagnosis = Diagnosis(self.table.count)
        feasible = profile.feasible(cycle, diagnosis)
        asked = [each for each in self._extenders if each.wants(cycle.pod)]
        nodes = {self.table.name(row): self.table.nodes[row] for row in np.flatnonzero(feasible).tolist()}
        for extender in asked:
            if not extender.config.filter_verb or not nodes:
                continue
            try:
                filtered = await extender.filter(cycle.pod, [node for node in nodes.values() if node])
            except ExtenderError as error:
                if extender.config.ignorable:
                    log.info("skipping extender %s: %s", extender.name, error)
                    continue
                raise
            self._note_refusals(cycle, diagnosis, nodes, filtered.nodes, filtered.failed, filtered.unresolvable)
            nodes = {name: nodes[name] for name in filtered.nodes if name in self.table.rows}
        cycle = profile.cycle(cycle.pod, cycle.shape)  # the table may have changed meanwhile
        mask = cycle.none()
        for name in nodes:
            mask[self.table.rows[name]] = True
        mask &= profile.feasible(cycle)
        if not some(mask):
            failure = self._unschedulable(profile, cycle, diagnosis)
            if failure.result is not None and failure.result.node:
                failure.result = await self._ask_about_victims(asked, cycle, failure.result)
            raise failure
        extra: dict[str, int] = {}
        for extender in asked:
            if not extender.config.prioritize_verb or len(nodes) < 2:
                continue
            try:
                given = await extender.prioritize(cycle.pod, [node for node in nodes.values() if node])
            except ExtenderError as error:
                log.info("ignoring the scores of extender %s: %s", extender.name, error)
                continue
            for name, score in given.items():
                extra[name] = extra.get(name, 0) + score
        cycle = profile.cycle(cycle.pod, cycle.shape)
        mask = np.concatenate((mask, np.zeros(self.table.size - len(mask), np.bool_))) & profile.feasible(cycle)
        if not some(mask):
            raise self._no_node(profile, cycle)
        return self._pick(profile, cycle, mask, extra)

    def _note_refusals(
        self,
        cycle: Cycle,
        diagnosis: Diagnosis,
        before: Mapping[str, Any],
        left: Sequence[str],
        failed: Mapping[str, str],
        unresolvable: Mapping[str, str],
    ) -> None:
        kept = set(left)
        for name in before:
            row = self.table.rows.get(name)
            if name in kept or row is None or row >= cycle.rows.stop:
                continue
            mask = cycle.none()
            mask[row] = True
            reason = unresolvable.get(name) or failed.get(name) or "node(s) were refused by an extender"
            diagnosis.refusals.append(("Extender", Refusal(mask, reason, name in unresolvable)))

    async def _ask_about_victims(
        self, extenders: Sequence[Extender], cycle: Cycle, result: PostFilterResult
    ) -> PostFilterResult | None:
        for extender in extenders:
            if not extender.config.preempt_verb:
                continue
            try:
                left = await extender.preempt(cycle.pod, {result.node: list(result.victims)})
            except ExtenderError as error:
                if extender.config.ignorable:
                    continue
                log.warning("no preemption for %s: %s", cycle.key, error)
                return None
            uids = left.get(result.node)
            if not uids:
                return None
            victims = [each for each in result.victims if each["metadata"]["uid"] in uids]
            result = PostFilterResult(result.node, victims)
        return result

    def _assume(self, profile: Profile, cycle: Cycle, node: str) -> None:
        """Let the decision count; Failed when a plugin is against it."""
        pod = {**cycle.pod, "spec": {**cycle.pod["spec"], "nodeName": node}}
        self.watch.assumed[cycle.key] = cycle.pod
        self.table.add(PodEntry(cycle.key, pod, cycle.shape, node))
        refused = ""
        plugin = None
        started = time.perf_counter()
        try:
            for plugin in profile.at("reserve"):
                with failing_as("Reserve", plugin):
                    refused = plugin.reserve(cycle, node)
                if refused:
                    break
            else:
                reserved = time.perf_counter()
                profile.meter.point("Reserve", SUCCESS, reserved - started)
                for plugin in profile.at("permit"):
                    with failing_as("Permit", plugin):
                        permit = plugin.permit(cycle, node)
                    if permit.verdict == "reject":
                        refused = permit.reason
                        break
                    if permit.verdict == "wait":
                        cycle.slow = True
                        waiting = self._handle.waiting.setdefault(cycle.key, Waiting(cycle.pod, node))
                        waiting.pending[plugin.name] = permit.timeout
                profile.meter.point("Permit", UNSCHEDULABLE if refused else SUCCESS, time.perf_counter() - reserved)
        except PluginError:
            self._forget(profile, cycle, node)
            raise
        if refused:
            self._forget(profile, cycle, node)
            diagnosis = Diagnosis(1, plugins={plugin.name if plugin else ""})
            mask = np.ones(1, np.bool_)
            diagnosis.refusals.append((plugin.name if plugin else "", Refusal(mask, refused)))
            raise Failed(diagnosis.message(), diagnosis)

    def _forget(self, profile: Profile, cycle: Cycle, node: str) -> None:
        """Take a decision back."""
        if self.watch.assumed.pop(cycle.key, None) is not None:
            self.table.remove(cycle.key)
        for plugin in reversed(profile.at("reserve")):
            plugin.unreserve(cycle, node)

    def _fail(
        self, queued: Queued, profile: Profile, failure: Failed, started: float, promised: PodEntry | None
    ) -> None:
        """Put the pod back, keep or give a promise, and say what is wrong."""
        diagnosis, result = failure.diagnosis, failure.result
        pod, key, name = queued.pod, queued.key, profile.scheduler_name
        seconds = self._clock.monotonic() - started
        self.metrics.attempted("error" if diagnosis is None else "unschedulable", name, seconds)
        if key not in self.queue and self.watch.pods.get(namespace_of(pod), name_of(pod)) is None:
            return
        nominated: str | None = ""
        if result is not None and result.node:
            nominated = result.node
            self.watch.nominate(key, pod, result.node)
            self.metrics.victims.observe(len(result.victims))
            self._reporter.preempt(pod, result.victims, result.node, name, lambda: self.queue.activate([key]))
        elif promised is not None and result is not None and "not eligible due to a terminating pod" in result.message:
            nominated = None
            self.watch.nominate(key, pod, promised.node)
        self.queue.give_back(queued, diagnosis.plugins if diagnosis else (), error=diagnosis is None)
        if promised is not None and nominated not in (None, promised.node):
            self.watch.released(promised)
        reason = "SchedulerError" if diagnosis is None else "Unschedulable"
        self._reporter.failed(pod, name, reason, str(failure), nominated)

    # Binding

    async def _bind_all(self) -> None:
        while True:
            await self._bind_safely(await self._bindings.get())

    async def _bind_safely(self, binding: Binding) -> None:
        self._under_way += 1
        try:
            await self._bind(binding)
        except (Failed, PluginError, ExtenderError, *_FAILURES) as error:
            self._take_back(binding, error)
        finally:
            self._under_way -= 1

    async def _bind(self, binding: Binding) -> None:
        profile, cycle, node = binding.profile, binding.cycle, binding.node
        if cycle.slow:
            await self._reporter.expected(cycle.pod, node)
        waiting = self._handle.waiting.get(cycle.key)
        if waiting is not None:
            try:
                await self._permitted(waiting)
            finally:
                self._handle.waiting.pop(cycle.key, None)
        started = time.perf_counter()
        for plugin in profile.at("preBind"):
            with failing_as("PreBind", plugin):
                await plugin.pre_bind(cycle, node)
        bound = time.perf_counter()
        profile.meter.point("PreBind", SUCCESS, bound - started)
        if node not in self.table.rows:
            raise Failed(f'node "{node}" not found')
        extender = next((each for each in self._extenders if each.config.bind_verb and each.wants(cycle.pod)), None)
        if extender is not None:
            await extender.bind(cycle.pod, node)
        else:
            for plugin in profile.at("bind"):
                if await plugin.bind(cycle, node):
                    break
        profile.meter.point("Bind", SUCCESS, time.perf_counter() - bound)
        self._bound(binding)

    async def _permitted(self, waiting: Waiting) -> None:
        """Wait for the plugins that wait; Failed when one refuses or takes too long."""
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(min(waiting.pending.values(), default=0)):
                await waiting.decided.wait()
        except TimeoutError:
            waiting.reject("rejected due to timeout after waiting")
        result = "rejected" if waiting.refused else "allowed"
        self.metrics.permit_wait.labels(result).observe(self._clock.monotonic() - started)
        if waiting.refused:
            raise Failed(waiting.refused)

    def _bound(self, binding: Binding) -> None:
        profile, queued = binding.profile, binding.queued
        for plugin in profile.at("postBind"):
            plugin.post_bind(binding.cycle, binding.node)
        now = self._clock.monotonic()
        self.metrics.attempted("scheduled", profile.scheduler_name, now - binding.started)
        self.metrics.tries.observe(queued.attempts)
        first = queued.first_tried_at if queued.first_tried_at is not None else binding.started
        self.metrics.sli_seconds.labels(str(min(queued.attempts, 16))).observe(now - first)
        if queued.flushed:
            self.metrics.flushed.inc()
        self._reporter.scheduled(binding.cycle.pod, binding.node, profile.scheduler_name)

    def _take_back(self, binding: Binding, error: Exception) -> None:
        """The binding failed: the node's room is free again, and the pod is tried again if there still is one."""
        cycle, queued = binding.cycle, binding.queued
        log.warning("binding %s to %s failed: %s", cycle.key, binding.node, error)
        known = self.watch.pods.get(namespace_of(cycle.pod), name_of(cycle.pod))
        if known is not None and known["spec"].get("nodeName"):
            self.watch.assumed.pop(cycle.key, None)
            return  # it was bound after all, or by somebody else; the table knows from the watch
        self._forget(binding.profile, cycle, binding.node)
        self.queue.happened(ClusterEvent("AssignedPod", Action.DELETE, cycle.pod))
        if known is None or known["metadata"].get("uid") != cycle.pod["metadata"].get("uid"):
            if known is not None and key_of(known) not in self.queue:
                self.queue.add(known)
            return
        queued.pod = known
        self.queue.give_back(queued, error=True)
        profile = binding.profile
        self.metrics.attempted("error", profile.scheduler_name, self._clock.monotonic() - binding.started)
        message = f"binding rejected: {error}"
        self._reporter.failed(known, profile.scheduler_name, "SchedulerError", message, "")

    async def _bind_by_api(self, pod: Obj, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name_of(pod), "namespace": namespace_of(pod), "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(PODS, binding, namespace_of(pod), name=name_of(pod), subresource="binding")
        except ConnectionFailed:
            # It may have been done all the same. The room must not be given to another before that is known.
            if not await self._is_bound(pod, node):
                raise

    async def _is_bound(self, pod: Obj, node: str) -> bool:
        """Whether the API says that a pod has got a node; asked until it answers, or for a minute."""
        for _ in range(ASKED_ABOUT_BINDINGS):
            try:
                current = await self._client.get(PODS, name_of(pod), namespace_of(pod))
            except (ApiError, ConnectionFailed) as error:
                if isinstance(error, ApiError) and error.code == 404:
                    return False
                await self._clock.sleep(1.0)
            else:
                return uid_of(current) == uid_of(pod) and current["spec"].get("nodeName") == node
        return False
