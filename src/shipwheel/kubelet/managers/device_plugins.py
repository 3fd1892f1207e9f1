"""Device plugins: how they register, and how they are asked (`v1beta1`).

A plugin calls `Register` at the kubelet's socket and names its own; the kubelet connects there and is told of the
devices for as long as the plugin lives (`ListAndWatch`).
https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.client.grpc.server import GrpcServer, Method
from shipwheel.kinds.core.resources import is_extended
from shipwheel.kubelet.managers.device_table import NO_NODE, PluginDevice
from shipwheel.kubelet.managers.tables import device_messages
from shipwheel.kubelet.volumes.base import VolumeError
from shipwheel.kubelet.volumes.csi.registration import PluginHandler, PluginInfo

log = logging.getLogger(__name__)

VERSION = "v1beta1"
SOCKET = "kubelet.sock"
CONNECT_SECONDS = 10.0
PRE_START_SECONDS = 30.0


class Endpoint:
    """A plugin that was met. All calls raise GrpcError."""

    def __init__(self, socket: str) -> None:
        self._channel = Channel(socket)
        self.pre_start = False
        self.prefers = False

    async def meet(self) -> None:
        options = await self._call("GetDevicePluginOptions", "Empty", "DevicePluginOptions", {}, CONNECT_SECONDS)
        self.pre_start = options.get("pre_start_required", False)
        self.prefers = options.get("get_preferred_allocation_available", False)

    async def watch(self, told: Callable[[list[PluginDevice]], None]) -> None:
        """Tell of the devices until the plugin goes."""
        tables = device_messages()
        stream = self._channel.stream(
            "/v1beta1.DevicePlugin/ListAndWatch", tables["Empty"], tables["ListAndWatchResponse"], {}
        )
        async for answer in stream:
            told([_device(each) for each in answer.get("devices", ())])

    async def allocate(self, ids: Sequence[str]) -> Obj:
        """What is to be done for a container that gets these devices."""
        answer = await self._call(
            "Allocate", "AllocateRequest", "AllocateResponse", {"container_requests": [{"devices_ids": list(ids)}]}
        )
        responses = answer.get("container_responses", ())
        if not responses:
            raise GrpcError("UNKNOWN", f"no containers return in allocation response {answer}")
        return responses[0]

    async def preferred(self, available: Sequence[str], included: Sequence[str], size: int) -> list[str]:
        request = {
            "container_requests": [
                {
                    "available_deviceIDs": list(available),
                    "must_include_deviceIDs": list(included),
                    "allocation_size": size,
                }
            ]
        }
        answer = await self._call(
            "GetPreferredAllocation", "PreferredAllocationRequest", "PreferredAllocationResponse", request
        )
        return [each for found in answer.get("container_responses", ())[:1] for each in found.get("deviceIDs", ())]

    async def before_start(self, ids: Sequence[str]) -> None:
        await self._call(
            "PreStartContainer",
            "PreStartContainerRequest",
            "PreStartContainerResponse",
            {"devices_ids": list(ids)},
            PRE_START_SECONDS,
        )

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: str, request: str, response: str, obj: Obj, timeout: float | None = None) -> Obj:
        tables = device_messages()
        path = f"/v1beta1.DevicePlugin/{method}"
        return await self._channel.call(path, tables[request], tables[response], obj, timeout=timeout)


def _device(wire: dict[str, Any]) -> PluginDevice:
    nodes = tuple(each.get("ID", 0) for each in wire.get("topology", {}).get("nodes", ()))
    return PluginDevice(wire.get("ID", ""), wire.get("health", ""), tuple(n for n in nodes if n != NO_NODE))


Connect = Callable[[str, str], Awaitable[None]]
"""Take the plugin of a resource at a socket; GrpcError when it does not answer."""


def problem_of(resource: str, versions: Sequence[str]) -> str:
    """Why a plugin is not taken; empty when it may come."""
    if VERSION not in versions:
        asked = versions[0] if versions else ""
        return f'requested API version "{asked}" is not supported by kubelet. Supported version is ["{VERSION}"]'
    if not is_extended(resource):
        return f'the ResourceName "{resource}" is invalid'
    return ""


class Registration:
    """The socket that plugins register at."""

    def __init__(self, directory: Path, connect: Connect, registered: Callable[[str], None]) -> None:
        self._directory = directory
        self._connect = connect
        self._registered = registered

    async def run(self) -> None:
        """Serve until cancelled."""
        os.makedirs(self._directory, mode=0o750, exist_ok=True)
        _remove_sockets(self._directory)
        tables = device_messages()
        method = Method(tables["RegisterRequest"], tables["Empty"], self._register)
        await serve(self._directory / SOCKET, GrpcServer({"/v1beta1.Registration/Register": method}))

    async def _register(self, request: Obj) -> Obj:
        resource = request.get("resource_name", "")
        log.info("a device plugin registers resource %s", resource)
        self._registered(resource)
        problem = problem_of(resource, [request.get("version", "")])
        if problem:
            log.warning("device plugin: %s", problem)
            raise GrpcError("UNKNOWN", problem)
        await self._connect(resource, str(self._directory / request.get("endpoint", "")))
        return {}


async def serve(path: Path, server: GrpcServer) -> None:
    """Serve until cancelled. Where no socket can be (its path is too long) there is none, and nothing else suffers."""
    os.makedirs(path.parent, mode=0o750, exist_ok=True)
    _remove(path)
    try:
        try:
            await server.listen(str(path))
        except OSError as error:
            log.error("nobody can connect to %s: %s", path, error)
        await asyncio.Event().wait()
    finally:
        await server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _remove_sockets(directory: Path) -> None:
    """What plugins of before left: they notice that theirs is gone, and register anew."""
    for path in directory.iterdir():
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink(missing_ok=True)


class DeviceHandler(PluginHandler):
    """Takes device plugins that the kubelet finds in its plugin directory by itself."""

    def __init__(self, connect: Connect, disconnect: Callable[[str], Awaitable[None]]) -> None:
        self._connect = connect
        self._disconnect = disconnect

    async def add(self, info: PluginInfo) -> None:
        if VERSION not in info.versions:
            listed = " ".join(info.versions)
            raise VolumeError(f"manager version, {VERSION}, is not among plugin supported versions [{listed}]")
        if not is_extended(info.name):
            raise VolumeError(f'invalid name of device plugin socket: the ResourceName "{info.name}" is invalid')
        await self._connect(info.name, info.endpoint)

    async def remove(self, info: PluginInfo) -> None:
        await self._disconnect(info.name)
