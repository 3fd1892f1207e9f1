"""DynamicResources: a pod gets a node where there are devices for its claims (KEP-4381, structured parameters).

Claims that have their devices already say where these can be used. For others devices are looked for on each node;
what is found on the node that the pod gets is promised to the claims, and written to them before the pod is bound
(`claimbinding`). Extended resources for which there is a device class are claims too (KEP-5004).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shipwheel.api.meta import Obj, controller_of, is_being_deleted, name_of, namespace_of, uid_of
from shipwheel.client.flags import parse_duration
from shipwheel.scheduler.devices.allocator import NotHere, TimedOut, allocate
from shipwheel.scheduler.devices.extended import ExtendedClaim, can_be_devices, extended_claim, is_made_for
from shipwheel.scheduler.devices.ledger import allocation_of
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


@dataclass(frozen=True, slots=True)
class _Found:
    """What a node has for the claims that need devices."""

    allocations: Sequence[Obj]
    extended: ExtendedClaim | None


@dataclass(slots=True)
class _State:
    claims: Sequence[Obj]
    """Those that the pod names."""
    extended: bool
    """Some of its resources may be devices."""
    stale: Obj | None
    """A claim that was made of its resources in an attempt that failed later."""
    found: dict[str, _Found] = field(default_factory=dict)
    """By node."""
    unavailable: set[str] = field(default_factory=set)
    """Uids of claims that have devices which cannot be used on some node, or never became ready."""


class DynamicResources:
    name = "DynamicResources"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        self._ledger = handle.ledger
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
        cycle.state[_STATE] = _State(claims, extended, stale)
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
        needy = [claim for claim in state.claims if not allocation_of(claim)]
        if not needy and not state.extended:
            return
        reasons: dict[str, Mask] = {}
        for row in cycle.in_question():
            index = row - cycle.rows.start
            if not refused[index] and (reason := self._look(cycle, state, needy, row)):
                reasons.setdefault(reason, cycle.none())[index] = True
        for reason, mask in reasons.items():
            yield Refusal(mask, reason, True)

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

    def _look(self, cycle: Cycle, state: _State, needy: Sequence[Obj], row: int) -> str:
        """Look for devices on a node; says why there are not enough."""
        if state.stale is not None:
            return STALE
        extended = None
        if state.extended:
            resources = self._lacking(cycle, row)
            if resources is None:
                return NO_RESOURCE
            if resources:
                extended = extended_claim(cycle.pod, resources, self._ledger.class_of)
        claims = [*needy, *([extended.claim] if extended is not None else ())]
        if not claims:
            return ""
        name = cycle.table.name(row)
        slices = self._ledger.slices()
        if not slices.anything_for(name) and all(requests_of(claim) for claim in claims):
            return CANNOT_ALLOCATE
        reach = Reach(name, lambda selector: self._selects(selector, row))
        started = time.monotonic()
        try:
            allocations = allocate(
                [_named(claim) for claim in claims],
                self._ledger.classes(),
                slices.pools(reach),
                self._ledger.in_use(),
                reach,
                expired=lambda: 0 < self._filter_timeout < time.monotonic() - started,
            )
        except NotHere as error:
            return str(error)
        except TimedOut as error:
            raise PluginError(f"node {name}: timed out trying to allocate devices") from error
        if allocations is None:
            return CANNOT_ALLOCATE
        state.found[name] = _Found(allocations, extended)
        return ""

    def _lacking(self, cycle: Cycle, row: int) -> list[str] | None:
        """The extended resources that have to be devices on a node, because it has none of them itself; None when
        there is one that neither the node nor a class has."""
        found = []
        for resource in cycle.shape.requests:
            if not can_be_devices(resource):
                continue
            column = cycle.table.allocatable.get(resource)
            if column is not None and column[row] > 0:
                continue
            if self._ledger.class_of(resource) is None:
                return None
            found.append(resource)
        return found

    def _selects(self, selector: Obj, row: int) -> bool:
        terms = selector.get("nodeSelectorTerms") or ()
        nodes = self._handle.nodes
        return bool(nodes.remembered(("slice", repr(terms)), lambda: nodes.any_term(terms))[row])

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
        scores = np.zeros(len(feasible))
        for name, found in state.found.items():
            row = cycle.table.rows.get(name)
            if row is not None and row < len(scores):
                scores[row] = self._preference(state, found)
        return scores

    @staticmethod
    def _preference(state: _State, found: _Found) -> int:
        new = iter(found.allocations)
        score = 0
        claims = [*state.claims, *([found.extended.claim] if found.extended is not None else ())]
        for claim in claims:
            allocation = allocation_of(claim) or next(new)
            chosen = {each["request"] for each in allocation["devices"].get("results") or ()}
            for request in requests_of(claim):
                for index, each in enumerate(request.get("firstAvailable") or ()):
                    if f"{request['name']}/{each['name']}" in chosen:
                        score += MAX_ALTERNATIVES - index
        return score

    def normalize(self, cycle: Cycle, scores: Floats, feasible: Mask) -> Floats:
        return normalized(scores, feasible)

    # Doing

    def reserve(self, cycle: Cycle, node: str) -> str:
        """Promise the devices that were found."""
        state: _State | None = cycle.state.get(_STATE)
        if state is None:
            return ""
        found = state.found.get(node)
        needy = [claim for claim in state.claims if not allocation_of(claim)]
        if found is None and needy:
            raise PluginError("claim allocation not found for node")
        decisions = [Decision(claim) for claim in state.claims if allocation_of(claim)]
        if found is not None:
            given = iter(found.allocations)
            decisions += [Decision(claim, next(given)) for claim in needy]
            if found.extended is not None:
                decisions.append(Decision(found.extended.claim, next(given), mappings=found.extended.mappings))
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
