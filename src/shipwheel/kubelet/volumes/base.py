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
    """One volume cannot be made; the message is upstream's, without the part that names the volume."""


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


@dataclass(frozen=True, slots=True)
class Request:
    """A volume of a pod, to be had at `path`. `source` is its part of the specification (`volume["configMap"]`)."""

    pod: Obj
    name: str
    source: Any
    path: Path

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
    """The field of `spec.volumes[]` that chooses it."""
    name: str
    """Upstream's; also names the directory its volumes are in: `kubernetes.io/config-map`."""
    set_up: Callable[[Request, Host], Awaitable[None]]
    refreshed: bool = False
    """What it shows can change while the pod runs."""
    owned: bool = True
    """Its files are the pod's alone and are deleted with it."""
    read_only: bool = False
    locate: Callable[[Request], Path] | None = None
    """Where the volume is when it is not at the request's path."""
    managed_ownership: bool = False
    """`fsGroup` is applied to it."""

    @property
    def directory(self) -> str:
        return self.name.replace("/", "~")
