"""Sources of storage that volumes of pods and persistent volumes have in common.

What most of them need is said by a table: fields that must not be empty. Storage that Kubernetes itself no longer
mounts is still validated: objects that name it are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from shipwheel.api.errors import invalid, not_supported, required, too_long
from shipwheel.api.meta import Obj
from shipwheel.api.names import is_dns1123_subdomain, name_is_dns_label
from shipwheel.kinds.checks import (
    Errors,
    check_label,
    check_no_backsteps,
    check_one_of,
    check_relative_path,
    check_required,
    check_rule,
    check_subdomain,
)

Check = Callable[[Obj, str, Errors], None]

FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
MANY_TYPES = "may not specify more than 1 volume type"
_MAX_LUN = 255
_MAX_DRIVER_NAME = 63
_MAX_ISCSI_NAME = 64
ISCSI_NAME = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if "
    "iscsi.initiatorName is specified."
)

_REQUIRED_FIELDS: dict[str, tuple[str, ...]] = {
    "gitRepo": ("repository",),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "nfs": ("server", "path"),
    "glusterfs": ("endpoints", "path"),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "cephfs": ("monitors",),
    "flexVolume": ("driver",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "persistentVolumeClaim": ("claimName",),
    "hostPath": ("path",),
    "local": ("path",),
}
# Where upstream's path is not the field's name.
_PATH_NAMES = {"gcePersistentDisk": "persistentDisk"}


def check_source(kind: str, source: Obj, path: str, errors: Errors) -> None:
    """What one source says; `path` is the volume's."""
    here = f"{path}.{_PATH_NAMES.get(kind, kind)}"
    for field in _REQUIRED_FIELDS.get(kind, ()):
        if not source.get(field):
            errors.append(required(f"{here}.{field}"))
    further = _FURTHER.get(kind)
    if further is not None:
        further(source, here, errors)


def _partition(source: Obj, path: str, errors: Errors) -> None:
    partition = source.get("partition", 0)
    if not 0 <= partition <= 255:
        errors.append(invalid(f"{path}.partition", partition, "must be between 1 and 255, inclusive"))


def _git_repo(source: Obj, path: str, errors: Errors) -> None:
    check_relative_path(source.get("directory", ""), f"{path}.directory", errors)


def _host_path(source: Obj, path: str, errors: Errors) -> None:
    check_no_backsteps(source.get("path", ""), f"{path}.path", errors)
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))


_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip


def _local(source: Obj, path: str, errors: Errors) -> None:
    check_no_backsteps(source.get("path", ""), f"{path}.path", errors)


def _nfs(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("path", "").startswith("/"):
        errors.append(invalid(f"{path}.path", source.get("path", ""), "must be an absolute path"))


def _glusterfs(source: Obj, path: str, errors: Errors) -> None:
    namespace = source.get("endpointsNamespace")
    here = f"{path}.endpointsNamespace"
    if namespace == "":
        detail = "if the endpointnamespace is set, it must be a valid namespace name"
        errors.append(invalid(here, namespace, detail))
    elif namespace is not None:
        check_rule(name_is_dns_label, namespace, here, errors)


def _quobyte(source: Obj, path: str, errors: Errors) -> None:
    pairs = "must be a host:port pair or multiple pairs separated by commas"
    registry = source.get("registry", "")
    if not registry:
        errors.append(required(f"{path}.registry", pairs))
    elif len(source.get("tenant", "")) >= 65:
        detail = "must be a UUID and may not exceed a length of 64 characters"
        errors.append(required(f"{path}.tenant", detail))
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[^:]*", pair):
                errors.append(invalid(f"{path}.registry", registry, pairs))
    if not source.get("volume"):
        errors.append(required(f"{path}.volume"))


def _flocker(source: Obj, path: str, errors: Errors) -> None:
    name, uuid = source.get("datasetName"), source.get("datasetUUID")
    if not name and not uuid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(invalid(path, "resource", detail))
    if name and "/" in name:
        errors.append(invalid(f"{path}.datasetName", name, "must not contain '/'"))


_INITIATORS = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9\-.]+)(:[^,;*&$|\s]+)\Z").search,
    "eui": re.compile(r"eui.[a-zA-Z0-9]{16}").fullmatch,
    "naa": re.compile(r"naa.[a-zA-Z0-9]{32}").fullmatch,
}


_BAD_NAME = "must be valid format"


def _iscsi(source: Obj, path: str, errors: Errors, *, hint: bool) -> None:
    """`hint`: a bad name's error says how names begin, as it does in pods."""
    if not source.get("targetPortal"):
        errors.append(required(f"{path}.targetPortal"))
    name = source.get("iqn")
    if not name:
        errors.append(required(f"{path}.iqn"))
    else:
        _check_initiator(name, f"{path}.iqn", errors, hint=hint)
    lun = source.get("lun", 0)
    if not 0 <= lun <= _MAX_LUN:
        errors.append(invalid(f"{path}.lun", lun, f"must be between 0 and {_MAX_LUN}, inclusive"))
    secret = source.get("secretRef")
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and secret is None:
        errors.append(required(f"{path}.secretRef"))
    if source.get("initiatorName") is not None:
        _check_initiator(source["initiatorName"], f"{path}.initiatorname", errors, hint=hint)


def _check_initiator(name: str, path: str, errors: Errors, *, hint: bool) -> None:
    matches = _INITIATORS.get(name[:3])
    if matches is None:
        errors.append(invalid(path, name, "must be valid format starting with iqn, eui, or naa" if hint else _BAD_NAME))
    elif not matches(name):
        errors.append(invalid(path, name, _BAD_NAME))


