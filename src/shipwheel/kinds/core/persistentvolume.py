"""Persistent volumes: storage that exists, wherever it is."""

from __future__ import annotations

from datetime import datetime
from posixpath import normpath
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import FieldError, forbidden, invalid, not_supported, required
from shipwheel.api.meta import Obj, annotations_of
from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.quantity import parse
from shipwheel.api.resource import Column, Resource, WriteContext
from shipwheel.kinds.checks import IMMUTABLE, NEGATIVE, NOT_POSITIVE, Errors, check_immutable, check_rule
from shipwheel.kinds.columns import AGE, NAME, UNSET, dig, text
from shipwheel.kinds.core.affinity import check_node_selector
from shipwheel.kinds.core.claimspec import VOLUME_MODES, check_access_modes
from shipwheel.kinds.core.nodelabels import DEPRECATED, term_warnings
from shipwheel.kinds.core.resources import default_resource_list
from shipwheel.kinds.core.volumesources import MANY_TYPES, check_persistent_source
from shipwheel.kinds.declare import STATUS, served
from shipwheel.kinds.diff import changes
from shipwheel.kinds.strategies import BuiltinStrategy

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
CLASS_ANNOTATION_WARNING = 'deprecated since v1.8; use "storageClassName" attribute instead'
_OPTIONS_ANNOTATION = "volume.beta.kubernetes.io/mount-options"
_OPTIONS_ANNOTATION_WARNING = 'deprecated since v1.31; use "mountOptions" attribute instead'
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP",
}  # fmt: skip


_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")

# In the order in which upstream looks at them: the first one given is the volume, others are too many.
_SOURCES = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte",
    "cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk",
    "portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip
_WITH_MOUNT_OPTIONS = (
    "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "nfs", "rbd", "quobyte", "iscsi", "cinder", "cephfs",
    "azureFile", "vsphereVolume", "azureDisk", "photonPersistentDisk",
)  # fmt: skip
_GONE = {
    "cephfs": "cephfs: deprecated in v1.28, non-functional in v1.31+",
    "photonPersistentDisk": "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "scaleIO: deprecated in v1.16, non-functional in v1.22+",
    "storageos": "storageOS: deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "glusterfs: deprecated in v1.25, non-functional in v1.26+",
    "rbd": "rbd: deprecated in v1.28, non-functional in v1.31+",
}


