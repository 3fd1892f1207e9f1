"""Persistent volume claims: storage that is wanted."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, NAME, UNSET, dig, text
from shipwheel.kinds.core.persistentvolume import access_modes, class_of, phase
from shipwheel.kinds.declare import STATUS, served


def _capacity(claim: Obj, now: datetime) -> str:
    if not claim["spec"].get("volumeName"):
        return ""
    return str(dig(claim, "status", "capacity", "storage") or "0")


def _access_modes(claim: Obj, now: datetime) -> str:
    if not claim["spec"].get("volumeName"):
        return ""
    return access_modes(dig(claim, "status", "accessModes"))


RESOURCES = (
    Resource(
        kind="PersistentVolumeClaim",
        plural="persistentvolumeclaims",
        singular="persistentvolumeclaim",
        short_names=("pvc",),
        versions=(served("", "v1", "PersistentVolumeClaim"),),
        strategy=Strategy(),
        columns=(
            NAME,
            Column("Status", phase),
            Column("Volume", text("spec", "volumeName")),
            Column("Capacity", _capacity),
            Column("Access Modes", _access_modes),
            Column("StorageClass", lambda claim, now: class_of(claim)),
            Column("VolumeAttributesClass", text("spec", "volumeAttributesClassName", absent=UNSET)),
            AGE,
            Column("VolumeMode", text("spec", "volumeMode", absent=UNSET), priority=1),
        ),
        subresources=(STATUS,),
        selectable={"name": lambda claim: claim["metadata"]["name"]},
    ),
)
