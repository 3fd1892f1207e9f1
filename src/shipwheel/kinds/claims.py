"""Which volumes go with which claims, and which claims with which pods: rules that the volume binder and the
scheduler must agree on.

A claim (PersistentVolumeClaim) asks for storage, a volume (PersistentVolume) is storage. They are bound when each
names the other; annotations tell which of the two references the binder made and may take back.
"""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj, annotations_of, controller_of, is_being_deleted, labels_of, name_of, namespace_of
from shipwheel.api.quantity import Quantity, parse
from shipwheel.api.selectors import from_label_selector

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
MIGRATED_TO = "pv.kubernetes.io/migrated-to"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def class_of(obj: Obj) -> str:
    """The storage class that a claim asks for or a volume is of; empty: none."""
    annotated: str | None = annotations_of(obj).get(_BETA_CLASS)
    return annotated if annotated is not None else obj["spec"].get("storageClassName") or ""


def says_class(claim: Obj) -> bool:
    """The claim names a class, or says that it wants none (""); otherwise it takes the default one."""
    return _BETA_CLASS in annotations_of(claim) or claim["spec"].get("storageClassName") is not None


def default_class(classes: Iterable[Obj]) -> Obj | None:
    """The class for claims that name none: the newest of those marked as default."""
    marked = [each for each in classes if any(annotations_of(each).get(key) == "true" for key in _DEFAULT_CLASS)]
    marked.sort(key=name_of)
    return max(marked, key=lambda each: each["metadata"].get("creationTimestamp") or "", default=None)


def waits_for_consumer(storage_class: Obj | None) -> bool:
    """Claims of the class are bound only when a pod that uses them has been given a node."""
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def requested(claim: Obj) -> Quantity:
    return parse(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))


def capacity(volume: Obj) -> Quantity:
    return parse((volume["spec"].get("capacity") or {}).get("storage", "0"))


def mode_of(obj: Obj) -> str:
    """The volume mode of a claim or volume."""
    return obj["spec"].get("volumeMode") or "Filesystem"


def attributes_class_of(obj: Obj) -> str:
    return obj["spec"].get("volumeAttributesClassName") or ""


def has_access_modes(volume: Obj, claim: Obj) -> bool:
    """The volume can be mounted in every way that the claim asks for."""
    return set(claim["spec"].get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ())


def is_reserved_for(volume: Obj, claim: Obj) -> bool:
    """The volume names the claim; without a uid it is kept for whatever claim comes with that name."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    if reference.get("name") != name_of(claim) or reference.get("namespace") != namespace_of(claim):
        return False
    return not reference.get("uid") or reference["uid"] == claim["metadata"]["uid"]


def mismatch(volume: Obj, claim: Obj) -> str:
    """Why the volume that a claim names is not what the claim asks for; empty when it is."""
    if is_being_deleted(volume):
        return f'the volume is marked for deletion "{name_of(volume)}"'
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if attributes_class_of(volume) != attributes_class_of(claim):
        return "volumeAttributesClassName does not match"
    if mode_of(volume) != mode_of(claim):
        return "incompatible volumeMode"
    if not has_access_modes(volume, claim):
        return "incompatible accessMode"
    return ""


def best_match(claim: Obj, volumes: Iterable[Obj], *, only_reserved: bool = False) -> Obj | None:
    """The volume to bind a claim to: with as few access modes beyond those asked for as can be, one that is
    reserved for the claim, else the smallest that is big enough.

    Whether a node can reach the volume is for the caller to have looked at. `only_reserved` is for claims that
    wait for their first consumer: the scheduler chooses for them.
    """
    wanted = requested(claim)
    selector = from_label_selector(claim["spec"]["selector"]) if claim["spec"].get("selector") else None
    best: tuple[tuple[int, bool, Quantity, str], Obj] | None = None
    for volume in volumes:
        reserved = is_reserved_for(volume, claim)
        if volume["spec"].get("claimRef") and not reserved:
            continue
        if is_being_deleted(volume) or not has_access_modes(volume, claim) or capacity(volume) < wanted:
            continue
        if mode_of(volume) != mode_of(claim) or attributes_class_of(volume) != attributes_class_of(claim):
            continue
        if not reserved:
            if only_reserved or (volume.get("status") or {}).get("phase") != "Available":
                continue
            if class_of(volume) != class_of(claim):
                continue
            if selector is not None and not selector.matches(labels_of(volume)):
                continue
        rank = (len(volume["spec"].get("accessModes") or ()), not reserved, capacity(volume), name_of(volume))
        if best is None or rank < best[0]:
            best = (rank, volume)
    return best[1] if best else None


def reserved(volume: Obj, claim: Obj) -> Obj:
    """The volume with a full reference to the claim; the same object when it has one."""
    reference = volume["spec"].get("claimRef") or {}
    by_name = is_reserved_for(volume, claim)
    if by_name and reference.get("uid") == claim["metadata"]["uid"]:
        return volume
    changed: Obj = {**volume, "spec": {**volume["spec"], "claimRef": reference_to(claim)}}
    return changed if by_name else with_annotations(changed, {BOUND_BY_CONTROLLER: "yes"})


def reference_to(claim: Obj) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace_of(claim),
        "name": name_of(claim),
        "uid": claim["metadata"]["uid"],
        "resourceVersion": claim["metadata"].get("resourceVersion", ""),
    }


def with_annotations(obj: Obj, annotations: dict[str, str]) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**annotations_of(obj), **annotations}}}


def without_annotations(obj: Obj, *keys: str) -> Obj:
    left = {key: value for key, value in annotations_of(obj).items() if key not in keys}
    metadata = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    return {**obj, "metadata": {**metadata, "annotations": left} if left else metadata}


# Claims of pods


def claim_name(pod: Obj, volume: Obj) -> str:
    """The name of the claim that a pod's volume uses, be it one made for this pod; empty: it uses none."""
    if volume.get("persistentVolumeClaim"):
        name: str = volume["persistentVolumeClaim"]["claimName"]
        return name
    return f"{name_of(pod)}-{volume['name']}" if volume.get("ephemeral") else ""


def claims_of(pod: Obj) -> list[str]:
    """The names of the claims that a pod uses."""
    return [name for volume in pod["spec"].get("volumes") or () if (name := claim_name(pod, volume))]


def not_made_for(claim: Obj, pod: Obj) -> str:
    """Why a claim is not the one that was made for a pod's ephemeral volume; empty when it is."""
    owner = controller_of(claim)
    if namespace_of(claim) == namespace_of(pod) and owner and owner["uid"] == pod["metadata"]["uid"]:
        return ""
    return (
        f"PVC {namespace_of(claim)}/{name_of(claim)} was not created for pod {namespace_of(pod)}/{name_of(pod)} "
        "(pod is not owner)"
    )
