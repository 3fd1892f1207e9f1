"""Where CSI volumes are on the node, how they are named, and the files that remember them.

What must be known to take a volume away is in a file beside it, `vol_data.json` as upstream, written before the driver
is called, so that a kubelet that was killed in between can still do so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

NAME = "kubernetes.io/csi"
DATA = "vol_data.json"
_DIRECTORY = NAME.replace("/", "~")


def attachment_name(handle: str, driver: str, node: str) -> str:
    """Of the VolumeAttachment that the attach/detach controller makes."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def ephemeral_handle(pod_uid: str, spec_name: str) -> str:
    """An inline volume has no handle of its own; it gets one that no other volume has."""
    return f"csi-{hashlib.sha256(f'{pod_uid}{spec_name}'.encode()).hexdigest()}"


def unique_name(driver: str, handle: str) -> str:
    """As a node's status names volumes."""
    return f"{NAME}/{driver}^{handle}"


def volumes_in_use(root: Path) -> set[str]:
    """The unique names of the volumes that pods of this node have, by what is on disk."""
    return {
        unique_name(data["driverName"], data["volumeHandle"])
        for _, data in _of_pods(root)
        if data.get("volumeLifecycleMode") == "Persistent"
    }


def _of_pods(root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The files of all pods that have CSI volumes, and what they say. Most pods have none: they cost two looks."""
    for pod in _entries(root / "pods"):
        for part in ("volumes", "volumeDevices"):
            for volume in _entries(pod / part / _DIRECTORY):
                if data := read(volume / DATA):
                    yield volume / DATA, data


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def root_of(path: Path) -> Path:
    """The kubelet's directory, from `ROOT/pods/UID/volumes/PLUGIN/NAME`."""
    return path.parents[4]


def staging_of(root: Path, driver: str, handle: str) -> Path:
    hashed = hashlib.sha256(handle.encode()).hexdigest()
    return root / "plugins" / "kubernetes.io" / "csi" / driver / hashed / "globalmount"


def users(root: Path, driver: str, handle: str) -> list[Path]:
    """The pods' files that say they have a volume."""
    return [
        file for file, data in _of_pods(root) if (data.get("driverName"), data.get("volumeHandle")) == (driver, handle)
    ]


def write(path: Path, data: Mapping[str, str]) -> None:
    path.write_text(json.dumps(data))


def read(path: Path) -> dict[str, str] | None:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def forget(path: Path, target: Path) -> None:
    """Remove what a pod had of a volume; never anything in it."""
    with contextlib.suppress(OSError):
        target.rmdir() if target.is_dir() else target.unlink(missing_ok=True)
    (path / DATA).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()


def forget_staging(staging: Path) -> None:
    with contextlib.suppress(OSError):
        staging.rmdir()
    if not staging.exists():
        shutil.rmtree(staging.parent, ignore_errors=True)
