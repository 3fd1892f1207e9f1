"""VolumeBinding: claims are met on the node that the pod gets, by volumes that are there or will be made there.

Claims of a class with `WaitForFirstConsumer` are left unbound until their pod is scheduled. Then, for each node, the
smallest volumes that will do are chosen; where there is none, the class must be able to make one that the node can
reach, and have room for it if its driver says how much it has. What was chosen is written before the pod is bound,
and the pod is bound only when the claims are. There may be thousands of nodes and as many volumes, each for one of
them; so it is the volumes that are gone through, the best first, and not the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

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
NEW = -1
Rows = npt.NDArray[np.int64]
_STATE = "VolumeBinding"


@dataclass(slots=True)
class _Claims:
    bound: list[Obj]
    delayed: list[Obj]
    """To be bound when the node is known."""


@dataclass(slots=True)
class _Choice:
    """What becomes of a claim, by row."""

    claim: Obj
    volumes: Sequence[Obj]
    """Those that would do, the best first."""
    chosen: Rows
    """Which of them it is, by row; NEW: none, but one can be made."""


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
        self._rows: dict[bytes, Rows] = {}
        """The rows that volumes reach, by the terms that say it; of these nodes:"""
        self._rows_version: tuple[int, int] = (-1, -1)
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
        left = np.zeros(cycle.table.size, np.bool_)
        left[cycle.rows] = (cycle.table.alive[cycle.rows] if cycle.left is None else cycle.left) & ~refused[cycle.rows]
        choices, reasons = self._choose(claims.delayed, left)
        cycle.state[f"{_STATE}/choices"] = choices
        for reason, mask in reasons.items():
            yield Refusal(mask[cycle.rows], reason, True)

    def _reachable(self, volume: Obj) -> Mask:
        """The nodes that a volume can be used on."""
        found = np.zeros(self._handle.table.size, np.bool_)
        found[self._rows_of(volume)] = True
        return found

    def _rows_of(self, volume: Obj) -> Rows:
        required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
        terms = required.get("nodeSelectorTerms")
        table, nodes = self._handle.table, self._handle.nodes
        version = (table.node_version, table.size)
        if self._rows_version != version:
            self._rows_version = version
            self._rows.clear()
        key = orjson.dumps(terms)
        rows = self._rows.get(key)
        if rows is None:
            reached = np.arange(table.size) if terms is None else np.flatnonzero(nodes.any_term(terms))
            rows = self._rows[key] = reached
        return rows

    def _choose(self, claims: Sequence[Obj], left: Mask) -> tuple[list[_Choice], dict[str, Mask]]:
        """How claims are met on the rows that are left, and why not where they are not. The smallest choose first."""
        size = len(left)
        reasons: dict[str, Mask] = {NO_VOLUME: np.zeros(size, np.bool_), NO_SPACE: np.zeros(size, np.bool_)}
        choices: list[_Choice] = []
        numbers: dict[str, int] = {}
        taken: list[Rows] = []
        """Of each claim before, the numbers of the volumes that it has, by row."""
        for claim in sorted(claims, key=_size):
            selected = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
            if selected:
                elsewhere = left.copy()
                elsewhere[[row for row in (self._handle.table.rows.get(selected),) if row is not None]] = False
                reasons[NO_VOLUME] |= elsewhere
                left = left & ~elsewhere
            volumes = [] if selected else self._candidates(claim)
            known = [numbers.setdefault(name_of(each), len(numbers)) for each in volumes]
            chosen = np.full(size, NEW)
            lacking = left.copy()
            missing = int(np.count_nonzero(lacking))
            for index, volume in enumerate(volumes):
                rows = self._rows_of(volume)
                rows = rows[lacking[rows]]
                for others in taken:
                    rows = rows[others[rows] != known[index]]
                chosen[rows] = index
                lacking[rows] = False
                missing -= len(rows)
                if not missing:
                    break
            for reason, mask in self._cannot_provision(claim, lacking) if missing else ():
                reasons[reason] |= mask
                left = left & ~mask
            taken.append(np.array([*known, NEW])[chosen])
            choices.append(_Choice(claim, volumes, chosen))
        return choices, reasons

    def _candidates(self, claim: Obj) -> list[Obj]:
        """The volumes that would do: those that are kept for the claim, and then all others, the smallest first."""
        wanted = claim["spec"].get("storageClassName") or ""
        found = [
            each
            for each in self._handle.listers.volumes.list()
            if (each["spec"].get("storageClassName") or "") == wanted and self._suits(each, claim)
        ]
        return sorted(found, key=lambda each: (not each["spec"].get("claimRef"), _capacity(each)))

    def _plan(self, cycle: Cycle, row: int) -> _Plan | str:
        """What was chosen for a node, or is chosen anew where that is somebody else's by now; or why it cannot be."""
        claims: _Claims = cycle.state[_STATE]
        choices: list[_Choice] = cycle.state.get(f"{_STATE}/choices") or []
        if not all(self._holds(each, row) for each in choices) or not choices:
            left = np.zeros(self._handle.table.size, np.bool_)
            left[row] = True
            choices, reasons = self._choose(claims.delayed, left)
            for reason, mask in reasons.items():
                if mask[row]:
                    return reason
        plan = _Plan([], [])
        for each in choices:
            index = int(each.chosen[row])
            if index == NEW:
                plan.provision.append(each.claim)
            else:
                plan.bind.append((each.claim, each.volumes[index]))
        return plan

    def _holds(self, choice: _Choice, row: int) -> bool:
        if row >= len(choice.chosen):
            return False
        index = int(choice.chosen[row])
        return index == NEW or self._suits(choice.volumes[index], choice.claim)

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

    def _cannot_provision(self, claim: Obj, rows: Mask) -> Iterable[tuple[str, Mask]]:
        """On which of these rows, and why, no volume can be made."""
        listers = self._handle.listers
        storage_class = listers.storage_classes.get("", claim["spec"].get("storageClassName") or "")
        if storage_class is None or storage_class.get("provisioner", NO_PROVISIONER) == NO_PROVISIONER:
            yield NO_VOLUME, rows
            return
        if topologies := storage_class.get("allowedTopologies") or ():
            allowed = np.zeros(len(rows), np.bool_)
            for each in topologies:
                allowed |= self._in_topology(each)
            yield NO_VOLUME, rows & ~allowed
            rows = rows & allowed
        driver = listers.csi_drivers.get("", storage_class["provisioner"])
        if driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
            return
        enough = np.zeros(len(rows), np.bool_)
        for each in listers.capacities.list():
            topology = each.get("nodeTopology")
            if (
                each.get("storageClassName") == name_of(storage_class)
                and _room(each) >= _size(claim)
                and topology is not None
            ):
                enough |= self._labelled(topology)
        yield NO_SPACE, rows & ~enough

    def _in_topology(self, term: Obj) -> Mask:
        """Rows with the labels of a TopologySelectorTerm."""
        table = self._handle.table
        found = np.ones(table.size, np.bool_)
        for each in term.get("matchLabelExpressions") or ():
            found &= table.label(each["key"]).where(frozenset(each.get("values") or ()).__contains__)[: table.size]
        return found

    def _labelled(self, selector: Obj) -> Mask:
        """Rows that a label selector selects."""

        def look() -> Mask:
            matches = from_label_selector(selector).matches
            labels = (((node or {}).get("metadata") or {}).get("labels") or {} for node in self._handle.table.nodes)
            return np.fromiter(map(matches, labels), np.bool_, self._handle.table.size)

        return self._handle.nodes.remembered(("topology", orjson.dumps(selector)), look)

    # Doing

    def reserve(self, cycle: Cycle, node: str) -> str:
        """Keep the volumes for the claims."""
        claims: _Claims | None = cycle.state.get(_STATE)
        if claims is None or not claims.delayed:
            return ""
        plan = self._plan(cycle, cycle.table.rows[node])
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
        asked = []
        for claim in plan.provision:
            patch = {
                "metadata": {
                    "annotations": {SELECTED_NODE: node},
                    "resourceVersion": claim["metadata"].get("resourceVersion"),
                }
            }
            asked.append(await client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), namespace_of(claim), patch))
        try:
            async with asyncio.timeout(self._timeout):
                await self._until_bound([*(claim for claim, _ in plan.bind), *asked])
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
                if _is_given_up(current, claim):
                    raise PluginError(f'binding volumes: provisioning failed for PVC "{name_of(claim)}"')
                await client.clock.sleep(_POLL_SECONDS)


def _is_bound(claim: Obj) -> bool:
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in (claim["metadata"].get("annotations") or {})


def _is_given_up(claim: Obj, asked: Obj) -> bool:
    """Whether a provisioner that was asked for a volume on a node wants another to be chosen: it takes the node away
    again. What is known of the claim may be older than our asking."""
    wanted, current = ((each["metadata"].get("annotations") or {}).get(SELECTED_NODE) for each in (asked, claim))
    seen, written = (int(each["metadata"].get("resourceVersion") or 0) for each in (claim, asked))
    return wanted is not None and current != wanted and seen > written


def _belongs_to(claim: Obj, pod: Obj) -> bool:
    uid = pod["metadata"].get("uid")
    return any(each.get("uid") == uid for each in claim["metadata"].get("ownerReferences") or ())


def _size(claim: Obj) -> int:
    return _bytes(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage") or "0")


def _capacity(volume: Obj) -> int:
    return _bytes((volume["spec"].get("capacity") or {}).get("storage") or "0")


@lru_cache
def _bytes(text: str) -> int:
    return parse(text).value()


def _room(capacity: Obj) -> int:
    """The largest volume that can be made."""
    text = capacity.get("maximumVolumeSize") or capacity.get("capacity")
    return parse(text).value() if text else -1
