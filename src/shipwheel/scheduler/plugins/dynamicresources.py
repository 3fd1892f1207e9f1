"""DynamicResources: a pod gets a node where there are devices for its claims (KEP-4381, structured parameters).

Claims that have their devices already say where these can be used. For others devices are looked for on each node;
what is found on the node that the pod gets is promised to the claims, and written to them before the pod is bound
(`claimbinding`). Extended resources for which there is a device class are claims too (KEP-5004).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, controller_of, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.client.flags import parse_duration
from shipwheel.scheduler.devices.allocator import NotHere, TimedOut, allocate
from shipwheel.scheduler.devices.extended import ExtendedClaim, can_be_devices, extended_claim, is_made_for
from shipwheel.scheduler.devices.ledger import allocation_of
from shipwheel.scheduler.devices.outcomes import Memory
from shipwheel.scheduler.devices.pools import Reach
from shipwheel.scheduler.devices.wishes import classes_of, requests_of
from shipwheel.scheduler.events import Action, ClusterEvent, Interest
from shipwheel.scheduler.framework import (
    Cycle,
    Diagnosis,
    Handle,
    PluginError,
    PostFilterResult,
    Profile,
    Refusal,
    Rejection,
    normalized,
    some,
)
from shipwheel.scheduler.plugins.basics import is_itself
from shipwheel.scheduler.plugins.claimbinding import ClaimBinding, Decision, binding_failure
from shipwheel.scheduler.table import Floats, Mask

NOT_AVAILABLE = "resourceclaim not available on the node"
CANNOT_ALLOCATE = "cannot allocate all claims"
STALE = "cannot schedule extended resource claim"
NO_RESOURCE = "cannot fit resource"
MAX_ALTERNATIVES = 8
_STATE = "DynamicResources"


class _NotYet(ValueError):
    """A pod's claims are not all there."""


@dataclass(slots=True)
class _State:
    claims: Sequence[Obj]
    """Those that the pod names."""
    extended: bool
    """Some of its resources may be devices."""
    stale: Obj | None
    """A claim that was made of its resources in an attempt that failed later."""
    scores: Floats
    """By row."""
    unavailable: set[str] = field(default_factory=set)
    """Uids of claims that have devices which cannot be used on some node, or never became ready."""

    @property
    def needy(self) -> list[Obj]:
        """Those that have no devices yet."""
        return [claim for claim in self.claims if not allocation_of(claim)]


