"""The controller manager: which controllers there are, which to run, and as whom.

With `use_service_account_credentials` each controller acts as a service account of its own in kube-system, by
tokens that the manager asks for and renews, so that each has only the rights of its role. Caches are shared and
filled with the manager's own identity, as upstream's are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from shipwheel import __version__
from shipwheel.api.clock import Clock, SystemClock
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.informer import InformerFactory
from shipwheel.client.leader import ElectionConfig, LeaderElector
from shipwheel.client.metrics import Metrics
from shipwheel.client.serving import Check, ComponentServer, reviewer
from shipwheel.controllers.accounts import AccountClients
from shipwheel.controllers.catalog import ABSENT, Descriptor, select
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.framework import Context, Controller

log = logging.getLogger(__name__)

_LAST_EVENTS_SECONDS = 1.0


async def run(
    config: ControllerManagerConfig,
    *,
    client: Client,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
    identity: str = "",
    on_serving: Callable[[int], None] | None = None,
) -> None:
    """Run the selected controllers until cancelled, while leading if leader election is on.

    `client` has the manager's own identity. Raises ValueError for an unknown controller, LeadershipLost when
    another took over (the process should end then), OSError when the port cannot be had.
    """
    clock = clock or SystemClock()
    manager = _Manager(
        config, client, clock, metrics or Metrics(disabled=config.disabled_metrics), identity or _identity()
    )
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(manager.serve(on_serving), name="serve")
        recording = group.create_task(manager.recorder.run(), name="record events")
        try:
            await manager.lead()
        finally:
            serving.cancel()
            recording.cancel()
            await manager.say_the_last()


class _Manager:
    def __init__(
        self, config: ControllerManagerConfig, client: Client, clock: Clock, metrics: Metrics, identity: str
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._identity = identity
        self._selected = [each for each in select(config.controllers) if each.needs(config)]
        self._elector: LeaderElector | None = None
        self._checks: dict[str, Check] = {}
        if config.leader_elect:
            self._checks["leaderElection"] = lambda: self._elector.check() if self._elector else ""
        self._running = metrics.gauge(
            "running_managed_controllers",
            "[BETA] Indicates where instances of a controller are currently running",
            ("name", "manager"),
        )
        self.recorder = EventRecorder(client, clock, component="controller-manager")

    async def say_the_last(self) -> None:
        """Write the events that are still queued, such as that of having stopped leading, if it does not take long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                await self.recorder.drain()

    async def lead(self) -> None:
        config = self._config
        if not config.leader_elect:
            await self.run_controllers()
            return
        election = ElectionConfig(
            name=config.leader_elect_resource_name,
            namespace=config.leader_elect_resource_namespace,
            identity=self._identity,
            lease_duration=config.leader_elect_lease_duration,
            renew_deadline=config.leader_elect_renew_deadline,
            retry_period=config.leader_elect_retry_period,
        )
        self._elector = LeaderElector(
            self._client,
            election,
            self._clock,
            metrics=self._metrics.election,
            recorder=self.recorder.for_component(self._identity),
        )
        await self._elector.run(self.run_controllers)

    async def run_controllers(self) -> None:
        factory = InformerFactory(self._client, self._clock)
        async with AccountClients(self._client, self._config, self._clock, self._metrics) as clients:
            self._selected = await self._usable()
            controllers = [(each, each.make(self._context(each, factory, clients))) for each in self._selected]
            async with asyncio.TaskGroup() as group:
                group.create_task(factory.run(), name="informers")
                for descriptor, controller in controllers:
                    task = group.create_task(self._run(descriptor.name, controller), name=descriptor.name)
                    self._checks[descriptor.name] = _check_of(descriptor.name, task)

    async def _run(self, name: str, controller: Controller) -> None:
        log.info("started controller %s", name)
        running = self._running.labels(name, "kube-controller-manager")
        running.set(1)
        try:
            await controller.run()
        finally:
            running.set(0)
            log.info("stopped controller %s", name)

    async def _usable(self) -> list[Descriptor]:
        """The selected controllers without those that need a resource that the server lacks."""
        for name in self._config.controllers:
            if name in ABSENT:
                log.info("skipped controller %s: %s", name, ABSENT[name])
        served = (await self._client.resources()).by_gvr
        usable = []
        for each in self._selected:
            if each.uses is None or each.uses in served:
                usable.append(each)
            else:
                log.info("skipped controller %s: the server does not have %s", each.name, each.uses.group_resource)
        return usable

    def _context(self, descriptor: Descriptor, factory: InformerFactory, clients: AccountClients) -> Context:
        return Context(
            client=clients.of(descriptor.account),
            informers=factory,
            clock=self._clock,
            recorder=self.recorder.for_component(descriptor.source or descriptor.name),
            metrics=self._metrics,
            config=self._config,
        )

    # Health

    async def serve(self, on_serving: Callable[[int], None] | None) -> None:
        config = self._config
        async with AsyncExitStack() as stack:
            server = ComponentServer(
                metrics=self._metrics,
                client=await reviewer(
                    config.serving.authentication_kubeconfig, self._client, stack, user_agent="kube-controller-manager"
                ),
                authorizer=await reviewer(
                    config.serving.authorization_kubeconfig, self._client, stack, user_agent="kube-controller-manager"
                ),
                healthz=self._checks,
                livez=self._checks,
                configz={"kubecontrollermanager.config.k8s.io": _shown(config)},
            )
            await server.run(config.serving, on_listening=on_serving)


def _check_of(name: str, task: asyncio.Task[None]) -> Check:
    return lambda: f"controller {name} has ended" if task.done() else ""


def _identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4()}"


def _shown(config: ControllerManagerConfig) -> dict[str, object]:
    """The configuration without its secrets."""
    secret = {"service_account_private_key", "cluster_signing_certificates", "root_ca"}
    return {name: getattr(config, name) for name in config.__slots__ if name not in secret}


def user_agent() -> str:
    return f"kube-controller-manager/{__version__} ({os.uname().sysname.lower()}/{os.uname().machine})"
