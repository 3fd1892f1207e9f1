"""Security contexts: what a pod and a container ask for, as the runtime is told.

A container's own settings override those of its pod, field by field. Group ids add up: the volumes' group first,
then the pod's supplementary groups.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from shipwheel.api.meta import Obj, annotations_of
from shipwheel.kubelet import podspec
from shipwheel.kubelet.runtime.base import NamespaceModes, SecurityProfile

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MAXIMUM_ID = 2**31 - 1
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_SHARED = ("seLinuxOptions", "runAsUser", "runAsGroup", "runAsNonRoot")
"""Settings of a pod that hold for its containers."""


class SecurityFault(Exception):
    """The container may not be started as it is asked for."""


def effective(pod: Obj, container: Obj) -> Obj:
    """A container's settings with those of its pod filled in."""
    shared = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    return {name: shared[name] for name in _SHARED if shared.get(name) is not None} | {
        name: value for name, value in own.items() if value is not None
    }


def supplementary_groups(pod: Obj, extra: Sequence[int] = ()) -> tuple[int, ...]:
    """`extra` are the groups that its volumes ask for."""
    shared = pod["spec"].get("securityContext") or {}
    group = shared.get("fsGroup")
    own = (group,) if group is not None else ()
    return (*own, *(shared.get("supplementalGroups") or ()), *extra)


def groups_policy(pod: Obj) -> Literal["Merge", "Strict"]:
    shared = pod["spec"].get("securityContext") or {}
    return cast(Literal["Merge", "Strict"], shared.get("supplementalGroupsPolicy") or "Merge")


def seccomp(pod: Obj, container: Obj, root: str, *, default: bool) -> SecurityProfile:
    """`root` is the directory of local profiles; `default` makes RuntimeDefault what is not said."""
    for context in (container.get("securityContext") or {}, pod["spec"].get("securityContext") or {}):
        profile = context.get("seccompProfile")
        if profile:
            return _profile(profile, root)
    return SecurityProfile("RuntimeDefault" if default else "Unconfined")


def _profile(profile: Obj, root: str) -> SecurityProfile:
    kind = profile.get("type")
    if kind == "Localhost":
        name = profile.get("localhostProfile")
        if not name:
            raise SecurityFault("localhostProfile must be set if seccompProfile type is Localhost.")
        return SecurityProfile("Localhost", posixpath.join(root, name))
    return SecurityProfile("RuntimeDefault" if kind == "RuntimeDefault" else "Unconfined")


def apparmor(pod: Obj, container: Obj) -> SecurityProfile | None:
    """None where nothing is said: the runtime's default then holds."""
    profile = (container.get("securityContext") or {}).get("appArmorProfile")
    if profile:
        return _apparmor(profile)
    annotation = annotations_of(pod).get(_APPARMOR_ANNOTATION + container["name"])
    if annotation:
        if annotation.startswith("localhost/"):
            return SecurityProfile("Localhost", annotation.removeprefix("localhost/"))
        return SecurityProfile("RuntimeDefault" if annotation == "runtime/default" else "Unconfined")
    profile = (pod["spec"].get("securityContext") or {}).get("appArmorProfile")
    return _apparmor(profile) if profile else None


def _apparmor(profile: Obj) -> SecurityProfile:
    kind = profile.get("type")
    if kind == "Localhost":
        return SecurityProfile("Localhost", profile.get("localhostProfile") or "")
    return SecurityProfile("RuntimeDefault" if kind == "RuntimeDefault" else "Unconfined")


def selinux(context: Obj) -> dict[str, str] | None:
    options = context.get("seLinuxOptions")
    return {name: options.get(name, "") for name in ("user", "role", "type", "level")} if options else None


def has_privileged(pod: Obj) -> bool:
    return any((each.get("securityContext") or {}).get("privileged") for each in podspec.all_containers(pod))


@dataclass(frozen=True, slots=True)
class IdRange:
    """The host's user and group ids that a pod's own, from 0, stand for."""

    first: int
    length: int


def namespaces(pod: Obj, *, target_id: str = "", ids: IdRange | None = None) -> NamespaceModes:
    """`target_id` is the container whose processes an ephemeral container is to see; `ids` those of the pod, if it has
    users of its own."""
    mappings = ((ids.first, 0, ids.length),) if ids else ()
    spec = pod["spec"]
    pid: Any = "CONTAINER"
    if spec.get("hostPID"):
        pid = "NODE"
    elif spec.get("shareProcessNamespace"):
        pid = "POD"
    elif target_id:
        pid = "TARGET"
    return NamespaceModes(
        network="NODE" if podspec.is_host_network(pod) else "POD",
        pid=pid,
        ipc="NODE" if spec.get("hostIPC") else "POD",
        target_id=target_id if pid == "TARGET" else "",
        user="POD" if ids else "NODE",
        uid_mappings=mappings,
        gid_mappings=mappings,
    )


def verify_non_root(pod: Obj, container: Obj, image_uid: int | None, image_user: str) -> None:
    """Refuse a container that is to be run as another than root and would not be, or might not."""
    context = effective(pod, container)
    if not context.get("runAsNonRoot"):
        return
    where = f'(pod: "{podspec.describe(pod)}", container: {container["name"]})'
    user = context.get("runAsUser")
    if user is not None:
        if user == 0:
            raise SecurityFault(f"container's runAsUser breaks non-root policy {where}")
        return
    if image_uid is None and image_user:
        raise SecurityFault(
            f"container has runAsNonRoot and image has non-numeric user ({image_user}), "
            f"cannot verify user is non-root {where}"
        )
    if not image_uid:
        # An image that names nobody runs as root.
        raise SecurityFault(f"container has runAsNonRoot and image will run as root {where}")
    if not 0 <= image_uid <= MAXIMUM_ID:
        raise SecurityFault(
            f"container has runAsNonRoot and image has an invalid user id ({image_uid}). (Must be 1-({MAXIMUM_ID})): "
            f"must be between 0 and {MAXIMUM_ID}, inclusive {where}"
        )
