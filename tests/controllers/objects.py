"""Making objects for tests, short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    """A timestamp so long before NOW."""
    return rfc3339(NOW - timedelta(seconds=seconds))


def meta(name: str, **fields: Any) -> Obj:
    return {"name": name, "namespace": "default", "uid": f"uid-{name}", "creationTimestamp": ago(3600), **fields}


def pod(
    name: str = "p",
    phase: str = "Running",
    *,
    node: str = "n1",
    ready: bool | None = None,
    ready_for: float = 600,
    deleted: bool = False,
    created: float = 3600,
    spec: Obj | None = None,
    status: Obj | None = None,
    **fields: Any,
) -> Obj:
    """A pod; running ones are ready unless told otherwise."""
    ready = phase == "Running" if ready is None else ready
    metadata = meta(name, creationTimestamp=ago(created), **fields)
    if deleted:
        metadata |= {"deletionTimestamp": ago(-30), "deletionGracePeriodSeconds": 30}
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": ago(ready_for)}
    ]  # fmt: skip
    body = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always", **(spec or {})}
    if node:
        body["nodeName"] = node
    return {"metadata": metadata, "spec": body, "status": {"phase": phase, "conditions": conditions, **(status or {})}}


def node(name: str = "n1", *, ready: str = "True", taints: list[Obj] | None = None, **fields: Any) -> Obj:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": ago(3600), **fields},
        "spec": {"taints": taints} if taints else {},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": ago(5)}]},
    }
