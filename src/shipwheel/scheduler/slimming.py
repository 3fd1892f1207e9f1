"""Pods that run already, as small as they can be: there may be a hundred thousand and more of them.

Of such a pod only what other pods' placement depends on is kept, and what pods of one template have in common is kept
once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from shipwheel.api.meta import Obj
from shipwheel.scheduler.pods import RELEVANT_VOLUMES

_META = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "generation")
_SPEC = (
    "schedulerName", "affinity", "topologySpreadConstraints", "overhead", "resources", "priority", "preemptionPolicy",
    "tolerations", "nodeSelector",
)  # fmt: skip
"""All that makes a pod's shape, so that it is the same before and after."""
_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy")
_STATUS = ("phase", "startTime", "nominatedNodeName")
_SHARED = 8192


class Slimmer:
    """An informer's transform. Objects that are no pods, and pods that have no node yet, stay whole."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Any] = OrderedDict()

    def __call__(self, obj: Obj) -> Obj:
        meta = obj["metadata"]
        meta.pop("managedFields", None)
        spec: Obj = obj.get("spec") or {}
        if obj.get("kind") != "Pod" or not spec.get("nodeName"):
            return obj
        status = obj.get("status") or {}
        kept_meta = {key: meta[key] for key in _META if key in meta}
        if meta.get("labels"):
            kept_meta["labels"] = self._shared(meta["labels"])
        kept_status = {key: status[key] for key in _STATUS if key in status}
        going = [each for each in status.get("conditions") or () if each["type"] == "DisruptionTarget"]
        if going:
            kept_status["conditions"] = going
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": kept_meta,
            "spec": {**self._shared(_template(spec)), "nodeName": spec["nodeName"]},
            "status": kept_status,
        }

    def _shared(self, value: Any) -> Any:
        """The value, or one that is equal and known already."""
        key = orjson.dumps(value)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = value
            if len(self._known) > _SHARED:
                self._known.popitem(last=False)
        return known


def _template(spec: Obj) -> Obj:
    """What pods of one template have in common."""
    kept = {key: spec[key] for key in _SPEC if key in spec}
    for kind in ("containers", "initContainers"):
        if spec.get(kind):
            kept[kind] = [{key: each[key] for key in _CONTAINER if key in each} for each in spec[kind]]
    volumes = [each for each in spec.get("volumes") or () if any(kind in each for kind in RELEVANT_VOLUMES)]
    if volumes:
        kept["volumes"] = volumes
    return kept
