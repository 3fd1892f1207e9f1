"""The drivers of ResourceClaims on this node: how they come, are asked, tell of their devices' health, and go.

A driver that is away for half a minute is taken to be gone for good: the ResourceSlices that offer its devices are
deleted, so that nothing is scheduled onto them any more. So are those of drivers from before, when the kubelet starts.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.client.resources import RESOURCE_SLICES
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.tables import claim_messages
from shipwheel.kubelet.services import ClaimFault
from shipwheel.kubelet.volumes.base import VolumeError
from shipwheel.kubelet.volumes.csi.registration import PluginHandler, PluginInfo
from shipwheel.kubelet.words import rpc_text

log = logging.getLogger(__name__)

SERVICES = ("v1.DRAPlugin", "v1beta1.DRAPlugin")
PACKAGE = "k8s.io.kubelet.pkg.apis.dra"
CALL_SECONDS = 45.0
WIPE_SECONDS = 30.0
HEALTH_SECONDS = 30.0
"""What a driver says of a device's health counts for so long, if it names no other time."""
MAXIMUM_MESSAGE = 1024
_RETRY_SECONDS = 5.0
_MAXIMUM_RETRY = 300.0


@dataclass(frozen=True, slots=True)
class Health:
    status: str = "Unknown"
    message: str = ""
    until: float = 0.0
    """Monotonic time."""


@dataclass(slots=True)
class Driver:
    name: str
    endpoint: str
    service: str
    channel: Channel
    health: dict[tuple[str, str], Health] = field(default_factory=dict)
    """By pool and device."""
    watch: asyncio.Task[None] | None = None


