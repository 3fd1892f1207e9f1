"""One CSI driver on this node, and the drivers there are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.kubelet.volumes.base import VolumeError
from shipwheel.kubelet.volumes.csi.tables import messages

TIMEOUT = 120.0
_ALREADY_RUNNING = ("CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED")


def is_final(error: GrpcError) -> bool:
    """Whether an operation that failed so has certainly not been, and is not being, carried out."""
    return error.code not in _ALREADY_RUNNING


@dataclass(frozen=True, slots=True)
class NodeInfo:
    node_id: str
    max_volumes: int = 0
    topology: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """How a volume is to be used, as CSI's VolumeCapability says it."""

    access_mode: str
    """A PersistentVolume's: `ReadWriteOnce`, ..."""
    block: bool = False
    fs_type: str = ""
    mount_flags: Sequence[str] = ()
    group: int | None = None


_MODES = {
    "ReadWriteOnce": ("SINGLE_NODE_WRITER", "SINGLE_NODE_MULTI_WRITER"),
    "ReadOnlyMany": ("MULTI_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY"),
    "ReadWriteMany": ("MULTI_NODE_MULTI_WRITER", "MULTI_NODE_MULTI_WRITER"),
    "ReadWriteOncePod": ("SINGLE_NODE_WRITER", "SINGLE_NODE_SINGLE_WRITER"),
}
"""Of a driver that does not, and of one that does tell single writers from several on one node."""


def capability_of(options: VolumeOptions, capabilities: frozenset[str]) -> dict[str, Any]:
    plain, precise = _MODES.get(options.access_mode, ("UNKNOWN", "UNKNOWN"))
    mode = precise if "SINGLE_NODE_MULTI_WRITER" in capabilities else plain
    found: dict[str, Any] = {"access_mode": {"mode": mode}}
    if options.block:
        return found | {"block": {}}
    group = "" if options.group is None or "VOLUME_MOUNT_GROUP" not in capabilities else str(options.group)
    mount = {"fs_type": options.fs_type, "mount_flags": options.mount_flags, "volume_mount_group": group}
    return found | {"mount": mount}


class CsiDriver:
    """The Node service at a socket. Methods raise GrpcError."""

    def __init__(self, name: str, endpoint: str) -> None:
        self.name = name
        self.endpoint = endpoint
        self._channel = Channel(endpoint)
        self._messages = messages()
        self._capabilities: frozenset[str] | None = None

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: str, **request: Any) -> dict[str, Any]:
        return await self._channel.call(
            f"/csi.v1.Node/{method}",
            self._messages[method + "Request"],
            self._messages[method + "Response"],
            request,
            timeout=TIMEOUT,
        )

    async def node_info(self) -> NodeInfo:
        answer = await self._call("NodeGetInfo")
        return NodeInfo(
            answer.get("node_id", ""),
            answer.get("max_volumes_per_node", 0),
            answer.get("accessible_topology", {}).get("segments", {}),
        )

    async def capabilities(self) -> frozenset[str]:
        """Asked for once."""
        if self._capabilities is None:
            answer = await self._call("NodeGetCapabilities")
            self._capabilities = frozenset(
                each.get("rpc", {}).get("type", "UNKNOWN") for each in answer.get("capabilities", ())
            )
        return self._capabilities

    async def stage(
        self,
        volume: str,
        path: str,
        options: VolumeOptions,
        *,
        publish_context: Mapping[str, str],
        context: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> None:
        await self._call(
            "NodeStageVolume",
            volume_id=volume,
            staging_target_path=path,
            publish_context=publish_context,
            volume_capability=capability_of(options, await self.capabilities()),
            volume_context=context,
            secrets=secrets,
        )

    async def unstage(self, volume: str, path: str) -> None:
        await self._call("NodeUnstageVolume", volume_id=volume, staging_target_path=path)

    async def publish(
        self,
        volume: str,
        path: str,
        options: VolumeOptions,
        *,
        staging_path: str,
        read_only: bool,
        publish_context: Mapping[str, str],
        context: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> None:
        await self._call(
            "NodePublishVolume",
            volume_id=volume,
            target_path=path,
            staging_target_path=staging_path,
            readonly=read_only,
            publish_context=publish_context,
            volume_capability=capability_of(options, await self.capabilities()),
            volume_context=context,
            secrets=secrets,
        )

    async def unpublish(self, volume: str, path: str) -> None:
        await self._call("NodeUnpublishVolume", volume_id=volume, target_path=path)

    async def expand(
        self,
        volume: str,
        path: str,
        size: int,
        options: VolumeOptions,
        *,
        staging_path: str,
        secrets: Mapping[str, str],
    ) -> None:
        await self._call(
            "NodeExpandVolume",
            volume_id=volume,
            volume_path=path,
            staging_target_path=staging_path,
            capacity_range={"required_bytes": size},
            secrets=secrets,
            volume_capability=capability_of(options, await self.capabilities()),
        )


class CsiDrivers:
    """The drivers that have registered."""

    def __init__(self) -> None:
        self._drivers: dict[str, CsiDriver] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def add(self, driver: CsiDriver) -> None:
        """One of the same name is replaced."""
        await self.remove(driver.name)
        self._drivers[driver.name] = driver

    async def remove(self, name: str) -> None:
        driver = self._drivers.pop(name, None)
        if driver is not None:
            await driver.close()

    def names(self) -> list[str]:
        return sorted(self._drivers)

    def get(self, name: str) -> CsiDriver:
        """Raises VolumeError."""
        driver = self._drivers.get(name)
        if driver is None:
            raise VolumeError(f"driver name {name} not found in the list of registered CSI drivers")
        return driver

    def lock(self, driver: str, volume: str) -> asyncio.Lock:
        """One operation at a time on a volume."""
        return self._locks.setdefault((driver, volume), asyncio.Lock())

    async def close(self) -> None:
        for name in list(self._drivers):
            await self.remove(name)
