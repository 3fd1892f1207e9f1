"""Brings a pod's volumes to where its containers find them.

Setting up is repeatable, and what has to be taken away is what the pod's directory and the kernel's mount table show.
So a kubelet that was restarted, or killed half-way, goes on; all that is remembered is which PersistentVolume a running
pod's claim stands for.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import ConnectionFailed
from shipwheel.kubelet.expansion import expand, references
from shipwheel.kubelet.runtime.base import Device, Mount
from shipwheel.kubelet.volumes import empty_dir, files, host_path, iscsi, local, nfs, resolve, subpath
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError, VolumesFailed
from shipwheel.kubelet.volumes.mounting import MountError
from shipwheel.kubelet.volumes.resolve import NotProcessed, Resolved
from shipwheel.kubelet.volumes.subpath import SubPathError

PLUGINS = (
    empty_dir.PLUGIN,
    host_path.PLUGIN,
    files.CONFIG_MAP,
    files.SECRET,
    files.DOWNWARD_API,
    files.PROJECTED,
    local.PLUGIN,
    nfs.PLUGIN,
    iscsi.PLUGIN,
)
IMAGE = "image"
"""An image volume is the runtime's to mount."""
_PROPAGATION: dict[str, Literal["PRIVATE", "HOST_TO_CONTAINER", "BIDIRECTIONAL"]] = {
    "None": "PRIVATE",
    "HostToContainer": "HOST_TO_CONTAINER",
    "Bidirectional": "BIDIRECTIONAL",
}


class MountsFailed(Exception):
    """A container's mounts cannot be had; the message is the container's `CreateContainerConfigError`."""