class ClaimDrivers:
    """`health` is told of the devices (pool, name) of a driver that got well or ill."""

    def __init__(
        self,
        client: Client | None,
        clock: Clock,
        measures: ManagerMetrics,
        node_name: str,
        health: Callable[[str, set[tuple[str, str]]], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._measures = measures
        self._node = node_name
        self._told = health
        self._drivers: dict[str, list[Driver]] = {}
        """The newest last: while a driver is updated there are two."""
        self._wipes: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the connections until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._wipe("")
                await asyncio.Event().wait()
            finally:
                self._group = None
                for driver in [each for listed in self._drivers.values() for each in listed]:
                    await driver.channel.close()

    # Coming and going

    def add(self, name: str, endpoint: str, service: str) -> None:
        if self._group is None:
            raise VolumeError("the kubelet is ending")
        if any(each.endpoint == endpoint for each in self._drivers.get(name, ())):
            raise VolumeError(f"endpoint {endpoint} already registered for DRA driver plugin {name}")
        driver = Driver(name, endpoint, service, Channel(endpoint))
        self._drivers.setdefault(name, []).append(driver)
        driver.watch = self._group.create_task(self._watch_health(driver), name=f"health of {name}")
        wipe = self._wipes.pop(name, None)
        if wipe is not None:
            wipe.cancel()

    async def remove(self, name: str, endpoint: str) -> None:
        listed = self._drivers.get(name, [])
        for driver in [each for each in listed if each.endpoint == endpoint]:
            listed.remove(driver)
            if driver.watch is not None:
                driver.watch.cancel()
            await driver.channel.close()
        if not listed:
            self._drivers.pop(name, None)
            if self._group is not None and name not in self._wipes:
                self._wipes[name] = self._group.create_task(self._wipe_later(name), name=f"slices of {name}")

    async def _wipe_later(self, name: str) -> None:
        await self._clock.sleep(WIPE_SECONDS)
        await self._wipe(name)
        self._wipes.pop(name, None)

    async def _wipe(self, driver: str) -> None:
        """Delete the node's ResourceSlices of a driver, or of all of them; try until it works."""
        if self._client is None:
            return
        selector = f"spec.nodeName={self._node}" + (f",spec.driver={driver}" if driver else "")
        delay = 1.0
        while True:
            try:
                await self._client.delete_collection(RESOURCE_SLICES, field_selector=selector)
                return
            except ApiError as error:
                if error.code == 404:
                    return
                log.info("deleting ResourceSlices: %s", error)
            except ConnectionFailed as error:
                log.info("deleting ResourceSlices: %s", error)
            await self._clock.sleep(delay)
            delay = min(delay * 2, _MAXIMUM_RETRY)

    def get(self, name: str) -> Driver:
        """ClaimFault when it is not there."""
        if not name:
            raise ClaimFault("DRA driver name is empty")
        listed = self._drivers.get(name)
        if not listed:
            raise ClaimFault(f"DRA driver {name} is not registered")
        return listed[-1]

    # Asking

    async def prepare(self, name: str, claims: Sequence[Obj]) -> Mapping[str, Obj]:
        """By claim uid what `NodePrepareResources` answered; ClaimFault."""
        return await self._call(name, "NodePrepareResources", claims)

    async def unprepare(self, name: str, claims: Sequence[Obj]) -> Mapping[str, Obj]:
        return await self._call(name, "NodeUnprepareResources", claims)

    async def _call(self, name: str, method: str, claims: Sequence[Obj]) -> Mapping[str, Obj]:
        driver, tables = self.get(name), claim_messages()
        path = f"/{PACKAGE}.{driver.service}/{method}"
        began, code = self._clock.monotonic(), "OK"
        try:
            answer = await driver.channel.call(
                path, tables[f"{method}Request"], tables[f"{method}Response"],
                {"claims": list(claims)}, timeout=CALL_SECONDS,
            )  # fmt: skip
        except GrpcError as error:
            code = error.code.title().replace("_", "")
            raise ClaimFault(f"{method}: {rpc_text(error.code, error.message)}") from error
        finally:
            self._measures.claim_calls.labels(name, path, code).observe(self._clock.monotonic() - began)
        return _checked(method, claims, answer.get("claims", {}))

    # Health

    def health_of(self, name: str, pool: str, device: str) -> Health:
        for driver in reversed(self._drivers.get(name, [])):
            found = driver.health.get((pool, device))
            if found is not None and found.until >= self._clock.monotonic():
                return found
        return Health()

    async def _watch_health(self, driver: Driver) -> None:
        tables = claim_messages()
        while True:
            try:
                async for answer in driver.channel.stream(
                    "/v1alpha1.DRAResourceHealth/NodeWatchResources",
                    tables["NodeWatchResourcesRequest"],
                    tables["NodeWatchResourcesResponse"],
                    {},
                ):
                    self._note(driver, answer.get("devices", ()))
            except GrpcError as error:
                log.debug("the health of devices of %s: %s", driver.name, error.message)
                if error.code == "UNIMPLEMENTED":
                    return
            self._note(driver, ())
            await self._clock.sleep(_RETRY_SECONDS)

    def _note(self, driver: Driver, listed: Sequence[Obj]) -> None:
        now, before = self._clock.monotonic(), driver.health
        driver.health = dict(_health(each, now) for each in listed)
        changed = {
            key for key in {*before, *driver.health} if _shown(before.get(key)) != _shown(driver.health.get(key))
        }
        if changed:
            self._told(driver.name, changed)


def _shown(health: Health | None) -> tuple[str, str]:
    return ("Unknown", "") if health is None else (health.status, health.message)


def _health(wire: Obj, now: float) -> tuple[tuple[str, str], Health]:
    device = wire.get("device", {})
    seconds = wire.get("health_check_timeout_seconds", 0)
    message = wire.get("message", "")
    if len(message) > MAXIMUM_MESSAGE:
        message = message[: MAXIMUM_MESSAGE - 3] + "..."
    status = str(wire.get("health", "UNKNOWN")).title()
    until = now + (seconds if seconds > 0 else HEALTH_SECONDS)
    return (device.get("pool_name", ""), device.get("device_name", "")), Health(status, message, until)


def _checked(method: str, claims: Sequence[Obj], answers: Mapping[str, Obj]) -> Mapping[str, Obj]:
    names = {each["uid"]: each["name"] for each in claims}
    for uid, answer in answers.items():
        if uid not in names:
            raise ClaimFault(f"{method} returned result for unknown claim UID {uid}")
        if answer.get("error"):
            raise ClaimFault(f"{method} failed for ResourceClaim {names[uid]}: {answer['error']}")
    if len(answers) != len(claims):
        raise ClaimFault(f"{method} skipped {len(claims) - len(answers)} ResourceClaims")
    return answers


class ClaimDriverHandler(PluginHandler):
    """Takes the drivers that the kubelet finds in its plugin directory."""

    def __init__(self, drivers: ClaimDrivers) -> None:
        self._drivers = drivers

    async def add(self, info: PluginInfo) -> None:
        where = f"invalid supported gRPC versions of DRA driver plugin {info.name} at endpoint {info.endpoint}"
        if not info.versions:
            raise VolumeError(f"{where}: empty list of supported gRPC services (aka supported versions)")
        service = next((each for each in info.versions if each in SERVICES), None)
        if service is None:
            offered, known = (json.dumps(list(each)).replace(", ", " ") for each in (info.versions, SERVICES))
            raise VolumeError(
                f"{where}: none of services supported by the plugin ({offered}) are supported by the kubelet ({known})"
            )
        self._drivers.add(info.name, info.endpoint, service)

    async def remove(self, info: PluginInfo) -> None:
        await self._drivers.remove(info.name, info.endpoint)
