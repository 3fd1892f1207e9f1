"""Graceful node shutdown (KEP-2000, KEP-2712): when the machine is about to go down, pods end first, in order.

The configuration gives each range of priorities its time. The pods of the lowest range end first; the next range begins
when they are gone, with their volumes, or when their time is over. Meanwhile the node is not ready and takes no pod.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shipwheel.api.clock import Clock, parse_time, rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.logind import LogindError
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.pod_worker import Ending
from shipwheel.kubelet.settings import KubeletConfig
from shipwheel.kubelet.status import disruption_target

log = logging.getLogger(__name__)

REASON = "Terminated"
MESSAGE = "Pod was terminated in response to imminent node shutdown."
STATE_FILE = "graceful_node_shutdown_state"
RECONNECT_SECONDS = 1.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Period:
    """Pods of at least this priority have so many seconds."""

    priority: int
    seconds: int


def periods(config: KubeletConfig) -> tuple[Period, ...]:
    """By priority; none when nothing is configured."""
    if config.shutdown_grace_period_by_pod_priority:
        listed = config.shutdown_grace_period_by_pod_priority
        made = (Period(each.get("priority", 0), each.get("shutdownGracePeriodSeconds", 0)) for each in listed)
        return tuple(sorted(made, key=lambda each: each.priority))
    whole, critical = config.shutdown_grace_period, config.shutdown_grace_period_critical_pods
    if not whole or critical > whole:
        return ()
    return Period(0, int(whole - critical)), Period(podspec.SYSTEM_CRITICAL_PRIORITY, int(critical))


def groups(listed: Sequence[Period], pods: Iterable[Obj]) -> list[tuple[Period, list[Obj]]]:
    """Who ends together, the first group first; those below the lowest priority belong to it."""
    found: list[tuple[Period, list[Obj]]] = [(period, []) for period in listed]
    floors = [period.priority for period in listed]
    for pod in pods:
        found[max(0, bisect_right(floors, pod["spec"].get("priority") or 0) - 1)][1].append(pod)
    return [(period, members) for period, members in found if members]


class Lock(Protocol):
    def release(self) -> None: ...


class Announcer(Protocol):
    """Who tells of shutdowns and waits for us: `logind.Logind`."""

    async def delay(self) -> float: ...

    async def raise_delay(self, seconds: float) -> None: ...

    async def inhibit(self) -> Lock: ...

    def shutdowns(self) -> AsyncIterator[bool]: ...


class Pods(Protocol):
    """`pod_table.PodTable`, as far as it matters here."""

    def holding(self) -> list[Obj]: ...

    def end(self, uid: str, ending: Ending) -> None: ...

    def is_settled(self, uid: str) -> bool: ...


@dataclass(slots=True, kw_only=True)
class NodeShutdown:
    periods: Sequence[Period]
    connect: Callable[[], AbstractAsyncContextManager[Announcer]]
    clock: Clock
    pods: Pods
    record_node: Callable[[str, str, str], None]
    changed: Callable[[], None]
    """The node's readiness is another."""
    measures: KubeletMetrics
    directory: Path
    """The kubelet's own, where the last shutdown is written down."""
    under_way: bool = False

    @property
    def fault(self) -> str:
        return "node is shutting down" if self.under_way else ""

    async def run(self) -> None:
        """Follow the machine's shutdowns until cancelled; return at once when no time is configured for them."""
        if not self.periods:
            return
        self._show_last()
        while True:
            try:
                async with self.connect() as announcer:
                    await self._follow(announcer)
            except LogindError as error:
                log.error("Failed to watch the node for shutdown events: %s", error)
            await self.clock.sleep(RECONNECT_SECONDS)

    async def _follow(self, announcer: Announcer) -> None:
        wanted = sum(each.seconds for each in self.periods)
        if wanted > await announcer.delay():
            await announcer.raise_delay(wanted)
        lock = await announcer.inhibit()
        try:
            async for begins in announcer.shutdowns():
                word = "event" if begins else "cancellation"
                self.record_node("Normal", "NodeShutdown", f"Shutdown manager detected shutdown {word}")
                self.under_way = begins
                self.changed()
                if begins:
                    await self._end_pods()
                    lock.release()
                else:
                    lock.release()
                    lock = await announcer.inhibit()
        finally:
            lock.release()

    async def _end_pods(self) -> None:
        started = self._note("")
        for period, members in groups(self.periods, self.pods.holding()):
            await self._end_group(period, members)
        self._note(started)

    async def _end_group(self, period: Period, members: Sequence[Obj]) -> None:
        for pod in members:
            grace = min(period.seconds, podspec.grace_period(pod))
            target = disruption_target(pod, MESSAGE, self.clock.now())
            self.pods.end(pod["metadata"]["uid"], Ending(REASON, MESSAGE, grace, target))
        deadline = self.clock.monotonic() + period.seconds
        while not all(self.pods.is_settled(pod["metadata"]["uid"]) for pod in members):
            if self.clock.monotonic() >= deadline:
                log.warning("Shutdown manager pod killing time out, priority %d", period.priority)
                return
            await self.clock.sleep(POLL_SECONDS)

    def _note(self, started: str) -> str:
        """Write down when the shutdown began, and with `started` that it has ended; returns when it began."""
        now = rfc3339(self.clock.now())
        state = {"startTime": started, "endTime": now} if started else {"startTime": now}
        try:
            (self.directory / STATE_FILE).write_text(json.dumps(state))
        except OSError as error:
            log.error("Failed to store graceful shutdown state: %s", error)
        self._show(state)
        return started or now

    def _show_last(self) -> None:
        try:
            self._show(json.loads((self.directory / STATE_FILE).read_text()))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.error("Failed to load graceful shutdown state: %s", error)

    def _show(self, state: dict[str, str]) -> None:
        def seconds(name: str) -> float:
            return parse_time(state[name]).timestamp() if state.get(name) else 0.0

        self.measures.shutdown_start.set(seconds("startTime"))
        self.measures.shutdown_end.set(seconds("endTime"))
