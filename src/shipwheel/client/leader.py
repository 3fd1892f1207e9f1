"""Leader election on a Lease, as client-go does it: of several identical components one acts.

A candidate never compares its clock with another's: it takes over when it has not seen the lease *change* for a
whole lease duration by its own clock. The leader that fails to renew within the renew deadline stops at once,
so that, with clocks of about the same speed, two never act together.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shipwheel.api.clock import Clock, rfc3339_micro
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.events import EventRecorder
from shipwheel.client.kubeconfig import ConfigError
from shipwheel.client.metrics import ElectionMetrics
from shipwheel.client.resources import LEASES

log = logging.getLogger(__name__)

_JITTER = 1.2
_FAILURES = (ApiError, ConnectionFailed, ConfigError)


class LeadershipLost(Exception):
    """The lease could not be renewed in time; the component must stop what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionConfig:
    """Flags `--leader-elect-*`; times in seconds."""

    name: str
    namespace: str = "kube-system"
    identity: str
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    release_on_cancel: bool = True

    def __post_init__(self) -> None:
        if self.lease_duration <= self.renew_deadline:
            raise ValueError("leaseDuration must be greater than renewDeadline")
        if self.renew_deadline <= _JITTER * self.retry_period:
            raise ValueError("renewDeadline must be greater than retryPeriod*JitterFactor")
        if self.retry_period <= 0:
            raise ValueError("retryPeriod must be greater than zero")


