"""Stages: what happens to a simulated pod, and when, declared as data (docs/simulated-pods.md).

    stages:
    - name: crash
      from: Running                     # or a list
      match: {labels: "app=flaky"}      # also: namespace, annotations, owner, restartPolicy
      delay: {min: 5s, max: 20s}        # or 10s
      weight: 1                         # among those that match
      to: Exited
      exit: 1
      reason: Error
      message: no database
    usage:
    - {match: {labels: "app=web"}, cpu: 100m, memory: 64Mi}

A pod in a state goes by one of the stages that lead from it and match the pod, chosen by their weights. States that
no stage of a file leads from are left as the default stages say. All of this is a pure function of the pod and of
two random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api import quantity
from shipwheel.api.selectors import LabelSelector, parse_label_selector
from shipwheel.kubelet.runtime.simulated.life import seconds

STATES = ("Pending", "Waiting", "Running", "NotReady", "BackOff", "Deleting")
"""Those that a stage can lead from."""
GOALS = ("Waiting", "Running", "NotReady", "Exited", "Failed", "Succeeded", "Deleted")
"""Those that it can lead to. Exited: by the pod's restart policy it is Running again, BackOff, Succeeded or Failed."""
ONLY_FROM = {"Deleted": {"Deleting"}, "Exited": {"Running", "NotReady"}}
MAX_BACKOFF = 300.0
FIRST_BACKOFF = 10.0


class StagesError(ValueError):
    """The declaration is not one; the message says what is wrong."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Facts:
    """What of a pod stages can match."""

    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: str
    """The kind of its controller; empty without one."""
    restart_policy: str


@dataclass(frozen=True, slots=True)
class Match:
    """What is not given matches every pod."""

    namespace: str = ""
    labels: LabelSelector | None = None
    annotations: LabelSelector | None = None
    owner: str = ""
    restart_policies: tuple[str, ...] = ()

    def matches(self, pod: Facts) -> bool:
        return (
            self.namespace in ("", pod.namespace)
            and (self.labels is None or self.labels.matches(pod.labels))
            and (self.annotations is None or self.annotations.matches(pod.annotations))
            and self.owner in ("", pod.owner)
            and (not self.restart_policies or pod.restart_policy in self.restart_policies)
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """Durations are seconds."""

    name: str
    start: tuple[str, ...]
    goal: str
    match: Match = Match()
    min_delay: float = 0.0
    max_delay: float = 0.0
    weight: float = 1.0
    exit: int = 0
    reason: str = ""
    message: str = ""

    def delay(self, chance: float) -> float:
        """`chance` is between 0 and 1."""
        return self.min_delay + (self.max_delay - self.min_delay) * chance


@dataclass(frozen=True, slots=True)
class Usage:
    match: Match = Match()
    cpu: float = 0.001
    """Cores, of each container."""
    memory: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Stages:
    stages: tuple[Stage, ...] = ()
    usages: tuple[Usage, ...] = ()
    _by_state: dict[str, list[Stage]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for state in STATES:
            self._by_state[state] = [each for each in self.stages if state in each.start]

    def next(self, state: str, pod: Facts, chance: float) -> Stage | None:
        """What comes next for a pod in a state; None: it stays in it. `chance` is between 0 and 1."""
        declared = [each for each in self._by_state.get(state, ()) if each.match.matches(pod)]
        found = declared or [each for each in DEFAULT if state in each.start and each.match.matches(pod)]
        left = chance * sum(each.weight for each in found)
        for each in found:
            left -= each.weight
            if left <= 0:
                return each
        return None

    def usage(self, pod: Facts) -> Usage:
        return next((each for each in self.usages if each.match.matches(pod)), Usage())


DEFAULT = (
    Stage("start", ("Pending",), "Running"),
    Stage(
        "complete", ("Running",), "Exited", Match(restart_policies=("OnFailure", "Never")), min_delay=1.0, max_delay=1.0
    ),
    Stage("restart", ("BackOff",), "Running"),
    Stage("delete", ("Deleting",), "Deleted"),
)


def after_exit(restart_policy: str, exit: int, restarts: int) -> str:
    """The state of a pod whose containers have exited; they were restarted `restarts` times already."""
    if restart_policy == "Always" or (restart_policy == "OnFailure" and exit):
        return "BackOff" if restarts else "Running"
    return "Failed" if exit else "Succeeded"


def backoff(restarts: int) -> float:
    """Seconds until containers that were restarted so often are restarted again."""
    return min(FIRST_BACKOFF * 2 ** min(restarts - 1, 10), MAX_BACKOFF) if restarts else 0.0


def parse(text: str) -> Stages:
    """Read a file's text, YAML or JSON. Raises `StagesError`."""
    import yaml

    try:
        declared = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise StagesError(str(error)) from error
    _known(declared, "the file", "stages", "usage")
    return Stages(
        tuple(_each(declared, "stages", _stage)),
        tuple(_each(declared, "usage", _usage)),
    )


