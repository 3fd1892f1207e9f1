"""ResourceClaims, with a real driver over real sockets: prepared, used, given back."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client import resources as r
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.claim_manager import STATE_FILE, ClaimManager
from shipwheel.kubelet.managers.claim_plugins import WIPE_SECONDS, ClaimDriverHandler, ClaimDrivers
from shipwheel.kubelet.managers.claim_state import is_by_claim
from shipwheel.kubelet.services import ClaimFault
from shipwheel.kubelet.volumes.csi.registration import PluginWatcher
from tests.controllers.fakeapi import FakeApi
from tests.controllers.fakekinds import KINDS, FakeKind
from tests.kubelet.managers.machines import measures
from tests.kubelet.managers.plugins import ClaimDriver

CLAIM_KINDS = {**KINDS, r.RESOURCE_SLICES: FakeKind("ResourceSlice", namespaced=False, has_status=False)}


@pytest.fixture
def directory() -> Iterator[Path]:
    """The path of a socket is short."""
    with tempfile.TemporaryDirectory(prefix="shipwheel-") as made:
        yield Path(made)


class Node:
    def __init__(self, directory: Path, api: FakeApi, clock: ManualClock) -> None:
        self.api, self.clock, self.directory = api, clock, directory
        self.changed: list[set[str]] = []
        found = measures()
        self.drivers = ClaimDrivers(
            api.client(), clock, found, "node1", lambda driver, devices: self.changed.append(
                self.manager.users_of(driver, devices))
        )  # fmt: skip
        self.manager = ClaimManager(directory, api.client(), clock, found, self.drivers)
        self.watcher = PluginWatcher(
            directory / "plugins_registry", clock, {"DRAPlugin": ClaimDriverHandler(self.drivers)}
        )

    async def run(self, driver: ClaimDriver) -> None:
        await driver.start(self.directory / "plugins_registry" / f"{driver.name}.sock")
        await self.watcher.look()
        assert (await driver.registered).get("plugin_registered"), driver.registered.result()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await self.clock.advance(0.1)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def node(directory: Path, api: FakeApi | None = None) -> AsyncIterator[Node]:
    clock = ManualClock()
    made = Node(directory, api or FakeApi(clock, kinds=CLAIM_KINDS), clock)
    task = asyncio.ensure_future(made.drivers.run())
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def claimant(uid: str = "u1", claim: str = "shared") -> Obj:
    used = {"name": "gpu", "request": "req"}
    return {
        "metadata": {"name": f"pod-{uid}", "namespace": "ns", "uid": uid},
        "spec": {
            "containers": [{"name": "c", "resources": {"claims": [used]}}, {"name": "other"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}],
        },
        "status": {},
    }


def claim(*users: Obj, name: str = "shared", drivers: tuple[str, ...] = ("gpu.example.com",)) -> Obj:
    results = [{"driver": each, "pool": "pool", "device": "gpu", "request": "req"} for each in drivers]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [
                {"resource": "pods", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]} for each in users
            ],
        },
    }


@pytest.mark.parametrize("service", ["v1", "v1beta1"])
async def test_prepared_used_and_given_back(directory: Path, service: str) -> None:
    first, second = claimant("u1"), claimant("u2")
    async with node(directory) as made:
        driver = ClaimDriver(service=service)
        await made.run(driver)
        made.api.create(r.RESOURCE_CLAIMS, claim(first, second), "ns")
        await made.manager.prepare(first)
        await made.manager.prepare(second)
        assert driver.calls == [("NodePrepareResources", ["shared"])], "one pod's claim is the other's"
        user, other = first["spec"]["containers"]
        assert made.manager.cdi_of(first, user) == ["gpu.example.com/gpu=shared"]
        assert made.manager.cdi_of(first, other) == []
        await made.manager.unprepare(first)
        assert len(driver.calls) == 1, "another pod uses it"
        await made.manager.unprepare(second)
        assert driver.calls[1:] == [("NodeUnprepareResources", ["shared"])]
        await made.manager.unprepare(second)
        assert len(driver.calls) == 2
        await driver.stop()


async def test_why_a_pod_must_wait(directory: Path) -> None:
    waiting = claimant()
    async with node(directory) as made:
        with pytest.raises(ClaimFault, match=r"^prepare dynamic resources: fetch ResourceClaim shared: .*not found"):
            await made.manager.prepare(waiting)
        made.api.create(r.RESOURCE_CLAIMS, claim(), "ns")
        with pytest.raises(ClaimFault, match=r"pod pod-u1 \(u1\) is not allowed to use ResourceClaim shared"):
            await made.manager.prepare(waiting)
        made.api.create(r.RESOURCE_CLAIMS, claim(waiting, name="mine"), "ns")
        mine = claimant(claim="mine")
        with pytest.raises(ClaimFault, match=r"resources: DRA driver gpu.example.com is not registered"):
            await made.manager.prepare(mine)
        driver = ClaimDriver()
        await made.run(driver)
        driver.errors[made.api.get(r.RESOURCE_CLAIMS, "mine", "ns")["metadata"]["uid"]] = "no power"  # type: ignore[index]
        with pytest.raises(ClaimFault, match="NodePrepareResources failed for ResourceClaim mine: no power"):
            await made.manager.prepare(mine)
        driver.errors.clear()
        await made.manager.prepare(mine)
        unallocated = claim(waiting, name="unallocated")
        del unallocated["status"]["allocation"]
        made.api.create(r.RESOURCE_CLAIMS, unallocated, "ns")
        with pytest.raises(ClaimFault, match="ResourceClaim unallocated: not allocated"):
            await made.manager.prepare(claimant(claim="unallocated"))
        await driver.stop()


async def test_claims_from_a_template(directory: Path) -> None:
    waiting = claimant()
    waiting["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    async with node(directory) as made:
        with pytest.raises(ClaimFault, match='pod "ns/pod-u1": ResourceClaim not created yet'):
            await made.manager.prepare(waiting)
        waiting["status"]["resourceClaimStatuses"] = [{"name": "gpu"}]
        await made.manager.prepare(waiting)
        waiting["status"]["resourceClaimStatuses"] = [{"name": "gpu", "resourceClaimName": "made"}]
        made.api.create(r.RESOURCE_CLAIMS, claim(waiting, name="made"), "ns")
        with pytest.raises(ClaimFault, match=r"made was not created for Pod ns/pod-u1 \(Pod is not owner\)"):
            await made.manager.prepare(waiting)


async def test_remembered_over_a_restart(directory: Path) -> None:
    user = claimant()
    api = FakeApi(ManualClock(), kinds=CLAIM_KINDS)
    api.create(r.RESOURCE_CLAIMS, claim(user), "ns")
    async with node(directory, api) as made:
        driver = ClaimDriver()
        await made.run(driver)
        await made.manager.prepare(user)
        await driver.stop()
    stored = json.loads((directory / STATE_FILE).read_text())
    assert json.loads(stored["Data"])["kind"] == "DRACheckpoint"
    async with node(directory, api) as made:
        assert made.manager.cdi_of(user, user["spec"]["containers"][0]) == ["gpu.example.com/gpu=shared"]
        driver = ClaimDriver()
        await made.run(driver)
        await made.manager.prepare(user)
        await made.manager.reconcile({"u1": frozenset()})
        await made.manager.reconcile({})
        assert [each for each, _ in driver.calls] == ["NodePrepareResources", "NodeUnprepareResources"]
        await driver.stop()
    stored["Checksum"] += 1
    (directory / STATE_FILE).write_text(json.dumps(stored))
    with pytest.raises(checkpoint.Corrupt):
        Node(directory, api, ManualClock())


async def test_health_of_devices(directory: Path) -> None:
    user = claimant()
    async with node(directory) as made:
        driver = ClaimDriver()
        await made.run(driver)
        made.api.create(r.RESOURCE_CLAIMS, claim(user), "ns")
        await made.manager.prepare(user)
        shown = {"resourceID": "gpu.example.com/gpu=shared", "health": "Unknown"}
        container = user["spec"]["containers"][0]
        assert made.manager.statuses(user, container) == [{"name": "claim:gpu/req", "resources": [shown]}]
        device = {"pool_name": "pool", "device_name": "gpu-shared"}
        driver.tell({"device": device, "health": "UNHEALTHY", "message": "too hot"})
        await made.until(lambda: made.changed)
        assert made.changed == [{"u1"}]
        assert made.manager.statuses(user, container)[0]["resources"] == [
            {**shown, "health": "Unhealthy", "message": "too hot"}
        ]
        await made.clock.advance(31)
        assert made.manager.statuses(user, container)[0]["resources"] == [shown], "that was long ago"
        await driver.stop()


async def test_slices_of_drivers_that_are_gone_are_deleted(directory: Path) -> None:
    def offer(api: FakeApi, name: str, node_name: str) -> None:
        spec = {"nodeName": node_name, "driver": "gpu.example.com", "pool": {"name": "pool"}}
        api.create(r.RESOURCE_SLICES, {"metadata": {"name": name}, "spec": spec})

    api = FakeApi(ManualClock(), kinds=CLAIM_KINDS)
    offer(api, "old", "node1")
    offer(api, "elsewhere", "node2")
    async with node(directory, api) as made:
        await made.until(lambda: len(api.list(r.RESOURCE_SLICES)) == 1)
        driver = ClaimDriver()
        await made.run(driver)
        offer(api, "new", "node1")
        await driver.stop()
        await made.watcher.look()
        await made.clock.advance(WIPE_SECONDS - 2)
        assert len(api.list(r.RESOURCE_SLICES)) == 2, "it may come back"
        await made.until(lambda: len(api.list(r.RESOURCE_SLICES)) == 1)


async def test_drivers_that_are_not_taken(directory: Path) -> None:
    async with node(directory) as made:
        driver = ClaimDriver(service="v1alpha9")
        await driver.start(directory / "plugins_registry/old.sock")
        await made.watcher.look()
        told = await driver.registered
        assert "none of services supported by the plugin" in told["error"]
        await driver.stop()


def test_extended_resources_by_claims() -> None:
    user = claimant()
    user["status"]["extendedResourceClaimStatus"] = {
        "resourceClaimName": "made",
        "requestMappings": [{"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"}],
    }
    container, other = user["spec"]["containers"]
    assert is_by_claim(user, container, "example.com/gpu")
    assert not is_by_claim(user, other, "example.com/gpu")