class VolumeManager:
    """`root` is the kubelet's directory (`/var/lib/kubelet`); pods' volumes are below `root/pods`, in the form
    that upstream has and CSI drivers and log collectors expect."""

    def __init__(
        self,
        host: Host,
        root: Path,
        *,
        plugins: Iterable[Plugin] = PLUGINS,
        recursive_read_only: Callable[[Obj], bool] = lambda pod: False,
        selinux: bool = False,
    ) -> None:
        """`recursive_read_only`: whether a pod's runtime can mount so. `selinux`: whether the kernel labels files."""
        self._selinux = selinux
        self._host = host
        self._pods = root / "pods"
        self._plugins = {plugin.source: plugin for plugin in plugins}
        self._recursive_read_only = recursive_read_only
        self._resolved: dict[tuple[str, str], Resolved] = {}
        """By pod uid and volume name; those that stand for claims."""

    # A pod

    async def mount_pod(self, pod: Obj) -> None:
        """Make all volumes that the pod's containers use. Repeatable. Raises VolumesFailed."""
        self._pod_directory(pod).mkdir(parents=True, exist_ok=True, mode=0o750)
        used = used_volumes(pod)
        volumes = [volume for volume in _volumes(pod) if volume["name"] in used]
        await self._resolve(pod, volumes)
        await self._set_up(pod, volumes)

    async def refresh(self, pod: Obj) -> None:
        """Bring up to date what can change: ConfigMaps, Secrets, tokens, labels, the size of claims. Raises
        VolumesFailed."""
        used = used_volumes(pod)
        changing = []
        for volume in _volumes(pod):
            found = self._found(pod, volume) if volume["name"] in used else None
            if found is not None and found[0].refreshed(found[1]):
                changing.append(volume)
                if found[1].claim is not None:
                    # A claim that is on its way out does not disturb a pod that has it already.
                    with contextlib.suppress(VolumesFailed):
                        await self._resolve(pod, [volume])
        await self._set_up(pod, changing)

    async def _resolve(self, pod: Obj, volumes: Sequence[Obj]) -> None:
        """Find out what claims stand for."""
        uid = pod["metadata"]["uid"]
        failed: dict[str, str] = {}
        for volume in volumes:
            if resolve.claim_name(pod, volume):
                try:
                    found = await resolve.resolve(pod, volume, self._host.cluster)
                    self._resolved[uid, volume["name"]] = found
                except NotProcessed as error:
                    failed[volume["name"]] = str(error)
        if failed:
            names = " ".join(failed)
            raise VolumesFailed(
                [
                    f"Unable to attach or mount volumes: unmounted volumes=[{names}], unattached volumes=[], failed "
                    f"to process volumes=[{names}]: {'; '.join(failed.values())}"
                ]
            )

    async def _set_up(self, pod: Obj, volumes: Sequence[Obj]) -> None:
        outcomes = await asyncio.gather(*(self._set_up_one(pod, volume) for volume in volumes))
        failures = [message for message in outcomes if message]
        if failures:
            raise VolumesFailed(failures)

    async def _set_up_one(self, pod: Obj, volume: Obj) -> str:
        """Returns what went wrong, in the words of the event."""
        if IMAGE in volume:
            return ""
        found = self._found(pod, volume)
        if found is None:
            return (
                "Unable to attach or mount volumes: failed to get Plugin from volumeSpec for volume "
                f'"{volume["name"]}" err=no volume plugin matched'
            )
        plugin, request = found
        name = request.spec_name
        try:
            self._check_alone(request)
            await plugin.set_up(request, self._host)
        except VolumeError as error:
            return f'{error.operation} failed for volume "{name}" : {error}'
        except (ApiError, MountError, ConnectionFailed) as error:
            return f'MountVolume.SetUp failed for volume "{name}" : {error}'
        except OSError as error:
            return f'MountVolume.SetUp failed for volume "{name}" : {_os_words(error)}'
        return ""

    def _check_alone(self, request: Request) -> None:
        """A volume for one pod only is nobody else's on this node. Raises VolumeError."""
        if request.pv is None or request.pv["spec"].get("accessModes") != ["ReadWriteOncePod"]:
            return
        part = request.path.relative_to(self._pod_directory(request.pod))
        if any(each != request.path for each in self._pods.glob(f"*/{part}")):
            raise VolumeError("volume uses the ReadWriteOncePod access mode and is already in use by another pod")

    async def unmount_pod(self, uid: str) -> None:
        """Unmount the pod's volumes and delete those that were its own. Harmless when there are none. Raises
        VolumesFailed when something cannot be unmounted; nothing below it is deleted then."""
        directory = self._pods / uid
        by_directory = {plugin.directory: plugin for plugin in self._plugins.values()}
        self._unmount_below(directory / "volume-subpaths")
        failures = []
        for kind in _entries(directory / "volumes") + _entries(directory / "volumeDevices"):
            plugin = by_directory.get(kind.name)
            for volume in _entries(kind) if plugin is not None and plugin.tear_down is not None else ():
                try:
                    await plugin.tear_down(volume, self._host)  # type: ignore[union-attr, misc]
                except (VolumeError, ApiError, OSError) as error:
                    failures.append(f'UnmountVolume.TearDown failed for volume "{volume.name}" : {error}')
        if failures:
            raise VolumesFailed(failures)
        await asyncio.to_thread(self._remove_volumes, directory, by_directory)
        for key in [key for key in self._resolved if key[0] == uid]:
            del self._resolved[key]

    def _unmount_below(self, directory: Path) -> None:
        failures = []
        for point in self._host.mounter.mount_points(directory):
            try:
                self._host.mounter.unmount(point)
            except MountError as error:
                failures.append(f'UnmountVolume.TearDown failed for volume "{Path(point).name}" : {error}')
        if failures:
            raise VolumesFailed(failures)

    def _remove_volumes(self, directory: Path, by_directory: Mapping[str, Plugin]) -> None:
        self._unmount_below(directory / "volumes")
        self._unmount_below(directory / "volumeDevices")
        _remove_tree(directory / "volume-subpaths")
        for part in ("volumes", "volumeDevices"):
            for kind in _entries(directory / part):
                plugin = by_directory.get(kind.name)
                for volume in _entries(kind):
                    if plugin is not None and plugin.owned:
                        _remove_tree(volume)
                    else:
                        with contextlib.suppress(OSError):
                            volume.rmdir()
                with contextlib.suppress(OSError):
                    kind.rmdir()
            with contextlib.suppress(OSError):
                (directory / part).rmdir()

    def remove_pod_directory(self, uid: str) -> bool:
        """Delete what the kubelet keeps of a pod, when its volumes are gone; returns whether they were."""
        directory = self._pods / uid
        left = [each for part in ("volumes", "volumeDevices") for each in _entries(directory / part)]
        if left or self._host.mounter.mount_points(directory):
            return False
        _remove_tree(directory)
        return True

    def pods_on_disk(self) -> list[str]:
        """The uids of pods that have a directory: where to look for orphans."""
        return [entry.name for entry in _entries(self._pods)]

    # A container

    def mounts_for(
        self,
        pod: Obj,
        container: Obj,
        env: Mapping[str, str] | None = None,
        images: Mapping[str, str] | None = None,
    ) -> list[Mount]:
        """The container's volume mounts, once `mount_pod` has succeeded. `env` is what `subPathExpr` can refer
        to; `images` has the runtime's references of image volumes, by name. Raises MountsFailed."""
        volumes = {volume["name"]: volume for volume in _volumes(pod)}
        mounts = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            volume = volumes.get(mount["name"])
            if volume is None:
                raise _no_volume(mount["name"], "mount", container)
            image = (images or {}).get(mount["name"], "")
            mounts.append(self._mount(pod, container, volume, mount, index, env or {}, image))
        return mounts

    def _mount(
        self,
        pod: Obj,
        container: Obj,
        volume: Obj,
        mount: Obj,
        index: int,
        env: Mapping[str, str],
        image: str,
    ) -> Mount:
        inside = mount["mountPath"] if mount["mountPath"].startswith("/") else "/" + mount["mountPath"]
        propagation = _PROPAGATION[mount.get("mountPropagation") or "None"]
        try:
            part = _sub_path(mount, env)
            if IMAGE in volume:
                return Mount(inside, "", readonly=True, propagation=propagation, image=image, image_sub_path=part)
            found = self._found(pod, volume)
            if found is None:
                raise _no_volume(mount["name"], "mount", container)
            plugin, request = found
            at = plugin.locate(request)
            if part:
                places = self._pod_directory(pod) / "volume-subpaths" / volume["name"] / container["name"]
                at = subpath.bind(at, part, places / str(index), self._host.mounter)
        except SubPathError as error:
            raise MountsFailed(str(error)) from error
        except OSError as error:
            raise MountsFailed(
                f'failed to prepare subPath for volumeMount "{mount["name"]}" of container "{container["name"]}"'
            ) from error
        return Mount(
            container_path=inside,
            host_path=str(at),
            readonly=bool(mount.get("readOnly")) or plugin.read_only or request.read_only,
            propagation=propagation,
            recursive_read_only=self._recursive(pod, mount),
            selinux_relabel=self._selinux and plugin.relabelled,
        )

    def _recursive(self, pod: Obj, mount: Obj) -> bool:
        wanted = mount.get("recursiveReadOnly") or "Disabled"
        if wanted == "Disabled":
            return False
        able = self._recursive_read_only(pod)
        if wanted == "Enabled" and not able:
            raise MountsFailed(
                f'failed to resolve recursive read-only mode: volume "{mount["name"]}" requested recursive '
                "read-only mode, but it is not supported by the runtime"
            )
        return able

    def devices_for(self, pod: Obj, container: Obj) -> list[Device]:
        """The block devices that the container has as such. Raises MountsFailed."""
        volumes = {volume["name"]: volume for volume in _volumes(pod)}
        devices = []
        for wanted in container.get("volumeDevices") or ():
            volume = volumes.get(wanted["name"])
            found = self._found(pod, volume) if volume is not None else None
            if found is None:
                raise _no_volume(wanted["name"], "pass", container)
            if not wanted["devicePath"].startswith("/"):
                raise MountsFailed(f"error DevicePath `{wanted['devicePath']}` must be an absolute path")
            plugin, request = found
            permissions = "r" if request.read_only else "mrw"
            devices.append(Device(wanted["devicePath"], str(plugin.locate(request)), permissions))
        return devices

    # What volumes hold

    def measured(self, pod: Obj) -> list[tuple[Obj, Path, bool]]:
        """The pod's volumes whose use is counted: (volume, path, whether it shares the node's own disk)."""
        measured = []
        used = used_volumes(pod)
        for volume in _volumes(pod):
            found = self._found(pod, volume) if volume["name"] in used else None
            if found is None or found[1].block or found[0].source == host_path.PLUGIN.source:
                continue
            plugin, request = found
            path = plugin.locate(request)
            if path.exists():
                measured.append((volume, path, plugin.owned and not self._host.mounter.is_mount_point(path)))
        return measured

    # Names and paths

    def path_of(self, pod: Obj, name: str) -> Path | None:
        """Where a volume of the pod is on the node; None when it has none of that name."""
        for volume in _volumes(pod):
            found = self._found(pod, volume) if volume["name"] == name else None
            if found is not None:
                return found[0].locate(found[1])
        return None

    def _pod_directory(self, pod: Obj) -> Path:
        return self._pods / pod["metadata"]["uid"]

    def _found(self, pod: Obj, volume: Obj) -> tuple[Plugin, Request] | None:
        """The plugin for a volume and what it is asked for; None when there is no plugin, or the claim has not been
        resolved."""
        if resolve.claim_name(pod, volume):
            resolved = self._resolved.get((pod["metadata"]["uid"], volume["name"]))
        else:
            resolved = resolve.inline(volume)
        plugin = self._plugins.get(resolved.kind) if resolved is not None else None
        if resolved is None or plugin is None:
            return None
        block = resolved.pv is not None and resolved.pv["spec"].get("volumeMode") == "Block"
        part = "volumeDevices" if block else "volumes"
        return plugin, Request(
            pod=pod,
            name=volume["name"],
            source=resolved.source,
            path=self._pod_directory(pod) / part / plugin.directory / resolved.spec_name,
            spec_name=resolved.spec_name,
            pv=resolved.pv,
            claim=resolved.claim,
            read_only=resolved.read_only,
        )


def _volumes(pod: Obj) -> list[Obj]:
    return pod["spec"].get("volumes") or []


def used_volumes(pod: Obj) -> set[str]:
    """The names of the volumes that a container mounts; others are not even made."""
    spec = pod["spec"]
    return {
        mount["name"]
        for field in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(field) or ()
        for mount in [*(container.get("volumeMounts") or ()), *(container.get("volumeDevices") or ())]
    }


def _no_volume(name: str, verb: str, container: Obj) -> MountsFailed:
    return MountsFailed(f'cannot find volume "{name}" to {verb} into container "{container["name"]}"')


def _sub_path(mount: Obj, env: Mapping[str, str]) -> str:
    part = mount.get("subPath") or ""
    if mount.get("subPathExpr"):
        missing = {name for name in references(mount["subPathExpr"]) if not env.get(name)}
        if missing:
            raise SubPathError(f"missing value for {', '.join(sorted(missing))}")
        part = expand(mount["subPathExpr"], env)
    subpath.check(part)
    return part


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _os_words(error: OSError) -> str:
    """As Go would say it: `mkdir /x: permission denied`."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or str(error)).lower()}"
