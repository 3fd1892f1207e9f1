"""Startup, readiness and liveness probes: a pure state for each, and a task for each running container's probe.

A probe's result is what holds after enough equal outcomes in a row (its thresholds). Results are kept by container
id, so a restarted container begins anew: not started, not ready, alive. Whoever decides about the pod is
told (`changed`) whenever a result does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.kubelet import podspec
from shipwheel.kubelet.expansion import expand
from shipwheel.kubelet.handlers import (
    HandlerFault,
    Outcome,
    grpc_probe,
    http_probe,
    http_request,
    resolve_port,
    tcp_probe,
)
from shipwheel.kubelet.lifecycle import ProbeResult, ProbeResults
from shipwheel.kubelet.measures import ProbeMetrics
from shipwheel.kubelet.observed import ContainerObservation, PodObservation
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault
from shipwheel.kubelet.words import quoted, rpc_error

Kind = Literal["startup", "readiness", "liveness"]
KINDS: tuple[Kind, ...] = ("startup", "readiness", "liveness")
FIELDS: Mapping[Kind, str] = {
    "startup": "startupProbe",
    "readiness": "readinessProbe",
    "liveness": "livenessProbe",
}
_TITLES: Mapping[Kind, str] = {"startup": "Startup", "readiness": "Readiness", "liveness": "Liveness"}
_INITIAL: Mapping[Kind, ProbeResult] = {"startup": "Unknown", "readiness": "Failure", "liveness": "Success"}
_RETRIES = 3
_ADOPTED_SECONDS = 10
"""A container that started this long before the kubelet did ran before the kubelet was restarted."""

Record = Callable[[Obj, Obj, str, str, str], None]
"""Record an event: (pod, container, `Normal` or `Warning`, reason, message)."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The run of equal outcomes so far, and the result that holds."""

    result: ProbeResult
    last: ProbeResult = "Unknown"
    run: int = 0
    done: bool = False
    """No more probes until there is a new container."""


def initial(kind: Kind) -> ProbeState:
    return ProbeState(_INITIAL[kind])


def after(kind: Kind, state: ProbeState, outcome: Literal["Success", "Failure"], probe: Obj) -> ProbeState:
    """The state after one more outcome."""
    run = state.run + 1 if state.last == outcome else 1
    threshold = probe.get("failureThreshold") or 3 if outcome == "Failure" else probe.get("successThreshold") or 1
    if run < threshold:
        return replace(state, last=outcome, run=run)
    final = kind == "startup" or (kind == "liveness" and outcome == "Failure")
    return ProbeState(outcome, outcome, run, done=final)


