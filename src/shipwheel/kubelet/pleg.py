"""Seeing what the runtime has: the pod lifecycle event generator.

Two ways lead here. `inspect` asks about one pod, for the worker that is about to decide; it knows the ids, so it
costs a call per container and no listing. `run` lists everything once a second, and wakes the worker of each pod
for which something is different: a container that ended by itself is noticed so. Nobody waits for the listing
to see what he did himself: whoever makes something says so with `note`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shipwheel.api.clock import Clock
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.observed import (
    POD_UID,
    ContainerObservation,
    PodObservation,
    observe_container,
    observe_pod,
)
from shipwheel.kubelet.runtime.base import Container, Runtime, RuntimeFault, Sandbox

log = logging.getLogger(__name__)

RELIST_SECONDS = 1.0
UNHEALTHY_SECONDS = 180.0
"""Without a successful listing for so long the node is not ready."""


@dataclass(slots=True)
class _Known:
    """What is known to exist for a pod: ids with the number of the listing in which they were last confirmed."""

    name: str = ""
    namespace: str = ""
    sandboxes: dict[str, int] = field(default_factory=dict)
    containers: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    """By id, as the last listing had them."""


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod of which the runtime has something, as the last listing had it."""

    uid: str
    name: str
    namespace: str
    active: bool
    """A container runs, or a sandbox is ready."""


class Pleg:
    """`changed(uid)` is called for a pod that is not as it was; `message` reads the termination message of a
    container that ended."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        changed: Callable[[str], None],
        message: Callable[[Container], Awaitable[str]],
        measures: KubeletMetrics,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._changed = changed
        self._message = message
        self._measures = measures
        self._pods: dict[str, _Known] = {}
        self._round = 0
        self._ended: dict[str, ContainerObservation] = {}
        """Containers that ended do not change any more."""
        self._listed = asyncio.Event()
        self.last_listing = clock.monotonic()

    async def run(self) -> None:
        """List until cancelled."""
        measures, last = self._measures, self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            measures.relist_interval.observe(began - last)
            last = began
            try:
                await self.relist()
            except RuntimeFault as fault:
                log.warning("listing pods failed: %s: %s", fault.code, fault.message)
            measures.relist_duration.observe(self._clock.monotonic() - began)
            measures.last_seen.set(self._clock.now().timestamp())
            await self._clock.sleep(RELIST_SECONDS)

    @property
    def healthy(self) -> bool:
        return self._clock.monotonic() - self.last_listing < UNHEALTHY_SECONDS

    async def wait_listed(self) -> None:
        """Return after the first listing."""
        await self._listed.wait()

    async def relist(self) -> None:
        self._round += 1
        current = self._round
        sandboxes = await self._runtime.sandboxes()
        containers = await self._runtime.containers()
        states = _states(sandboxes, containers)
        changed = []
        for uid, (names, boxes, inside) in states.items():
            known = self._pods.setdefault(uid, _Known())
            if names:
                known.namespace, known.name = names
            _confirm(known.sandboxes, boxes, current)
            _confirm(known.containers, inside, current)
            now = {**boxes, **inside}
            if now != known.states:
                known.states = now
                changed.append(uid)
        for uid in [uid for uid in self._pods if uid not in states]:
            known = self._pods[uid]
            _confirm(known.sandboxes, {}, current)
            _confirm(known.containers, {}, current)
            if known.states:
                known.states = {}
                changed.append(uid)
            if not known.sandboxes and not known.containers:
                del self._pods[uid]
        alive = {each for known in self._pods.values() for each in known.containers}
        self._ended = {key: value for key, value in self._ended.items() if key in alive}
        self.last_listing = self._clock.monotonic()
        self._listed.set()
        for uid in changed:
            self._changed(uid)

    def note(self, uid: str, *, sandbox_id: str = "", container_id: str = "") -> None:
        """Something was made."""
        known = self._pods.setdefault(uid, _Known())
        # Not yet confirmed: the listing under way may have begun before it was made.
        if sandbox_id:
            known.sandboxes[sandbox_id] = self._round + 1
        if container_id:
            known.containers[container_id] = self._round + 1

    def forget(self, uid: str) -> None:
        """Everything of the pod was removed."""
        self._pods.pop(uid, None)

    def known(self) -> list[RunningPod]:
        """Every pod of which the runtime has something."""
        return [
            RunningPod(
                uid,
                known.name,
                known.namespace,
                any(state in ("RUNNING", "READY", "UNKNOWN") for state in known.states.values()),
            )
            for uid, known in self._pods.items()
        ]

    async def inspect(self, uid: str) -> PodObservation:
        """What the runtime has for a pod, now; RuntimeFault when it does not answer."""
        known = self._pods.get(uid)
        if known is None:
            return PodObservation(uid)
        try:
            async with asyncio.TaskGroup() as group:
                boxes = [group.create_task(self._sandbox(each)) for each in known.sandboxes]
                inside = [group.create_task(self._container(each)) for each in known.containers]
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None
        sandboxes = [box for each in boxes if (box := each.result()) is not None]
        containers = [seen for each in inside if (seen := each.result()) is not None]
        known.sandboxes = {each.id: known.sandboxes.get(each.id, self._round) for each in sandboxes} | {
            key: value for key, value in known.sandboxes.items() if value > self._round
        }
        known.containers = {each.id: known.containers.get(each.id, self._round) for each in containers} | {
            key: value for key, value in known.containers.items() if value > self._round
        }
        return observe_pod(uid, sandboxes, containers)

    async def _sandbox(self, sandbox_id: str) -> Sandbox | None:
        try:
            return await self._runtime.sandbox_status(sandbox_id)
        except RuntimeFault as fault:
            if fault.code == "NOT_FOUND":
                return None
            raise

    async def _container(self, container_id: str) -> ContainerObservation | None:
        if container_id in self._ended:
            return self._ended[container_id]
        try:
            container = await self._runtime.container_status(container_id)
        except RuntimeFault as fault:
            if fault.code == "NOT_FOUND":
                return None
            raise
        if container.state != "EXITED":
            return observe_container(container)
        seen = observe_container(container, message=await self._message(container))
        self._ended[container_id] = seen
        return seen


def _states(
    sandboxes: list[Sandbox], containers: list[Container]
) -> dict[str, tuple[tuple[str, str] | None, dict[str, str], dict[str, str]]]:
    """By pod: ((namespace, name) if a sandbox tells, sandbox states, container states)."""
    found: dict[str, tuple[tuple[str, str] | None, dict[str, str], dict[str, str]]] = {}
    owners: dict[str, str] = {}
    for box in sandboxes:
        owners[box.id] = box.uid
        boxes = found.setdefault(box.uid, ((box.namespace, box.name), {}, {}))[1]
        boxes[box.id] = "READY" if box.ready else "NOTREADY"
    for container in containers:
        uid = container.labels.get(POD_UID) or owners.get(container.sandbox_id)
        if uid:
            found.setdefault(uid, (None, {}, {}))[2][container.id] = container.state
    return found


def _confirm(known: dict[str, int], listed: dict[str, str], current: int) -> None:
    """Take over what a listing has; what it does not have stays only if it was made since."""
    for key in listed:
        known[key] = current
    if len(known) > len(listed):
        for key in [key for key, confirmed in known.items() if key not in listed and confirmed <= current]:
            del known[key]
