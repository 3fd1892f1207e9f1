"""Which volumes are to be attached to a node, and which detached: pure decisions over VolumeAttachments (KEP-178).

A volume stays attached while a pod on the node uses it, and after that until the kubelet says that it has
unmounted it (`status.volumesInUse`). The kubelet in turn mounts only what `status.volumesAttached` lists, so a
volume is taken from that list before it is detached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from shipwheel.api.meta import Obj, annotations_of, is_being_deleted, is_condition_true, name_of

UNMOUNT_SECONDS = 360.0
"""How long a node that is not healthy may still claim to use a volume that no pod needs."""

_PLUGIN = "kubernetes.io/csi"
_MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_SHARED = frozenset(("ReadWriteMany", "ReadOnlyMany"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume that pods on the node need."""

    volume: Obj
    pods: tuple[Obj, ...]


@dataclass(frozen=True, slots=True)
class Detach:
    """An attachment to delete; `forced` tells why although the node may still use it."""

    attachment: Obj
    forced: Literal["", "timeout", "out-of-service"] = ""


@dataclass(frozen=True, slots=True)
class Plan:
    detach: tuple[Detach, ...]
    report: tuple[str, ...]
    """The names for `status.volumesAttached`."""
    attach: tuple[Wanted, ...]
    wait: float | None
    """Seconds until a volume may be detached by force."""


def unique_name(volume: Obj) -> str:
    """How nodes name a CSI volume in their status."""
    source = volume["spec"]["csi"]
    return f"{_PLUGIN}/{source['driver']}^{source['volumeHandle']}"


def attachment_name(unique: str, node: str) -> str:
    """The name of the VolumeAttachment, by which the kubelet finds it."""
    driver, _, handle = unique.removeprefix(f"{_PLUGIN}/").partition("^")
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def make_attachment(volume: Obj, node: str) -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": attachment_name(unique_name(volume), node)},
        "spec": {
            "attacher": volume["spec"]["csi"]["driver"],
            "nodeName": node,
            "source": {"persistentVolumeName": name_of(volume)},
        },
    }


def is_managed(node: Obj) -> bool:
    """The kubelet leaves attaching to us."""
    return _MANAGED in annotations_of(node)


def is_shareable(volume: Obj) -> bool:
    """It may be attached to several nodes at the same time, as far as we know."""
    modes = volume["spec"].get("accessModes") or ()
    return not modes or not _SHARED.isdisjoint(modes)


def in_use(node: Obj) -> set[str]:
    return set((node.get("status") or {}).get("volumesInUse") or ())


def reported(node: Obj) -> list[str]:
    return [each["name"] for each in (node.get("status") or {}).get("volumesAttached") or ()]


def is_attached(attachment: Obj) -> bool:
    return bool((attachment.get("status") or {}).get("attached")) and not is_being_deleted(attachment)


def make_plan(
    node: Obj | None,
    *,
    used: set[str],
    wanted: Mapping[str, Wanted],
    attached: Mapping[str, Obj],
    unneeded_for: Callable[[Obj], float],
    force_on_timeout: bool,
) -> Plan:
    """What to do for a node (None: it is gone). `wanted` and `attached` are by unique name; `used` are the volumes
    that the kubelet said it uses; `unneeded_for` tells for how many seconds no pod has needed an attachment."""
    is_healthy = node is not None and is_condition_true(node, "Ready")
    out_of_service = node is not None and any(
        taint["key"] == _OUT_OF_SERVICE for taint in node["spec"].get("taints") or ()
    )
    detach: list[Detach] = []
    waits: list[float] = []
    for name, attachment in attached.items():
        if name in wanted or is_being_deleted(attachment):
            continue
        left = UNMOUNT_SECONDS - unneeded_for(attachment)
        timed_out = left <= 0 and force_on_timeout and not is_healthy
        if name not in used:
            detach.append(Detach(attachment))
        elif out_of_service:
            detach.append(Detach(attachment, "out-of-service"))
        elif timed_out:
            detach.append(Detach(attachment, "timeout"))
        elif force_on_timeout and left > 0:
            waits.append(left)
    going = {name_of(each.attachment) for each in detach}
    return Plan(
        detach=tuple(detach),
        report=tuple(
            sorted(name for name, each in attached.items() if is_attached(each) and name_of(each) not in going)
        ),
        attach=tuple(each for name, each in wanted.items() if name not in attached),
        wait=min(waits, default=None),
    )


def multi_attach_message(volume: Obj, pod: Obj, others: Iterable[Obj]) -> str:
    """Why a volume cannot be attached for a pod: others use it on another node."""
    near = [name_of(each) for each in others if each["metadata"]["namespace"] == pod["metadata"]["namespace"]]
    far = sum(1 for each in others if each["metadata"]["namespace"] != pod["metadata"]["namespace"])
    if near:
        why = f"Volume is already used by pod(s) {', '.join(near)}"
        if far:
            why = f"{why} and {far} pod(s) in different namespaces"
    elif far:
        why = f"Volume is already used by {far} pod(s) in different namespaces"
    else:
        why = "Volume is already exclusively attached to one node and can't be attached to another"
    return message_about("Multi-Attach error", volume, why)


def message_about(what: str, volume: Obj, details: str = "") -> str:
    return f'{what} for volume "{name_of(volume)}" {details}'
