"""Pods that are sent to do one thing to a volume: empty it, make its directory, remove it.

The controller cannot reach the storage itself, a pod on the right node can. Each errand has a pod of a name that
follows from the volume's, so that a restarted manager finds it again.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.client.client import Client
from shipwheel.client.informer import Informer
from shipwheel.client.resources import PODS
from shipwheel.controllers.framework import is_already_exists, is_not_found
from shipwheel.kinds.claims import capacity

VOLUME = "shipwheel.dev/volume"
"""Annotation of an errand's pod: the volume that it is about."""
CLAIM = "shipwheel.dev/claim"
"""And the claim, by its key, while there is no volume yet."""

_GI = 1 << 30
_SCRUB = 'test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1'

RECYCLER: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": "default"},
    "spec": {
        "restartPolicy": "Never",
        "volumes": [{"name": "vol"}],
        "containers": [
            {
                "name": "pv-recycler",
                "image": "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6",
                "command": ["/bin/sh"],
                "args": ["-c", _SCRUB],
                "volumeMounts": [{"name": "vol", "mountPath": "/scrub"}],
            }
        ],
    },
}
"""How volumes are emptied unless the administrator gives another pod."""


def recycler_pod(volume: Obj, template: Obj, *, minimum: int, per_gi: int) -> Obj | None:
    """The pod that empties a volume, with a deadline (seconds) that grows with its size; None for a kind of volume
    that cannot be recycled."""
    spec = volume["spec"]
    if spec.get("hostPath"):
        source: Obj = {"hostPath": {"path": spec["hostPath"]["path"]}}
    elif spec.get("nfs"):
        source = {"nfs": {"server": spec["nfs"]["server"], "path": spec["nfs"]["path"]}}
    else:
        return None
    pod = copy.deepcopy(template)
    pod["metadata"] = {
        **{key: value for key, value in pod["metadata"].items() if key != "generateName"},
        "name": f"recycler-for-{name_of(volume)}",
        "annotations": {**(pod["metadata"].get("annotations") or {}), VOLUME: name_of(volume)},
    }
    pod["spec"]["activeDeadlineSeconds"] = max(minimum, per_gi * (capacity(volume).value() // _GI))
    pod["spec"]["volumes"][0] = {"name": pod["spec"]["volumes"][0]["name"], **source}
    return pod


def with_tools(pod: Obj, directories: Sequence[str]) -> Obj:
    """The pod with directories of its node mounted, read-only, where they are there: so an image without any programs
    has the node's, and nothing has to be pulled."""
    if not directories:
        return pod
    spec, containers = pod["spec"], pod["spec"]["containers"]
    volumes = [{"name": f"tools-{index}", "hostPath": {"path": path}} for index, path in enumerate(directories)]
    mounts = [{"name": f"tools-{index}", "mountPath": path, "readOnly": True} for index, path in enumerate(directories)]
    changed = [{**each, "volumeMounts": [*(each.get("volumeMounts") or ()), *mounts]} for each in containers]
    return {**pod, "spec": {**spec, "volumes": [*(spec.get("volumes") or ()), *volumes], "containers": changed}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an errand is going; `error` tells why it failed."""

    ended: bool
    error: str = ""


RUNNING = Outcome(False)
DONE = Outcome(True)


def outcome(pod: Obj) -> Outcome:
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return DONE
    if status.get("phase") == "Failed":
        return Outcome(True, status.get("message") or "pod failed, pod.Status.Message unknown")
    return Outcome(True, "recycler pod was deleted") if is_being_deleted(pod) else RUNNING


async def run_errand(client: Client, pods: Informer, pod: Obj, *, is_needed: Callable[[], Awaitable[bool]]) -> Outcome:
    """Start an errand or see how it is going; the pod of one that has ended is removed.

    That there is no pod can also mean that the errand is done and its result not in our caches yet, so
    `is_needed` asks the server before a pod is made.
    """
    current = pods.get(namespace_of(pod), name_of(pod))
    if current is None:
        if await is_needed():
            try:
                await client.create(PODS, pod, namespace_of(pod))
            except ApiError as error:
                if not is_already_exists(error):
                    raise
        return RUNNING
    result = outcome(current)
    if result.ended:
        try:
            await client.delete(PODS, name_of(current), namespace_of(current), uid=uid_of(current))
        except ApiError as error:
            if not is_not_found(error):
                raise
    return result
