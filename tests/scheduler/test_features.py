"""Pods that need something of the kubelet go where it declares it."""

from __future__ import annotations

import pytest

from shipwheel.scheduler.framework import Diagnosis
from shipwheel.scheduler.plugins.features import MISSING, required_features

from .build import SHAPES, handle_of, profile_of
from .model import World
from .test_preemption import node, pod

RULES = [{"name": "main", "image": "a", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]


@pytest.mark.parametrize(
    ("spec", "features"),
    [
        ({"containers": [{"name": "a"}]}, set()),
        ({"containers": RULES}, {"RestartAllContainersOnContainerExits"}),
        ({"initContainers": RULES}, {"RestartAllContainersOnContainerExits"}),
        ({"hostNetwork": True, "hostUsers": False}, {"UserNamespacesHostNetworkSupport"}),
        ({"hostNetwork": True}, set()),
    ],
)
def test_what_a_pod_needs(spec, features) -> None:
    assert required_features(spec) == features


def test_only_nodes_that_declare_it_will_do() -> None:
    able, other = node("able"), node("other")
    able["status"]["declaredFeatures"] = ["RestartAllContainersOnContainerExits"]
    profile = profile_of(handle_of(World([able, other], [])))
    wanting = pod("a", containers=RULES)
    diagnosis = Diagnosis(2)
    feasible = profile.feasible(profile.cycle(wanting, SHAPES.of(wanting)), diagnosis)
    assert [profile.handle.table.name(int(row)) for row in feasible.nonzero()[0]] == ["able"]
    assert diagnosis.message() == f"0/2 nodes are available: 1 {MISSING}."