class PersistentVolumeStrategy(BuiltinStrategy):
    returns_deleted = True
    tracks_generation = False

    def default(self, volume: Obj) -> None:
        spec = volume.setdefault("spec", {})
        default_resource_list(spec.get("capacity"))
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        host_path = spec.get("hostPath")
        if host_path is not None and host_path.get("type") is None:
            host_path["type"] = ""
        status = volume.setdefault("status", {})
        if not status.get("phase"):
            status["phase"] = "Pending"

    def prepare_for_create(self, volume: Obj, ctx: WriteContext) -> None:
        volume["status"] = {"phase": "Pending", "lastPhaseTransitionTime": rfc3339(ctx.now)}

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        super().prepare_for_status_update(new, old, ctx)
        status, before = new.setdefault("status", {}), old.get("status") or {}
        field = "lastPhaseTransitionTime"
        if status.get("phase") != before.get("phase"):
            if status.get(field) in (None, before.get(field)):
                status[field] = rfc3339(ctx.now)
        elif status.get(field) is None and field in before:
            status[field] = before[field]

    def validate(self, volume: Obj) -> list[FieldError]:
        errors: Errors = []
        spec = volume.get("spec") or {}
        _check_modes_and_size(spec, errors)
        policy = spec.get("persistentVolumeReclaimPolicy")
        if policy and policy not in _RECLAIM_POLICIES:
            errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM_POLICIES))
        _check_node_affinity(spec, errors)
        _check_sources(spec, volume["metadata"].get("name", ""), errors)
        host_path = (spec.get("hostPath") or {}).get("path")
        if policy == "Recycle" and host_path and normpath(host_path) == "/":
            detail = "may not be 'recycle' for a hostPath mount of '/'"
            errors.append(forbidden("spec.persistentVolumeReclaimPolicy", detail))
        if spec.get("storageClassName"):
            check_rule(name_is_dns_subdomain, spec["storageClassName"], "spec.storageClassName", errors)
        mode = spec.get("volumeMode")
        if mode is not None and mode not in VOLUME_MODES:
            errors.append(not_supported("spec.volumeMode", mode, VOLUME_MODES))
        _check_attributes_class(spec, errors)
        if _OPTIONS_ANNOTATION in annotations_of(volume) and not any(each in spec for each in _WITH_MOUNT_OPTIONS):
            detail = "may not specify mount options for this volume type"
            errors.append(forbidden(f"metadata.annotations.{_OPTIONS_ANNOTATION}", detail))
        return errors

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        spec, before = new["spec"], old["spec"]
        source, source_before = _source_of(spec), _source_of(before)
        expand = "controllerExpandSecretRef"
        if expand not in (before.get("csi") or {expand: {}}) and "csi" in source:
            source["csi"] = {field: value for field, value in source["csi"].items() if field != expand}
        if source != source_before:
            detail = f"spec.persistentvolumesource is immutable after creation\n{changes(source_before, source)}"
            errors.append(forbidden("spec.persistentvolumesource", detail))
        check_immutable(spec.get("volumeMode"), before.get("volumeMode"), "volumeMode", errors)
        _check_affinity_change(spec.get("nodeAffinity"), before.get("nodeAffinity"), errors)
        field = "volumeAttributesClassName"
        if before.get(field) is not None and spec.get(field) is None:
            errors.append(forbidden(f"spec.{field}", "update from non-nil value to nil is forbidden"))
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return [] if new["metadata"].get("resourceVersion") else [required("resourceVersion")]

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        annotations, spec = annotations_of(new), new.get("spec") or {}
        warnings = [
            f"metadata.annotations[{key}]: {text}"
            for key, text in (
                (CLASS_ANNOTATION, CLASS_ANNOTATION_WARNING),
                (_OPTIONS_ANNOTATION, _OPTIONS_ANNOTATION_WARNING),
            )
            if key in annotations
        ]
        if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
            warnings.append(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the "
                "recommended approach is to use dynamic provisioning."
            )
        terms = dig(spec, "nodeAffinity", "required", "nodeSelectorTerms") or ()
        for index, term in enumerate(terms):
            warnings += term_warnings(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
        return warnings + [f"spec.{text}" for kind, text in _GONE.items() if spec.get(kind) is not None]


def _source_of(spec: Obj) -> Obj:
    return {kind: spec[kind] for kind in _SOURCES if spec.get(kind) is not None}


def _check_modes_and_size(spec: Obj, errors: Errors) -> None:
    modes, capacity = spec.get("accessModes") or [], spec.get("capacity") or {}
    if not modes:
        errors.append(required("spec.accessModes"))
    check_access_modes(modes, "spec.accessModes", errors)
    if not capacity:
        errors.append(required("spec.capacity"))
    if list(capacity) != ["storage"]:
        errors.append(not_supported("spec.capacity", capacity or None, ("storage",)))
    for name, size in capacity.items():
        amount = parse(size)
        for wrong, detail in ((amount.nanos < 0, NEGATIVE), (amount.nanos <= 0, NOT_POSITIVE)):
            if wrong:
                errors.append(invalid(f"spec.capacity[{name}]", size, detail))


def _check_node_affinity(spec: Obj, errors: Errors) -> None:
    affinity = spec.get("nodeAffinity")
    if affinity is None:
        return
    if affinity.get("required") is None:
        errors.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
    else:
        check_node_selector(affinity["required"], "spec.nodeAffinity.required", errors)


def _check_sources(spec: Obj, name: str, errors: Errors, *, path: str = "spec") -> None:
    given = list(_source_of(spec))
    if not given:
        errors.append(required(path, "must specify a volume type"))
        return
    for position, kind in enumerate(given):
        if position == 0 or kind == "flexVolume":
            check_persistent_source(kind, spec[kind], path, errors, volume=name)
            if kind == "local" and spec.get("nodeAffinity") is None:
                errors.append(required(f"{path}.nodeAffinity", "Local volume requires node affinity"))
        else:
            errors.append(forbidden(f"{path}.{'cephFS' if kind == 'cephfs' else kind}", MANY_TYPES))


def check_inline_volume(spec: Obj, path: str, errors: Errors) -> None:
    """A volume that is described where it is used, by an attachment: a CSI volume without a life of its own."""
    where = "in the context of inline volumes"
    for field in ("claimRef", "capacity", "nodeAffinity", "storageClassName"):
        if spec.get(field):
            errors.append(forbidden(f"{path}.{field}", f"may not be specified {where}"))
    if spec.get("csi") is None:
        errors.append(required(f"{path}.csi", f"has to be specified {where}"))
    if not spec.get("accessModes"):
        errors.append(required(f"{path}.accessModes"))
    check_access_modes(spec.get("accessModes") or [], f"{path}.accessModes", errors)
    if spec.get("persistentVolumeReclaimPolicy") not in (None, "", "Retain"):
        detail = f"may only be Retain {where}"
        errors.append(forbidden(f"{path}.persistentVolumeReclaimPolicy", detail))
    if spec.get("volumeMode") not in (None, "Filesystem"):
        detail = f"may not specify volumeMode other than Filesystem {where}"
        errors.append(forbidden(f"{path}.volumeMode", detail))
    _check_sources(spec, "", errors, path=path)


def _check_attributes_class(spec: Obj, errors: Errors) -> None:
    name = spec.get("volumeAttributesClassName")
    if name is None:
        return
    path = "spec.volumeAttributesClassName"
    if not name:
        errors.append(required(path, "an empty string is disallowed"))
    else:
        check_rule(name_is_dns_subdomain, name, path, errors)
    if spec.get("csi") is None:
        errors.append(required("spec.csi", "has to be specified when using volumeAttributesClassName"))


def _check_affinity_change(new: Any, old: Any, errors: Errors) -> None:
    if old is not None and not _same_but_newer_labels(new, old):
        detail = f"{IMMUTABLE}, except for updating from beta label to GA"
        errors.append(invalid("nodeAffinity", new, detail))


def _same_but_newer_labels(new: Any, old: Any) -> bool:
    """Whether the two say the same, but that labels may have got their newer names."""
    if isinstance(new, dict) and isinstance(old, dict):
        return new.keys() == old.keys() and all(_same_but_newer_labels(new[field], old[field]) for field in new)
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(_same_but_newer_labels, new, old))
    return bool(new == old or (isinstance(old, str) and _NEWER_LABELS.get(old) == new))


_NEWER_LABELS = {
    old: text.split('"')[1] for old, text in DEPRECATED.items() if old.startswith(("beta.", "failure-domain."))
}


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
        strategy=PersistentVolumeStrategy(),
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
