"""The scheduling framework: extension points, and the profile that runs its plugins at them in order.

Upstream's framework asks each plugin about one node after the other; here a plugin answers for all nodes at once.
A plugin is a class with a `name` and methods for the extension points it is for; which these are is seen from the
methods it has:

    pre_enqueue(pod) -> str                          why the pod must not be tried yet; "" when it may
    sort_key(pod, queued_at) -> tuple                QueueSort: pods with smaller keys go first
    pre_filter(cycle) -> Rejection | Mask | None     no node at all; or only these; or no opinion
    filter(cycle) -> Iterable[Refusal]               nodes that will not do, and why
    post_filter(cycle, diagnosis, profile) -> PostFilterResult
    pre_score(cycle, feasible) -> None
    score(cycle, feasible) -> Floats | None          whole numbers for all rows; None: nothing to say
    normalize(cycle, scores, feasible) -> Floats     from 0 to MAX_SCORE
    reserve(cycle, node) -> str, unreserve(cycle, node)
    permit(cycle, node) -> Permit
    async pre_bind(cycle, node), async bind(cycle, node) -> bool, post_bind(cycle, node)

`events` says what may make a pod schedulable that the plugin has refused. Plugins keep no state of their own about
pods and nodes; what one of them works out for a pod goes into `cycle.state`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shipwheel.api.meta import Obj
from shipwheel.client.client import Client
from shipwheel.client.events import EventRecorder
from shipwheel.client.metrics import Metrics
from shipwheel.scheduler.devices.ledger import Ledger
from shipwheel.scheduler.events import Interest
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.pods import Shape
from shipwheel.scheduler.table import Floats, Mask, NodeTable

MAX_SCORE = 100
MEASURED = 10
"""Of so many attempts one is measured plugin by plugin."""
SUCCESS, UNSCHEDULABLE = "Success", "Unschedulable"


class PluginError(Exception):
    """A plugin failed; the pod's attempt fails with it, and nothing else."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The pod fits nowhere, whatever the nodes are."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows (of `cycle.rows`) that will not do."""

    mask: Mask
    reason: str
    unresolvable: Mask | bool = False
    """Where taking other pods away would not help."""


@dataclass(frozen=True, slots=True)
class Permit:
    """`approve`, `reject` or `wait` (at most `timeout` seconds)."""

    verdict: str = "approve"
    reason: str = ""
    timeout: float = 0.0


@dataclass(eq=False, slots=True)
class Waiting:
    """A pod that has its node but must wait until plugins permit it; `Handle.waiting` has them all by key."""

    pod: Obj
    node: str
    pending: dict[str, float] = field(default_factory=dict)
    """Plugins that have not decided, and how many seconds they may take."""
    refused: str = ""
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    def allow(self, plugin: str) -> None:
        """A plugin has nothing against it any more."""
        self.pending.pop(plugin, None)
        if not self.pending:
            self.decided.set()

    def reject(self, reason: str) -> None:
        self.refused = reason
        self.decided.set()


@dataclass(frozen=True, slots=True)
class PostFilterResult:
    """What could be done for a pod that fits nowhere."""

    node: str = ""
    """Promised to the pod; empty when nothing can be done."""
    victims: Sequence[Obj] = ()
    """Pods that have to go for it."""
    message: str = ""


@dataclass(slots=True)
class Cycle:
    """One attempt to place one pod."""

    pod: Obj
    shape: Shape
    table: NodeTable
    rows: slice
    """The rows that are asked about: all, or a single one."""
    state: dict[str, Any] = field(default_factory=dict)
    left: Mask | None = None
    """The rows that no filter has refused yet, for filters that are slow; None: all are asked about."""
    slow: bool = False
    """Binding has to wait for something, so nobody must wait for the binding."""
    measured: bool = False
    """The time that each plugin takes is of interest."""

    @property
    def key(self) -> str:
        meta = self.pod["metadata"]
        return f"{meta.get('namespace', '')}/{meta['name']}"

    def none(self) -> Mask:
        """No row."""
        return np.zeros(self.rows.stop - self.rows.start, np.bool_)

    def all(self) -> Mask:
        return np.ones(self.rows.stop - self.rows.start, np.bool_)

    def in_question(self) -> list[int]:
        """The rows that it is worth to think about, one at a time."""
        mask = self.table.alive[self.rows] if self.left is None else self.left
        return [self.rows.start + int(index) for index in np.flatnonzero(mask)]

    def of_row(self, row: int) -> Cycle:
        """The same attempt, asked about one node only."""
        return Cycle(self.pod, self.shape, self.table, slice(row, row + 1))


