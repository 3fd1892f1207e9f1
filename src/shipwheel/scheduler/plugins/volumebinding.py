"""VolumeBinding: claims are met on the node that the pod gets, by volumes that are there or will be made there.

Claims of a class with `WaitForFirstConsumer` are left unbound until their pod is scheduled. Then, for each node, the
smallest volumes that will do are chosen; where there is none, the class must be able to make one that the node can
reach, and have room for it if its driver says how much it has. What was chosen is written before the pod is bound,
and the pod is bound only when the claims are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, is_being_deleted, key_of, name_of, namespace_of
from shipwheel.api.quantity import parse
from shipwheel.api.selectors import from_label_selector
from shipwheel.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from shipwheel.scheduler.events import Action, Interest
from shipwheel.scheduler.framework import Cycle, Handle, PluginError, Refusal, Rejection
from shipwheel.scheduler.plugins.volumes import uses_claim
from shipwheel.scheduler.pods import claim_names
from shipwheel.scheduler.table import Mask

NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
OTHER_NODE = "node(s) didn't match PersistentVolume's node affinity"
NO_SPACE = "node(s) did not have enough free storage"
VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
_POLL_SECONDS = 0.2
_STATE = "VolumeBinding"


@dataclass(slots=True)
class _Claims:
    bound: list[Obj]
    delayed: list[Obj]
    """To be bound when the node is known."""


@dataclass(slots=True)
class _Plan:
    """For one node: (claim, volume) to bind, and claims to provision for."""

    bind: list[tuple[Obj, Obj]]
    provision: list[Obj]


class VolumeBinding:
    name = "VolumeBinding"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        seconds = args.get("bindTimeoutSeconds")
        self._timeout = 600 if seconds is None else seconds
        self._assumed = handle.assumed_volumes
        self._errors = handle.metrics.counter(
            "scheduler_volume_scheduling_stage_error_total",
            "[ALPHA] Volume scheduling stage error count",
            ("operation",),
        )
        changed = Action.ADD | Action.UPDATE
        self.events = (
            Interest("PersistentVolumeClaim", changed, uses_claim),
            Interest("PersistentVolume", changed),
            Interest("StorageClass", changed),
            Interest("CSINode", changed),
            Interest("CSIDriver", Action.UPDATE),
            Interest("CSIStorageCapacity", changed),
            Interest("Node", Action.ADD | Action.UPDATE_LABELS),
        )

    # Deciding

    def pre_filter(self, cycle: Cycle) -> Rejection | None:
        """Claims must be there, and bound unless they wait for the pod."""
        if not cycle.shape.volumes:
            return None
        listers, namespace = self._handle.listers, cycle.shape.namespace
        claims = _Claims([], [])
        for name, own in claim_names(cycle.pod["metadata"]["name"], cycle.shape):
            claim = listers.claims.get(namespace, name)
            if claim is None:
                made = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return Rejection(made if own else f'persistentvolumeclaim "{name}" not found')
            if (claim.get("status") or {}).get("phase") == "Lost":
                volume = claim["spec"].get("volumeName", "")
                return Rejection(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"')
            if is_being_deleted(claim):
                return Rejection(f'persistentvolumeclaim "{name}" is being deleted')
            if own and not _belongs_to(claim, cycle.pod):
                pod = f"{namespace}/{cycle.pod['metadata']['name']}"
                return Rejection(f"PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)")
            if _is_bound(claim):
                claims.bound.append(claim)
            elif self._waits(claim):
                claims.delayed.append(claim)
            else:
                return Rejection(UNBOUND)
        cycle.state[_STATE] = claims
        return None

    def _waits(self, claim: Obj) -> bool:
        storage_class = self._handle.listers.storage_classes.get("", claim["spec"].get("storageClassName") or "")
        waits = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        # A claim that names its volume only waits for the volume controller.
        return waits and not claim["spec"].get("volumeName")

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        claims: _Claims | None = cycle.state.get(_STATE)
        if claims is None or not (claims.bound or claims.delayed):
            return
        refused = np.zeros(cycle.table.size, np.bool_)
        for claim in claims.bound:
            volume = self._handle.listers.volumes.get("", claim["spec"]["volumeName"])
            if volume is None:
                yield Refusal(cycle.all(), VOLUME_GONE, True)
                return
            refused |= ~self._reachable(volume)
        yield Refusal(refused[cycle.rows], OTHER_NODE, True)
        if not claims.delayed:
            return
        reasons: dict[str, Mask] = {NO_VOLUME: cycle.none(), NO_SPACE: cycle.none()}
        for index, row in enumerate(range(cycle.rows.start, cycle.rows.stop)):
            if not refused[row] and cycle.table.nodes[row] is not None:
                plan = self._plan(claims.delayed, row)
                if isinstance(plan, str):
                    reasons[plan][index] = True
        for reason, mask in reasons.items():
            yield Refusal(mask, reason, True)

    def _reachable(self, volume: Obj) -> Mask:
        """The nodes that a volume can be used on."""
        required = (volume["spec"].get("nodeAffinity") or {}).get("required")
        nodes = self._handle.nodes
        if required is None:
            return np.ones(self._handle.table.size, np.bool_)
        key = ("volume", volume["metadata"]["name"], volume["metadata"].get("resourceVersion"))
        return nodes.remembered(key, lambda: nodes.any_term(required.get("nodeSelectorTerms") or ()))

    def _plan(self, claims: Sequence[Obj], row: int) -> _Plan | str:
        """How the claims are met on a node; or why they are not. The smallest claims choose first."""
        plan = _Plan([], [])
        taken: set[str] = set()
        for claim in sorted(claims, key=_size):
            selected = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
            if selected and selected != self._handle.table.name(row):
                return NO_VOLUME
            volume = None if selected else self._smallest(claim, row, taken)
            if volume is not None:
                taken.add(name_of(volume))
                plan.bind.append((claim, volume))
                continue
            if reason := self._cannot_provision(claim, row):
                return reason
            plan.provision.append(claim)
        return plan

    def _smallest(self, claim: Obj, row: int, taken: set[str]) -> Obj | None:
        found = [
            each
            for each in self._handle.listers.volumes.list()
            if name_of(each) not in taken and self._suits(each, claim) and self._reachable(each)[row]
        ]
        prebound = [each for each in found if each["spec"].get("claimRef")]
        return min(prebound or found, key=_capacity, default=None)

    def _suits(self, volume: Obj, claim: Obj) -> bool:
        spec, wanted = volume["spec"], claim["spec"]
        holder = spec.get("claimRef")
        mine = f"{namespace_of(claim)}/{name_of(claim)}"
        if self._assumed.get(name_of(volume), mine) != mine or is_being_deleted(volume):
            return False
        if holder is not None and f"{holder.get('namespace')}/{holder.get('name')}" != mine:
            return False
        if holder is None and (volume.get("status") or {}).get("phase") != "Available":
            return False
        selector = wanted.get("selector")
        return (
            (spec.get("storageClassName") or "") == (wanted.get("storageClassName") or "")
            and (spec.get("volumeMode") or "Filesystem") == (wanted.get("volumeMode") or "Filesystem")
            and (spec.get("volumeAttributesClassName") or "") == (wanted.get("volumeAttributesClassName") or "")
            and set(wanted.get("accessModes") or ()) <= set(spec.get("accessModes") or ())
            and _capacity(volume) >= _size(claim)
            and (selector is None or from_label_selector(selector).matches(volume["metadata"].get("labels") or {}))
        )

    def _cannot_provision(self, claim: Obj, row: int) -> str:
        listers = self._handle.listers
        storage_class = listers.storage_classes.get("", claim["spec"].get("storageClassName") or "")
        if storage_class is None or storage_class.get("provisioner", NO_PROVISIONER) == NO_PROVISIONER:
            return NO_VOLUME
        topologies = storage_class.get("allowedTopologies") or ()
        labels = self._labels(row)
        if topologies and not any(_in_topology(each, labels) for each in topologies):
            return NO_VOLUME
        driver = listers.csi_drivers.get("", storage_class["provisioner"])
        if driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
            return ""
        enough = any(
            each.get("storageClassName") == name_of(storage_class)
            and _room(each) >= _size(claim)
            and each.get("nodeTopology") is not None
            and from_label_selector(each["nodeTopology"]).matches(labels)
            for each in listers.capacities.list()
        )
        return "" if enough else NO_SPACE

    def _labels(self, row: int) -> dict[str, str]:
        node = self._handle.table.nodes[row]
        return (node or {"metadata": {}})["metadata"].get("labels") or {}

    # Doing

    def reserve(self, cycle: Cycle, node: str) -> str:
        """Keep the volumes for the claims."""
        claims: _Claims | None = cycle.state.get(_STATE)
        if claims is None or not claims.delayed:
            return ""
        plan = self._plan(claims.delayed, cycle.table.rows[node])
        if isinstance(plan, str):
            return plan
        for claim, volume in plan.bind:
            self._assumed[name_of(volume)] = key_of(claim)
        cycle.state[f"{_STATE}/plan"] = plan
        cycle.slow = True
        return ""

    def unreserve(self, cycle: Cycle, node: str) -> None:
        """Keep them no more. Who has been given a volume in the meantime keeps it."""
        plan: _Plan | None = cycle.state.pop(f"{_STATE}/plan", None)
        for claim, volume in plan.bind if plan is not None else ():
            if self._assumed.get(name_of(volume)) == key_of(claim):
                del self._assumed[name_of(volume)]

    async def pre_bind(self, cycle: Cycle, node: str) -> None:
        """Write what was chosen, and wait until it is so."""
        plan: _Plan | None = cycle.state.get(f"{_STATE}/plan")
        if plan is None:
            return
        try:
            await self._bind(plan, node)
        except Exception:
            self._errors.labels("bind").inc()
            raise
        finally:
            self.unreserve(cycle, node)

    async def _bind(self, plan: _Plan, node: str) -> None:
        client = self._handle.client
        assert client is not None
        for claim, volume in plan.bind:
            reference = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace_of(claim),
                "name": name_of(claim),
                "uid": claim["metadata"]["uid"],
                "resourceVersion": claim["metadata"].get("resourceVersion"),
            }
            patch = {
                "metadata": {
                    "annotations": {BOUND_BY_CONTROLLER: "yes"},
                    "resourceVersion": volume["metadata"].get("resourceVersion"),
                },
                "spec": {"claimRef": reference},
            }
            await client.patch(PERSISTENT_VOLUMES, name_of(volume), "", patch)
        for claim in plan.provision:
            patch = {
                "metadata": {
                    "annotations": {SELECTED_NODE: node},
                    "resourceVersion": claim["metadata"].get("resourceVersion"),
                }
            }
            await client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), namespace_of(claim), patch)
        try:
            async with asyncio.timeout(self._timeout):
                await self._until_bound([*(claim for claim, _ in plan.bind), *plan.provision])
        except TimeoutError as error:
            raise PluginError("binding volumes: context deadline exceeded") from error

    async def _until_bound(self, claims: Sequence[Obj]) -> None:
        client = self._handle.client
        assert client is not None
        for claim in claims:
            while True:
                current = self._handle.listers.claims.get(namespace_of(claim), name_of(claim))
                if current is None or current["metadata"]["uid"] != claim["metadata"]["uid"]:
                    raise PluginError(f'binding volumes: persistentvolumeclaim "{name_of(claim)}" not found')
                if _is_bound(current):
                    break
                await client.clock.sleep(_POLL_SECONDS)


def _is_bound(claim: Obj) -> bool:
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in (claim["metadata"].get("annotations") or {})


def _belongs_to(claim: Obj, pod: Obj) -> bool:
    uid = pod["metadata"].get("uid")
    return any(each.get("uid") == uid for each in claim["metadata"].get("ownerReferences") or ())


def _size(claim: Obj) -> int:
    text = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    return parse(text).value() if text else 0


def _capacity(volume: Obj) -> int:
    text = (volume["spec"].get("capacity") or {}).get("storage")
    return parse(text).value() if text else 0


def _room(capacity: Obj) -> int:
    """The largest volume that can be made."""
    text = capacity.get("maximumVolumeSize") or capacity.get("capacity")
    return parse(text).value() if text else -1


def _in_topology(term: Obj, labels: Mapping[str, str]) -> bool:
    return all(
        labels.get(each["key"]) in (each.get("values") or ()) for each in term.get("matchLabelExpressions") or ()
    )
