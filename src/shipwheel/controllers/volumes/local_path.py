"""The built-in provisioner: a volume is a directory on the node where the first pod that uses it runs.

So the class must wait for the first consumer, the volume can only be used on that node, and its size is not
limited. Pods on the node make the directory and remove it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shipwheel.api.meta import Obj, annotations_of, key_of, labels_of, name_of, namespace_of, uid_of
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.volumes.errands import CLAIM, VOLUME, with_tools
from shipwheel.controllers.volumes.plugins import DELETION_FINALIZER, LOCAL_PATH
from shipwheel.kinds.claims import BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE, mode_of, reference_to

NAMESPACE = "kube-system"
_HOSTNAME = "kubernetes.io/hostname"
_DEADLINE_SECONDS = 120


def volume_name(claim: Obj) -> str:
    return f"pvc-{uid_of(claim)}"


def directory_name(claim: Obj) -> str:
    """Tells a human whose data it is; unique by the claim's uid."""
    return f"{volume_name(claim)}_{namespace_of(claim)}_{name_of(claim)}"


def cannot_provision(claim: Obj, storage_class: Obj, node: Obj | None) -> str:
    """Why there can be no such volume; empty when there can."""
    if node is None:
        selected = annotations_of(claim).get(SELECTED_NODE)
        if selected:
            return f'node "{selected}" not found'
        return "no node was selected: volumeBindingMode of the class must be WaitForFirstConsumer"
    if mode_of(claim) != "Filesystem":
        return f"{LOCAL_PATH} does not support block volume provisioning"
    if not set(claim["spec"].get("accessModes") or ()) <= {"ReadWriteOnce", "ReadWriteOncePod"}:
        return f"{LOCAL_PATH} only supports the access modes ReadWriteOnce and ReadWriteOncePod"
    if storage_class.get("mountOptions"):
        return f"provisioner {LOCAL_PATH!r} doesn't support mount options"
    return ""


def make_volume(claim: Obj, storage_class: Obj, node: Obj, directory: str) -> Obj:
    """The volume for a claim, already bound to it."""
    policy = storage_class.get("reclaimPolicy") or "Delete"
    metadata: Obj = {
        "name": volume_name(claim),
        "annotations": {PROVISIONED_BY: LOCAL_PATH, BOUND_BY_CONTROLLER: "yes"},
    }
    if policy == "Delete":
        metadata["finalizers"] = [DELETION_FINALIZER]
    here = {"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": [hostname_of(node)]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata,
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": name_of(storage_class),
            "volumeMode": "Filesystem",
            "local": {"path": f"{directory.rstrip('/')}/{directory_name(claim)}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
            "claimRef": reference_to(claim),
        },
    }


def hostname_of(node: Obj) -> str:
    return labels_of(node).get(_HOSTNAME, name_of(node))


@dataclass(frozen=True, slots=True)
class Helper:
    """What the pods run that do something to directories: an image and, should it have no tools, the node's."""

    image: str
    tools: tuple[str, ...] = ()


def helper_of(config: ControllerManagerConfig) -> Helper:
    return Helper(config.local_path_helper_image, config.local_path_helper_tools)


def creation_pod(claim: Obj, node: str, directory: str, helper: Helper) -> Obj:
    path = f"/volumes/{directory_name(claim)}"
    script = 'mkdir -p -m 0777 "$0" && chmod 0777 "$0"'
    return _pod(f"create-{volume_name(claim)}", {CLAIM: key_of(claim)}, node, directory, helper, (script, path))


def removal_pod(volume: Obj, node: str, helper: Helper) -> Obj:
    directory, _, name = volume["spec"]["local"]["path"].rpartition("/")
    command = ('rm -rf "$0"', f"/volumes/{name}")
    return _pod(f"delete-{name_of(volume)}", {VOLUME: name_of(volume)}, node, directory, helper, command)


def _pod(
    name: str, annotations: dict[str, str], node: str, directory: str, helper: Helper, command: tuple[str, str]
) -> Obj:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"local-path-{name}", "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            # On its node whatever the scheduler thinks of it: full, cordoned, tainted.
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-node-critical",
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": _DEADLINE_SECONDS,
            "containers": [
                {
                    "name": "local-path",
                    "image": helper.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", *command],
                    "volumeMounts": [{"name": "volumes", "mountPath": "/volumes"}],
                }
            ],
            "volumes": [{"name": "volumes", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}}],
        },
    }
    return with_tools(pod, helper.tools)


def node_of(volume: Obj) -> str:
    """The host name of the node that a volume made here is on."""
    term = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]
    hostname: str = term["matchExpressions"][0]["values"][0]
    return hostname
