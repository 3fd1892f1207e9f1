"""Namespaces.

A namespace that is deleted stays, Terminating, until nothing lies in it any more: the `kubernetes` finalizer of its
spec says so, and is taken off through `finalize`.
"""

from __future__ import annotations

from shipwheel.api.errors import FieldError, invalid
from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_label
from shipwheel.api.objectmeta import validate_finalizers
from shipwheel.api.resource import Column, Resource, Strategy, Subresource, WriteContext, keep
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import AGE, NAME, text
from shipwheel.kinds.declare import STATUS, served

FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"
_STANDARD_FINALIZERS = (FINALIZER, "orphan", "foregroundDeletion")


class NamespaceStrategy(Strategy):
    name_rule = staticmethod(name_is_dns_label)
    tracks_generation = False

    def default(self, namespace: Obj) -> None:
        _label_with_name(namespace)
        status = namespace.setdefault("status", {})
        if not status.get("phase"):
            status["phase"] = "Active"

    def prepare_for_create(self, namespace: Obj, ctx: WriteContext) -> None:
        namespace["status"] = {"phase": "Active"}
        finalizers = namespace.setdefault("spec", {}).setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        _label_with_name(namespace)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new.setdefault("spec", {}), old.get("spec") or {}, "finalizers")
        keep(new, old, "status")
        _label_with_name(new)

    def prepare_for_status_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "spec")
        _label_with_name(new)

    def validate(self, namespace: Obj) -> list[FieldError]:
        errors: Errors = []
        for finalizer in (namespace.get("spec") or {}).get("finalizers") or ():
            _check_finalizer(finalizer, "spec.finalizers", errors)
        return errors

    def validate_status_update(self, new: Obj, old: Obj) -> list[FieldError]:
        phase = (new.get("status") or {}).get("phase", "")
        if new["metadata"].get("deletionTimestamp"):
            wanted, detail = "Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"
        else:
            wanted, detail = "Active", "may only be 'Active' if `deletionTimestamp` is empty"
        return [] if phase == wanted else [invalid("status.Phase", phase, detail)]

    def holds_deletion(self, namespace: Obj) -> bool:
        return bool((namespace.get("spec") or {}).get("finalizers"))

    def mark_deleted(self, namespace: Obj, ctx: WriteContext) -> None:
        namespace["status"] = {**(namespace.get("status") or {}), "phase": "Terminating"}


class _FinalizeStrategy(NamespaceStrategy):
    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        keep(new, old, "status")
        _label_with_name(new)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors: Errors = []
        for index, finalizer in enumerate((new.get("spec") or {}).get("finalizers") or ()):
            _check_finalizer(finalizer, f"spec.finalizers[{index}]", errors)
        return errors


def _label_with_name(namespace: Obj) -> None:
    """Let selectors of namespaces find each by its name (KEP-2161)."""
    metadata = namespace["metadata"]
    name = metadata.get("name")
    if name and (metadata.get("labels") or {}).get(NAME_LABEL) != name:
        metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: name}


def _check_finalizer(finalizer: str, path: str, errors: Errors) -> None:
    errors += validate_finalizers([finalizer], path)
    if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
        detail = "name is neither a standard finalizer name nor is it fully qualified"
        errors.append(invalid(path, finalizer, detail))


RESOURCES = (
    Resource(
        kind="Namespace",
        plural="namespaces",
        singular="namespace",
        short_names=("ns",),
        namespaced=False,
        versions=(served("", "v1", "Namespace"),),
        strategy=NamespaceStrategy(),
        columns=(NAME, Column("Status", text("status", "phase")), AGE),
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
        subresources=(STATUS, Subresource("finalize", ("update",), strategy=_FinalizeStrategy())),
        selectable={
            "status.phase": lambda namespace: (namespace.get("status") or {}).get("phase", ""),
            "name": lambda namespace: namespace["metadata"]["name"],
        },
    ),
)
