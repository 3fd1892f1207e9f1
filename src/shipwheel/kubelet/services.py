"""What the parts of the kubelet ask of one another, as protocols: each part can be tested with a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shipwheel.api.meta import Obj
from shipwheel.kubelet.resources import CgroupValues
from shipwheel.kubelet.runtime.base import Device, Mount

if TYPE_CHECKING:
    from shipwheel.kubelet.volumes.csi.registration import PluginHandler


class Refused(Exception):
    """A pod cannot have its part of the node. `reason` is the pod's."""

    def __init__(self, message: str, reason: str = "") -> None:
        """Without a reason what went wrong was not foreseen."""
        unexpected = f"Allocate failed due to {message}, which is unexpected"
        super().__init__(message if reason else unexpected)
        self.reason = reason or "UnexpectedAdmissionError"


class ClaimFault(Exception):
    """A ResourceClaim cannot be used; the message is upstream's."""


Record = Callable[[Obj, Obj | None, str, str, str], None]
"""Record an event: (pod, container or None, `Normal` or `Warning`, reason, message)."""


class Volumes(Protocol):
    """The volumes of pods on this node (`kubelet.volumes.VolumeManager`)."""

    async def mount_pod(self, pod: Obj) -> None:
        """Make all volumes of a pod, again if need be; VolumesFailed when one cannot be made."""

    async def unmount_pod(self, uid: str) -> None:
        """VolumesFailed when something cannot be unmounted."""

    def remove_pod_directory(self, uid: str) -> bool:
        """Delete what is left of a pod on disk; False while volumes are still there."""

    def mounts_for(
        self,
        pod: Obj,
        container: Obj,
        env: Mapping[str, str] | None = None,
        images: Mapping[str, str] | None = None,
    ) -> Sequence[Mount]:
        """MountsFailed when one cannot be had. `images` are the runtime's references of image volumes, by name."""

    def devices_for(self, pod: Obj, container: Obj) -> Sequence[Device]:
        """Block volumes that the container has as devices."""

    async def refresh(self, pod: Obj) -> None:
        """Bring configMap, secret and projected volumes up to date."""


class Objects(Protocol):
    """The ConfigMaps and Secrets that pods on this node refer to."""

    async def ensure(self, pod: Obj) -> None:
        """Follow whatever the pod refers to, and wait a moment until it is here."""

    def peek_config_map(self, namespace: str, name: str) -> Obj | None: ...

    def peek_secret(self, namespace: str, name: str) -> Obj | None: ...

    def forget(self, uid: str) -> None: ...


class Cgroups(Protocol):
    """The cgroups of pods."""

    def parent_of(self, pod: Obj) -> str:
        """The cgroup that the runtime is to put the pod's containers in."""

    async def ensure(self, pod: Obj, *, only_grow: bool = False) -> None:
        """Make or bring up to date the pod's cgroup; OSError when that fails. `only_grow` leaves alone what is larger
        than it should be, for the time until its containers have shrunk."""

    async def remove(self, uid: str) -> None: ...

    def make_classes(self) -> None:
        """Make the cgroups that all pods' are in, and hold them to what pods may have. OSError."""

    def hold(self, path: str, values: CgroupValues) -> None:
        """Hold a cgroup of somebody else's to these values; OSError when there is none."""

    def pod_memory(self, pod: Obj) -> tuple[int, int] | None:
        """(bytes in use, the limit, where 0 is none) of a pod; None where it cannot be told."""

    def pods_memory(self) -> tuple[int, int] | None:
        """(bytes in use, the most there may be) of all pods together; None where it cannot be told."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What device and resource managers add to a container."""

    devices: Sequence[Device] = ()
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cdi_devices: Sequence[str] = ()
    """By their qualified names (`vendor.com/class=name`)."""


class Managers(Protocol):
    """Who gets which part of the node (`kubelet.managers`)."""

    async def run(self) -> None:
        """Until cancelled."""

    def plugin_handlers(self) -> Mapping[str, PluginHandler]:
        """What takes plugins that are found in the kubelet's plugin directory, by their type."""

    async def admit(self, pod: Obj) -> Refused | None:
        """Give the pod's containers what they ask for; what stands against it otherwise."""

    def counted(self, allocatable: Mapping[str, str]) -> Mapping[str, str]:
        """What of the node is only counted, and not given piece by piece."""

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        """(present, usable) of each extended resource."""

    async def prepare(self, pod: Obj) -> None:
        """Before the pod's sandbox is made; ClaimFault."""

    async def unprepare(self, pod: Obj) -> None:
        """When its containers have ended; ClaimFault."""

    async def extras(self, pod: Obj, container: Obj) -> Extras:
        """What a container that is about to start gets. Refused, ClaimFault."""

    def has_own_cpus(self, uid: str, name: str = "") -> bool:
        """Whether a container of the pod, or that of this name, has CPUs for itself alone."""

    def statuses(self, pod: Obj, status: Obj) -> Obj:
        """The pod's status, which also tells how the devices of its containers are."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the node knows that containers are made from, as of now."""

    host_ips: Sequence[str]
    allocatable: Mapping[str, str]
    services: Sequence[Obj]
