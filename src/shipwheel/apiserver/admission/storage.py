"""Admission of claims and volumes: the default class, and the finalizers that protect what is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLASS_FINALIZER = "kubernetes.io/vac-protection"
_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")

_FINALIZERS = {
    GroupResource("", "persistentvolumeclaims"): CLAIM_FINALIZER,
    GroupResource("", "persistentvolumes"): VOLUME_FINALIZER,
    GroupResource("storage.k8s.io", "volumeattributesclasses"): CLASS_FINALIZER,
}


class DefaultStorageClass(Plugin):
    name = "DefaultStorageClass"
    kinds = frozenset({GroupResource("", "persistentvolumeclaims")})

    def __init__(self, classes: Callable[[], Sequence[Obj]]) -> None:
        self._classes = classes

    async def mutate(self, attempt: Attempt) -> None:
        claim = attempt.obj
        if attempt.operation != "CREATE" or not attempt.concerns("", "persistentvolumeclaims") or claim is None:
            return
        annotations = claim["metadata"].get("annotations") or {}
        if "storageClassName" in claim["spec"] or "volume.beta.kubernetes.io/storage-class" in annotations:
            return
        chosen = default_class(self._classes())
        if chosen is not None:
            claim["spec"]["storageClassName"] = chosen["metadata"]["name"]


def default_class(classes: Sequence[Obj]) -> Obj | None:
    """The class marked as default; of several the newest, then the first by name."""
    marked = [each for each in classes if is_default(each)]
    marked.sort(key=lambda each: each["metadata"]["name"])
    marked.sort(key=lambda each: each["metadata"]["creationTimestamp"], reverse=True)
    return marked[0] if marked else None


def is_default(storage_class: Obj) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return any(annotations.get(key) == "true" for key in _DEFAULT)


class StorageObjectInUseProtection(Plugin):
    name = "StorageObjectInUseProtection"
    kinds = frozenset(_FINALIZERS)

    async def mutate(self, attempt: Attempt) -> None:
        if attempt.operation != "CREATE" or attempt.obj is None or attempt.subresource:
            return
        finalizer = _FINALIZERS[attempt.target]
        finalizers = attempt.obj["metadata"].get("finalizers") or []
        if finalizer not in finalizers:
            attempt.obj["metadata"]["finalizers"] = [*finalizers, finalizer]
