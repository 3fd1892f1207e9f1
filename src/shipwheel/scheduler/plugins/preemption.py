"""DefaultPreemption: which pods would have to go so that one of higher priority fits, and on which node.

On each node the pods of lower priority are thought away; if the pod fits then, as many as possible are taken back,
the most important first and those whose disruption budget would be violated before all others. Of the nodes, the one
is chosen where going hurts least. Nothing is deleted here.

Where only room is lacking, which is nearly always, the question is arithmetic on the node's numbers; where other
pods matter in other ways, the table itself is changed for a moment and the filters are asked again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj
from shipwheel.api.selectors import LabelSelector, SelectorError, from_label_selector
from shipwheel.scheduler.events import Interest
from shipwheel.scheduler.framework import Cycle, Diagnosis, Handle, PostFilterResult, Profile, Refusal
from shipwheel.scheduler.plugins.resources import NATIVE
from shipwheel.scheduler.pods import Shape
from shipwheel.scheduler.table import PodEntry

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"
PREEMPTION_BY_SCHEDULER = "PreemptionByScheduler"
_ROOM = {"NodeResourcesFit"}
_REMEMBERED = 50_000
_FAR_FUTURE = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Candidate:
    """A node that the pod could have, and who would have to go; the most important first."""

    node: str
    victims: Sequence[PodEntry]
    violations: int
    """Of these, pods whose disruption budget does not allow it."""

    @cached_property
    def harm(self) -> tuple[float, ...]:
        """Compares candidates; the less the better. Kept, as candidates are remembered."""
        victims = self.victims
        highest = victims[0].priority
        earliest = min(start_time(each.obj) for each in victims if each.priority == highest)
        return (
            self.violations,
            highest,
            sum(each.priority + 2**31 for each in victims),
            len(victims),
            -math.inf if earliest == _FAR_FUTURE else -earliest.timestamp(),
        )


@dataclass(slots=True)
class Budget:
    """A disruption budget, compiled."""

    namespace: str
    selector: LabelSelector
    allowed: int
    already: frozenset[str]
    """Names of pods whose disruption was counted already."""


class DefaultPreemption:
    name = "DefaultPreemption"
    events: Sequence[Interest] = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle
        percentage, absolute = args.get("minCandidateNodesPercentage"), args.get("minCandidateNodesAbsolute")
        self._percentage = 10 if percentage is None else percentage
        self._absolute = 100 if absolute is None else absolute
        self._known: dict[tuple[Shape, int], tuple[tuple[int, int], Candidate | list[str]]] = {}
        """What was found for pods of a shape on a row, as long as nothing changes there."""

    def post_filter(self, cycle: Cycle, diagnosis: Diagnosis, profile: Profile) -> PostFilterResult:
        """The node to promise and the pods to take away, or why there are none."""
        if reason := self._ineligible(cycle, diagnosis):
            return PostFilterResult(message=f"preemption: {reason}")
        table = cycle.table
        hopeless = ~table.alive[: table.size] | diagnosis.unresolvable(table.size)
        rows = np.flatnonzero(~hopeless).tolist()
        candidates, reasons = self.candidates(cycle, rows, diagnosis, profile) if rows else ([], [])
        if not candidates:
            reasons.append(Refusal(hopeless & table.alive[: table.size], NOT_HELPFUL, True))
            failed = Diagnosis(table.count, [(self.name, each) for each in reasons])
            return PostFilterResult(message=f"preemption: {failed.message()}")
        best = choose(candidates)
        return PostFilterResult(best.node, [each.obj for each in best.victims])

    def _ineligible(self, cycle: Cycle, diagnosis: Diagnosis) -> str:
        if cycle.shape.spec.get("preemptionPolicy") == "Never":
            return "not eligible due to preemptionPolicy=Never."
        table = cycle.table
        row = table.rows.get((cycle.pod.get("status") or {}).get("nominatedNodeName") or "")
        if row is None or diagnosis.unresolvable(table.size)[row]:
            return ""
        leaving = any(
            each.priority < cycle.shape.priority and _is_leaving(each.obj) for each in table.pods[row].values()
        )
        return "not eligible due to a terminating pod on the nominated node." if leaving else ""

    def candidates(
        self, cycle: Cycle, rows: Sequence[int], diagnosis: Diagnosis, profile: Profile
    ) -> tuple[list[Candidate], list[Refusal]]:
        """Enough of the nodes that would do, beginning anywhere; and why others would not."""
        enough = min(len(rows), max(len(rows) * self._percentage // 100, self._absolute))
        start = self._handle.rng.randrange(len(rows))
        budgets = self._budgets()
        only_room = _only_room(cycle, diagnosis)
        found: list[Candidate] = []
        reasons: list[Refusal] = []
        for row in (*rows[start:], *rows[:start]):
            chosen = (
                self._remembered(cycle, row, budgets, profile)
                if only_room
                else self.victims_on(cycle, row, budgets, profile, only_room=False)
            )
            if isinstance(chosen, Candidate):
                found.append(chosen)
                if len(found) >= enough and any(not each.violations for each in found):
                    break
            else:
                mask = cycle.none()
                mask[row] = True
                reasons += [Refusal(mask, reason) for reason in chosen]
        return found, reasons

    def _remembered(self, cycle: Cycle, row: int, budgets: Sequence[Budget], profile: Profile) -> Candidate | list[str]:
        """`victims_on`, where only the room on the node matters: pods of one template ask the same again and again."""
        key, state = (cycle.shape, row), (cycle.table.stamps[row], self._handle.listers.budgets.version)
        known = self._known.get(key)
        if known is None or known[0] != state:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[key] = (state, self.victims_on(cycle, row, budgets, profile, only_room=True))
        return known[1]

    def victims_on(
        self, cycle: Cycle, row: int, budgets: Sequence[Budget], profile: Profile, *, only_room: bool
    ) -> Candidate | list[str]:
        """Who would have to go from one node; or the reasons why that is no use."""
        table = cycle.table
        lower = [
            each
            for each in table.pods[row].values()
            if each.priority < cycle.shape.priority and not each.nominated
        ]  # fmt: skip
        if not lower:
            return [NO_VICTIMS]
        trial: _Arithmetic | _Trial = _Arithmetic(cycle, row) if only_room else _Trial(cycle, row, profile)
        try:
            for each in lower:
                trial.remove(each)
            if reasons := trial.reasons():
                return reasons
            lower.sort(key=importance)
            violating, others = _by_budget(lower, budgets)
            victims: list[PodEntry] = []
            violations = 0
            for each in (*violating, *others):
                trial.put_back(each)
                if not trial.fits():
                    trial.remove(each)
                    victims.append(each)
                    violations += each in violating
        finally:
            trial.end()
        if not victims:
            return []
        return Candidate(table.name(row), sorted(victims, key=importance), violations)

    def _budgets(self) -> list[Budget]:
        found = []
        for each in self._handle.listers.budgets.list():
            try:
                selector = from_label_selector(each["spec"].get("selector"))
            except SelectorError:
                continue
            if selector.is_everything:
                continue
            status = each.get("status") or {}
            already = frozenset(status.get("disruptedPods") or ())
            namespace = each["metadata"]["namespace"]
            found.append(Budget(namespace, selector, status.get("disruptionsAllowed") or 0, already))
        return found


class _Arithmetic:
    """What is free on a node, when nothing else about its pods matters."""

    def __init__(self, cycle: Cycle, row: int) -> None:
        table = cycle.table
        self._wanted = cycle.shape.requests
        self._free = {
            name: float(table.allocatable[name][row] - table.requested[name][row])
            for name in self._wanted
            if name in table.allocatable
        }
        self._places = float(table.pods_allowed[row] - table.pod_count[row])

    def remove(self, entry: PodEntry) -> None:
        self._change(entry, 1)

    def put_back(self, entry: PodEntry) -> None:
        self._change(entry, -1)

    def _change(self, entry: PodEntry, sign: int) -> None:
        self._places += sign
        requests = entry.shape.requests
        for name in self._free:
            self._free[name] += sign * requests.get(name, 0)

    def fits(self) -> bool:
        return self._places >= 1 and all(self._free.get(name, 0) >= amount for name, amount in self._wanted.items())

    def reasons(self) -> list[str]:
        found = [] if self._places >= 1 else ["Too many pods"]
        lacking = (name for name, amount in self._wanted.items() if self._free.get(name, 0) < amount)
        return found + [f"Insufficient {name}" for name in lacking]

    def end(self) -> None:
        return None


class _Trial:
    """The table without some pods, for as long as the trial lasts."""

    def __init__(self, cycle: Cycle, row: int, profile: Profile) -> None:
        self._table = cycle.table
        self._cycle = cycle
        self._row = row
        self._profile = profile
        self._gone: dict[str, PodEntry] = {}

    def remove(self, entry: PodEntry) -> None:
        self._table.remove(entry.key)
        self._gone[entry.key] = entry

    def put_back(self, entry: PodEntry) -> None:
        self._table.add(self._gone.pop(entry.key))

    def fits(self) -> bool:
        return self._profile.fits(self._cycle.of_row(self._row))

    def reasons(self) -> list[str]:
        diagnosis = Diagnosis(1)
        if self._profile.feasible(self._cycle.of_row(self._row), diagnosis).any():
            return []
        return [diagnosis.rejected] if diagnosis.rejected else [each.reason for _, each in diagnosis.refusals]

    def end(self) -> None:
        for entry in self._gone.values():
            self._table.add(entry)
        self._gone = {}


def _only_room(cycle: Cycle, diagnosis: Diagnosis) -> bool:
    """Whether other pods matter to this one only by the room they take, and of what every node has."""
    shape = cycle.shape
    return shape.requests.keys() <= set(NATIVE) and not (
        shape.required_affinity
        or shape.required_anti_affinity
        or shape.hard_spread
        or shape.ports
        or shape.volumes
        or any(each.kind == "anti" for each in cycle.table.carried_for(shape))
        or {plugin for plugin, refusal in diagnosis.refusals if refusal.unresolvable is not True} - _ROOM
    )


def importance(entry: PodEntry) -> tuple[int, datetime]:
    """Sorts the most important pod first: by priority, then by who has been running longer."""
    return -entry.priority, start_time(entry.obj)


def start_time(pod: Obj) -> datetime:
    """When the pod was started; one that was not yet is younger than all others."""
    text = (pod.get("status") or {}).get("startTime")
    return parse_time(text) if text else _FAR_FUTURE


def _by_budget(entries: Sequence[PodEntry], budgets: Sequence[Budget]) -> tuple[list[PodEntry], list[PodEntry]]:
    """Pods whose going would violate a budget if all went, and the others; the order is kept."""
    left = [each.allowed for each in budgets]
    violating: list[PodEntry] = []
    others: list[PodEntry] = []
    for entry in entries:
        violated = False
        labels = entry.shape.labels
        if labels:
            for index, budget in enumerate(budgets):
                if budget.namespace != entry.shape.namespace or not budget.selector.matches(labels):
                    continue
                if entry.obj["metadata"]["name"] in budget.already:
                    continue
                left[index] -= 1
                violated = violated or left[index] < 0
        (violating if violated else others).append(entry)
    return violating, others


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The fewest violated budgets; then the lowest of the highest priorities, the lowest sum of priorities, the
    fewest pods; then where the most important of them have been running for the shortest time; then the first."""
    return min(candidates, key=lambda each: each.harm)


def _is_leaving(pod: Obj) -> bool:
    """The pod is being deleted to make room."""
    if "deletionTimestamp" not in pod["metadata"]:
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(
        each["type"] == "DisruptionTarget"
        and each["status"] == "True"
        and each.get("reason") == PREEMPTION_BY_SCHEDULER
        for each in conditions
    )
