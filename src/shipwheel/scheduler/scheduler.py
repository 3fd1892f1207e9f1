"""The scheduler as a component: it serves its health and metrics, becomes the leader, and then schedules.

What does the work is imported only then: numpy takes memory that nobody else in the process should pay for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from pathlib import Path

from shipwheel.api.clock import Clock, SystemClock
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.leader import ElectionConfig, LeaderElector
from shipwheel.client.metrics import Metrics
from shipwheel.client.serving import ComponentServer, reviewer
from shipwheel.scheduler.config import NAME, SchedulerConfig

log = logging.getLogger(__name__)

EVENTS_QUEUED = 10_000
"""A burst of pods is a burst of events; they are written when the pods have their nodes."""


async def run(
    config: SchedulerConfig,
    *,
    client: Client,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
) -> None:
    """Schedule until cancelled, while leading if leader election is on.

    Raises LeadershipLost; ConfigurationError (a ValueError) for a configuration that cannot be used; OSError when a
    file cannot be read or the port cannot be had.
    """
    # Sums over a few thousand numbers are done before a second thread has woken up.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from shipwheel.scheduler.core import Scheduler
    from shipwheel.scheduler.profiles import configured

    clock = clock or SystemClock()
    metrics = metrics or Metrics(disabled=config.disabled_metrics)
    recorder = EventRecorder(client, clock, component=config.scheduler_name, queued=EVENTS_QUEUED)
    scheduler = Scheduler(
        configured(config),
        client,
        clock,
        recorder,
        metrics,
        seed=config.seed if config.seed >= 0 else None,
        max_unschedulable=config.pod_max_in_unschedulable_pods_duration,
    )
    # Who reads events can wait for them; who waits for a node cannot.
    recorder.defer_to(scheduler.is_busy)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        server = ComponentServer(
            metrics=metrics,
            client=await reviewer(config.serving.authentication_kubeconfig, client, stack, user_agent=NAME),
            authorizer=await reviewer(config.serving.authorization_kubeconfig, client, stack, user_agent=NAME),
            before_metrics=scheduler.refresh_metrics,
        )
        tasks = [
            group.create_task(server.run(config.serving), name="serve"),
            group.create_task(recorder.run(), name="record events"),
        ]
        try:
            if config.leader_elect:
                await _elector(config, client, clock, metrics).run(scheduler.run)
            else:
                await scheduler.run()
        finally:
            for task in tasks:
                task.cancel()


def write_config(config: SchedulerConfig) -> None:
    """Write the configuration to the file that `--write-config-to` names. ConfigurationError, OSError."""
    import yaml

    from shipwheel.scheduler.export import to_object
    from shipwheel.scheduler.profiles import configured, known_points

    written = yaml.safe_dump(to_object(config, configured(config), known_points()))
    Path(config.write_config_to).write_text(written)
    log.info("Wrote configuration file=%s", config.write_config_to)


def _elector(config: SchedulerConfig, client: Client, clock: Clock, metrics: Metrics) -> LeaderElector:
    election = ElectionConfig(
        name=config.leader_elect_resource_name,
        namespace=config.leader_elect_resource_namespace,
        identity=f"{socket.gethostname()}_{uuid.uuid4()}",
        lease_duration=config.leader_elect_lease_duration,
        renew_deadline=config.leader_elect_renew_deadline,
        retry_period=config.leader_elect_retry_period,
    )
    return LeaderElector(client, election, clock, metrics=metrics.election)
