"""Brings a pod's volumes to where its containers find them.

There is no memory of what is mounted: setting up is repeatable, and what has to be taken away is what the pod's
directory and the kernel's mount table show. So a kubelet that was restarted, or killed half-way, goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import ConnectionFailed
from shipwheel.kubelet.expansion import expand, references
from shipwheel.kubelet.runtime.base import Mount
from shipwheel.kubelet.volumes import empty_dir, files, host_path, subpath
from shipwheel.kubelet.volumes.base import Host, Plugin, Request, VolumeError, VolumesFailed
from shipwheel.kubelet.volumes.mounting import MountError
from shipwheel.kubelet.volumes.subpath import SubPathError

PLUGINS = (
    empty_dir.PLUGIN,
    host_path.PLUGIN,
    files.CONFIG_MAP,
    files.SECRET,
    files.DOWNWARD_API,
    files.PROJECTED,
)
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
        recursive_read_only: bool = False,
    ) -> None:
        self._host = host
        self._pods = root / "pods"
        self._plugins = {plugin.source: plugin for plugin in plugins}
        self._recursive_read_only = recursive_read_only

    # A pod

    async def mount_pod(self, pod: Obj) -> None:
        """Make all volumes that the pod's containers use. Repeatable. Raises VolumesFailed."""
        self._pod_directory(pod).mkdir(parents=True, exist_ok=True, mode=0o750)
        await self._set_up(pod, [volume for volume in _volumes(pod) if volume["name"] in used_volumes(pod)])

    async def refresh(self, pod: Obj) -> None:
        """Bring up to date what can change: ConfigMaps, Secrets, tokens, labels. Raises VolumesFailed."""
        used = used_volumes(pod)
        changing = [
            volume
            for volume in _volumes(pod)
            if volume["name"] in used and (plugin := self._plugin(volume)) is not None and plugin.refreshed
        ]
        await self._set_up(pod, changing)

    async def _set_up(self, pod: Obj, volumes: Sequence[Obj]) -> None:
        outcomes = await asyncio.gather(*(self._set_up_one(pod, volume) for volume in volumes))
        failures = [message for message in outcomes if message]
        if failures:
            raise VolumesFailed(failures)

    async def _set_up_one(self, pod: Obj, volume: Obj) -> str:
        """Returns what went wrong, in the words of the event."""
        name = volume["name"]
        plugin = self._plugin(volume)
        if plugin is None:
            return (
                "Unable to attach or mount volumes: failed to get Plugin from volumeSpec for volume "
                f'"{name}" err=no volume plugin matched'
            )
        try:
            await plugin.set_up(self._request(pod, volume, plugin), self._host)
        except (VolumeError, ApiError, MountError, ConnectionFailed) as error:
            return f'MountVolume.SetUp failed for volume "{name}" : {error}'
        except OSError as error:
            return f'MountVolume.SetUp failed for volume "{name}" : {_os_words(error)}'
        return ""

    async def unmount_pod(self, uid: str) -> None:
        """Unmount the pod's volumes and delete those that were its own. Harmless when there are none. Raises
        VolumesFailed when something cannot be unmounted; nothing below it is deleted then."""
        directory = self._pods / uid
        await asyncio.to_thread(self._unmount, directory)

    def _unmount(self, directory: Path) -> None:
        failures = []
        for part in ("volume-subpaths", "volumes", "volumeDevices"):
            for point in self._host.mounter.mount_points(directory / part):
                try:
                    self._host.mounter.unmount(point)
                except MountError as error:
                    failures.append(f'UnmountVolume.TearDown failed for volume "{Path(point).name}" : {error}')
        if failures:
            raise VolumesFailed(failures)
        _remove_tree(directory / "volume-subpaths")
        owned = {plugin.directory for plugin in self._plugins.values() if plugin.owned}
        for kind in _entries(directory / "volumes"):
            for volume in _entries(kind):
                if kind.name in owned:
                    _remove_tree(volume)
                else:
                    with contextlib.suppress(OSError):
                        volume.rmdir()
            with contextlib.suppress(OSError):
                kind.rmdir()
        with contextlib.suppress(OSError):
            (directory / "volumes").rmdir()

    def remove_pod_directory(self, uid: str) -> bool:
        """Delete what the kubelet keeps of a pod, when its volumes are gone; returns whether they were."""
        directory = self._pods / uid
        if self._host.mounter.mount_points(directory) or any(_entries(directory / "volumes")):
            return False
        _remove_tree(directory)
        return True

    def pods_on_disk(self) -> list[str]:
        """The uids of pods that have a directory: where to look for orphans."""
        return [entry.name for entry in _entries(self._pods)]

    # A container

    def mounts_for(self, pod: Obj, container: Obj, env: Mapping[str, str] | None = None) -> list[Mount]:
        """The container's volume mounts, once `mount_pod` has succeeded. `env` is what `subPathExpr` can refer
        to. Raises MountsFailed."""
        volumes = {volume["name"]: volume for volume in _volumes(pod)}
        mounts = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            volume = volumes.get(mount["name"])
            if volume is None:
                raise MountsFailed(
                    f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"'
                )
            mounts.append(self._mount(pod, container, volume, mount, index, env or {}))
        return mounts

    def _mount(self, pod: Obj, container: Obj, volume: Obj, mount: Obj, index: int, env: Mapping[str, str]) -> Mount:
        plugin = self._plugin(volume)
        if plugin is None:
            raise MountsFailed(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')
        request = self._request(pod, volume, plugin)
        at = plugin.locate(request) if plugin.locate else request.path
        try:
            part = _sub_path(mount, env)
            if part:
                target = self._pod_directory(pod) / "volume-subpaths" / volume["name"] / container["name"] / str(index)
                at = subpath.bind(at, part, target, self._host.mounter)
        except SubPathError as error:
            raise MountsFailed(str(error)) from error
        except OSError as error:
            raise MountsFailed(
                f'failed to prepare subPath for volumeMount "{mount["name"]}" of container "{container["name"]}"'
            ) from error
        read_only = bool(mount.get("readOnly")) or plugin.read_only
        return Mount(
            container_path=mount["mountPath"] if mount["mountPath"].startswith("/") else "/" + mount["mountPath"],
            host_path=str(at),
            readonly=read_only,
            propagation=_PROPAGATION[mount.get("mountPropagation") or "None"],
            recursive_read_only=self._recursive(mount),
        )

    def _recursive(self, mount: Obj) -> bool:
        wanted = mount.get("recursiveReadOnly") or "Disabled"
        if wanted == "Enabled" and not self._recursive_read_only:
            raise MountsFailed(
                f'failed to resolve recursive read-only mode: volume "{mount["name"]}" requested recursive '
                "read-only mode, but it is not supported by the runtime"
            )
        return wanted != "Disabled" and self._recursive_read_only

    # What volumes hold

    def measured(self, pod: Obj) -> list[tuple[Obj, Path, bool]]:
        """The pod's volumes whose use is counted: (volume, path, whether it shares the node's own disk)."""
        found = []
        used = used_volumes(pod)
        for volume in _volumes(pod):
            plugin = self._plugin(volume)
            if volume["name"] not in used or plugin is None or plugin.locate is not None:
                continue
            path = self._request(pod, volume, plugin).path
            if path.exists():
                found.append((volume, path, plugin.owned and not self._host.mounter.is_mount_point(path)))
        return found

    # Names and paths

    def path_of(self, pod: Obj, name: str) -> Path | None:
        """Where a volume of the pod is on the node; None when it has none of that name."""
        for volume in _volumes(pod):
            plugin = self._plugin(volume)
            if volume["name"] == name and plugin is not None:
                request = self._request(pod, volume, plugin)
                return plugin.locate(request) if plugin.locate else request.path
        return None

    def _pod_directory(self, pod: Obj) -> Path:
        return self._pods / pod["metadata"]["uid"]

    def _plugin(self, volume: Obj) -> Plugin | None:
        sources = [key for key in volume if key != "name"]
        # No source at all means an empty directory (API convention for volumes).
        return self._plugins.get(sources[0] if sources else "emptyDir")

    def _request(self, pod: Obj, volume: Obj, plugin: Plugin) -> Request:
        return Request(
            pod=pod,
            name=volume["name"],
            source=volume.get(plugin.source) or {},
            path=self._pod_directory(pod) / "volumes" / plugin.directory / volume["name"],
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
    place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{place}{(error.strerror or str(error)).lower()}"
