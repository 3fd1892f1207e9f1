"""The rules about volumes once more, slowly: one node and one pod at a time, from the documentation.

Sizes are whole Gi and selectors plain labels: quantities and selectors have tests of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .model import selected

Obj = dict[str, Any]


@dataclass
class Storage:
    nodes: list[Obj]
    placed: list[tuple[Obj, str]]
    claims: dict[str, Obj] = field(default_factory=dict)
    volumes: dict[str, Obj] = field(default_factory=dict)
    classes: dict[str, Obj] = field(default_factory=dict)
    limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """By node and driver."""
    drivers: dict[str, bool] = field(default_factory=dict)
    """Whether they tell their capacity."""
    capacities: list[Obj] = field(default_factory=list)

    def on(self, node: Obj) -> list[Obj]:
        return [pod for pod, name in self.placed if name == node["metadata"]["name"]]


def claims_of(storage: Storage, pod: Obj) -> list[Obj]:
    names = [each["persistentVolumeClaim"]["claimName"] for each in _volumes(pod) if "persistentVolumeClaim" in each]
    return [storage.claims[name] for name in names]


def _volumes(pod: Obj) -> list[Obj]:
    return pod["spec"].get("volumes") or []


def _labels(node: Obj) -> dict[str, str]:
    return node["metadata"]["labels"]


def refusals(storage: Storage, pod: Obj, node: Obj) -> list[str]:
    """The reasons of the first rule that refuses the node."""
    for rule in (_alone, _limits, _bound, _delayed, _zone):
        reason = rule(storage, pod, node)
        if reason:
            return [reason]
    return []


def _alone(storage: Storage, pod: Obj, node: Obj) -> str:
    for mine in _volumes(pod):
        for other in storage.on(node):
            for theirs in _volumes(other):
                if _same_disk(mine, theirs):
                    return "node(s) had no available disk"
    for claim in claims_of(storage, pod):
        if claim["spec"]["accessModes"] == ["ReadWriteOncePod"]:
            users = [other for other, _ in storage.placed if claim in claims_of(storage, other)]
            if users:
                return (
                    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
                    "already in-use by another pod"
                )
    return ""


def _same_disk(one: Obj, other: Obj) -> bool:
    for kind, key in (("gcePersistentDisk", "pdName"), ("awsElasticBlockStore", "volumeID"), ("iscsi", "iqn")):
        if kind in one and kind in other and one[kind][key] == other[kind][key]:
            shared = kind != "awsElasticBlockStore" and one[kind].get("readOnly") and other[kind].get("readOnly")
            return not shared
    if "rbd" in one and "rbd" in other:
        mine, theirs = one["rbd"], other["rbd"]
        return (
            mine["image"] == theirs["image"]
            and mine.get("pool", "rbd") == theirs.get("pool", "rbd")
            and any(each in theirs["monitors"] for each in mine["monitors"])
            and not (mine.get("readOnly") and theirs.get("readOnly"))
        )
    return False


def _attached(storage: Storage, pod: Obj) -> set[tuple[str, str]]:
    """(driver, volume) of a pod."""
    found = set()
    for claim in claims_of(storage, pod):
        volume = storage.volumes.get(claim["spec"].get("volumeName", ""))
        if volume is not None and "csi" in volume["spec"]:
            found.add((volume["spec"]["csi"]["driver"], volume["spec"]["csi"]["volumeHandle"]))
            continue
        wanted = storage.classes.get(claim["spec"]["storageClassName"])
        if wanted is not None:
            found.add((wanted["provisioner"], "default/" + claim["metadata"]["name"]))
    return found


def _limits(storage: Storage, pod: Obj, node: Obj) -> str:
    there = {each for other in storage.on(node) for each in _attached(storage, other)}
    new = _attached(storage, pod) - there
    for driver, most in storage.limits.get(node["metadata"]["name"], {}).items():
        mine = [each for each in new if each[0] == driver]
        if mine and len(mine) + len([each for each in there if each[0] == driver]) > most:
            return "node(s) exceed max volume count"
    return ""


def _bound(storage: Storage, pod: Obj, node: Obj) -> str:
    for claim in claims_of(storage, pod):
        name = claim["spec"].get("volumeName")
        if name and not _reachable(storage.volumes[name], node):
            return "node(s) didn't match PersistentVolume's node affinity"
    return ""


def _reachable(volume: Obj, node: Obj) -> bool:
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or any(selected(term, node) for term in required["nodeSelectorTerms"])


def _size(text: str) -> int:
    return int(text.removesuffix("Gi"))


def _delayed(storage: Storage, pod: Obj, node: Obj) -> str:
    """Claims that wait for the pod: the smallest chooses first, the smallest volume there is."""
    waiting = [claim for claim in claims_of(storage, pod) if not claim["spec"].get("volumeName")]
    taken: list[str] = []
    for claim in sorted(waiting, key=lambda each: _size(each["spec"]["resources"]["requests"]["storage"])):
        size = _size(claim["spec"]["resources"]["requests"]["storage"])
        fitting = [
            each
            for each in storage.volumes.values()
            if each["metadata"]["name"] not in taken
            and each["status"]["phase"] == "Available"
            and each["spec"]["storageClassName"] == claim["spec"]["storageClassName"]
            and set(claim["spec"]["accessModes"]) <= set(each["spec"]["accessModes"])
            and _size(each["spec"]["capacity"]["storage"]) >= size
            and _reachable(each, node)
        ]
        if fitting:
            taken.append(min(fitting, key=lambda each: _size(each["spec"]["capacity"]["storage"]))["metadata"]["name"])
            continue
        wanted = storage.classes[claim["spec"]["storageClassName"]]
        if wanted["provisioner"] == "kubernetes.io/no-provisioner":
            return "node(s) didn't find available persistent volumes to bind"
        topologies = wanted.get("allowedTopologies")
        if topologies and not any(
            all(_labels(node).get(each["key"]) in each["values"] for each in one["matchLabelExpressions"])
            for one in topologies
        ):
            return "node(s) didn't find available persistent volumes to bind"
        if storage.drivers.get(wanted["provisioner"]) and not any(
            each["storageClassName"] == claim["spec"]["storageClassName"]
            and _size(each["capacity"]) >= size
            and all(_labels(node).get(key) == value for key, value in each["nodeTopology"]["matchLabels"].items())
            for each in storage.capacities
        ):
            return "node(s) did not have enough free storage"
    return ""


ZONE = "topology.kubernetes.io/zone"


def _zone(storage: Storage, pod: Obj, node: Obj) -> str:
    for claim in claims_of(storage, pod):
        volume = storage.volumes.get(claim["spec"].get("volumeName", ""))
        zones = ((volume or {}).get("metadata") or {}).get("labels", {}).get(ZONE)
        # Nodes that know no zones do not mind.
        if zones and ZONE in _labels(node) and _labels(node)[ZONE] not in zones.split("__"):
            return "node(s) had no available volume zone"
    return ""
