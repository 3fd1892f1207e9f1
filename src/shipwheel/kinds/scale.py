"""`scale`: the size of a workload, seen and set without knowing the workload (autoscaling/v1 Scale).

The view and its way back are the same for all kinds with replicas; only the selector differs, which a
ReplicationController has as a plain map.
"""

from __future__ import annotations

from collections.abc import Callable

from shipwheel.api.errors import conflict, invalid, invalid_object
from shipwheel.api.meta import GroupResource, GroupVersionKind, Obj
from shipwheel.api.resource import Subresource
from shipwheel.kinds import catalog
from shipwheel.kinds.columns import selector_text
from shipwheel.kinds.declare import READ_WRITE

SCALE = GroupVersionKind("autoscaling", "v1", "Scale")


def scale_subresource(resource: GroupResource, selector: Callable[[Obj], str] | None = None) -> Subresource:
    """The `scale` of a kind that keeps its size in `spec.replicas` and `status.replicas`."""

    def read(obj: Obj) -> Obj:
        return scale_of(obj, selector or _label_selector)

    def update(view: Obj, obj: Obj) -> Obj:
        return rescale(view, obj, resource)

    return Subresource(
        "scale", READ_WRITE, kind=SCALE, schema=catalog.schema_for(SCALE), read=read, update=update, applied=_applied
    )


def _applied(config: Obj) -> Obj:
    return {"spec": {"replicas": (config.get("spec") or {}).get("replicas") or 0}}


def _label_selector(obj: Obj) -> str:
    return selector_text(obj["spec"].get("selector"))


def map_selector(obj: Obj) -> str:
    """The selector of kinds where it is a map of labels."""
    return selector_text({"matchLabels": obj["spec"].get("selector")})


def scale_of(obj: Obj, selector: Callable[[Obj], str]) -> Obj:
    """The Scale that shows a workload."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = obj["spec"].get("replicas")
    status: Obj = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
    text = selector(obj)
    if text:
        status["selector"] = text
    return {
        "kind": SCALE.kind,
        "apiVersion": str(SCALE.group_version),
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def rescale(view: Obj, obj: Obj, resource: GroupResource) -> Obj:
    """The workload with the size that the Scale asks for.

    Raises ApiError 422 for a negative size and 409 when the Scale was read before the object changed.
    """
    metadata = view.get("metadata") or {}
    name = obj["metadata"]["name"]
    replicas = (view.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        error = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid_object(SCALE.group, SCALE.kind, name, [error])
    uid = metadata.get("uid")
    if uid and uid != obj["metadata"].get("uid"):
        raise conflict(
            resource,
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {obj['metadata'].get('uid')}",
        )
    changed = dict(obj)
    changed["metadata"] = dict(obj["metadata"])
    if metadata.get("resourceVersion"):
        changed["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    changed["spec"] = {**obj["spec"], "replicas": replicas}
    return changed
