"""Manifests of static pods: from the text of a file to pods as the API server would have made them.

Types, defaults and validity are those of the Pod kind. Nobody is asked, so a static pod may not refer to what only an
API server has. Its uid is made of what was read, the node and the place: an edited file is another pod, and an
unchanged one is recognized after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from shipwheel.api.meta import Obj
from shipwheel.api.names import name_is_dns_subdomain
from shipwheel.api.objectmeta import validate_object_meta
from shipwheel.api.schema import DecodeError, apply_defaults, conform
from shipwheel.kinds.core import pod as pod_kind
from shipwheel.kubelet import podspec

Source = Literal["file", "http"]
_POD = next(each for each in pod_kind.RESOURCES if each.kind == "Pod")
_VOLUMES_OF_THE_API = {
    "configMap": "configmaps (via configmap volumes)",
    "secret": "secrets (via secret volumes)",
    "csi": "csidrivers (via CSI volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
}
_PROJECTIONS_OF_THE_API = {
    "configMap": "configmaps (via projected volumes)",
    "secret": "secrets (via projected volumes)",
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}


class StaticPodFault(Exception):
    """What was read is no pod."""


def pods_of(text: str, node_name: str, place: str, source: Source) -> dict[str, Obj]:
    """The pods in a manifest (a Pod, or a PodList), by uid; StaticPodFault when it is something else."""
    pods = [_static_pod(each, node_name, place, source) for each in _listed(_parsed(text))]
    return {each["metadata"]["uid"]: each for each in pods}


def _parsed(text: str) -> Obj:
    import yaml

    try:
        obj = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StaticPodFault(f"couldn't parse as pod({error}), please check config file") from error
    if not isinstance(obj, dict):
        raise StaticPodFault("couldn't parse as pod(it is no object), please check config file")
    return obj


def _listed(obj: Obj) -> list[Any]:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if version != "v1" or kind not in ("Pod", "PodList", "List"):
        why = f'no kind "{kind}" is registered for version "{version}"'
        raise StaticPodFault(f"couldn't parse as pod({why}), please check config file")
    items = [obj] if kind == "Pod" else obj.get("items") or []
    if not isinstance(items, list):
        raise StaticPodFault("couldn't parse as pod(items is no list), please check config file")
    return items


def _static_pod(obj: Any, node_name: str, place: str, source: Source) -> Obj:
    """A pod with everything filled in that the API server would fill in."""
    read = _decoded(obj)
    meta, spec = read["metadata"], read["spec"]
    if not meta.get("name"):
        raise StaticPodFault("invalid pod: name is needed for the pod")
    if not meta.get("uid"):
        meta["uid"] = _uid(read, node_name, place)
    meta["name"] = f"{meta['name']}-{node_name.lower()}"
    meta["namespace"] = meta.get("namespace") or "default"
    annotations = meta.get("annotations") or {}
    meta["annotations"] = {
        **annotations,
        podspec.CONFIG_HASH: meta["uid"],
        podspec.CONFIG_SOURCE: source,
    }
    spec["nodeName"] = node_name
    if source == "file":
        _tolerate_node_problems(spec)
    errors = validate_object_meta(meta, namespaced=True, name_rule=_POD.strategy.name_rule or name_is_dns_subdomain)
    errors += _POD.strategy.validate(read)
    if errors:
        raise StaticPodFault(f"invalid pod: [{', '.join(str(each) for each in errors)}]")
    referred = next(_references(spec), "")
    if referred:
        raise StaticPodFault(f"static pods may not reference {referred}")
    read["status"] = {"phase": "Pending"}
    return read


def _decoded(obj: Any) -> Obj:
    """The pod with its defaults; fields that nobody knows are dropped."""
    schema = _POD.versions[0].schema
    try:
        read = conform(schema, obj)
    except DecodeError as error:
        raise StaticPodFault(f"couldn't parse as pod({error}), please check config file") from error
    apply_defaults(schema, read)
    for part in ("metadata", "spec"):
        read[part] = read.get(part) or {}
    _POD.strategy.default(read)
    return read


def _uid(read: Obj, node_name: str, place: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    digest.update(f"host:{node_name}{place}".encode())
    digest.update(json.dumps(read, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _tolerate_node_problems(spec: Obj) -> None:
    tolerations = spec.get("tolerations") or []
    if not any(each.get("operator") == "Exists" and not each.get("key") for each in tolerations):
        spec["tolerations"] = [*tolerations, {"operator": "Exists", "effect": "NoExecute"}]


def _references(spec: Obj) -> Iterator[str]:
    """What only an API server has, and the pod refers to."""
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        yield "serviceaccounts"
    if spec.get("imagePullSecrets"):
        yield "secrets"
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            yield from _references_of_environment(container)
    if spec.get("resourceClaims"):
        yield "resourceclaims"
    for volume in spec.get("volumes") or ():
        for kind in volume:
            if kind in _VOLUMES_OF_THE_API:
                yield _VOLUMES_OF_THE_API[kind]
        for source in (volume.get("projected") or {}).get("sources") or ():
            for kind in source:
                if kind in _PROJECTIONS_OF_THE_API:
                    yield _PROJECTIONS_OF_THE_API[kind]


def _references_of_environment(container: Obj) -> Iterator[str]:
    for source in container.get("envFrom") or ():
        if "secretRef" in source:
            yield "secrets"
        if "configMapRef" in source:
            yield "configmaps"
    for variable in container.get("env") or ():
        chosen = variable.get("valueFrom") or {}
        if "secretKeyRef" in chosen:
            yield "secrets"
        if "configMapKeyRef" in chosen:
            yield "configmaps"
