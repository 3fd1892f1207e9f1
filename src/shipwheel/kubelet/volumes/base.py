"""What a volume plugin is, and what it is given.

A plugin makes one kind of volume appear at one path. It can be asked again at any time and then brings what is
there up to date; so a restarted kubelet needs no memory of what it had mounted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet.downward import PodFacts
from shipwheel.kubelet.volumes.mounting import Mounter


class VolumeError(Exception):
    """One volume cannot be made; the message is upstream's, without the part that names the volume. `operation` is
    what failed, as events name it."""

    def __init__(self, message: str, *, operation: str = "MountVolume.SetUp") -> None:
        super().__init__(message)
        self.operation = operation


class VolumesFailed(Exception):
    """Volumes of a pod that could not be made. Each of `messages` is a `FailedMount` event's."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


class Objects(Protocol):
    """API objects that volumes are made of. Every method raises ApiError: `configmap "x" not found`."""

    async def config_map(self, namespace: str, name: str) -> Obj: ...

    async def secret(self, namespace: str, name: str) -> Obj: ...

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        """A service-account token bound to the pod, with enough of its lifetime left."""

    async def trust_anchors(self, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
        """PEM of one ClusterTrustBundle, or of all that a signer and a label selector choose."""


class Cluster(Protocol):
    """Storage objects of the cluster. Every method raises ApiError."""

    async def claim(self, namespace: str, name: str) -> Obj: ...

    async def volume(self, name: str) -> Obj: ...

    async def attachment(self, name: str) -> Obj: ...

    async def csi_driver(self, name: str) -> Obj | None:
        """None when the driver has no CSIDriver object."""

    async def secret_of(self, namespace: str, name: str) -> Obj:
        """A Secret that a PersistentVolume refers to, in whatever namespace."""

    async def resized(self, claim: Obj, capacity: str) -> None:
        """Say in a claim's status that its file system has grown."""

    async def resizing(self, claim: Obj, state: str, error: str = "") -> None:
        """Say in a claim's status how far the growth of its file system is (KEP-1790): `NodeResizeInProgress`,
        `NodeResizeInfeasible`; empty to leave that as it is, and only tell the error."""


@dataclass(frozen=True, slots=True)
class Host:
    """What plugins need of the node."""

    objects: Objects
    mounter: Mounter
    clock: Clock
    facts: Callable[[Obj], PodFacts]
    """Of a pod: its addresses, and what the node can allocate."""
    memory_capacity: int = 0
    """Bytes; the limit of a memory-backed volume without one."""
    cluster: Cluster | None = None
    """None where there is no API server (static pods only)."""
    node_name: str = ""
    record: Callable[[Obj, str, str, str], None] = lambda pod, kind, reason, message: None
    """Record an event about a pod."""


@dataclass(frozen=True, slots=True)
class Request:
    """A volume of a pod, to be had at `path`. `source` is its part of the specification (`volume["configMap"]`, or
    of the PersistentVolume behind the pod's claim)."""

    pod: Obj
    name: str
    source: Any
    path: Path
    """For a block device: where its file is to be."""
    spec_name: str = ""
    """The PersistentVolume's name; for others the volume's own."""
    pv: Obj | None = None
    claim: Obj | None = None
    read_only: bool = False

    @property
    def block(self) -> bool:
        """A device rather than a file system."""
        return self.pv is not None and self.pv["spec"].get("volumeMode") == "Block"

    @property
    def mount_options(self) -> list[str]:
        return list(self.pv["spec"].get("mountOptions") or ()) if self.pv else []

    @property
    def namespace(self) -> str:
        return self.pod["metadata"].get("namespace", "")

    @property
    def uid(self) -> str:
        return self.pod["metadata"]["uid"]

    @property
    def fs_group(self) -> int | None:
        return (self.pod["spec"].get("securityContext") or {}).get("fsGroup")

    @property
    def fs_group_policy(self) -> str:
        """`Always` or `OnRootMismatch`."""
        return (self.pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") or "Always"

    @property
    def fs_user(self) -> int | None:
        """Whom all containers of the pod run as, if it is the same user."""
        spec = self.pod["spec"]
        of_pod = (spec.get("securityContext") or {}).get("runAsUser")
        users = {
            (container.get("securityContext") or {}).get("runAsUser", of_pod)
            for field in ("containers", "initContainers", "ephemeralContainers")
            for container in spec.get(field) or ()
        }
        return users.pop() if len(users) == 1 else None


@dataclass(frozen=True, slots=True)
class Plugin:
    source: str
    """The field of `spec.volumes[]`, or of a PersistentVolume's specification, that chooses it."""
    name: str
    """Upstream's; also names the directory its volumes are in: `kubernetes.io/configmap`."""
    set_up: Callable[[Request, Host], Awaitable[None]]
    refreshed: Callable[[Request], bool] = lambda request: False
    """What it shows can change while the pod runs."""
    owned: bool = True
    """Its files are the pod's alone and are deleted with it."""
    read_only: bool = False
    relabelled: bool = True
    """Where the kernel has SELinux, its files get the label of the container that mounts them."""
    locate: Callable[[Request], Path] = lambda request: request.path
    """Where containers find the volume."""
    tear_down: Callable[[Path, Host], Awaitable[None]] | None = None
    """What has to be done, besides unmounting, before the volume's directory is deleted."""

    @property
    def directory(self) -> str:
        return self.name.replace("/", "~")
