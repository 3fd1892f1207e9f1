"""Deleting a pod because of where it runs, as the eviction controllers do it: first its status says why
(KEP-3329), so that a Job can tell the disruption from a failure.
"""

from __future__ import annotations

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, namespace_of, uid_of
from shipwheel.client.client import Client
from shipwheel.client.resources import PODS
from shipwheel.controllers.framework import is_not_found


async def evict(client: Client, clock: Clock, pod: Obj, *, reason: str, message: str) -> None:
    """Mark a pod as disrupted and delete it, gracefully. One that has gone is fine."""
    condition: Obj = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(clock.now()),
    }
    if pod["metadata"].get("generation"):
        condition["observedGeneration"] = pod["metadata"]["generation"]
    name, namespace = name_of(pod), namespace_of(pod)
    try:
        patch = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [condition]}}
        await client.patch(PODS, name, namespace, patch, kind="strategic", subresource="status")
        await client.delete(PODS, name, namespace, uid=uid_of(pod))
    except ApiError as error:
        if not is_not_found(error):
            raise


def reference_to(pod: Obj) -> Obj:
    """What events about a pod name, without the part of it that its resource version would be."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": namespace_of(pod),
        "name": name_of(pod),
        "uid": uid_of(pod),
    }
