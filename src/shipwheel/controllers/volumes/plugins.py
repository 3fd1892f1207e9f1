"""Who makes and deletes which volumes.

External provisioners do nearly all of it: they watch for claims that name them. Only a few kinds of volumes are
left to the controller manager itself. Volumes of the clouds' old built-in kinds are handled by the clouds' CSI
drivers (KEP-625), which learn of them by annotations.
"""

from __future__ import annotations

from typing import Literal

from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.kinds.claims import BETA_STORAGE_PROVISIONER, MIGRATED_TO, PROVISIONED_BY, STORAGE_PROVISIONER

LOCAL_PATH = "shipwheel.dev/local-path"
"""The provisioner of the built-in class for directories on nodes."""

DELETION_FINALIZER = "kubernetes.io/pv-controller"

MIGRATED = {
    "kubernetes.io/aws-ebs": "ebs.csi.aws.com",
    "kubernetes.io/azure-disk": "disk.csi.azure.com",
    "kubernetes.io/azure-file": "file.csi.azure.com",
    "kubernetes.io/cinder": "cinder.csi.openstack.org",
    "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
    "kubernetes.io/portworx-volume": "pxd.portworx.com",
    "kubernetes.io/vsphere-volume": "csi.vsphere.vmware.com",
}
"""The CSI driver of each old built-in kind."""

_BUILT_IN = "kubernetes.io/"
_KNOWN_SOURCES = ("hostPath", "nfs", "local")


class NoPlugin(ValueError):
    """Nobody handles volumes of this kind; the message is upstream's."""


Deleter = Literal["external", "local-path", "host-path"]


def deleter_of(volume: Obj) -> Deleter:
    """Who deletes a volume's storage; NoPlugin when nobody can."""
    annotations = annotations_of(volume)
    provisioner = annotations.get(PROVISIONED_BY, "")
    if provisioner == LOCAL_PATH:
        return "local-path"
    if provisioner:
        if provisioner.startswith(_BUILT_IN) and provisioner not in MIGRATED:
            raise NoPlugin(f"no volume plugin matched name: {provisioner}")
        return "external"
    spec = volume["spec"]
    if MIGRATED_TO in annotations or spec.get("csi"):
        return "external"
    if spec.get("hostPath"):
        return "host-path"
    known = any(spec.get(source) for source in _KNOWN_SOURCES)
    why = "no deletable volume plugin matched" if known else "no volume plugin matched"
    raise NoPlugin(f'error getting deleter volume plugin for volume "{name_of(volume)}": {why}')


def external_name(provisioner: str) -> str:
    """By what name an external provisioner knows a class's provisioner; NoPlugin for a built-in one that there is
    none of."""
    if provisioner in MIGRATED:
        return MIGRATED[provisioner]
    if provisioner.startswith(_BUILT_IN):
        raise NoPlugin(f"no volume plugin matched name: {provisioner}")
    return provisioner


def migration(obj: Obj, *, claim: bool) -> str | None:
    """What a claim's or volume's annotation about migration must be (empty: none); None when it is right."""
    annotations = annotations_of(obj)
    if claim:
        provisioner = annotations.get(STORAGE_PROVISIONER) or annotations.get(BETA_STORAGE_PROVISIONER)
    else:
        provisioner = annotations.get(PROVISIONED_BY)
    if not provisioner:
        return None
    wanted = MIGRATED.get(provisioner, "")
    return None if annotations.get(MIGRATED_TO, "") == wanted else wanted


def finalizers(volume: Obj) -> list[str]:
    """The finalizers that a volume made by us must have: until its storage is deleted, it must stay."""
    current: list[str] = list(volume["metadata"].get("finalizers") or ())
    if annotations_of(volume).get(PROVISIONED_BY) != LOCAL_PATH:
        return current
    deletes = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    if not deletes:
        return [each for each in current if each != DELETION_FINALIZER]
    return current if DELETION_FINALIZER in current else [*current, DELETION_FINALIZER]
