"""Image volumes for containerd before 2.1, which cannot mount an image into a container.

containerd shows an image's files as a read-only view of its layers, if it is asked through its own API rather than
CRI's. The view is mounted below a directory of the kubelet's, one directory a sandbox, and the container gets that
path. What is to be released with a sandbox is read from the directory, so nothing is forgotten by a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shipwheel.api.protobuf import parse_tables
from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.kubelet.runtime.base import Mount, RuntimeFault
from shipwheel.kubelet.volumes.mounting import MS_BIND, MS_NOEXEC, MS_RDONLY, MS_REMOUNT, Mounter, MountError

_TABLES = parse_tables("""
ViewSnapshotRequest snapshotter=1:string key=2:string parent=3:string labels=4:{string:string}
ViewSnapshotResponse mounts=1:[Mount]
Mount type=1:string source=2:string target=3:string options=4:[string]
RemoveSnapshotRequest snapshotter=1:string key=2:string
Empty
""")
_METADATA = [("containerd-namespace", "k8s.io")]
_ROOT_LABEL = "containerd.io/gc.root"
"""Keeps a snapshot that no image or container refers to."""
_TIMEOUT = 30.0
_FLAGS = {"ro": MS_RDONLY, "rbind": MS_BIND, "bind": MS_BIND}


def mounts_images_itself(name: str, version: str) -> bool:
    """Whether a runtime takes image mounts in a container's configuration."""
    if name != "containerd":
        return True
    numbers = [
        part for part in version.lstrip("v").replace("-", ".").replace("~", ".").split(".")[:2] if part.isdigit()
    ]
    return [int(part) for part in numbers] >= [2, 1]


class ImageViews:
    def __init__(self, channel: Channel, directory: Path, mounter: Mounter) -> None:
        self._channel = channel
        self._directory = directory
        self._mounter = mounter

    async def replace(self, mount: Mount, sandbox_id: str, *, snapshotter: str, chain: str) -> Mount:
        """The mount of an image as one of a path; `chain` names the image's layers. Raises RuntimeFault."""
        try:
            place = await self._view(sandbox_id, snapshotter, chain)
            path = _part_of(place, mount.image_sub_path)
        except (GrpcError, OSError) as error:
            raise RuntimeFault("UNKNOWN", f"failed to mount image volume {mount.image}: {error}") from error
        return Mount(mount.container_path, str(path), readonly=True, propagation=mount.propagation)

    async def _view(self, sandbox_id: str, snapshotter: str, chain: str) -> Path:
        place = self._directory / sandbox_id / f"{snapshotter}-{hashlib.sha256(chain.encode()).hexdigest()[:16]}"
        if self._mounter.is_mount_point(place):
            return place
        key = _key(place)
        with contextlib.suppress(GrpcError):
            # Of an attempt that was cut short.
            await self._call("Remove", "RemoveSnapshotRequest", "Empty", snapshotter=snapshotter, key=key)
        answer = await self._call(
            "View",
            "ViewSnapshotRequest",
            "ViewSnapshotResponse",
            snapshotter=snapshotter,
            key=key,
            parent=chain,
            labels={_ROOT_LABEL: "1"},
        )
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in answer.get("mounts", ()):
            self._mount(each.get("type", ""), each.get("source", ""), str(place), each.get("options", ()))
        return place

    def _mount(self, kind: str, source: str, target: str, options: Sequence[str]) -> None:
        flags, rest = MS_RDONLY | MS_NOEXEC, []
        for option in options:
            if option in _FLAGS:
                flags |= _FLAGS[option]
            else:
                rest.append(option)
        if flags & MS_BIND:
            self._mounter.mount(source, target, flags=MS_BIND)
            self._mounter.mount("none", target, flags=flags | MS_REMOUNT)
        else:
            self._mounter.mount(source, target, kind, flags, ",".join(rest))

    async def release(self, sandbox_id: str) -> None:
        """Take away the views of a sandbox. Harmless when it has none."""
        directory = self._directory / sandbox_id
        if not directory.is_dir():
            return
        for place in sorted(directory.iterdir()):
            try:
                if self._mounter.is_mount_point(place):
                    self._mounter.unmount(str(place))
                place.rmdir()
                await self._call(
                    "Remove",
                    "RemoveSnapshotRequest",
                    "Empty",
                    snapshotter=place.name.rpartition("-")[0],
                    key=_key(place),
                )
            except GrpcError as error:
                if error.code != "NOT_FOUND":
                    raise RuntimeFault(error.code, error.message) from error
            except MountError as error:
                raise RuntimeFault("UNKNOWN", str(error)) from error
        directory.rmdir()

    async def _call(self, method: str, request: str, response: str, **fields: Any) -> dict[str, Any]:
        return await self._channel.call(
            f"/containerd.services.snapshots.v1.Snapshots/{method}",
            _TABLES[request],
            _TABLES[response],
            fields,
            timeout=_TIMEOUT,
            metadata=_METADATA,
        )


def _key(place: Path) -> str:
    return f"image-volume-{place.parent.name}-{place.name}"


def _part_of(place: Path, sub_path: str) -> Path:
    """A path inside the view; nothing in it changes, so looking once is enough. Raises OSError."""
    found = (place / sub_path).resolve(strict=True)
    if not found.is_relative_to(place):
        raise OSError(f"subpath {sub_path!r} leads out of the image")
    return found