@dataclass(slots=True)
class _Probed:
    """A container whose probes run."""

    container_id: str
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Its startup probe succeeded, or it has none."""
    tasks: dict[Kind, asyncio.Task[None]] = field(default_factory=dict)


@dataclass(slots=True)
class _Pod:
    pod: Obj
    ip: str = ""
    containers: dict[str, _Probed] = field(default_factory=dict)


class Prober:
    """Runs the probes of all pods. `run()` owns the tasks; `follow` says which containers there are."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        record: Record,
        changed: Callable[[str], None],
        measures: ProbeMetrics,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._record = record
        self._changed = changed
        self._measures = measures
        self._started_at = int(clock.now().timestamp() * 1e9)
        self._pods: dict[str, _Pod] = {}
        self._group: asyncio.TaskGroup | None = None
        self._startup: dict[str, ProbeResult] = {}
        self._readiness: dict[str, ProbeResult] = {}
        self._liveness: dict[str, ProbeResult] = {}
        self.results = ProbeResults(startup=self._startup, liveness=self._liveness, readiness=self._readiness)
        self._by_kind: dict[Kind, dict[str, ProbeResult]] = {
            "startup": self._startup,
            "readiness": self._readiness,
            "liveness": self._liveness,
        }

    async def run(self) -> None:
        """Own the probes' tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    def follow(self, pod: Obj, observed: PodObservation, ip: str, started: Iterable[str] = ()) -> None:
        """Probe exactly the running containers of the pod. `started` are ids of containers that were reported to
        have started before this kubelet was."""
        uid = pod["metadata"]["uid"]
        entry = self._pods.get(uid)
        if entry is None:
            entry = self._pods[uid] = _Pod(pod)
        entry.pod, entry.ip = pod, ip
        known = set(started)
        for container in (*podspec.containers(pod), *podspec.sidecars(pod)):
            if not any(container.get(name) for name in FIELDS.values()):
                continue
            name = container["name"]
            seen = observed.latest(name)
            probed = entry.containers.get(name)
            if probed is not None and (seen is None or seen.id != probed.container_id or not seen.running):
                self._stop(probed)
                del entry.containers[name]
                probed = None
                if seen is not None and not seen.running:
                    self._note_stopped(container, seen)
            if seen is not None and seen.running and probed is None:
                self._begin(entry, container, seen, already=seen.id in known)

    def quiet(self, uid: str) -> None:
        """The pod ends: only its readiness matters from now on."""
        entry = self._pods.get(uid)
        for probed in entry.containers.values() if entry else ():
            for kind in ("startup", "liveness"):
                task = probed.tasks.pop(kind, None)
                if task is not None:
                    task.cancel()
                    self._by_kind[kind][probed.container_id] = "Success"

    def forget(self, uid: str) -> None:
        """Stop probing the pod."""
        entry = self._pods.pop(uid, None)
        if entry is None:
            return
        for probed in entry.containers.values():
            self._stop(probed)
        self._unmeasure(entry.pod)

    def _stop(self, probed: _Probed) -> None:
        for task in probed.tasks.values():
            task.cancel()
        for results in self._by_kind.values():
            results.pop(probed.container_id, None)

    def _note_stopped(self, container: Obj, seen: ContainerObservation) -> None:
        if container.get("readinessProbe"):
            self._readiness.pop(seen.id, None)

    def _begin(self, entry: _Pod, container: Obj, seen: ContainerObservation, *, already: bool) -> None:
        if self._group is None:
            return
        probed = entry.containers[container["name"]] = _Probed(seen.id)
        if already or not container.get("startupProbe"):
            probed.started.set()
        adopted = 0 < seen.started_at < self._started_at - _ADOPTED_SECONDS * 1_000_000_000
        for kind in KINDS:
            probe = container.get(FIELDS[kind])
            if not probe:
                continue
            if kind == "startup" and already:
                self._startup[seen.id] = "Success"
                continue
            if not adopted:
                self._by_kind[kind][seen.id] = _INITIAL[kind]
            work = self._probe_until_done(kind, entry, probed, container, seen, probe, adopted=adopted)
            probed.tasks[kind] = self._group.create_task(
                work, name=f"{kind} probe {podspec.describe(entry.pod)} {container['name']}"
            )

    async def _probe_until_done(
        self,
        kind: Kind,
        entry: _Pod,
        probed: _Probed,
        container: Obj,
        seen: ContainerObservation,
        probe: Obj,
        *,
        adopted: bool,
    ) -> None:
        period = probe.get("periodSeconds") or 10
        if adopted:
            # A restarted kubelet must not probe everything at once.
            await self._clock.sleep(random.random() * period)
        due = seen.started_at / 1e9 + (probe.get("initialDelaySeconds") or 0)
        await self._clock.sleep(max(0.0, due - self._clock.now().timestamp()))
        if kind != "startup":
            await probed.started.wait()
        state = initial(kind)
        ask = self._asker(entry, container, seen.id, probe)
        while not state.done:
            began = self._clock.monotonic()
            outcome = await self._ask(kind, entry.pod, container, ask)
            self._measure(kind, entry.pod, container, outcome, self._clock.monotonic() - began)
            if outcome is not None:
                state = after(kind, state, outcome, probe)
                self._settle(kind, entry.pod, probed, state)
            await self._clock.sleep(period)

    def _measure(self, kind: Kind, pod: Obj, container: Obj, outcome: str | None, seconds: float) -> None:
        meta = pod["metadata"]
        name = (container["name"], meta["name"], meta["namespace"])
        result = {"Success": "successful", "Failure": "failed", None: "unknown"}[outcome]
        title = _TITLES[kind]
        self._measures.total.labels(title, result, *name, meta["uid"]).inc()
        if outcome == "Success":
            self._measures.duration.labels(title, *name).observe(seconds)

    def _unmeasure(self, pod: Obj) -> None:
        """A pod that is gone is not told of any more."""
        meta = pod["metadata"]
        for container in (*podspec.containers(pod), *podspec.sidecars(pod)):
            name = (container["name"], meta["name"], meta["namespace"])
            for kind in KINDS:
                if container.get(FIELDS[kind]):
                    for result in ("successful", "failed", "unknown"):
                        with contextlib.suppress(KeyError):
                            self._measures.total.remove(_TITLES[kind], result, *name, meta["uid"])
                    with contextlib.suppress(KeyError):
                        self._measures.duration.remove(_TITLES[kind], *name)

    def _settle(self, kind: Kind, pod: Obj, probed: _Probed, state: ProbeState) -> None:
        """Note the result that holds now, and tell when it is another one."""
        results = self._by_kind[kind]
        if results.get(probed.container_id) == state.result or state.last != state.result:
            return
        if kind != "readiness" and is_being_deleted(pod):
            return
        results[probed.container_id] = state.result
        if kind == "startup" and state.result == "Success":
            probed.started.set()
        self._changed(pod["metadata"]["uid"])

    async def _ask(
        self, kind: Kind, pod: Obj, container: Obj, ask: Callable[[], Awaitable[tuple[Outcome, str]]]
    ) -> Literal["Success", "Failure"] | None:
        """One outcome; None when the probe itself failed, which says nothing of the container."""
        error: Exception | None = None
        for _ in range(_RETRIES):
            try:
                outcome, output = await ask()
            except (HandlerFault, RuntimeFault) as fault:
                error = fault
                continue
            break
        else:
            text = rpc_error(error) if isinstance(error, RuntimeFault) else str(error)
            message = f"{_TITLES[kind]} probe errored and resulted in unknown state: {text}"
            self._record(pod, container, "Warning", "Unhealthy", message)
            return None
        if outcome == "success":
            return "Success"
        if outcome == "warning":
            self._record(pod, container, "Warning", "ProbeWarning", f"{_TITLES[kind]} probe warning: {output}")
            return "Success"
        self._record(pod, container, "Warning", "Unhealthy", f"{_TITLES[kind]} probe failed: {output}")
        return "Failure"

    def _asker(
        self, entry: _Pod, container: Obj, container_id: str, probe: Obj
    ) -> Callable[[], Awaitable[tuple[Outcome, str]]]:
        """The question that a probe asks."""
        timeout = float(probe.get("timeoutSeconds") or 1)
        if "exec" in probe:
            # Only values written in the specification are known here, not those from other objects.
            values = {each["name"]: each.get("value", "") for each in container.get("env") or ()}
            command = [expand(each, values) for each in probe["exec"].get("command") or ()]
            return lambda: self._exec(container_id, command, timeout)
        if self._runtime.answers(container_id) is not None:
            return lambda: self._simulated(container_id)
        if "httpGet" in probe:
            action = probe["httpGet"]

            async def ask_http() -> tuple[Outcome, str]:
                url, headers = http_request(action, container, entry.ip)
                return await http_probe(url, headers, timeout)

            return ask_http
        if "tcpSocket" in probe:
            target = probe["tcpSocket"]

            async def ask_tcp() -> tuple[Outcome, str]:
                port = resolve_port(target["port"], container)
                return await tcp_probe(target.get("host") or entry.ip, port, timeout)

            return ask_tcp
        if "grpc" in probe:
            asked = probe["grpc"]
            return lambda: grpc_probe(entry.ip, asked["port"], asked.get("service") or "", timeout)

        async def refuse() -> tuple[Outcome, str]:
            where = f"{podspec.describe(entry.pod)}:{container['name']}"
            raise HandlerFault(f"missing probe handler for {where}")

        return refuse

    async def _simulated(self, container_id: str) -> tuple[Outcome, str]:
        """A container without processes has no ports to connect to; its runtime knows whether it would answer."""
        return ("success" if self._runtime.answers(container_id) else "failure"), "connect: connection refused"

    async def _exec(self, container_id: str, command: list[str], timeout: float) -> tuple[Outcome, str]:
        try:
            result = await self._runtime.exec_sync(container_id, command, timeout)
        except RuntimeFault as fault:
            if fault.code == "DEADLINE_EXCEEDED":
                return (
                    "failure",
                    f"command timed out: {quoted(' '.join(command))} timed out after {timeout:g}s",
                )
            raise
        output = (result.stdout + result.stderr)[: 10 * 1024].decode(errors="replace")
        return ("success" if result.exit_code == 0 else "failure"), output