def _nowhere(key: str, job: Callable[[], Awaitable[None]]) -> None:
    """Where decisions are only tried, nothing is written."""


async def _unbound(pod: Obj, node: str) -> None:
    raise PluginError("there is no API server to bind with")


@dataclass(slots=True)
class Handle:
    """What plugins are given to work with."""

    table: NodeTable
    nodes: NodeRules
    listers: Listers
    bind: Callable[[Obj, str], Awaitable[None]] = _unbound
    """Binds a pod to a node through the API."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    rng: random.Random = field(default_factory=random.Random)
    client: Client | None = None
    """For plugins that write. There is none where decisions are only tried."""
    later: Callable[[str, Callable[[], Awaitable[None]]], None] = _nowhere
    """Writes something in the background; the key says what it is, and of several with one key the last counts."""
    recorder: EventRecorder | None = None
    metrics: Metrics = field(default_factory=lambda: Metrics(process=False))
    """For plugins that have something to measure."""
    assumed_volumes: dict[str, str] = field(default_factory=dict)
    """Volumes chosen for claims ("namespace/name"), by name, until the watch shows it. All profiles share them."""
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.listers)


class Plugin(Protocol):
    name: str
    events: Sequence[Interest]


PluginFactory = Callable[[Mapping[str, Any], Handle], Any]

POINTS = {
    "preEnqueue": "pre_enqueue",
    "queueSort": "sort_key",
    "preFilter": "pre_filter",
    "filter": "filter",
    "postFilter": "post_filter",
    "preScore": "pre_score",
    "score": "score",
    "reserve": "reserve",
    "permit": "permit",
    "preBind": "pre_bind",
    "bind": "bind",
    "postBind": "post_bind",
}
"""Extension points of the configuration, and the methods that make a plugin one for them."""


@dataclass(slots=True)
class Diagnosis:
    """Which rows were refused, by whom and why."""

    count: int
    """Nodes there are."""
    refusals: list[tuple[str, Refusal]] = field(default_factory=list)
    """(plugin, rows it was first to refuse); of several by the same plugin all count."""
    rejected: str = ""
    """Why it fits nowhere, when no node was looked at."""
    plugins: set[str] = field(default_factory=set)
    """Those whose refusal an event may undo."""
    post_filter: str = ""

    def message(self) -> str:
        """`0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`"""
        if not self.count:
            return "no nodes available to schedule pods"
        text = f"0/{self.count} nodes are available:"
        if self.rejected:
            text += f" {self.rejected}."
        elif said := histogram(self.refusals):
            text += f" {said}."
        return f"{text} {self.post_filter}" if self.post_filter else text

    def unresolvable(self, size: int) -> Mask:
        """The rows where taking pods away does not help."""
        if self.rejected:
            return np.ones(size, np.bool_)
        found = np.zeros(size, np.bool_)
        for _, refusal in self.refusals:
            found |= refusal.mask & refusal.unresolvable
        return found


def histogram(refusals: Iterable[tuple[str, Refusal]]) -> str:
    """Reasons with the number of nodes that have them."""
    numbers: dict[str, int] = {}
    for _, refusal in refusals:
        number = int(refusal.mask.sum())
        if number:
            numbers[refusal.reason] = numbers.get(refusal.reason, 0) + number
    return ", ".join(sorted(f"{number} {reason}" for reason, number in numbers.items()))


class Meter:
    """Is told how long things take, in seconds. This one does not care."""

    def point(self, point: str, status: str, seconds: float) -> None:
        """An extension point, all its plugins together."""

    def plugin(self, plugin: str, point: str, status: str, seconds: float) -> None:
        """A plugin at an extension point; only of cycles that are `measured`."""


class Profile:
    """A scheduler name, and its plugins at each extension point, in order. `meter` is told how long they take."""

    def __init__(
        self, scheduler_name: str, plugins: Mapping[str, Sequence[Any]], weights: Mapping[str, int], handle: Handle
    ) -> None:
        self.scheduler_name = scheduler_name
        self.handle = handle
        self.plugins = plugins
        """By extension point, as the configuration calls it."""
        self.weights = weights
        self.instances = list({id(each): each for point in plugins.values() for each in point}.values())
        self.meter = Meter()
        self.reached: Counter[tuple[str, int]] = Counter()
        """(extension point, n): how many attempts have asked the first n of its plugins."""
        self._cycles = 0

    def at(self, point: str) -> Sequence[Any]:
        return self.plugins.get(point, ())

    def cycle(self, pod: Obj, shape: Shape) -> Cycle:
        """An attempt that asks about all nodes; one in ten is measured in detail, as upstream does."""
        measured = self._cycles % MEASURED == 0
        self._cycles += 1
        return Cycle(pod, shape, self.handle.table, slice(0, self.handle.table.size), measured=measured)

    def attempt(self, cycle: Cycle) -> Mask:
        """`feasible`, measured: of an attempt to place a pod."""
        before = time.perf_counter()
        left = self._pre_filter(cycle, cycle.table.alive[cycle.rows].copy(), None)
        between = time.perf_counter()
        self.meter.point("PreFilter", SUCCESS if left is not None else UNSCHEDULABLE, between - before)
        if left is None:
            return cycle.none()
        left = self._filter(cycle, left, None)
        self.meter.point("Filter", SUCCESS if some(left) else UNSCHEDULABLE, time.perf_counter() - between)
        return left

    def feasible(self, cycle: Cycle, diagnosis: Diagnosis | None = None) -> Mask:
        """The rows where the pod can go; `diagnosis` takes note of the others."""
        left = self._pre_filter(cycle, cycle.table.alive[cycle.rows].copy(), diagnosis)
        return cycle.none() if left is None else self._filter(cycle, left, diagnosis)

    def _filter(self, cycle: Cycle, left: Mask, diagnosis: Diagnosis | None) -> Mask:
        cycle.left = left
        there_are = some(left)
        asked = 0
        with failing_as("Filter") as asking:
            for plugin in self.at("filter"):
                if not there_are:
                    break
                asking.plugin = plugin
                asked += 1
                started = time.perf_counter() if cycle.measured else 0.0
                before = left
                for refusal in plugin.filter(cycle):
                    if diagnosis is not None:
                        newly = refusal.mask & before
                        if not some(newly):
                            continue
                        diagnosis.plugins.add(plugin.name)
                        diagnosis.refusals.append((plugin.name, Refusal(newly, refusal.reason, refusal.unresolvable)))
                    left = left & ~refusal.mask
                if left is not before:
                    cycle.left = left
                    there_are = some(left)
                if started:
                    self._observe(plugin, "Filter", SUCCESS if there_are else UNSCHEDULABLE, started)
        self.reached["filter", asked] += 1
        return left

    def _pre_filter(self, cycle: Cycle, left: Mask, diagnosis: Diagnosis | None) -> Mask | None:
        limiting: list[str] = []
        everything = left
        asked = 0
        rejection = None
        with failing_as("PreFilter") as asking:
            for plugin in self.at("preFilter"):
                asking.plugin = plugin
                asked += 1
                started = time.perf_counter() if cycle.measured else 0.0
                verdict = plugin.pre_filter(cycle)
                rejection = verdict if isinstance(verdict, Rejection) else None
                if started:
                    self._observe(plugin, "PreFilter", UNSCHEDULABLE if rejection else SUCCESS, started)
                if rejection is not None:
                    break
                if verdict is not None:
                    limiting.append(plugin.name)
                    left = left & verdict
        self.reached["preFilter", asked] += 1
        if rejection is not None:
            if diagnosis is not None:
                diagnosis.rejected = rejection.reason
                diagnosis.plugins.add(plugin.name)
            return None
        if limiting and diagnosis is not None:
            diagnosis.plugins.update(limiting)
            names = " ".join(sorted(limiting))
            if len(limiting) > 1 and not left.any():
                diagnosis.rejected = f"node(s) didn't satisfy plugin(s) [{names}] simultaneously"
                return None
            reason = f"node(s) didn't satisfy plugin(s) [{names}]"
            diagnosis.refusals.append((limiting[0], Refusal(everything & ~left, reason, True)))
        return left

    def _observe(self, plugin: Any, point: str, status: str, started: float) -> None:
        self.meter.plugin(plugin.name, point, status, time.perf_counter() - started)

    def fits(self, cycle: Cycle) -> bool:
        """Whether the single row of a cycle will do."""
        return bool(self.feasible(cycle).any())

    def scores(self, cycle: Cycle, feasible: Mask) -> dict[str, Floats]:
        """Each scoring plugin's normalized scores, unweighted, for those that have something to say."""
        before = time.perf_counter()
        with failing_as("PreScore") as asking:
            for plugin in self.at("preScore"):
                asking.plugin = plugin
                started = time.perf_counter() if cycle.measured else 0.0
                plugin.pre_score(cycle, feasible)
                if started:
                    self._observe(plugin, "PreScore", SUCCESS, started)
        between = time.perf_counter()
        self.meter.point("PreScore", SUCCESS, between - before)
        found: dict[str, Floats] = {}
        with failing_as("Score") as asking:
            for plugin in self.at("score"):
                asking.plugin = plugin
                started = time.perf_counter() if cycle.measured else 0.0
                scores = plugin.score(cycle, feasible)
                if scores is not None:
                    if hasattr(plugin, "normalize"):
                        scores = plugin.normalize(cycle, scores, feasible)
                    found[plugin.name] = scores
                if started:
                    self._observe(plugin, "Score", SUCCESS, started)
        self.meter.point("Score", SUCCESS, time.perf_counter() - between)
        self.reached["preScore", len(self.at("preScore"))] += 1
        self.reached["score", len(self.at("score"))] += 1
        return found

    def total(self, cycle: Cycle, feasible: Mask) -> Floats:
        """The weighted sums."""
        total = np.zeros(len(feasible))
        for name, scores in self.scores(cycle, feasible).items():
            total += scores * self.weights[name]
        return total


def some(mask: Mask) -> bool:
    """Whether any row is set: `mask.any()`, at a fifth of its price for a few thousand rows."""
    return bool(np.count_nonzero(mask))


class failing_as:
    """Turns whatever a plugin raises into a PluginError that says who did: the one given, or set since."""

    __slots__ = ("_point", "plugin")

    def __init__(self, point: str, plugin: Any = None) -> None:
        self._point = point
        self.plugin = plugin

    def __enter__(self) -> failing_as:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, PluginError):
            name = self.plugin.name
            said = f'"{name}" filter plugin' if self._point == "Filter" else f'{self._point} plugin "{name}"'
            raise PluginError(f"running {said}: {error}") from error


def reverse_normalized(scores: Floats, feasible: Mask) -> Floats:
    """The more, the worse: MAX_SCORE for none."""
    highest = scores[feasible].max(initial=0)
    if highest == 0:
        return np.full(len(scores), float(MAX_SCORE))
    return MAX_SCORE - np.floor(scores * MAX_SCORE / highest)


def normalized(scores: Floats, feasible: Mask) -> Floats:
    """The highest becomes MAX_SCORE."""
    highest = scores[feasible].max(initial=0)
    return scores if highest == 0 else np.floor(scores * MAX_SCORE / highest)
