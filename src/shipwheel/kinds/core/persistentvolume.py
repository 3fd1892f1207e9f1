"""Persistent volumes: storage that exists, wherever it is."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, UNSET, dig, text
from shipwheel.kinds.declare import STATUS, served

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP",
}  # fmt: skip


def access_modes(modes: list[str] | None) -> str:
    """`RWO,ROX`: the short names, each once, in a fixed order."""
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in (modes or ()))


def class_of(obj: Obj) -> str:
    """The storage class of a volume or a claim: the annotation of old, or the field."""
    return annotations_of(obj).get(CLASS_ANNOTATION) or obj["spec"].get("storageClassName") or ""


def phase(obj: Obj, now: datetime) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return (obj.get("status") or {}).get("phase", "")


def _claim(volume: Obj, now: datetime) -> str:
    claim = volume["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


RESOURCES = (
    Resource(
        kind="PersistentVolume",
        plural="persistentvolumes",
        singular="persistentvolume",
        short_names=("pv",),
        namespaced=False,
        versions=(served("", "v1", "PersistentVolume"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Capacity", lambda volume, now: dig(volume, "spec", "capacity", "storage") or "0"),
            Column("Access Modes", lambda volume, now: access_modes(volume["spec"].get("accessModes"))),
            Column("Reclaim Policy", text("spec", "persistentVolumeReclaimPolicy")),
            Column("Status", phase),
            Column("Claim", _claim),
            Column("StorageClass", lambda volume, now: class_of(volume)),
            Column("VolumeAttributesClass", text("spec", "volumeAttributesClassName", absent=UNSET)),
            Column("Reason", text("status", "reason")),
            AGE,
            Column("VolumeMode", text("spec", "volumeMode", absent=UNSET), priority=1),
        ),
        subresources=(STATUS,),
        selectable={"name": lambda volume: volume["metadata"]["name"]},
    ),
)
