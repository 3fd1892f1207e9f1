"""Explanations: all rules that refuse a node, what would help, scores, and how they are printed."""

from __future__ import annotations

from typing import Any

from shipwheel.api.clock import SystemClock
from shipwheel.cli.why import describe
from shipwheel.client import resources as r
from shipwheel.scheduler.why import Explanation, explain
from tests.controllers.fakeapi import FakeApi

from .test_devices import claim, device, pool, request
from .test_loop import MORE_KINDS, node, pod


async def explained(name: str, *objects: tuple[Any, dict[str, Any]]) -> Explanation:
    api = FakeApi(SystemClock(), kinds=MORE_KINDS)
    for kind, obj in objects:
        api.create(kind, obj)
    return await explain(api.client(), "default", name)


async def test_all_refusals_are_told_with_what_would_help() -> None:
    closed = node("closed", "2", disk="hdd")
    closed["spec"] = {"unschedulable": True, "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}
    found = await explained("a", (r.NODES, closed), (r.PODS, pod("a", "3", nodeSelector={"disk": "ssd"})))
    (verdict,) = found.verdicts
    assert [rule for rule, _ in verdict.refusals] == [
        "NodeUnschedulable",
        "TaintToleration",
        "NodeAffinity",
        "NodeResourcesFit",
    ]
    assert list(verdict.remedies) == [
        "kubectl uncordon closed",
        "tolerations for gpu=yes:NoSchedule",
        "the node's labels disk=ssd",
        "1000m more cpu (it asks for 3000m, 2000m is free)",
    ]
    assert "closed: node(s) were unschedulable (NodeUnschedulable); " in describe(found, limit=5)


async def test_where_it_is_does_not_count_and_scores_are_those_of_the_profile() -> None:
    placed = pod("a", "3", nodeName="one")
    found = await explained("a", (r.NODES, node("one")), (r.NODES, node("two", "8")), (r.PODS, placed))
    assert found.node == "one" and not any(each.refusals for each in found.verdicts)
    best, other = found.verdicts
    assert (best.node, other.node) == ("two", "one") and best.score > other.score
    assert best.score == sum(best.scores.values()) and best.scores["TaintToleration"] == 300
    assert "one *" in describe(found, limit=5)


async def test_preemption_that_would_help_is_named() -> None:
    low = pod("low", "3", nodeName="one")
    found = await explained("high", (r.NODES, node("one")), (r.PODS, low), (r.PODS, pod("high", "3", 9)))
    assert found.preemption == "one would do if these had to go: default/low"


async def test_pods_that_no_node_was_looked_at_for() -> None:
    gated = await explained("a", (r.NODES, node("one")), (r.PODS, pod("a", schedulingGates=[{"name": "wait"}])))
    assert gated.rejected == "it waits for its scheduling gates: wait"
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    lacking = await explained("a", (r.NODES, node("one")), (r.PODS, pod("a", volumes=volumes)))
    assert 'No node will do: persistentvolumeclaim "data" not found' in describe(lacking, limit=5)


async def test_long_lists_are_cut_unless_asked_for() -> None:
    nodes = [(r.NODES, node(f"node-{index}", "1")) for index in range(5)]
    found = await explained("a", *nodes, (r.PODS, pod("a", "3")))
    assert "... and 3 more (--all shows them)" in describe(found, limit=2)


async def test_devices() -> None:
    using = pod("a", resourceClaims=[{"name": "gpu", "resourceClaimName": "c"}])
    gpus = (r.DEVICE_CLASSES, {"metadata": {"name": "gpu"}, "spec": {}})
    wanted = (r.RESOURCE_CLAIMS, claim(request(), name="c"))
    found = await explained("a", (r.NODES, node("one")), gpus, wanted, (r.PODS, using))
    (verdict,) = found.verdicts
    assert verdict.refusals == [("DynamicResources", "cannot allocate all claims")]
    assert verdict.remedies == ["more devices, for c"]
    bad = (r.RESOURCE_CLAIMS, claim(request(selectors=[{"cel": {"expression": "device.nothing"}}]), name="c"))
    slices = (r.RESOURCE_SLICES, pool(device("d")))
    broken = await explained("a", (r.NODES, node("one")), gpus, bad, slices, (r.PODS, using))
    assert broken.rejected.endswith("CEL runtime error: no such key: nothing")
