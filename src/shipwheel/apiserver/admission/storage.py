"""Admission of claims and volumes: the default class, which claims may grow, and the finalizers that protect what is
in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shipwheel.api import quantity
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.admission.chain import Attempt, Plugin

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLASS_FINALIZER = "kubernetes.io/vac-protection"
_CLASS = "volume.beta.kubernetes.io/storage-class"
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
        if "storageClassName" in claim["spec"] or _CLASS in annotations:
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


class PersistentVolumeClaimResize(Plugin):
    """Claims grow only where the class that their volumes were made by allows it."""

    name = "PersistentVolumeClaimResize"
    operations = frozenset({"UPDATE"})
    kinds = frozenset({GroupResource("", "persistentvolumeclaims")})

    def __init__(self, find: Callable[[str], Obj | None]) -> None:
        """`find` gives the class of a name."""
        self._find = find

    async def validate(self, attempt: Attempt) -> None:
        claim, old = attempt.obj, attempt.old
        if attempt.subresource or claim is None or old is None or _asked(claim) <= _asked(old):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise attempt.forbid("Only bound persistent volume claims can be expanded")
        name = _class_of(claim)
        made_by = self._find(name) if name and name == _class_of(old) else None
        if made_by is None or not made_by.get("allowVolumeExpansion"):
            raise attempt.forbid(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )


def _asked(claim: Obj) -> quantity.Quantity:
    asked = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    return quantity.parse(asked) if asked else quantity.ZERO


def _class_of(claim: Obj) -> str:
    annotated = (claim["metadata"].get("annotations") or {}).get(_CLASS)
    return annotated if annotated is not None else claim["spec"].get("storageClassName") or ""


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
