"""Rules about volumes that exist already: disks that only one may use, how many a node can have, and their zones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, name_of
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import Cycle, Handle, Refusal
from shipwheel.scheduler.pods import claim_names
from shipwheel.scheduler.table import Mask, PodEntry

DISK_CONFLICT = "node(s) had no available disk"
CLAIM_CONFLICT = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
TOO_MANY = "node(s) exceed max volume count"
NO_ZONE = "node(s) had no available volume zone"
ZONE_LABELS = (
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)  # fmt: skip
_MIGRATED = {"awsElasticBlockStore": "ebs.csi.aws.com", "gcePersistentDisk": "pd.csi.storage.gke.io"}
_DISK_NAMES = {"awsElasticBlockStore": "volumeID", "gcePersistentDisk": "pdName"}


def uses_claim(pod: Obj, event: ClusterEvent) -> bool:
    """The event is about a claim that the pod may use."""
    claim = (event.new or event.old or {}).get("metadata") or {}
    if claim.get("namespace") != pod["metadata"].get("namespace"):
        return False
    name = claim.get("name", "")
    return any(
        (each.get("persistentVolumeClaim") or {}).get("claimName") == name
        or ("ephemeral" in each and name == f"{pod['metadata']['name']}-{each['name']}")
        for each in pod["spec"].get("volumes") or ()
    )


class VolumeRestrictions:
    """Disks that cannot be attached twice, and claims that only one pod may use (KEP-2485)."""

    name = "VolumeRestrictions"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self.events = (
            Interest("AssignedPod", Action.DELETE),
            Interest("Node", Action.ADD),
            Interest("PersistentVolumeClaim", Action.ADD | Action.UPDATE, uses_claim),
        )

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        if not cycle.shape.volumes:
            return
        disks = [each for each in map(_disk, cycle.shape.volumes) if each is not None]
        refused = cycle.none()
        if disks:
            for index, row in enumerate(range(cycle.rows.start, cycle.rows.stop)):
                refused[index] = any(_clash(mine, theirs) for theirs in _disks_on(cycle, row) for mine in disks)
            yield Refusal(refused, DISK_CONFLICT)
        if self._claimed_by_another(cycle):
            yield Refusal(~refused, CLAIM_CONFLICT)

    def _claimed_by_another(self, cycle: Cycle) -> bool:
        namespace = cycle.shape.namespace
        alone = set()
        for name, _ in claim_names(cycle.pod["metadata"]["name"], cycle.shape):
            claim = self._handle.listers.claims.get(namespace, name)
            if claim is not None and "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()):
                alone.add(name)
        if not alone:
            return False
        return any(
            entry.shape.namespace == namespace
            and not entry.nominated
            and entry.key != cycle.key
            and any(name in alone for name, _ in claim_names(entry.obj["metadata"]["name"], entry.shape))
            for entry in cycle.table.entries.values()
            if entry.shape.volumes
        )


def _disks_on(cycle: Cycle, row: int) -> Iterator[tuple[Any, ...]]:
    for entry in cycle.table.pods[row].values():
        for volume in entry.shape.volumes:
            disk = _disk(volume)
            if disk is not None:
                yield disk


def _disk(volume: Obj) -> tuple[Any, ...] | None:
    """(kind, what it is, monitors, whether two readers may share it and this is one)"""
    if source := volume.get("gcePersistentDisk"):
        return "gce", source["pdName"], None, bool(source.get("readOnly"))
    if source := volume.get("awsElasticBlockStore"):
        return "ebs", source["volumeID"], None, False
    if source := volume.get("iscsi"):
        return "iscsi", source["iqn"], None, bool(source.get("readOnly"))
    if source := volume.get("rbd"):
        image = (source.get("pool") or "rbd", source["image"])
        return "rbd", image, frozenset(source.get("monitors") or ()), bool(source.get("readOnly"))
    return None


def _clash(mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    same = mine[:2] == theirs[:2] and (mine[2] is None or bool(mine[2] & theirs[2]))
    return same and not (mine[3] and theirs[3])


class NodeVolumeLimits:
    """How many volumes of a CSI driver can be attached to a node, as its CSINode says."""

    name = "NodeVolumeLimits"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self._limits: dict[int, dict[str, int]] = {}
        self._limits_version: tuple[int, int] | None = None
        self.events = (
            Interest("CSINode", Action.ADD | Action.UPDATE),
            Interest("AssignedPod", Action.DELETE),
            Interest("PersistentVolumeClaim", Action.ADD | Action.UPDATE, uses_claim),
            Interest("PersistentVolume", Action.ADD | Action.UPDATE),
            Interest("StorageClass", Action.ADD),
            Interest("VolumeAttachment", Action.DELETE),
        )

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        if not cycle.shape.volumes:
            return
        wanted = self._volumes(cycle.pod["metadata"]["name"], cycle.shape)
        if not wanted:
            return
        limited = self._limited()
        refused = cycle.none()
        attached = self._attached() if limited else {}
        drivers = {driver for driver, _ in wanted}
        for row in cycle.in_question() if limited else ():
            limits = limited.get(row)
            if limits and not drivers.isdisjoint(limits):
                there = self._on_node(cycle.table.pods[row].values()) | attached.get(cycle.table.name(row), set())
                refused[row - cycle.rows.start] = _too_many(wanted, there, limits)
        yield Refusal(refused, TOO_MANY)

    def _limited(self) -> Mapping[int, Mapping[str, int]]:
        """The limits of the rows that have some, by driver."""
        table, nodes = self._handle.table, self._handle.listers.csi_nodes
        version = (nodes.version, table.node_version)
        if self._limits_version != version:
            self._limits_version = version
            found = ((table.rows.get(name_of(each)), _limits(each)) for each in nodes.list())
            self._limits = {row: limits for row, limits in found if row is not None and limits}
        return self._limits

    def _on_node(self, entries: Iterable[PodEntry]) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for entry in entries:
            if entry.shape.volumes:
                found |= self._volumes(entry.obj["metadata"]["name"], entry.shape)
        return found

    def _attached(self) -> dict[str, set[tuple[str, str]]]:
        """Volumes that are attached, by node, whoever uses them."""
        found: dict[str, set[tuple[str, str]]] = {}
        for each in self._handle.listers.attachments.list():
            volume = self._handle.listers.volumes.get(
                "", (each["spec"].get("source") or {}).get("persistentVolumeName", "")
            )
            handle = _handle_of(volume)
            if handle is not None:
                found.setdefault(each["spec"].get("nodeName", ""), set()).add(handle)
        return found

    def _volumes(self, pod_name: str, shape: Any) -> set[tuple[str, str]]:
        """(driver, volume) of what a pod uses; a claim without a volume yet counts for the driver of its class."""
        listers = self._handle.listers
        found: set[tuple[str, str]] = set()
        for name, _ in claim_names(pod_name, shape):
            claim = listers.claims.get(shape.namespace, name)
            if claim is None:
                continue
            volume = claim["spec"].get("volumeName")
            if volume:
                handle = _handle_of(listers.volumes.get("", volume))
                if handle is not None:
                    found.add(handle)
                    continue
            storage_class = listers.storage_classes.get("", claim["spec"].get("storageClassName") or "")
            if storage_class is not None:
                found.add((storage_class["provisioner"], f"{shape.namespace}/{name}"))
        for each in shape.volumes:
            for kind, driver in _MIGRATED.items():
                if each.get(kind):
                    found.add((driver, each[kind][_DISK_NAMES[kind]]))
        return found


def _limits(csi_node: Obj) -> dict[str, int]:
    drivers = (csi_node.get("spec") or {}).get("drivers") or ()
    counts = {each["name"]: (each.get("allocatable") or {}).get("count") for each in drivers}
    return {name: count for name, count in counts.items() if count is not None}


def _handle_of(volume: Obj | None) -> tuple[str, str] | None:
    spec = (volume or {}).get("spec") or {}
    if spec.get("csi"):
        return spec["csi"]["driver"], spec["csi"]["volumeHandle"]
    for kind, driver in _MIGRATED.items():
        if spec.get(kind):
            return driver, spec[kind][_DISK_NAMES[kind]]
    return None


def _too_many(wanted: set[tuple[str, str]], there: set[tuple[str, str]], limits: Mapping[str, int]) -> bool:
    for driver in {driver for driver, _ in wanted - there} & limits.keys():
        together = sum(each == driver for each, _ in wanted | there)
        if together > limits[driver]:
            return True
    return False


class VolumeZone:
    """Volumes with zone labels are used in their zones."""

    name = "VolumeZone"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self.events = (
            Interest("StorageClass", Action.ADD),
            Interest("Node", Action.ADD | Action.UPDATE_LABELS),
            Interest("PersistentVolumeClaim", Action.ADD | Action.UPDATE, uses_claim),
            Interest("PersistentVolume", Action.ADD | Action.UPDATE),
        )

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        if not cycle.shape.volumes:
            return
        wanted = list(self._zones(cycle))
        if not wanted:
            return
        table = cycle.table
        zoned: Mask = np.zeros(table.size, np.bool_)
        for key in ZONE_LABELS:
            zoned |= self._handle.nodes.has_label(key)
        refused = np.zeros(table.size, np.bool_)
        for key, values in wanted:
            allowed = table.label(key).where(frozenset(values).__contains__)
            refused |= ~allowed[: table.size]
        # A cluster whose nodes know no zones has no use for the labels.
        yield Refusal((refused & zoned)[cycle.rows], NO_ZONE, True)

    def _zones(self, cycle: Cycle) -> Iterator[tuple[str, Sequence[str]]]:
        listers = self._handle.listers
        for name, _ in claim_names(cycle.pod["metadata"]["name"], cycle.shape):
            claim = listers.claims.get(cycle.shape.namespace, name)
            volume = listers.volumes.get("", ((claim or {}).get("spec") or {}).get("volumeName") or "")
            labels = ((volume or {}).get("metadata") or {}).get("labels") or {}
            for key in ZONE_LABELS:
                if key in labels:
                    yield key, labels[key].split("__")
