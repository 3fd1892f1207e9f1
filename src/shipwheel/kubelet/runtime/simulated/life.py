"""What a simulated pod's containers do, declared as data in the pod's annotation `shipwheel.dev/simulate`.

    pull: {delay: 2s, error: "manifest unknown"}   # every image of the pod
    sandbox: {delay: 1s, error: "no address left"}
    containers:
      web:                     # or "*": those not named
        start: {delay: 500ms, error: "no such program"}
        run: 30s               # for ever when left out
        exit: 1
        message: "why"
        logs: ["one", "two"]   # a line every `every` (1s) from the start on
        usage: {cpu: 100m, memory: 64Mi}
        stop: {delay: 2s, exit: 0}
        listens: false         # nothing answers at the container's ports
      job: [{run: 1s, exit: 1}, {run: 5s}]   # the first start, the second and all later ones

Everything may be left out. The text is YAML or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api import quantity

ANNOTATION = "shipwheel.dev/simulate"


class LifeError(ValueError):
    """The declaration is not one; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that takes `delay` seconds, and then fails if `error` is set."""

    delay: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """One container, from one start to its end. Times are seconds."""

    start: Step = Step()
    run: float | None = None
    declared: bool = False
    """`run` or `exit` is declared, so that what the command says does not matter."""
    exit: int = 0
    message: str = ""
    logs: tuple[str, ...] = ()
    every: float = 1.0
    cpu: float = 0.001
    """Cores."""
    memory: int = 8 << 20
    stop_delay: float = 0.0
    stop_exit: int = 143
    """Of a program that does not catch SIGTERM."""
    listens: bool = True


@dataclass(frozen=True, slots=True)
class PodLife:
    pull: Step = Step()
    sandbox: Step = Step()
    containers: Mapping[str, tuple[Life, ...]] = field(default_factory=dict)

    def of(self, container: str, attempt: int) -> Life:
        lives = self.containers.get(container) or self.containers.get("*") or (Life(),)
        return lives[min(attempt, len(lives) - 1)]


NOTHING_DECLARED = PodLife()


def parse(text: str) -> PodLife:
    """Read the annotation's text; LifeError when it is something else."""
    if not text.strip():
        return NOTHING_DECLARED
    import yaml

    try:
        declared = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LifeError(f"{ANNOTATION}: {error}") from error
    try:
        return _pod(declared)
    except (TypeError, ValueError, AttributeError) as error:
        raise LifeError(f"{ANNOTATION}: {error}") from error


def _pod(declared: Any) -> PodLife:
    _known(declared, "pull", "sandbox", "containers")
    containers = declared.get("containers", {})
    return PodLife(
        pull=_step(declared.get("pull", {})),
        sandbox=_step(declared.get("sandbox", {})),
        containers={
            name: tuple(map(_life, lives if isinstance(lives, list) else [lives])) for name, lives in containers.items()
        },
    )


def _life(declared: Any) -> Life:
    _known(declared, "start", "run", "exit", "message", "logs", "every", "usage", "stop", "listens")
    usage, stop = declared.get("usage", {}), declared.get("stop", {})
    _known(usage, "cpu", "memory")
    _known(stop, "delay", "exit")
    default = Life()
    return Life(
        start=_step(declared.get("start", {})),
        run=seconds(declared["run"]) if "run" in declared else (0.0 if "exit" in declared else None),
        declared="run" in declared or "exit" in declared,
        exit=int(declared.get("exit", 0)),
        message=str(declared.get("message", "")),
        logs=tuple(map(str, declared.get("logs", ()))),
        every=seconds(declared.get("every", default.every)),
        cpu=quantity.milli(str(usage["cpu"])) / 1000 if "cpu" in usage else default.cpu,
        memory=quantity.value(str(usage["memory"])) if "memory" in usage else default.memory,
        stop_delay=seconds(stop.get("delay", 0)),
        stop_exit=int(stop.get("exit", default.stop_exit)),
        listens=bool(declared.get("listens", True)),
    )


def _step(declared: Any) -> Step:
    _known(declared, "delay", "error")
    return Step(delay=seconds(declared.get("delay", 0)), error=str(declared.get("error", "")))


def _known(declared: Any, *names: str) -> None:
    if not isinstance(declared, dict):
        raise TypeError(f"expected fields {', '.join(names)}, got {declared!r}")
    for name in declared:
        if name not in names:
            raise ValueError(f'unknown field "{name}"')


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")


def seconds(declared: Any) -> float:
    """A number of seconds, or a duration as Go writes it (`1m30s`, `500ms`)."""
    if isinstance(declared, int | float) and not isinstance(declared, bool):
        return float(declared)
    text = str(declared)
    if not text or _DURATION.sub("", text):
        raise ValueError(f"invalid duration {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
