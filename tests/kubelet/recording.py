"""Decisions as they were taken, written down, so that they can be taken again.

A recording is lines of JSON, a decision each: what a pod wants, what was observed of it, what was decided. The recorded
ones in `histories/` are of real containers (`RECORD=file pytest tests/kubelet/runtime/test_live.py`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shipwheel.api.meta import Obj
from shipwheel.kubelet import lifecycle
from shipwheel.kubelet.lifecycle import Actions, Kill, ProbeResults, Reset
from shipwheel.kubelet.observed import ContainerObservation, PodObservation
from shipwheel.kubelet.runtime.base import NamespaceModes, Sandbox

_NOT_KEPT = frozenset(("resources", "mounts", "user"))


@dataclass(frozen=True)
class Decision:
    pod: Obj
    observed: PodObservation
    probes: ProbeResults
    options: dict[str, Any]
    actions: Actions


@contextmanager
def recording(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add what is decided meanwhile to a file, leaving out what was decided for the same pod just before."""
    decide, last = lifecycle.decide, {}
    with path.open("a") as file:

        def recorded(pod: Obj, observed: PodObservation, probes: ProbeResults | None = None, **options: Any) -> Actions:
            actions = decide(pod, observed, probes, **options)
            line = json.dumps(_written(Decision(pod, observed, probes or ProbeResults(), options, actions)))
            if last.get(observed.uid) != line:
                last[observed.uid] = line
                file.write(line + "\n")
            return actions

        monkeypatch.setattr(lifecycle, "decide", recorded)
        yield


def read(path: Path) -> list[Decision]:
    return [_read(json.loads(line)) for line in path.read_text().splitlines()]


def _written(decision: Decision) -> Obj:
    meta = decision.pod["metadata"]
    options = {key: sorted(each) if isinstance(each, frozenset) else each for key, each in decision.options.items()}
    return {
        "pod": {
            "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "deletionTimestamp") if key in meta},
            "spec": decision.pod["spec"],
        },
        "sandboxes": [_plain(each) for each in decision.observed.sandboxes],
        "containers": [_plain(each) for each in decision.observed.containers],
        "probes": _plain(decision.probes),
        "options": options,
        "actions": _plain(decision.actions),
    }


def _plain(value: Any) -> Obj:
    """A dataclass, without what it has by default."""
    found = {}
    for each in dataclasses.fields(value):
        part = getattr(value, each.name)
        if each.name in _NOT_KEPT or part == each.default or part in ({}, (), []):
            continue
        if dataclasses.is_dataclass(part):
            part = _plain(part)
        elif isinstance(part, tuple) and part and dataclasses.is_dataclass(part[0]):
            part = [_plain(item) for item in part]
        found[each.name] = dict(part) if each.name in ("startup", "liveness", "readiness") else part
    return {key: part for key, part in found.items() if key not in ("labels", "annotations")}


def _read(line: Obj) -> Decision:
    pod, actions = line["pod"], dict(line["actions"])
    sandboxes = tuple(
        Sandbox(**{**each, "namespaces": NamespaceModes(**each.get("namespaces", {}))}) for each in line["sandboxes"]
    )
    containers = tuple(ContainerObservation(**each) for each in line["containers"])
    actions["kill"] = tuple(Kill(**each) for each in actions.get("kill", ()))
    actions["reset"] = tuple(Reset(**each) for each in actions.get("reset", ()))
    for name in ("start", "start_init", "start_ephemeral"):
        actions[name] = tuple(actions.get(name, ()))
    options = {key: frozenset(each) if isinstance(each, list) else each for key, each in line["options"].items()}
    observed = PodObservation(pod["metadata"]["uid"], sandboxes=sandboxes, containers=containers)
    return Decision(pod, observed, ProbeResults(**line["probes"]), options, Actions(**actions))