class DynamicResources:
    name = "DynamicResources"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self._ledger = handle.ledger
        self._memory = Memory(handle)
        self._filter_timeout = parse_duration(args.get("filterTimeout") or "10s")
        self._binding = ClaimBinding(handle, parse_duration(args.get("bindingTimeout") or "10m"))
        changed = Action.ADD | Action.UPDATE
        self.events = (
            Interest("Node", Action.ADD | Action.UPDATE_LABELS | Action.UPDATE_ALLOCATABLE),
            Interest("ResourceClaim", changed, self._claim_may_help),
            Interest("UnschedulablePod", Action.UPDATE_CLAIMS, self._has_its_claims),
            Interest("DeviceClass", changed),
            Interest("ResourceSlice", changed),
        )

    # Events

    def _claim_may_help(self, pod: Obj, event: ClusterEvent) -> bool:
        new, old = event.new, event.old
        assert new is not None
        try:
            mine = any(uid_of(claim) == uid_of(new) for claim in self._claims(pod))
        except _NotYet:
            return False
        if old is not None and allocation_of(old) and not allocation_of(new):
            return True  # whoever has it: devices are free
        return mine and (old is None or old.get("status") != new.get("status"))

    def _has_its_claims(self, pod: Obj, event: ClusterEvent) -> bool:
        return is_itself(pod, event) and not self.pre_enqueue(event.new or pod)

    def pre_enqueue(self, pod: Obj) -> str:
        """Claims must have been made before it is worth to try."""
        if not pod["spec"].get("resourceClaims"):
            return ""
        try:
            self._claims(pod)
        except _NotYet as error:
            return str(error)
        return ""

    def _claims(self, pod: Obj) -> list[Obj]:
        """The claims that a pod names. _NotYet when one of them is not there, or not for it."""
        found = []
        namespace = namespace_of(pod)
        for use in pod["spec"].get("resourceClaims") or ():
            name = use.get("resourceClaimName") or self._made_name(pod, use)
            if name is None:
                continue
            claim = self._ledger.claim(namespace, name)
            if claim is None:
                raise _NotYet(f'resourceclaim.resource.k8s.io "{name}" not found')
            if is_being_deleted(claim):
                raise _NotYet(f'resourceclaim "{name}" is being deleted')
            if not use.get("resourceClaimName") and (controller_of(claim) or {}).get("uid") != uid_of(pod):
                which = f"ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{name_of(pod)}"
                raise _NotYet(f"{which} (Pod is not owner)")
            found.append(claim)
        return found

    @staticmethod
    def _made_name(pod: Obj, use: Obj) -> str | None:
        """The name of the claim that was made from a template; None: it was found that none is needed."""
        if use.get("resourceClaimTemplateName"):
            for each in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
                if each["name"] == use["name"]:
                    name: str | None = each.get("resourceClaimName")
                    return name
            raise _NotYet(f'pod "{namespace_of(pod)}/{name_of(pod)}": ResourceClaim not created yet')
        which = f'pod "{namespace_of(pod)}/{name_of(pod)}", spec.resourceClaim "{use["name"]}"'
        raise _NotYet(f"{which}: none of the supported fields are set")

    # Deciding

    def pre_filter(self, cycle: Cycle) -> Rejection | None:
        """Claims must be there, with classes that there are, and nobody else must be giving them devices just now."""
        pod = cycle.pod
        extended = any(
            can_be_devices(resource) and self._ledger.class_of(resource) is not None
            for resource in cycle.shape.requests
            if resource not in ("cpu", "memory")
        )
        if not extended and not pod["spec"].get("resourceClaims"):
            return None
        try:
            claims = self._claims(pod)
        except _NotYet as error:
            return Rejection(str(error))
        if not claims and not extended:
            return None
        classes = self._ledger.classes()
        for claim in claims:
            if allocation_of(claim):
                continue
            if self._ledger.is_promised(uid_of(claim)):
                where = f"{namespace_of(claim)}/{name_of(claim)}"
                return Rejection(f"resource claim {where} is in the process of being allocated")
            for request, device_class in classes_of(claim):
                if device_class not in classes:
                    return Rejection(f"request {request}: device class {device_class} does not exist")
        stale = None
        if extended:
            stale = next((each for each in self._ledger.claims(namespace_of(pod)) if is_made_for(each, pod)), None)
        cycle.state[_STATE] = _State(claims, extended, stale, np.zeros(cycle.table.size))
        return None

    def filter(self, cycle: Cycle) -> Iterable[Refusal]:
        state: _State | None = cycle.state.get(_STATE)
        if state is None:
            return
        refused = cycle.none()
        for claim in state.claims:
            where = self._usable(cycle, claim)
            if not where.all():
                state.unavailable.add(uid_of(claim))
                refused |= ~where
        if refused.any():
            yield Refusal(refused, NOT_AVAILABLE, True)
        left = (cycle.table.alive[cycle.rows] if cycle.left is None else cycle.left) & ~refused
        if state.stale is not None:
            yield Refusal(left, STALE, True)
            return
        for lacking, where in self._lacking(cycle, state, left):
            if lacking is None:
                yield Refusal(where, NO_RESOURCE, True)
                continue
            claims = self._wanted(cycle, state, lacking)[0]
            if claims:
                yield from self._look(cycle, state, claims, where)

    def _usable(self, cycle: Cycle, claim: Obj) -> Mask:
        """Where the devices that a claim has can be used."""
        allocation = allocation_of(claim)
        if allocation is None:
            return cycle.all()
        if self._has_failed(claim):
            return cycle.none()
        selector = allocation.get("nodeSelector")
        if selector is None:
            return cycle.all()
        key = ("claim", uid_of(claim), claim["metadata"].get("resourceVersion"))
        nodes = self._handle.nodes
        return nodes.remembered(key, lambda: nodes.any_term(selector.get("nodeSelectorTerms") or ()))[cycle.rows]

    def _has_failed(self, claim: Obj) -> bool:
        """Its devices could not be made ready, or were not in time (KEP-5007)."""
        return binding_failure(claim) != "" or self._binding.is_late(claim)

    def _look(self, cycle: Cycle, state: _State, claims: Sequence[Obj], where: Mask) -> Iterable[Refusal]:
        """Look for devices on the rows in question; says where there are not enough."""
        outcomes, first = self._memory.of(claims), cycle.rows.start
        for row in np.flatnonzero(where & outcomes.unknown()[cycle.rows]).tolist():
            try:
                allocations = self._search(claims, first + row)
            except NotHere as error:
                outcomes.note(first + row, str(error))
            else:
                reason = CANNOT_ALLOCATE if allocations is None else ""
                outcomes.note(first + row, reason, _preference(claims, allocations or ()))
        held = [claim for claim in state.claims if allocation_of(claim)]
        known = _preference(held, [allocation_of(claim) or {} for claim in held])
        found = where & outcomes.found()[cycle.rows]
        state.scores[cycle.rows][found] = outcomes.preferences[cycle.rows][found] + known
        for reason, mask in outcomes.reasons():
            yield Refusal(where & mask[cycle.rows], reason, True)

    def _search(self, claims: Sequence[Obj], row: int) -> list[Obj] | None:
        """Allocations for claims on a node; None: there are not enough devices. NotHere."""
        name = self._handle.table.name(row)
        slices = self._ledger.slices()
        if not slices.anything_for(name) and all(requests_of(claim) for claim in claims):
            return None
        reach = Reach(name, lambda selector: self._handle.nodes.selects(selector, row))
        started = time.monotonic()
        try:
            return allocate(
                claims,
                self._ledger.classes(),
                slices.pools(reach),
                self._ledger.in_use(),
                reach,
                expired=lambda: 0 < self._filter_timeout < time.monotonic() - started,
            )
        except TimedOut as error:
            raise PluginError(f"node {name}: timed out trying to allocate devices") from error

    def _wanted(self, cycle: Cycle, state: _State, lacking: Sequence[str]) -> tuple[list[Obj], ExtendedClaim | None]:
        """The claims to find devices for, where a node lacks some of the extended resources."""
        extended = extended_claim(cycle.pod, lacking, self._ledger.class_of) if lacking else None
        return [*state.needy, *([_named(extended.claim)] if extended is not None else ())], extended

    def _lacking(self, cycle: Cycle, state: _State, rows: Mask) -> Iterable[tuple[Sequence[str] | None, Mask]]:
        """The extended resources that have to be devices, because the node has none of them itself, and on which
        rows it is these; None where one is lacking for which there is no class."""
        groups: list[tuple[Sequence[str] | None, Mask]] = [((), rows)]
        for resource in filter(can_be_devices, cycle.shape.requests) if state.extended else ():
            column = cycle.table.allocatable.get(resource)
            has = cycle.none() if column is None else column[cycle.rows] > 0
            has_class = self._ledger.class_of(resource) is not None
            groups = [
                group
                for names, mask in groups
                for group in (
                    (names, mask & has),
                    ((*names, resource) if has_class and names is not None else None, mask & ~has),
                )
                if some(group[1])
            ]
        return groups

    def post_filter(self, cycle: Cycle, diagnosis: Diagnosis, profile: Profile) -> PostFilterResult:
        """Take devices back that are of no use where they are."""
        state: _State | None = cycle.state.get(_STATE)
        if state is None:
            return PostFilterResult(message="no new claims to deallocate")
        for claim in state.claims:
            reserved = (claim.get("status") or {}).get("reservedFor") or ()
            if uid_of(claim) in state.unavailable and all(each["uid"] == uid_of(cycle.pod) for each in reserved):
                self._binding.deallocate(claim)
                return PostFilterResult(message="deallocation of ResourceClaim completed")
        if state.stale is not None:
            self._binding.delete(state.stale)
            return PostFilterResult(message="deletion of ResourceClaim completed")
        return PostFilterResult(message="still not schedulable")

    # Preferring what was wished for first

    def score(self, cycle: Cycle, feasible: Mask) -> Floats | None:
        state: _State | None = cycle.state.get(_STATE)
        if state is None:
            return None
        return state.scores

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        return normalized(scores, feasible)

    # Doing

    def reserve(self, cycle: Cycle, node: str) -> str:
        """Promise the devices that were found."""
        state: _State | None = cycle.state.get(_STATE)
        if state is None:
            return ""
        decisions = [Decision(claim) for claim in state.claims if allocation_of(claim)]
        row = cycle.table.rows[node]
        here = replace(cycle, rows=slice(row, row + 1), left=None)
        lacking = next((names for names, _ in self._lacking(here, state, here.all())), ())
        claims, extended = self._wanted(cycle, state, lacking or ())
        if claims:
            try:
                allocations = self._search(claims, row)
            except NotHere as error:
                return str(error)
            if allocations is None:
                return CANNOT_ALLOCATE
            given = iter(allocations)
            decisions += [Decision(claim, next(given)) for claim in state.needy]
            if extended is not None:
                decisions.append(Decision(extended.claim, next(given), mappings=extended.mappings))
        if decisions:
            cycle.slow = True
            self._binding.reserve(cycle, decisions)
        return ""

    def unreserve(self, cycle: Cycle, node: str) -> None:
        self._binding.unreserve(cycle)

    async def pre_bind(self, cycle: Cycle, node: str) -> None:
        await self._binding.bind(cycle, node)


def _named(claim: Obj) -> Obj:
    """A claim that is not made yet has no name; errors call it what upstream calls it."""
    meta = claim["metadata"]
    return claim if "name" in meta else {**claim, "metadata": {**meta, "name": "<extended-resources>"}}


def _preference(claims: Sequence[Obj], allocations: Sequence[Obj]) -> int:
    """How much of what was wished for first claims have been given."""
    score = 0
    for claim, allocation in zip(claims, allocations, strict=False):
        chosen = {each["request"] for each in allocation["devices"].get("results") or ()}
        for request in requests_of(claim):
            for index, each in enumerate(request.get("firstAvailable") or ()):
                if f"{request['name']}/{each['name']}" in chosen:
                    score += MAX_ALTERNATIVES - index
    return score