def _fc(source: Obj, path: str, errors: Errors) -> None:
    names, ids = source.get("targetWWNs"), source.get("wwids")
    here = f"{path}.targetWWNs"
    if not names and not ids:
        errors.append(required(here, "must specify either targetWWNs or wwids, but not both"))
    if names and ids:
        errors.append(invalid(here, names, "targetWWNs and wwids can not be specified simultaneously"))
    if names:
        lun = source.get("lun")
        if lun is None:
            errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= _MAX_LUN:
            errors.append(invalid(f"{path}.lun", lun, f"must be between 0 and {_MAX_LUN}, inclusive"))


def _secret_ref(*fields: str) -> Check:
    """Where a secret is named, it is named in full."""

    def check(source: Obj, path: str, errors: Errors) -> None:
        secret = source.get("secretRef")
        for field in fields:
            if secret is not None and not secret.get(field):
                errors.append(required(f"{path}.secretRef.{field}"))

    return check


def _flex_volume(source: Obj, path: str, errors: Errors) -> None:
    for key in source.get("options") or ():
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            detail = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid(f"{path}.options[{key}]", key, detail))


def _azure_disk(source: Obj, path: str, errors: Errors) -> None:
    caching, kind, uri = source.get("cachingMode"), source.get("kind"), source.get("diskURI", "")
    if caching is not None:
        check_one_of(caching, ("None", "ReadOnly", "ReadWrite"), f"{path}.cachingMode", errors)
    if kind is None:
        return
    check_one_of(kind, ("Dedicated", "Managed", "Shared"), f"{path}.kind", errors)
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        errors.append(not_supported(f"{path}.diskURI", uri, (form,)))
    if kind != "Managed" and not uri.startswith("https://"):
        form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        errors.append(not_supported(f"{path}.diskURI", uri, (form,)))


def _storage_os(source: Obj, path: str, errors: Errors) -> None:
    name, namespace = source.get("volumeName"), source.get("volumeNamespace")
    if not name:
        errors.append(required(f"{path}.volumeName"))
    else:
        check_label(name, f"{path}.volumeName", errors)
    if namespace:
        check_label(namespace, f"{path}.volumeNamespace", errors)
    _secret_ref("name")(source, path, errors)


_FURTHER: dict[str, Check] = {
    "gitRepo": _git_repo,
    "hostPath": _host_path,
    "local": _local,
    "gcePersistentDisk": _partition,
    "awsElasticBlockStore": _partition,
    "nfs": _nfs,
    "glusterfs": _glusterfs,
    "quobyte": _quobyte,
    "flocker": _flocker,
    "iscsi": partial(_iscsi, hint=True),
    "fc": _fc,
    "cinder": _secret_ref("name"),
    "flexVolume": _flex_volume,
    "azureDisk": _azure_disk,
    "storageos": _storage_os,
}


# Persistent volumes' own


def check_persistent_source(kind: str, source: Obj, path: str, errors: Errors, *, volume: str) -> None:
    """The same as the source of a persistent volume, which has secrets in any namespace."""
    if kind == "csi":
        _persistent_csi(source, f"{path}.csi", errors)
        return
    here = f"{path}.{kind}"
    if kind != "iscsi":
        check_source(kind, source, path, errors)
    else:
        _iscsi(source, here, errors, hint=False)
        portal = source.get("targetPortal", "")
        if source.get("initiatorName") is not None and len(f"{volume}:{portal}") > _MAX_ISCSI_NAME:
            errors.append(invalid(f"{here}.targetportal", portal, ISCSI_NAME))
        if source.get("secretRef") is not None and not source["secretRef"].get("name"):
            errors.append(required(f"{here}.secretRef.name"))
    if kind in ("cinder", "storageos"):
        _secret_ref("namespace")(source, here, errors)
    elif kind == "azureFile" and source.get("secretNamespace") == "":
        errors.append(required(f"{here}.secretNamespace"))


def _persistent_csi(source: Obj, path: str, errors: Errors) -> None:
    check_csi_driver_name(source.get("driver", ""), f"{path}.driver", errors)
    if not source.get("volumeHandle"):
        errors.append(required(f"{path}.volumeHandle"))
    for field in (
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ):
        if source.get(field) is not None:
            check_secret_reference(source[field], f"{path}.{field}", errors)


# CSI


def check_csi_driver_name(name: str, path: str, errors: Errors) -> None:
    if not name:
        errors.append(required(path))
        return
    if len(name) > _MAX_DRIVER_NAME:
        errors.append(too_long(path, _MAX_DRIVER_NAME))
    for complaint in is_dns1123_subdomain(name.lower()):
        errors.append(invalid(path, name, complaint))


def check_secret_reference(reference: Obj, path: str, errors: Errors) -> None:
    """A secret by name and namespace."""
    check_required(is_dns1123_subdomain, reference.get("name"), f"{path}.name", errors)
    if not reference.get("namespace"):
        errors.append(required(f"{path}.namespace"))
    else:
        check_label(reference["namespace"], f"{path}.namespace", errors)


def check_inline_csi(source: Obj, path: str, errors: Errors) -> None:
    """A CSI volume that lives as long as its pod."""
    check_csi_driver_name(source.get("driver", ""), f"{path}.driver", errors)
    secret = source.get("nodePublishSecretRef")
    if secret is not None:
        if not secret.get("name"):
            errors.append(required(f"{path}.nodePublishSecretRef.name"))
        else:
            check_subdomain(secret["name"], f"{path}.name", errors)


def check_mode(mode: Any, path: str, errors: Errors) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        errors.append(invalid(path, mode, FILE_MODE))
