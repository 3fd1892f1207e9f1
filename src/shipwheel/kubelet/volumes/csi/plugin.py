"""Volumes of CSI drivers: attached by the cluster, staged once for the node, published to each pod."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.grpc.channel import GrpcError
from shipwheel.kubelet.volumes import growth, ownership
from shipwheel.kubelet.volumes.base import Cluster, Host, Plugin, Request, VolumeError
from shipwheel.kubelet.volumes.csi import state
from shipwheel.kubelet.volumes.csi.driver import CsiDriver, CsiDrivers, VolumeOptions, is_final
from shipwheel.kubelet.volumes.growth import Growth

_ATTACH_SECONDS = 10.0
_ATTACH_POLL = 0.2
_MOUNT_DEVICE = "MountVolume.MountDevice"
_INFEASIBLE = dict.fromkeys(("OUT_OF_RANGE", "NOT_FOUND", "INVALID_ARGUMENT"), "NodeResizeInfeasible")
"""Why a volume cannot grow, ever."""


@dataclass(frozen=True, slots=True)
class _Volume:
    """A request, seen as CSI sees it."""

    request: Request
    driver: str
    handle: str
    ephemeral: bool
    declared: Obj | None
    """The CSIDriver object, if the driver has one."""

    @property
    def source(self) -> Obj:
        return self.request.source

    @property
    def target(self) -> Path:
        return target_of(self.request)

    @property
    def staging(self) -> Path:
        return state.staging_of(state.root_of(self.request.path), self.driver, self.handle)

    @property
    def spec(self) -> Obj:
        return (self.declared or {}).get("spec") or {}

    def options(self) -> VolumeOptions:
        pv = (self.request.pv or {}).get("spec") or {}
        return VolumeOptions(
            access_mode=(pv.get("accessModes") or ["ReadWriteOnce"])[0],
            block=self.request.block,
            fs_type=self.source.get("fsType") or "",
            mount_flags=self.request.mount_options,
            group=self.request.fs_group,
        )


def target_of(request: Request) -> Path:
    """Where the driver puts the volume for a pod."""
    return request.path / ("dev" if request.block else "mount")


class CsiVolumes:
    def __init__(self, drivers: CsiDrivers) -> None:
        self._drivers = drivers

    def plugin(self) -> Plugin:
        return Plugin(
            source="csi",
            name=state.NAME,
            set_up=self.set_up,
            # A driver may want to be asked again (tokens), and a volume may have grown.
            refreshed=lambda request: True,
            owned=False,
            locate=target_of,
            tear_down=self.tear_down,
        )

    # Coming

    async def set_up(self, request: Request, host: Host) -> None:
        volume = await self._volume(request, host)
        driver = self._driver(volume.driver, "mounter.SetUpAt failed to get CSI client")
        async with self._drivers.lock(volume.driver, volume.handle):
            published = (request.path / state.DATA).exists() and _is_there(volume, host)
            if not published or volume.spec.get("requiresRepublish"):
                context = {} if volume.ephemeral else await self._attached(volume, host)
                staged = not volume.ephemeral and await self._stage(volume, driver, host, context)
                await self._publish(volume, driver, host, context, staged=staged, again=published)
            await self._expand(volume, driver, host)

    async def _volume(self, request: Request, host: Host) -> _Volume:
        source = request.source
        ephemeral = request.pv is None
        name = source.get("driver", "")
        declared = await _cluster(host).csi_driver(name)
        mode = "Ephemeral" if ephemeral else "Persistent"
        if declared is None and ephemeral:
            raise VolumeError(
                "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode "
                f'"{mode}" not supported by driver {name} (no CSIDriver object)'
            )
        modes = ((declared or {}).get("spec") or {}).get("volumeLifecycleModes") or ["Persistent"]
        if mode not in modes:
            listed = " ".join(f'"{each}"' for each in modes)
            raise VolumeError(
                "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode "
                f'"{mode}" not supported by driver {name} (only supports [{listed}])'
            )
        handle = state.ephemeral_handle(request.uid, request.spec_name) if ephemeral else source.get("volumeHandle", "")
        return _Volume(request, name, handle, ephemeral, declared)

    def _driver(self, name: str, doing: str) -> CsiDriver:
        try:
            return self._drivers.get(name)
        except VolumeError as error:
            raise VolumeError(f"kubernetes.io/csi: {doing}: {error}") from error

    async def _attached(self, volume: _Volume, host: Host) -> Mapping[str, str]:
        """What the attacher tells the node; waits a moment for the attachment."""
        if volume.spec.get("attachRequired") is False:
            return {}
        name = state.attachment_name(volume.handle, volume.driver, host.node_name)
        why = ""
        deadline = host.clock.monotonic() + _ATTACH_SECONDS
        while True:
            try:
                status = (await _cluster(host).attachment(name)).get("status") or {}
                if status.get("attached"):
                    return status.get("attachmentMetadata") or {}
                why = f"volume {volume.handle} is not attached for volume attachment {name}"
            except ApiError as error:
                if error.code != 404:
                    raise
                why = f"volume {volume.handle} has GET error for volume attachment {name}: {error}"
            if host.clock.monotonic() >= deadline:
                raise VolumeError(why, operation="MountVolume.WaitForAttach")
            await host.clock.sleep(_ATTACH_POLL)

    async def _stage(self, volume: _Volume, driver: CsiDriver, host: Host, publish_context: Mapping[str, str]) -> bool:
        """Make the volume known to the node; False when the driver has no such step."""
        if "STAGE_UNSTAGE_VOLUME" not in await _told(driver.capabilities(), operation=_MOUNT_DEVICE):
            return False
        staging = volume.staging
        staging.mkdir(parents=True, exist_ok=True, mode=0o750)
        state.write(staging.parent / state.DATA, {"driverName": volume.driver, "volumeHandle": volume.handle})
        secrets = await _secrets(host, volume.source.get("nodeStageSecretRef"), "NodeStageSecretRef")
        try:
            await driver.stage(
                volume.handle,
                str(staging),
                volume.options(),
                publish_context=publish_context,
                context=volume.source.get("volumeAttributes") or {},
                secrets=secrets,
            )
        except GrpcError as error:
            if is_final(error) and not state.users(state.root_of(volume.request.path), volume.driver, volume.handle):
                state.forget_staging(staging)
            raise VolumeError(str(error), operation=_MOUNT_DEVICE) from error
        return True

    async def _publish(
        self,
        volume: _Volume,
        driver: CsiDriver,
        host: Host,
        publish_context: Mapping[str, str],
        *,
        staged: bool,
        again: bool,
    ) -> None:
        request = volume.request
        context = dict(volume.source.get("volumeAttributes") or {})
        if volume.spec.get("podInfoOnMount"):
            context |= _pod_info(volume)
        secret_namespace = request.namespace if volume.ephemeral else ""
        secrets = await _secrets(
            host, volume.source.get("nodePublishSecretRef"), "NodePublishSecretRef", secret_namespace
        )
        tokens = await _tokens(volume, host)
        if volume.spec.get("serviceAccountTokenInSecrets"):
            secrets = {**secrets, **tokens}
        else:
            context |= tokens
        request.path.mkdir(parents=True, exist_ok=True, mode=0o750)
        state.write(
            request.path / state.DATA,
            {
                "specVolID": request.spec_name,
                "volumeHandle": volume.handle,
                "driverName": volume.driver,
                "nodeName": host.node_name,
                "targetPath": str(volume.target),
                "attachmentID": state.attachment_name(volume.handle, volume.driver, host.node_name),
                "volumeLifecycleMode": "Ephemeral" if volume.ephemeral else "Persistent",
            },
        )
        options = volume.options()
        try:
            await driver.publish(
                volume.handle,
                str(volume.target),
                options,
                staging_path=str(volume.staging) if staged else "",
                read_only=request.read_only,
                publish_context=publish_context,
                context=context,
                secrets=secrets,
            )
        except GrpcError as error:
            if is_final(error) and not again:
                state.forget(request.path, volume.target)
            raise VolumeError(str(error)) from error
        if _takes_group(volume) and "VOLUME_MOUNT_GROUP" not in await driver.capabilities():
            assert request.fs_group is not None
            await asyncio.to_thread(
                ownership.apply,
                volume.target,
                request.fs_group,
                read_only=request.read_only,
                policy=request.fs_group_policy,
                chown=host.mounter.chown,
            )

    async def _expand(self, volume: _Volume, driver: CsiDriver, host: Host) -> None:
        """Let the file system grow to what the volume has become."""
        due = growth.due(volume.request)
        if due is None:
            return
        capabilities = await _told(driver.capabilities())
        if "EXPAND_VOLUME" in capabilities and not await self._grow(volume, driver, host, due):
            return
        await _cluster(host).resized(due.claim, due.size)

    async def _grow(self, volume: _Volume, driver: CsiDriver, host: Host, due: Growth) -> bool:
        """Have the driver do it; False when it will not while the volume is in use."""
        cluster = _cluster(host)
        await due.begin(cluster)
        staged = "STAGE_UNSTAGE_VOLUME" in await driver.capabilities()
        try:
            await driver.expand(
                volume.handle,
                str(volume.target),
                due.bytes,
                volume.options(),
                staging_path=str(volume.staging) if staged else "",
                secrets=await _secrets(host, volume.source.get("nodeExpandSecretRef"), "NodeExpandSecretRef"),
            )
        except GrpcError as error:
            if is_final(error):
                await cluster.resizing(due.claim, _INFEASIBLE.get(error.code, ""), str(error))
            if error.code == "FAILED_PRECONDITION":
                return False
            raise VolumeError(str(error), operation="MountVolume.NodeExpandVolume") from error
        growth.tell(volume.request, host)
        return True

    # Going

    async def tear_down(self, path: Path, host: Host) -> None:
        data = state.read(path / state.DATA)
        if data is None:
            return
        name, handle = data.get("driverName", ""), data.get("volumeHandle", "")
        driver = self._driver(name, "unmounter failed to get CSI client")
        root, target = state.root_of(path), Path(data.get("targetPath", str(path / "mount")))
        async with self._drivers.lock(name, handle):
            try:
                await driver.unpublish(handle, str(target))
            except GrpcError as error:
                raise VolumeError(f"kubernetes.io/csi: Unmounter.TearDownAt failed: {error}") from error
            state.forget(path, target)
            staging = state.staging_of(root, name, handle)
            if data.get("volumeLifecycleMode") == "Ephemeral" or state.users(root, name, handle):
                return
            if (staging.parent / state.DATA).exists():
                try:
                    await driver.unstage(handle, str(staging))
                except GrpcError as error:
                    raise VolumeError(f"kubernetes.io/csi: attacher.UnmountDevice failed: {error}") from error
                state.forget_staging(staging)


def _is_there(volume: _Volume, host: Host) -> bool:
    return volume.target.exists() and (
        not host.mounter.privileged or volume.request.block or host.mounter.is_mount_point(volume.target)
    )


# --- What goes with a call


def _cluster(host: Host) -> Cluster:
    if host.cluster is None:
        raise VolumeError("kubernetes.io/csi: failed to get a kubernetes client")
    return host.cluster


async def _told(call: Any, *, operation: str = "MountVolume.SetUp") -> Any:
    try:
        return await call
    except GrpcError as error:
        raise VolumeError(str(error), operation=operation) from error


def _pod_info(volume: _Volume) -> dict[str, str]:
    pod = volume.request.pod
    return {
        "csi.storage.k8s.io/pod.name": pod["metadata"]["name"],
        "csi.storage.k8s.io/pod.namespace": volume.request.namespace,
        "csi.storage.k8s.io/pod.uid": volume.request.uid,
        "csi.storage.k8s.io/serviceAccount.name": pod["spec"].get("serviceAccountName", ""),
        "csi.storage.k8s.io/ephemeral": str(volume.ephemeral).lower(),
    }


async def _secrets(host: Host, reference: Obj | None, field: str, namespace: str = "") -> Mapping[str, str]:
    if not reference:
        return {}
    where, name = namespace or reference.get("namespace", ""), reference.get("name", "")
    try:
        secret = await _cluster(host).secret_of(where, name)
    except ApiError as error:
        raise VolumeError(f"fetching {field} {where}/{name} failed: {error}") from error
    return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}


async def _tokens(volume: _Volume, host: Host) -> dict[str, str]:
    """Service-account tokens for the driver, as the CSIDriver object asks for them."""
    statuses = {}
    for wanted in volume.spec.get("tokenRequests") or ():
        audience = wanted.get("audience", "")
        token = await host.objects.token(
            volume.request.pod, audience=audience, expiration_seconds=wanted.get("expirationSeconds") or 3600
        )
        statuses[audience] = {"token": token, "expirationTimestamp": _expiry(token)}
    return {"csi.storage.k8s.io/serviceAccount.tokens": json.dumps(statuses)} if statuses else {}


def _expiry(token: str) -> str:
    """When a JWT says that it expires."""
    from datetime import UTC, datetime

    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return rfc3339(datetime.fromtimestamp(claims["exp"], UTC))
    except (IndexError, KeyError, ValueError):
        return ""


def _takes_group(volume: _Volume) -> bool:
    """Whether `fsGroup` is to be applied (KEP-1682)."""
    policy = volume.spec.get("fsGroupPolicy") or "ReadWriteOnceWithFSType"
    request = volume.request
    if request.fs_group is None or policy == "None" or request.read_only or request.block:
        return False
    if policy == "File":
        return True
    if not volume.source.get("fsType"):
        return False
    modes = ((request.pv or {}).get("spec") or {}).get("accessModes") or ()
    return volume.ephemeral or "ReadWriteOnce" in modes
