"""What is remembered of searches for devices is what a new search would find, whatever was given or changed since."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from shipwheel.scheduler.framework import Handle
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.plugins.dynamicresources import DynamicResources
from shipwheel.scheduler.table import NodeTable

from .build import SHAPES, profile_of
from .test_devices import CLASSES, choice, claim, device, pool, request

Obj = dict[str, Any]
NODES = ("one", "two", "three", "four")
WISHES = (
    (request(),),
    (request(count=2),),
    (request(allocationMode="All"),),
    (choice("r", request("three", 3), request("one")),),
)


def _node(name: str) -> Obj:
    room = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    return {"metadata": {"name": name, "labels": {"name": name}}, "spec": {}, "status": {"allocatable": room}}


def _pod(wanted: str) -> Obj:
    uses = [{"name": "x", "resourceClaimName": wanted}]
    return {
        "metadata": {"name": wanted, "namespace": "default", "uid": f"pod-{wanted}"},
        "spec": {"containers": [], "resourceClaims": uses},
    }


def _slice(name: str, random_: random.Random) -> Obj:
    devices = [device(f"d{index}") for index in range(random_.randint(1, 3))]
    made = pool(*devices, name=name, nodeName=name)
    made["metadata"]["name"] = name
    return made


class _World:
    def __init__(self) -> None:
        self.listers = Listers()
        self.table = NodeTable(self.listers.namespace_labels)
        for name in NODES:
            self.table.set_node(_node(name))
        for each in CLASSES.values():
            self.listers.device_classes.put(each)
        self.handle = Handle(self.table, NodeRules(self.table), self.listers)
        self.profile = profile_of(self.handle)
        self.version = 0

    def plugin(self) -> DynamicResources:
        return next(each for each in self.profile.instances if isinstance(each, DynamicResources))

    def put_claim(self, obj: Obj) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.listers.resource_claims.put(obj)

    def verdict(self, plugin: DynamicResources, wanted: Obj) -> tuple[list[tuple[str, list[bool]]], list[float]]:
        """Reasons with the rows that have them, and scores."""
        self.put_claim(wanted)
        pod = _pod(wanted["metadata"]["name"])
        cycle = self.profile.cycle(pod, SHAPES.of(pod))
        assert plugin.pre_filter(cycle) is None
        said = {each.reason: each.mask.tolist() for each in plugin.filter(cycle) if each.mask.any()}
        scores = plugin.score(cycle, cycle.all())
        self.listers.resource_claims.remove("default", wanted["metadata"]["name"])
        assert scores is not None
        return sorted(said.items()), np.asarray(scores).tolist()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_remembered_is_what_would_be_found(seed: int) -> None:
    draw = random.Random(seed)
    world = _World()
    remembering = world.plugin()
    for step in range(60):
        name = draw.choice(NODES)
        match draw.randrange(7):
            case 0 | 1 | 2:
                taken = claim(request(), name=f"taken-{step}")
                result = {"request": "r", "driver": "gpu.example.com", "pool": name, "device": f"d{draw.randrange(3)}"}
                taken["status"] = {"allocation": {"devices": {"results": [result]}}}
                world.put_claim(taken)
            case 3 if len(world.listers.resource_claims):
                gone = draw.choice(sorted(each["metadata"]["name"] for each in world.listers.resource_claims.list()))
                world.listers.resource_claims.remove("default", gone)
            case 4:
                world.listers.resource_slices.put(_slice(name, draw))
            case 5 if draw.random() < 0.3:
                world.table.remove_node(name)
                world.table.set_node(_node(name))
            case 6 if draw.random() < 0.2:
                shared = pool(device("n0"), device("n1"), name="network", allNodes=True)
                shared["metadata"]["name"] = "network"
                world.listers.resource_slices.put(shared)
        wanted = claim(*draw.choice(WISHES), name="wanted")
        anew = DynamicResources({}, Handle(world.table, NodeRules(world.table), world.listers))
        assert world.verdict(remembering, wanted) == world.verdict(anew, wanted), step
