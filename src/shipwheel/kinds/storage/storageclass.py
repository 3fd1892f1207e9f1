"""Storage classes: how storage that is wanted comes to be."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.api.resource import Column, Resource, Strategy
from shipwheel.kinds.columns import AGE, text
from shipwheel.kinds.declare import served

_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def is_default(storage_class: Obj) -> bool:
    return any(annotations_of(storage_class).get(annotation) == "true" for annotation in _DEFAULT)


def _name(storage_class: Obj, now: datetime) -> str:
    name = name_of(storage_class)
    return f"{name} (default)" if is_default(storage_class) else name


RESOURCES = (
    Resource(
        kind="StorageClass",
        plural="storageclasses",
        singular="storageclass",
        short_names=("sc",),
        namespaced=False,
        versions=(served("storage.k8s.io", "v1", "StorageClass"),),
        strategy=Strategy(),
        columns=(
            Column("Name", _name, format="name"),
            Column("Provisioner", text("provisioner")),
            Column("ReclaimPolicy", text("reclaimPolicy", absent="Delete")),
            Column("VolumeBindingMode", text("volumeBindingMode", absent="Immediate")),
            Column("AllowVolumeExpansion", lambda obj, now: bool(obj.get("allowVolumeExpansion"))),
            AGE,
        ),
    ),
)
