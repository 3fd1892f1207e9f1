"""From a pod's volume to what is to be mounted: itself, or the PersistentVolume behind its claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.kubelet.volumes.base import Cluster, VolumeError

_PROTECTION = "kubernetes.io/pvc-protection"
_NOT_SOURCES = frozenset(
    (
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    )
)


@dataclass(frozen=True, slots=True)
class Resolved:
    kind: str
    """The source's field name: `emptyDir`, `nfs`, `csi`, ..."""
    source: Any
    spec_name: str
    pv: Obj | None = None
    claim: Obj | None = None
    read_only: bool = False


class NotProcessed(VolumeError):
    """The volume cannot even be found out; the message is what the pod's event tells of it."""


def claim_name(pod: Obj, volume: Obj) -> str:
    """The claim a volume stands for; empty when it stands for itself. A generic ephemeral volume's claim is named
    after the pod and the volume."""
    if "persistentVolumeClaim" in volume:
        return volume["persistentVolumeClaim"]["claimName"]
    if "ephemeral" in volume:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return ""


def inline(volume: Obj) -> Resolved:
    """A volume that stands for itself. No source at all means an empty directory."""
    kind = next((key for key in volume if key != "name"), "emptyDir")
    source = volume.get(kind) or {}
    read_only = bool(source.get("readOnly")) if isinstance(source, dict) else False
    return Resolved(kind, source, volume["name"], read_only=read_only)


async def resolve(pod: Obj, volume: Obj, cluster: Cluster | None) -> Resolved:
    """Raises NotProcessed."""
    name = claim_name(pod, volume)
    if not name:
        return inline(volume)
    if cluster is None:
        raise NotProcessed("a claim cannot be used without an API server")
    namespace = pod["metadata"].get("namespace", "")
    try:
        claim = await _bound_claim(cluster, namespace, name)
        if "ephemeral" in volume:
            _check_owner(pod, claim)
        found = await _volume_of(cluster, claim)
    except VolumeError as error:
        raise NotProcessed(f"error processing PVC {namespace}/{name}: {error}") from error
    mode = found["spec"].get("volumeMode") or "Filesystem"
    if mode == "Block" and _is_used(pod, volume["name"], "volumeMounts"):
        raise NotProcessed(f"volume {volume['name']} has volumeMode Block, but is specified in volumeMounts")
    if mode != "Block" and _is_used(pod, volume["name"], "volumeDevices"):
        raise NotProcessed(f"volume {volume['name']} has volumeMode {mode}, but is specified in volumeDevices")
    kind = next((key for key in found["spec"] if key not in _NOT_SOURCES), "")
    source = found["spec"].get(kind) or {}
    asked = volume.get("persistentVolumeClaim") or {}
    return Resolved(
        kind,
        source,
        found["metadata"]["name"],
        pv=found,
        claim=claim,
        read_only=bool(asked.get("readOnly") or source.get("readOnly")),
    )


async def _bound_claim(cluster: Cluster, namespace: str, name: str) -> Obj:
    try:
        claim = await cluster.claim(namespace, name)
    except ApiError as error:
        raise VolumeError(f"failed to fetch PVC from API server: {error}") from error
    meta = claim["metadata"]
    if meta.get("deletionTimestamp") and _PROTECTION not in (meta.get("finalizers") or ()):
        raise VolumeError("PVC is being deleted")
    if (claim.get("status") or {}).get("phase") != "Bound":
        raise VolumeError("PVC is not bound")
    if not claim["spec"].get("volumeName"):
        raise VolumeError("PVC has empty pvc.Spec.VolumeName")
    return claim


def _check_owner(pod: Obj, claim: Obj) -> None:
    meta, pod_meta = claim["metadata"], pod["metadata"]
    owner = next((each for each in meta.get("ownerReferences") or () if each.get("controller")), None)
    if owner is None or owner["uid"] != pod_meta["uid"]:
        raise VolumeError(
            f"PVC {meta['namespace']}/{meta['name']} was not created for pod "
            f"{pod_meta['namespace']}/{pod_meta['name']} (pod is not owner)"
        )


async def _volume_of(cluster: Cluster, claim: Obj) -> Obj:
    name, uid = claim["spec"]["volumeName"], claim["metadata"]["uid"]
    try:
        found = await cluster.volume(name)
    except ApiError as error:
        raise VolumeError(f"failed to fetch PV {name} from API server: {error}") from error
    reference = found["spec"].get("claimRef")
    if not reference:
        raise VolumeError(
            f"found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )
    if reference.get("uid") != uid:
        raise VolumeError(
            f"found PV object {name} but its pv.Spec.ClaimRef.UID {reference.get('uid', '')} does not point to "
            f"claim.UID {uid}"
        )
    return found


def _is_used(pod: Obj, name: str, field: str) -> bool:
    return any(
        each["name"] == name
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in pod["spec"].get(kind) or ()
        for each in container.get(field) or ()
    )
