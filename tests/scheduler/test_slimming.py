"""Pods as the scheduler keeps them: everything that rules look at is still there, and shared."""

from __future__ import annotations

import copy
import random

from shipwheel.scheduler.pods import Shapes
from shipwheel.scheduler.slimming import Slimmer

from . import worlds


def placed(rng: random.Random, name: str) -> dict:
    pod = worlds.pod(rng, name, priority=3)
    pod["kind"] = "Pod"
    pod["spec"]["nodeName"] = "one"
    pod["spec"].setdefault("volumes", []).append({"name": f"token-{name}", "projected": {}})
    pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return pod


def test_rules_see_the_same() -> None:
    rng, slimmer, shapes = random.Random(3), Slimmer(), Shapes()
    for index in range(300):
        pod = placed(rng, f"pod-{index}")
        slim = slimmer(copy.deepcopy(pod))
        assert shapes.of(slim) is shapes.of(pod), "it need not be counted anew when it has been bound"
        assert slim["spec"]["nodeName"] == "one" and slim["metadata"]["labels"] == pod["metadata"]["labels"]


def test_what_a_template_says_is_kept_once() -> None:
    slimmer = Slimmer()
    one, other = (slimmer(placed(random.Random(5), name)) for name in ("a", "b"))
    assert one["spec"]["containers"] is other["spec"]["containers"]
    assert one["metadata"]["labels"] is other["metadata"]["labels"]
    assert one["metadata"]["name"] != other["metadata"]["name"]


def test_what_still_waits_stays_whole() -> None:
    pod = placed(random.Random(5), "a")
    del pod["spec"]["nodeName"]
    assert Slimmer()(pod) is pod
