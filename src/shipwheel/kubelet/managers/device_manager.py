"""Devices for containers: from plugins that come and go to what each container has, kept over restarts.

Devices are chosen when a pod comes in, close to its CPUs if the topology manager says so, and as the plugin prefers.
A plugin that went away keeps its place for five minutes, with no healthy device; what containers have, they keep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import GrpcError
from shipwheel.kinds.podresources import pod_limits
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.base import Active, Refused, is_passing
from shipwheel.kubelet.managers.device_plugins import Endpoint, Registration
from shipwheel.kubelet.managers.device_table import (
    HEALTHY,
    DeviceTable,
    Given,
    PluginDevice,
    from_checkpoint,
    to_checkpoint,
)
from shipwheel.kubelet.managers.hints import Hint, Hints, Mask
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.resources import limits_of
from shipwheel.kubelet.runtime.base import Device, Mount
from shipwheel.kubelet.services import Extras
from shipwheel.kubelet.words import rpc_text

log = logging.getLogger(__name__)

CHECKPOINT = "kubelet_internal_checkpoint"
GONE_SECONDS = 300.0
"""After which a plugin that went away is forgotten."""


@dataclass(slots=True)
class _Plugin:
    endpoint: Endpoint | None
    """None before it has registered again after a restart of the kubelet."""
    stopped_at: float | None = None
    watch: asyncio.Task[None] | None = None


class DeviceManager:
    """`numa_nodes` are the machine's; `changed` is told when devices came or went, `health` of the pods whose devices
    got well or ill; `ran_before` whether a container was running when this kubelet began."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        measures: ManagerMetrics,
        *,
        numa_nodes: Sequence[int],
        changed: Callable[[], None] = lambda: None,
        health: Callable[[str], None] = lambda uid: None,
        ran_before: Callable[[str, str], Awaitable[bool]],
        by_claim: Callable[[Obj, Obj, str], bool] = lambda pod, container, resource: False,
    ) -> None:
        """`by_claim`: an extended resource that the container has through a ResourceClaim."""
        self._directory = directory
        self._clock = clock
        self._measures = measures
        self._numa_nodes = numa_nodes
        self._changed = changed
        self._health = health
        self._ran_before = ran_before
        self._by_claim = by_claim
        self._plugins: dict[str, _Plugin] = {}
        self._forgotten: set[str] = set()
        self._reusable: dict[str, dict[str, frozenset[str]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._table = self._restore()

    # Running

    async def run(self) -> None:
        """Take plugins until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await Registration(self._directory, self.connect, self._count).run()
            finally:
                self._group = None
                for plugin in self._plugins.values():
                    if plugin.endpoint is not None:
                        await plugin.endpoint.close()

    def _count(self, resource: str) -> None:
        self._measures.registrations.labels(resource).inc()

    async def connect(self, resource: str, socket: str) -> None:
        """Take a plugin in place of the one before; GrpcError when it does not answer."""
        endpoint = Endpoint(socket)
        try:
            await endpoint.meet()
        except BaseException:
            await endpoint.close()
            raise
        await self.disconnect(resource)
        if self._group is None:
            await endpoint.close()
            raise GrpcError("UNAVAILABLE", "the kubelet is ending")
        self._forgotten.discard(resource)
        plugin = self._plugins[resource] = _Plugin(endpoint)
        plugin.watch = self._group.create_task(self._watch(resource, plugin), name=f"device plugin {resource}")

    async def disconnect(self, resource: str) -> None:
        plugin = self._plugins.get(resource)
        if plugin is not None and plugin.watch is not None:
            plugin.watch.cancel()
            await asyncio.gather(plugin.watch, return_exceptions=True)

    async def _watch(self, resource: str, plugin: _Plugin) -> None:
        assert plugin.endpoint is not None
        try:
            await plugin.endpoint.watch(lambda devices: self._told(resource, devices))
        except GrpcError as error:
            log.warning("the device plugin of %s has gone: %s", resource, error.message)
        finally:
            await plugin.endpoint.close()
            plugin.stopped_at = self._clock.monotonic()
            ill = [PluginDevice(each.id, "Unhealthy", each.nodes) for each in self._table.known[resource].values()]
            self._told(resource, ill)

    def _told(self, resource: str, devices: Iterable[PluginDevice]) -> None:
        before = self._table.known.get(resource, {})
        now = {each.id: each for each in devices}
        self._table.known[resource] = now
        concerned = {each.id for each in now.values() if each.id not in before or before[each.id].health != each.health}
        for uid, containers in self._table.given.items():
            if any(resource in each and each[resource].ids & concerned for each in containers.values()):
                self._health(uid)
        self._save()
        self._changed()

    # On disk

    def _restore(self) -> DeviceTable:
        try:
            content = checkpoint.read(self._directory / CHECKPOINT)
            table = from_checkpoint(content) if content is not None else DeviceTable()
        except checkpoint.Corrupt as error:
            log.error("the checkpoint of device plugins cannot be read: %s", error)
            return DeviceTable()
        now = self._clock.monotonic()
        self._plugins = {resource: _Plugin(None, now) for resource in table.known}
        return table

    def _save(self) -> None:
        try:
            checkpoint.write(self._directory / CHECKPOINT, to_checkpoint(self._table))
        except OSError as error:
            log.error('failed to write checkpoint file "%s": %s', CHECKPOINT, error)

    # What others ask

    def capacity(self) -> dict[str, tuple[int, int]]:
        """(present, healthy) by resource; none of a plugin that went away for good."""
        now = self._clock.monotonic()
        gone = [
            resource
            for resource, plugin in self._plugins.items()
            if plugin.stopped_at is not None and now - plugin.stopped_at > GONE_SECONDS
        ]
        for resource in gone:
            del self._plugins[resource]
            self._table.known.pop(resource, None)
            self._forgotten.add(resource)
        if gone:
            self._save()
        found = {name: (len(each), len(self._table.healthy(name))) for name, each in self._table.known.items()}
        return {**dict.fromkeys(self._forgotten, (0, 0)), **found}

    def is_ours(self, resource: str) -> bool:
        """Whether the resource is that of a plugin, which may have gone."""
        return self._table.is_ours(resource)

    def of_container(self, uid: str, name: str) -> Mapping[str, Given]:
        return self._table.of_container(uid, name)

    def allocatable(self) -> dict[str, list[PluginDevice]]:
        return {
            resource: [each for each in devices.values() if each.health == HEALTHY]
            for resource, devices in self._table.known.items()
        }

    def statuses(self, uid: str, name: str) -> list[Obj]:
        """`allocatedResourcesStatus` of a container."""
        return [
            {
                "name": resource,
                "resources": [
                    {"resourceID": each, "health": self._health_of(resource, each)} for each in sorted(given.ids)
                ],
            }
            for resource, given in sorted(self.of_container(uid, name).items())
        ]

    def _health_of(self, resource: str, device: str) -> str:
        known = self._table.known.get(resource, {}).get(device)
        return "Healthy" if known is None or known.health == HEALTHY else "Unhealthy"

    # Hints

    def hints(self, pod: Obj, container: Obj) -> Hints:
        uid = pod["metadata"]["uid"]
        had = self.of_container(uid, container["name"])
        reusable = self._reusable.get(uid, {})
        return {
            resource: self._hints(
                resource, wanted, had[resource].ids if resource in had else frozenset(), reusable.get(resource)
            )
            for resource, wanted in self._wanted(pod, container).items()
        }

    def pod_hints(self, pod: Obj) -> Hints:
        containers = self._table.given.get(pod["metadata"]["uid"], {})
        found: dict[str, Sequence[Hint] | None] = {}
        for resource, amount in pod_limits(pod, overhead=False).items():
            if self._table.is_ours(resource):
                had = frozenset(each for own in containers.values() if resource in own for each in own[resource].ids)
                found[resource] = self._hints(resource, amount.value(), had, None)
        return found

    def _wanted(self, pod: Obj, container: Obj) -> dict[str, int]:
        return {
            resource: amount.value()
            for resource, amount in limits_of(container).items()
            if self._table.is_ours(resource) and not self._by_claim(pod, container, resource)
        }

    def _hints(
        self, resource: str, wanted: int, had: frozenset[str], reusable: frozenset[str] | None
    ) -> Sequence[Hint] | None:
        if not self._table.is_aligned(resource):
            return None
        again = reusable or frozenset()
        available = self._table.healthy(resource) - self._table.in_use(resource)
        if had:
            return self._table.hints(resource, had, frozenset(), wanted, self._numa_nodes) if len(had) == wanted else []
        if len(available | again) < wanted:
            return []
        return self._table.hints(resource, available, again, wanted, self._numa_nodes)

    # Giving and taking back

    async def allocate(self, pod: Obj, container: Obj, affinity: Hint) -> None:
        uid, name = pod["metadata"]["uid"], container["name"]
        reusable = self._reusable.get(uid, {})
        for resource, wanted in self._wanted(pod, container).items():
            ids = await self._choose(uid, name, resource, wanted, reusable.get(resource, frozenset()), affinity.nodes)
            if ids:
                await self._give(uid, name, resource, ids)
        own = {resource: given.ids for resource, given in self.of_container(uid, name).items()}
        for resource, ids in own.items():
            before = reusable.get(resource, frozenset())
            reusable = {**reusable, resource: before | ids if is_passing(pod, container) else before - ids}
        self._reusable = {uid: reusable}

    async def _give(self, uid: str, name: str, resource: str, ids: frozenset[str]) -> None:
        began = self._clock.monotonic()
        try:
            response = await self._endpoint(resource).allocate(sorted(ids))
        except GrpcError as error:
            raise Refused(rpc_text(error.code, error.message)) from error
        finally:
            self._measures.allocation_duration.labels(resource).observe(self._clock.monotonic() - began)
        self._table.give(uid, name, resource, Given(self._table.by_node(resource, ids), response))
        self._save()

    def _endpoint(self, resource: str) -> Endpoint:
        plugin = self._plugins.get(resource)
        if plugin is None:
            raise Refused(f"unknown Device Plugin {resource}")
        if plugin.endpoint is None or plugin.stopped_at is not None:
            raise Refused(f"endpoint {resource} has been stopped")
        return plugin.endpoint

    async def _choose(
        self, uid: str, name: str, resource: str, wanted: int, reusable: frozenset[str], nodes: Mask | None
    ) -> frozenset[str]:
        """The devices to be given now; none if the container has them already."""
        table = self._table
        given = self.of_container(uid, name).get(resource)
        if given is not None and len(given.ids) != wanted:
            raise Refused(
                f'pod "{uid}" container "{name}" changed request for resource "{resource}" from {len(given.ids)} to '
                f"{wanted}"
            )
        if await self._ran_before(uid, name):
            return frozenset()
        if resource not in table.known:
            raise Refused(f"cannot allocate unregistered device {resource}")
        healthy = table.healthy(resource)
        if not healthy:
            raise Refused(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        if given is not None:
            if not given.ids <= healthy:
                raise Refused(
                    f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                )
            return frozenset()
        taken = set(sorted(reusable)[:wanted])
        available = healthy - table.in_use(resource)
        if len(taken) == wanted:
            return frozenset(taken)
        if len(available) < wanted - len(taken):
            raise Refused(
                f"requested number of devices unavailable for {resource}. Requested: {wanted - len(taken)}, "
                f"Available: {len(available)}"
            )
        near, elsewhere, nowhere = table.by_affinity(resource, available, nodes)

        def take(from_: Iterable[str]) -> bool:
            for each in from_:
                if len(taken) == wanted:
                    break
                taken.add(each)
            return len(taken) == wanted

        if wanted - len(taken) < len(near):
            preferred = await self._preferred(resource, {*near, *taken}, taken, wanted)
            return frozenset(taken) if take(e for e in preferred if e in near) or take(near) else frozenset()
        if not take(near):
            preferred = await self._preferred(resource, available | taken, taken, wanted)
            if not take(each for each in preferred if each in available) and not take(elsewhere):
                take(nowhere)
        return frozenset(taken)

    async def _preferred(
        self, resource: str, available: Iterable[str], included: Iterable[str], size: int
    ) -> Sequence[str]:
        endpoint = self._endpoint(resource)
        if not endpoint.prefers:
            return ()
        try:
            return await endpoint.preferred(sorted(available), sorted(included), size)
        except GrpcError as error:
            text = rpc_text(error.code, error.message)
            raise Refused(f"device plugin GetPreferredAllocation rpc failed with err: {text}") from error

    def keep(self, active: Active) -> None:
        if self._table.keep(active):
            self._save()

    # When a container starts

    async def extras(self, pod: Obj, container: Obj) -> Extras:
        """What its devices add to the container; Refused when a plugin cannot make them ready."""
        uid, name = pod["metadata"]["uid"], container["name"]
        for resource, wanted in self._wanted(pod, container).items():
            if not wanted:
                continue
            given = self.of_container(uid, name).get(resource)
            plugin = self._plugins.get(resource)
            if plugin is None:
                raise Refused(f"endpoint not found in cache for a registered resource: {resource}", "Device")
            if given is None:
                await self.allocate(pod, container, Hint())
                given = self.of_container(uid, name).get(resource)
            if given is not None and plugin.endpoint is not None and plugin.endpoint.pre_start:
                await self._before_start(resource, given)
        return merged(self.of_container(uid, name))

    async def _before_start(self, resource: str, given: Given) -> None:
        try:
            await self._endpoint(resource).before_start(sorted(given.ids))
        except GrpcError as error:
            text = rpc_text(error.code, error.message)
            raise Refused(f"device plugin PreStartContainer rpc failed with err: {text}", "Device") from error


def merged(given: Mapping[str, Given]) -> Extras:
    """What all of a container's devices add; of what two say differently the first counts."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    devices: dict[str, Device] = {}
    mounts: dict[str, Mount] = {}
    cdi: dict[str, None] = {}
    for _, each in sorted(given.items()):
        response = each.response
        env = {**response.get("envs", {}), **env}
        annotations = {**response.get("annotations", {}), **annotations}
        for device in response.get("devices", ()):
            path = device.get("container_path", "")
            devices.setdefault(path, Device(path, device.get("host_path", ""), device.get("permissions", "")))
        for mount in response.get("mounts", ()):
            path = mount.get("container_path", "")
            mounts.setdefault(path, Mount(path, mount.get("host_path", ""), mount.get("read_only", False)))
        cdi |= dict.fromkeys(each.get("name", "") for each in response.get("cdi_devices", ()))
    return Extras(tuple(devices.values()), tuple(mounts.values()), env, annotations, cdi_devices=tuple(cdi))