class LeaderElector:
    """One candidate for one lease."""

    def __init__(
        self,
        client: Client,
        config: ElectionConfig,
        clock: Clock,
        *,
        metrics: ElectionMetrics | None = None,
        recorder: EventRecorder | None = None,
        on_new_leader: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._recorder = recorder
        self._on_new_leader = on_new_leader
        self._reported = ""
        self._lease: Obj | None = None
        self._observed_spec: Obj = {}
        self._observed_at = 0.0
        if metrics:
            metrics.status.labels(config.name).set(0)

    @property
    def leader(self) -> str:
        """The identity of the holder as last seen; empty when there is none."""
        return self._observed_spec.get("holderIdentity") or ""

    @property
    def is_leader(self) -> bool:
        return self.leader == self._config.identity

    def check(self, tolerance: float = 20.0) -> str:
        """What is wrong with our leadership, for `/healthz`; empty when nothing is. `tolerance`: seconds past
        the lease's end, as the controller manager's."""
        age = self._clock.monotonic() - self._observed_at
        if self.is_leader and age > self._config.lease_duration + tolerance:
            return f"failed election to renew leadership on lease {self._config.name}"
        return ""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run `lead()` for as long as it lasts; returns when that ends by itself.

        Raises LeadershipLost when the lease could not be renewed; `lead` has been cancelled by then.
        """
        await self._acquire()
        self._report("became leader", 1)
        try:
            await self._lead_while_renewing(lead)
        finally:
            self._report("stopped leading", 0)
            if self._config.release_on_cancel:
                await self._release()

    async def _lead_while_renewing(self, lead: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew(), name="renew lease")
            leading = group.create_task(_finish(lead), name="lead")
            ended, _ = await asyncio.wait((renewing, leading), return_when=asyncio.FIRST_COMPLETED)
            leading.cancel()
            renewing.cancel()
        if leading not in ended:
            raise LeadershipLost(f"failed to renew lease {self._config.namespace}/{self._config.name}")

    async def _acquire(self) -> None:
        log.info("attempting to acquire leader lease %s/%s", self._config.namespace, self._config.name)
        while not await self._try():
            await self._clock.sleep(self._config.retry_period * (1 + random.random() * _JITTER))
        log.info("successfully acquired lease %s/%s", self._config.namespace, self._config.name)

    async def _renew(self) -> None:
        """Keep the lease; returns when that has failed for a whole renew deadline."""
        while True:
            deadline = self._clock.monotonic() + self._config.renew_deadline
            while not await self._try_until(deadline):
                if self._clock.monotonic() >= deadline:
                    log.error("failed to renew lease %s/%s", self._config.namespace, self._config.name)
                    return
                await self._clock.sleep(self._config.retry_period)
            await self._clock.sleep(self._config.retry_period)

    async def _try_until(self, deadline: float) -> bool:
        """One attempt, given up at `deadline`: an answer later than that is of no use."""
        attempt = asyncio.ensure_future(self._try())
        limit = asyncio.ensure_future(self._clock.sleep(max(deadline - self._clock.monotonic(), 0.001)))
        try:
            await asyncio.wait((attempt, limit), return_when=asyncio.FIRST_COMPLETED)
            return attempt.done() and attempt.result()
        finally:
            for task in (attempt, limit):
                task.cancel()

    async def _try(self) -> bool:
        """Take or renew the lease if it is free or ours."""
        try:
            held = await self._take_or_renew()
        except _FAILURES as error:
            log.error("error with lease %s/%s: %s", self._config.namespace, self._config.name, error)
            held = False
        if self.leader != self._reported:
            self._reported = self.leader
            if self._on_new_leader and self._reported:
                self._on_new_leader(self._reported)
        return held

    async def _take_or_renew(self) -> bool:
        config = self._config
        if self.is_leader and self._still_valid() and self._lease is not None:
            try:
                self._observe(await self._client.update(LEASES, self._renewed(self._lease)))
                return True
            except _FAILURES as error:
                log.info("failed to update lease optimistically, reading it again: %s", error)
                if self._metrics:
                    self._metrics.slow_path.labels(config.name).inc()
        try:
            lease = await self._client.get(LEASES, config.name, config.namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            fresh: Obj = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": config.name, "namespace": config.namespace},
            }
            self._observe(await self._client.create(LEASES, self._renewed(fresh)))
            return True
        if lease.get("spec") != self._observed_spec:
            self._observe(lease)
        self._lease = lease
        if self.leader and not self.is_leader and self._still_valid():
            return False
        self._observe(await self._client.update(LEASES, self._renewed(lease)))
        return True

    def _still_valid(self) -> bool:
        duration = self._observed_spec.get("leaseDurationSeconds") or 0
        return self._clock.monotonic() < self._observed_at + duration

    def _observe(self, lease: Obj) -> None:
        self._lease = lease
        self._observed_spec = lease.get("spec") or {}
        self._observed_at = self._clock.monotonic()

    def _renewed(self, lease: Obj) -> Obj:
        """The lease as ours, from now on."""
        spec = lease.get("spec") or {}
        now = rfc3339_micro(self._clock.now())
        ours = spec.get("holderIdentity") == self._config.identity
        transitions = spec.get("leaseTransitions") or 0
        return {
            **lease,
            "spec": {
                **spec,
                "holderIdentity": self._config.identity,
                "leaseDurationSeconds": int(self._config.lease_duration),
                "acquireTime": spec.get("acquireTime") or now if ours else now,
                "renewTime": now,
                "leaseTransitions": transitions if ours or not spec else transitions + 1,
            },
        }

    async def _release(self) -> None:
        """Give the lease up, so that another can have it at once."""
        if not self.is_leader:
            return
        config = self._config
        try:
            async with asyncio.timeout(2):
                # A renewal that was cut short may have changed it once more.
                lease = await self._client.get(LEASES, config.name, config.namespace)
                self._observe(lease)
                if self.is_leader:
                    self._observe(await self._client.update(LEASES, {**lease, "spec": self._released()}))
        except (*_FAILURES, TimeoutError) as error:
            log.error("failed to release lease %s/%s: %s", config.namespace, config.name, error)

    def _released(self) -> Obj:
        now = rfc3339_micro(self._clock.now())
        return {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": self._observed_spec.get("leaseTransitions") or 0,
        }

    def _report(self, what: str, status: int) -> None:
        if self._metrics:
            self._metrics.status.labels(self._config.name).set(status)
        if self._recorder and self._lease is not None:
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **self._lease}
            self._recorder.event(lease, "Normal", "LeaderElection", f"{self._config.identity} {what}")


async def _finish(work: Callable[[], Awaitable[None]]) -> None:
    await work()
