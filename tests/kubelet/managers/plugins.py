"""A device plugin and a driver of ResourceClaims, small but real: they speak gRPC over their own sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.client.grpc.server import GrpcServer, Method
from shipwheel.kubelet.managers.tables import claim_messages, device_messages
from shipwheel.kubelet.volumes.csi.tables import messages as registration_messages


class DevicePlugin:
    """`devices` by id: (health, NUMA nodes). `calls` are those that were made, with their requests."""

    def __init__(self, resource: str, devices: dict[str, tuple[str, tuple[int, ...]]], **options: bool) -> None:
        self.resource = resource
        self.devices = devices
        self.options = options
        self.calls: list[tuple[str, Obj]] = []
        self.prefer: list[str] = []
        self.error = ""
        self.cdi = True
        """It names its devices to the runtime, too, which then has to have their descriptions."""
        self._changed = asyncio.Event()
        tables = device_messages()
        self._server = GrpcServer(
            {
                f"/v1beta1.DevicePlugin/{name}": Method(tables[request], tables[response], handle)
                for name, request, response, handle in (
                    ("GetDevicePluginOptions", "Empty", "DevicePluginOptions", self._options),
                    ("ListAndWatch", "Empty", "ListAndWatchResponse", self._watch),
                    ("Allocate", "AllocateRequest", "AllocateResponse", self._allocate),
                    ("PreStartContainer", "PreStartContainerRequest", "PreStartContainerResponse", self._pre_start),
                    (
                        "GetPreferredAllocation",
                        "PreferredAllocationRequest",
                        "PreferredAllocationResponse",
                        self._preferred,
                    ),
                )
            }
        )

    async def start(self, directory: Path, *, version: str = "v1beta1") -> None:
        """Serve, and register at the kubelet's socket; GrpcError when that is refused."""
        socket = f"{self.resource.partition('/')[2]}.sock"
        await self._server.listen(str(directory / socket))
        tables = device_messages()
        channel = Channel(str(directory / "kubelet.sock"))
        try:
            await channel.call(
                "/v1beta1.Registration/Register",
                tables["RegisterRequest"],
                tables["Empty"],
                {"version": version, "endpoint": socket, "resource_name": self.resource},
                timeout=30,
            )
        finally:
            await channel.close()

    async def stop(self) -> None:
        await self._server.close()

    def change(self, device: str, health: str) -> None:
        self.devices[device] = (health, self.devices[device][1])
        self._changed.set()

    def made(self, method: str) -> list[Obj]:
        return [request for name, request in self.calls if name == method]

    async def _options(self, request: Obj) -> Obj:
        return dict(self.options)

    async def _watch(self, request: Obj) -> AsyncIterator[Obj]:
        while True:
            self._changed.clear()
            yield {
                "devices": [
                    {"ID": name, "health": health, "topology": {"nodes": [{"ID": each} for each in nodes]}}
                    for name, (health, nodes) in self.devices.items()
                ]
            }
            await self._changed.wait()

    async def _allocate(self, request: Obj) -> Obj:
        self.calls.append(("Allocate", request))
        if self.error:
            raise GrpcError("INTERNAL", self.error)
        ids = request["container_requests"][0]["devices_ids"]
        response: dict[str, Any] = {
            "envs": {"DEVICES": ",".join(ids)},
            "devices": [
                {"container_path": f"/dev/{each}", "host_path": "/dev/null", "permissions": "rw"} for each in ids
            ],
            "mounts": [{"container_path": "/driver", "host_path": "/tmp", "read_only": True}],
            "annotations": {"example.com/devices": ",".join(ids)},
            "cdi_devices": [{"name": f"example.com/dev={each}"} for each in ids if self.cdi],
        }
        return {"container_responses": [response]}

    async def _pre_start(self, request: Obj) -> Obj:
        self.calls.append(("PreStartContainer", request))
        if self.error:
            raise GrpcError("INTERNAL", self.error)
        return {}

    async def _preferred(self, request: Obj) -> Obj:
        self.calls.append(("GetPreferredAllocation", request))
        return {"container_responses": [{"deviceIDs": self.prefer}]}


class ClaimDriver:
    """Prepares every claim with one device; `errors` by claim uid."""

    def __init__(self, name: str = "gpu.example.com", *, service: str = "v1") -> None:
        self.name = name
        self.service = service
        self.calls: list[tuple[str, list[str]]] = []
        self.errors: dict[str, str] = {}
        self.cdi: list[str] | None = None
        """The names of CDI devices; None for one of the claim's name."""
        self.health: list[Obj] = []
        self.registered: asyncio.Future[Obj] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        claims, registration = claim_messages(), registration_messages()
        package = f"k8s.io.kubelet.pkg.apis.dra.{service}.DRAPlugin"
        self._server = GrpcServer(
            {
                f"/{package}/NodePrepareResources": Method(
                    claims["NodePrepareResourcesRequest"], claims["NodePrepareResourcesResponse"], self._prepare
                ),
                f"/{package}/NodeUnprepareResources": Method(
                    claims["NodeUnprepareResourcesRequest"], claims["NodeUnprepareResourcesResponse"], self._unprepare
                ),
                "/v1alpha1.DRAResourceHealth/NodeWatchResources": Method(
                    claims["NodeWatchResourcesRequest"], claims["NodeWatchResourcesResponse"], self._watch
                ),
                "/pluginregistration.Registration/GetInfo": Method(
                    registration["InfoRequest"], registration["PluginInfo"], self._info
                ),
                "/pluginregistration.Registration/NotifyRegistrationStatus": Method(
                    registration["RegistrationStatus"], registration["RegistrationStatusResponse"], self._status
                ),
            }
        )

    async def start(self, socket: Path) -> None:
        socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket = socket
        await self._server.listen(str(socket))

    async def stop(self) -> None:
        await self._server.close()
        self.socket.unlink(missing_ok=True)

    def tell(self, *health: Obj) -> None:
        self.health = list(health)
        self._changed.set()

    def _answer(self, method: str, request: Obj, *, devices: bool) -> Obj:
        claims = request.get("claims", [])
        self.calls.append((method, [each["name"] for each in claims]))
        found: dict[str, Obj] = {}
        for each in claims:
            error = self.errors.get(each["uid"], "")
            device = {
                "pool_name": "pool",
                "device_name": f"gpu-{each['name']}",
                "request_names": ["req"],
                "cdi_device_ids": [f"{self.name}/gpu={each['name']}"] if self.cdi is None else self.cdi,
            }
            found[each["uid"]] = {"error": error} if error else {"devices": [device]} if devices else {}
        return {"claims": found}

    async def _prepare(self, request: Obj) -> Obj:
        return self._answer("NodePrepareResources", request, devices=True)

    async def _unprepare(self, request: Obj) -> Obj:
        return self._answer("NodeUnprepareResources", request, devices=False)

    async def _watch(self, request: Obj) -> AsyncIterator[Obj]:
        while True:
            self._changed.clear()
            yield {"devices": self.health}
            await self._changed.wait()

    async def _info(self, request: Obj) -> Obj:
        return {"type": "DRAPlugin", "name": self.name, "supported_versions": [f"{self.service}.DRAPlugin"]}

    async def _status(self, request: Obj) -> Obj:
        if not self.registered.done():
            self.registered.set_result(request)
        return {}
