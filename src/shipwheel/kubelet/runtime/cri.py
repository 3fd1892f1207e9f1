"""A container runtime behind a socket, spoken to by CRI v1: containerd, CRI-O or any other.

Timeouts are upstream's: two minutes a call, twice that for making a sandbox (its network may be slow), and for
what has a time of its own that time more.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.kubelet.runtime import cdi
from shipwheel.kubelet.runtime import cri_forms as forms
from shipwheel.kubelet.runtime.base import (
    Container,
    ContainerConfig,
    ExecResult,
    FilesystemUsage,
    Image,
    ImageCredentials,
    LinuxResources,
    Mount,
    RuntimeCondition,
    RuntimeFault,
    RuntimeHandler,
    RuntimeInfo,
    RuntimeStatus,
    Sandbox,
    SandboxConfig,
    Usage,
)
from shipwheel.kubelet.runtime.cri_tables import messages
from shipwheel.kubelet.runtime.image_views import ImageViews, mounts_images_itself
from shipwheel.kubelet.runtime.listing import Listing
from shipwheel.kubelet.volumes.mounting import Mounter

_IMAGE_SERVICE = {"PullImage", "ListImages", "ImageStatus", "RemoveImage", "ImageFsInfo"}


class CriRuntime:
    """A `Runtime`. Connects with its first call, and again when the runtime was restarted."""

    def __init__(
        self,
        endpoint: str,
        *,
        image_endpoint: str = "",
        timeout: float = 120.0,
        pull_timeout: float | None = None,
        image_views: Path | None = None,
    ) -> None:
        """Endpoints as the kubelet's flags name them (`unix:///run/containerd/containerd.sock`); seconds.
        `pull_timeout` None: a pull may take as long as it takes (the runtime ends one without progress).
        `image_views` is where images are mounted for runtimes that cannot mount them into containers."""
        self._runtime = Channel(endpoint)
        self._images = Channel(image_endpoint) if image_endpoint else self._runtime
        self._timeout = timeout
        self._pull_timeout = pull_timeout
        self._messages = messages()
        self._sandboxes = Listing(self._messages["PodSandbox"], forms.sandbox)
        self._containers = Listing(self._messages["Container"], forms.container)
        self._views = ImageViews(self._runtime, image_views, Mounter()) if image_views else None
        self._mounts_images: bool | None = None

    async def close(self) -> None:
        await self._runtime.close()
        if self._images is not self._runtime:
            await self._images.close()

    async def _call(self, method: str, timeout: float | None = 0, **request: Any) -> dict[str, Any]:
        """Call a method with the fields of its request. `timeout` 0 is the usual one, None is none."""
        return await self._send(method, request, timeout)

    async def _send(self, method: str, request: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        images = method in _IMAGE_SERVICE
        channel = self._images if images else self._runtime
        try:
            return await channel.call(
                f"/runtime.v1.{'Image' if images else 'Runtime'}Service/{method}",
                self._messages[method + "Request"],
                self._messages[method + "Response"],
                request,
                timeout=self._timeout if timeout == 0 else timeout,
            )
        except GrpcError as error:
            raise RuntimeFault(error.code, error.message) from error

    # The runtime itself

    async def info(self) -> RuntimeInfo:
        answer = await self._call("Version", version="0.1.0")
        return RuntimeInfo(
            name=answer.get("runtime_name", ""),
            version=answer.get("runtime_version", ""),
            api_version=answer.get("runtime_api_version", ""),
        )

    async def status(self) -> RuntimeStatus:
        answer = await self._call("Status")
        conditions = [
            RuntimeCondition(
                kind=each.get("type", ""),
                ok=each.get("status", False),
                reason=each.get("reason", ""),
                message=each.get("message", ""),
            )
            for each in answer.get("status", {}).get("conditions", ())
        ]
        handlers = [
            RuntimeHandler(
                name=each.get("name", ""),
                recursive_read_only_mounts=each.get("features", {}).get("recursive_read_only_mounts", False),
                user_namespaces=each.get("features", {}).get("user_namespaces", False),
            )
            for each in answer.get("runtime_handlers", ())
        ]
        policy = answer.get("features", {}).get("supplemental_groups_policy", False)
        return RuntimeStatus(conditions, handlers, policy)

    async def set_pod_cidr(self, cidr: str) -> None:
        await self._call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": cidr}})

    # Sandboxes

    async def run_sandbox(self, config: SandboxConfig, *, runtime_handler: str = "") -> str:
        answer = await self._call(
            "RunPodSandbox",
            self._timeout * 2,
            config=forms.sandbox_config(config),
            runtime_handler=runtime_handler,
        )
        return _id(answer, "pod_sandbox_id", f'PodSandboxId is not set for sandbox "{config.name}"')

    async def stop_sandbox(self, sandbox_id: str) -> None:
        with _gone_is_fine():
            await self._call("StopPodSandbox", pod_sandbox_id=sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        with _gone_is_fine():
            await self._call("RemovePodSandbox", pod_sandbox_id=sandbox_id)
        if self._views is not None:
            await self._views.release(sandbox_id)

    async def sandboxes(self) -> list[Sandbox]:
        answer = await self._call("ListPodSandbox")
        return self._sandboxes.read(answer.get("items", ()))

    async def sandbox_status(self, sandbox_id: str) -> Sandbox:
        answer = await self._call("PodSandboxStatus", pod_sandbox_id=sandbox_id)
        return forms.sandbox(answer.get("status", {}))

    # Containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig) -> str:
        config = await self._with_devices(config)
        mounts = [await self._image_mount(each, sandbox_id) if each.image else each for each in config.mounts]
        answer = await self._call(
            "CreateContainer",
            pod_sandbox_id=sandbox_id,
            config=forms.container_config(replace(config, mounts=mounts)),
            sandbox_config=forms.sandbox_config(sandbox_config),
        )
        return _id(answer, "container_id", f'ContainerId is not set for container "{config.name}"')

    async def _with_devices(self, config: ContainerConfig) -> ContainerConfig:
        """The container as the runtime can have it: by its CDI devices' names, or by what they need."""
        if not config.cdi_devices:
            return config
        info = await self.info()
        if cdi.knows_devices(info.name, info.version):
            return config
        try:
            return await asyncio.to_thread(cdi.injected, config)
        except cdi.CdiFault as fault:
            raise RuntimeFault("UNKNOWN", str(fault)) from fault

    async def _image_mount(self, mount: Mount, sandbox_id: str) -> Mount:
        """The mount as the runtime can have it."""
        if self._views is None:
            return mount
        if self._mounts_images is None:
            info = await self.info()
            self._mounts_images = mounts_images_itself(info.name, info.version)
        if self._mounts_images:
            return mount
        image = await self._call("ImageStatus", image={"image": mount.image}, verbose=True)
        status = await self._call("Status", verbose=True)
        return await self._views.replace(
            mount,
            sandbox_id,
            snapshotter=_detail(status, "config").get("containerd", {}).get("snapshotter", "overlayfs"),
            chain=_detail(image, "info").get("chainID", ""),
        )

    async def start_container(self, container_id: str) -> None:
        await self._call("StartContainer", container_id=container_id)

    async def stop_container(self, container_id: str, timeout: int) -> None:
        with _gone_is_fine():
            await self._send(
                "StopContainer", {"container_id": container_id, "timeout": timeout}, self._timeout + timeout
            )

    async def remove_container(self, container_id: str) -> None:
        with _gone_is_fine():
            await self._call("RemoveContainer", container_id=container_id)

    async def containers(self) -> list[Container]:
        answer = await self._call("ListContainers")
        return self._containers.read(answer.get("containers", ()))

    async def container_status(self, container_id: str) -> Container:
        answer = await self._call("ContainerStatus", container_id=container_id)
        return forms.container(answer.get("status", {}))

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        await self._call("UpdateContainerResources", container_id=container_id, linux=forms.linux_resources(resources))

    async def reopen_log(self, container_id: str) -> None:
        await self._call("ReopenContainerLog", container_id=container_id)

    async def sandbox_process(self, sandbox_id: str) -> int:
        return _process(await self._call("PodSandboxStatus", pod_sandbox_id=sandbox_id, verbose=True))

    async def container_process(self, container_id: str) -> int:
        return _process(await self._call("ContainerStatus", container_id=container_id, verbose=True))

    def answers(self, container_id: str) -> bool | None:
        return None

    async def checkpoint(self, container_id: str, location: str, timeout: int) -> None:
        await self._send(
            "CheckpointContainer",
            {"container_id": container_id, "location": location, "timeout": timeout},
            self._timeout + timeout,
        )

    async def usage(self) -> dict[str, Usage]:
        answer = await self._call("ListContainerStats")
        return {each.id: each for each in map(forms.usage, answer.get("stats", ()))}

    # Commands and streams

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        answer = await self._send(
            "ExecSync",
            {"container_id": container_id, "cmd": command, "timeout": math.ceil(timeout)},
            self._timeout + timeout if timeout else None,
        )
        return ExecResult(
            stdout=answer.get("stdout", b""),
            stderr=answer.get("stderr", b""),
            exit_code=answer.get("exit_code", 0),
        )

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        answer = await self._call(
            "Exec",
            container_id=container_id,
            cmd=command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
        )
        return _id(answer, "url", "URL is not set")

    async def attach_url(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> str:
        answer = await self._call(
            "Attach", container_id=container_id, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )
        return _id(answer, "url", "URL is not set")

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        answer = await self._call("PortForward", pod_sandbox_id=sandbox_id, port=ports)
        return _id(answer, "url", "URL is not set")

    # Images

    async def pull_image(self, image: str, credentials: ImageCredentials | None, sandbox: SandboxConfig | None) -> str:
        answer = await self._call(
            "PullImage",
            self._pull_timeout,
            image={"image": image},
            auth=forms.credentials(credentials),
            sandbox_config=forms.sandbox_config(sandbox) if sandbox else None,
        )
        return _id(answer, "image_ref", f'imageRef of image "{image}" is not set')

    async def images(self) -> list[Image]:
        answer = await self._call("ListImages")
        return [forms.image(each) for each in answer.get("images", ())]

    async def image_status(self, image: str) -> Image | None:
        answer = await self._call("ImageStatus", image={"image": image})
        return forms.image(answer["image"]) if answer.get("image", {}).get("id") else None

    async def remove_image(self, image: str) -> None:
        with _gone_is_fine():
            await self._call("RemoveImage", image={"image": image})

    async def image_filesystems(self) -> list[FilesystemUsage]:
        answer = await self._call("ImageFsInfo")
        return [forms.filesystem(each) for each in answer.get("image_filesystems", ())]


def _id(answer: dict[str, Any], name: str, complaint: str) -> str:
    """A runtime that answers without the id it was asked for has failed."""
    value = answer.get(name, "")
    if not value:
        raise RuntimeFault("UNKNOWN", complaint)
    return value


def _detail(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """What a verbose status tells as JSON; empty when it is something else."""
    try:
        found = json.loads(answer.get("info", {}).get(name, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _process(answer: dict[str, Any]) -> int:
    """The `pid` that containerd and CRI-O tell of."""
    pid = _detail(answer, "info").get("pid", 0)
    return pid if isinstance(pid, int) else 0


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except RuntimeFault as fault:
        if fault.code != "NOT_FOUND":
            raise