def _each(declared: Mapping[str, Any], name: str, read: Any) -> list[Any]:
    listed = declared.get(name, [])
    if not isinstance(listed, list):
        raise StagesError(f"{name}: expected a list")
    found = []
    for index, each in enumerate(listed):
        try:
            found.append(read(each))
        except (TypeError, ValueError, AttributeError) as error:
            raise StagesError(f"{name}[{index}]: {error}") from error
    return found


def _stage(declared: Any) -> Stage:
    fields = ("name", "from", "match", "delay", "weight", "to", "exit", "reason", "message")
    _known(declared, "a stage", *fields, required=("name", "from", "to"))
    start = _texts(declared["from"])
    goal = str(declared["to"])
    for state in start:
        _one_of("from", state, STATES)
    _one_of("to", goal, GOALS)
    if not ONLY_FROM.get(goal, set(start)) >= set(start):
        raise StagesError(f"to: {goal} can only be reached from {' or '.join(sorted(ONLY_FROM[goal]))}")
    if "exit" in declared and goal != "Exited":
        raise StagesError("exit: only stages to Exited have one")
    if goal == "Waiting" and not declared.get("reason"):
        raise StagesError("reason: a pod that waits has one")
    low, high = _delay(declared.get("delay", 0))
    weight = float(declared.get("weight", 1))
    if weight <= 0:
        raise StagesError("weight: must be greater than 0")
    return Stage(
        name=str(declared["name"]),
        start=start,
        goal=goal,
        match=_match(declared.get("match")),
        min_delay=low,
        max_delay=high,
        weight=weight,
        exit=int(declared.get("exit", 0)),
        reason=str(declared.get("reason", "")),
        message=str(declared.get("message", "")),
    )


def _usage(declared: Any) -> Usage:
    _known(declared, "a usage", "match", "cpu", "memory")
    default = Usage()
    return Usage(
        match=_match(declared.get("match")),
        cpu=quantity.milli(str(declared["cpu"])) / 1000 if "cpu" in declared else default.cpu,
        memory=quantity.value(str(declared["memory"])) if "memory" in declared else default.memory,
    )


def _match(declared: Any) -> Match:
    if declared is None:
        return Match()
    _known(declared, "match", "namespace", "labels", "annotations", "owner", "restartPolicy")
    labels, annotations = (
        parse_label_selector(declared[name]) if name in declared else None for name in ("labels", "annotations")
    )
    return Match(
        namespace=str(declared.get("namespace", "")),
        labels=labels,
        annotations=annotations,
        owner=str(declared.get("owner", "")),
        restart_policies=_texts(declared.get("restartPolicy", [])),
    )


def _delay(declared: Any) -> tuple[float, float]:
    if not isinstance(declared, dict):
        return seconds(declared), seconds(declared)
    _known(declared, "delay", "min", "max", required=("max",))
    low, high = seconds(declared.get("min", 0)), seconds(declared["max"])
    if low > high:
        raise StagesError("delay: min is more than max")
    return low, high


def _texts(declared: Any) -> tuple[str, ...]:
    return tuple(map(str, declared)) if isinstance(declared, list) else (str(declared),)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise StagesError(f'{name}: unknown state "{value}"; there are {", ".join(allowed)}')


def _known(declared: Any, what: str, *names: str, required: Sequence[str] = ()) -> None:
    if not isinstance(declared, dict):
        raise StagesError(f"{what}: expected fields {', '.join(names)}, got {declared!r}")
    for name in declared:
        if name not in names:
            raise StagesError(f'{what}: unknown field "{name}"')
    for name in required:
        if name not in declared:
            raise StagesError(f"{what}: {name} is missing")
