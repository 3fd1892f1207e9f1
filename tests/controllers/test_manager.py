"""The manager: which controllers it runs, what it shows of itself, how it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from shipwheel.api.clock import SystemClock
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.informer import InformerFactory
from shipwheel.client.kubeconfig import ClientConfig
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import EVENTS, LEASES
from shipwheel.client.serving import ServingConfig
from shipwheel.controllers import manager
from shipwheel.controllers.catalog import CONTROLLERS, select
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.framework import Context
from tests.controllers.fakeapi import FakeApi
from tests.controllers.world import CONFIG, World

BY_DEFAULT = [each.name for each in CONTROLLERS if each.by_default]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (("*",), BY_DEFAULT),
        ((), []),
        (("job-controller",), ["job-controller"]),
        (("job",), ["job-controller"]),
        (("*", "-job"), [name for name in BY_DEFAULT if name != "job-controller"]),
        (("-job", "*"), [name for name in BY_DEFAULT if name != "job-controller"]),
        (("*", "tokencleaner"), [*BY_DEFAULT, "token-cleaner-controller"]),
        (("job", "-job"), ["job-controller"]),
        (("-job", "job"), []),
        (("*", "-service", "-route"), BY_DEFAULT),
    ],
)
def test_which_controllers_run(wanted: tuple[str, ...], chosen: list[str]):
    assert sorted(each.name for each in select(wanted)) == sorted(chosen)


@pytest.mark.parametrize("name", ["nonsense", "-nonsense", "Job"])
def test_a_name_that_there_is_not(name: str):
    known = f'"{name}" is not in the list of known controllers'
    with pytest.raises(ValueError, match=re.escape(known)):
        select(("*", name))


def test_names_are_unique():
    names = [name for each in CONTROLLERS for name in (each.name, each.alias) if name]
    assert len(names) == len(set(names))


def test_every_controller_can_be_made_and_shares_its_metrics():
    world = World(())
    client, clock = world.api.client(), world.clock
    context = Context(
        client=client,
        informers=InformerFactory(client, clock),
        clock=clock,
        recorder=EventRecorder(client, clock, component="test"),
        metrics=Metrics(process=False),
        config=CONFIG,
    )
    for each in CONTROLLERS:
        if each.needs(CONFIG):
            each.make(context)


class Serving:
    """A manager that serves, on any port, to a client of its own."""

    def __init__(self, api: FakeApi, config: ControllerManagerConfig) -> None:
        self.api = api
        self._config = config
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        run = manager.run(
            self._config,
            client=self.api.client(),
            clock=SystemClock(),
            identity="me",
            on_serving=self.port.set_result,
        )
        self.task = asyncio.create_task(run)
        server = ClientConfig(f"https://127.0.0.1:{await self.port}", insecure=True)
        try:
            async with Client(server, user_agent="test") as client:
                yield client
        finally:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task


@pytest.fixture
async def serving(unused_tcp_port: int) -> Serving:
    config = ControllerManagerConfig(
        controllers=("deployment", "replicaset"),
        serving=ServingConfig(
            bind_address="127.0.0.1",
            port=unused_tcp_port,
            always_allow_paths=("/healthz", "/livez", "/metrics", "/configz"),
        ),
    )
    return Serving(FakeApi(SystemClock()), config)


async def _text(client: Client, path: str) -> str:
    return (await client.request("GET", path, query={"verbose": "1"})).body.decode()


async def _until(client: Client, path: str, part: str) -> str:
    async with asyncio.timeout(20):
        while True:
            text = await _text(client, path)
            if part in text:
                return text
            await asyncio.sleep(0.01)


async def test_each_controller_has_a_health_check_once_it_runs(serving: Serving):
    async with serving.running() as client:
        text = await _until(client, "/healthz", "replicaset-controller ok")
        assert "[+]leaderElection ok" in text
        assert "[+]deployment-controller ok" in text
        assert "healthz check passed" in text
        assert await _text(client, "/healthz/deployment-controller") == "ok"
        slis = await _text(client, "/metrics/slis")
        assert 'kubernetes_healthcheck{name="deployment-controller",type="healthz"} 1.0' in slis
        total = r'kubernetes_healthchecks_total{name="leaderElection",status="success",type="healthz"} [1-9]'
        assert re.search(total.replace("{", r"\{"), slis)


async def test_metrics_tell_who_leads_and_what_runs(serving: Serving):
    async with serving.running() as client:
        running = 'running_managed_controllers{manager="kube-controller-manager",name="replicaset-controller"} 1.0'
        text = await _until(client, "/metrics", running)
        assert 'leader_election_master_status{name="kube-controller-manager"} 1.0' in text
        assert 'workqueue_depth{name="deployment"} 0.0' in text
        assert 'workqueue_unfinished_work_seconds{name="replicaset"} 0.0' in text
        assert 'workqueue_longest_running_processor_seconds{name="replicaset"} 0.0' in text
        shown = await client.call("GET", "/configz")
        assert shown["kubecontrollermanager.config.k8s.io"]["controllers"] == ["deployment", "replicaset"]


async def test_it_ends_in_good_order(serving: Serving):
    """Asked to stop, it gives its lease back and says so."""
    async with serving.running() as client:
        await _until(client, "/healthz", "replicaset-controller ok")
    assert serving.task is not None and serving.task.cancelled()
    lease = serving.api.get(LEASES, "kube-controller-manager", "kube-system")
    assert lease is not None and lease["spec"]["holderIdentity"] == ""
    told = [event["message"] for event in serving.api.list(EVENTS) if event["reason"] == "LeaderElection"]
    assert told == ["me became leader", "me stopped leading"]
