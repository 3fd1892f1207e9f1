"""Devices that stand for an extended resource are scored like the resource itself would be."""

from __future__ import annotations

from typing import Any

from shipwheel.scheduler.framework import Handle
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.table import NodeTable

from .build import SHAPES, profile_of
from .test_devices import claim, device, pool, request, selecting

Obj = dict[str, Any]
GPU = "example.com/gpu"
STRATEGY = {"type": "MostAllocated", "resources": [{"name": GPU, "weight": 1}]}


def _node(name: str, **more: str) -> Obj:
    room = {"cpu": "4", "memory": "4Gi", "pods": "10", **more}
    return {"metadata": {"name": name}, "spec": {}, "status": {"allocatable": room}}


def _slice(node: str, *kinds: str) -> Obj:
    made = [device(f"d{index}", attributes={"kind": {"string": kind}}) for index, kind in enumerate(kinds)]
    found = pool(*made, name=node, nodeName=node)
    found["metadata"]["name"] = node
    return found


def _taken(node: str, index: int) -> Obj:
    result = {"request": "r", "driver": "gpu.example.com", "pool": node, "device": f"d{index}"}
    return claim(request(), name=f"{node}-{index}") | {"status": {"allocation": {"devices": {"results": [result]}}}}


def test_what_is_scored() -> None:
    listers = Listers()
    table = NodeTable(listers.namespace_labels)
    for node in (_node("four"), _node("two"), _node("own", **{GPU: "10"}), _node("none")):
        table.set_node(node)
    listers.resource_slices.put(_slice("four", "gpu", "gpu", "gpu", "gpu", "nic"))
    listers.resource_slices.put(_slice("two", "gpu", "gpu"))
    which = selecting('device.attributes["gpu.example.com"].kind == "gpu"')
    spec = {"extendedResourceName": GPU, "selectors": which}
    listers.device_classes.put({"metadata": {"name": "gpu"}, "spec": spec})
    profile = profile_of(
        Handle(table, NodeRules(table), listers),
        {"NodeResourcesFit": {"scoringStrategy": STRATEGY}},
    )

    def scores() -> list[float]:
        container = {"name": "main", "image": "a", "resources": {"requests": {"cpu": "1", GPU: "1"}}}
        pod = {"metadata": {"name": "p", "namespace": "default", "uid": "p"}, "spec": {"containers": [container]}}
        cycle = profile.cycle(pod, SHAPES.of(pod))
        feasible = profile.feasible(cycle)
        found: list[float] = profile.scores(cycle, feasible)["NodeResourcesFit"].tolist()
        return found

    assert scores() == [25, 50, 10, 0], "one of four, of two, of ten; there is none to be had on the last"
    listers.resource_claims.put(_taken("four", 0))
    listers.resource_claims.put(_taken("four", 4))
    assert scores() == [50, 50, 10, 0], "the other one that is taken is of another kind"
    listers.resource_claims.remove("default", "four-0")
    listers.resource_claims.put(_taken("two", 1))
    assert scores() == [25, 100, 10, 0]
    listers.resource_slices.put(_slice("two", "gpu", "gpu", "gpu", "gpu"))
    assert scores() == [25, 50, 10, 0]
