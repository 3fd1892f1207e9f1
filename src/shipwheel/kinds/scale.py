"""`scale`: the size of a workload, seen and set without knowing the workload (autoscaling/v1 Scale).

The view and its way back are the same for all kinds with replicas, custom resources included; they only differ in
where the numbers are, and in the selector, which a ReplicationController has as a plain map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shipwheel.api.errors import conflict, invalid, invalid_object
from shipwheel.api.meta import GroupResource, GroupVersionKind, Obj
from shipwheel.api.resource import Column, Subresource
from shipwheel.kinds import catalog
from shipwheel.kinds.columns import AGE, NAME, number, selector_text
from shipwheel.kinds.declare import READ_WRITE

SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
_COLUMNS = (
    Column("Name", NAME.value),
    Column("Desired", number("spec", "replicas"), type="integer"),
    Column("Available", number("status", "replicas"), type="integer"),
    AGE,
)


def scale_subresource(
    resource: GroupResource,
    selector: Callable[[Obj], str] | None = None,
    *,
    wanted: Sequence[str] = ("spec", "replicas"),
    actual: Sequence[str] = ("status", "replicas"),
) -> Subresource:
    """The `scale` of a kind. `wanted` and `actual` are the places of its size: as it should be and as it is."""

    def read(obj: Obj) -> Obj:
        replicas = value_at(obj, wanted)
        return _scale_of(obj, replicas or 0, value_at(obj, actual) or 0, (selector or _label_selector)(obj))

    def update(view: Obj, obj: Obj) -> Obj:
        return _rescale(view, obj, resource, wanted)

    def applied(config: Obj) -> Obj:
        return _put({}, wanted, _replicas(config))

    return Subresource(
        "scale",
        READ_WRITE,
        kind=SCALE,
        schema=catalog.schema_for(SCALE),
        columns=_COLUMNS,
        read=read,
        update=update,
        applied=applied,
    )


def value_at(obj: Obj, place: Sequence[str]) -> Any:
    """What is at that place of an object of any shape; None for nothing."""
    found: Any = obj
    for step in place:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _replicas(view: Obj) -> int:
    return (view.get("spec") or {}).get("replicas") or 0


def _put(obj: Obj, place: Sequence[str], value: int) -> Obj:
    """A copy of the object with a value at that place."""
    step, *rest = place
    return {**obj, step: _put(obj.get(step) or {}, rest, value) if rest else value}


def _label_selector(obj: Obj) -> str:
    return selector_text(obj["spec"].get("selector"))


def map_selector(obj: Obj) -> str:
    """The selector of kinds where it is a map of labels."""
    return selector_text({"matchLabels": obj["spec"].get("selector")})


def _scale_of(obj: Obj, replicas: int, actual: int, selector: str) -> Obj:
    """The Scale that shows a workload."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Obj = {"replicas": actual}
    if selector:
        status["selector"] = selector
    return {
        "kind": SCALE.kind,
        "apiVersion": str(SCALE.group_version),
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _rescale(view: Obj, obj: Obj, resource: GroupResource, wanted: Sequence[str]) -> Obj:
    """The workload with the size that the Scale asks for.

    Raises ApiError 422 for a negative size and 409 when the Scale was read before the object changed.
    """
    metadata = view.get("metadata") or {}
    name = obj["metadata"]["name"]
    replicas = _replicas(view)
    if replicas < 0:
        error = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid_object(SCALE.group, SCALE.kind, name, [error])
    uid = metadata.get("uid")
    if uid and uid != obj["metadata"].get("uid"):
        raise conflict(
            GroupResource(resource.group, f"{resource.resource}/scale"),
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {obj['metadata'].get('uid')}",
        )
    changed = _put(obj, wanted, replicas)
    changed["metadata"] = dict(obj["metadata"])
    if metadata.get("resourceVersion"):
        changed["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    return changed
