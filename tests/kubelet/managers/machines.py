"""Machines of several shapes, and pods that want parts of them."""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet.managers.hints import Hint
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.managers.topology import Cpu, NumaNode, Topology

GIB = 1 << 30
ANYWHERE = Hint()


def machine(*, sockets: int = 1, nodes: int = 1, cores: int = 4, threads: int = 2, memory: int = 8 * GIB) -> Topology:
    """`nodes` and `cores` of a socket, `threads` of a core. Numbers as common kernels give them: first a thread of
    every core, socket by socket in turn, then the second ones."""
    total = sockets * nodes * cores
    cpus = []
    for thread in range(threads):
        for core in range(total):
            socket = core % sockets
            numa = socket * nodes + (core // sockets) * nodes // (nodes * cores)
            cpus.append(Cpu(core + thread * total, core, socket, numa, numa))
    distances = [tuple(10 if one == other else 20 + abs(one - other) for other in range(sockets * nodes))
                 for one in range(sockets * nodes)]  # fmt: skip
    return Topology(
        cpus, [NumaNode(each, memory, {"hugepages-2Mi": GIB}, distances[each]) for each in range(sockets * nodes)]
    )


def measures() -> ManagerMetrics:
    return ManagerMetrics(Metrics(process=False))


def container(name: str = "c", *, init: bool = False, sidecar: bool = False, **amounts: Any) -> Obj:
    """Requests equal to limits; names of resources with `_` for what Python has no names with."""
    listed = {key.replace("__", "/").replace("_", "-"): str(value) for key, value in amounts.items()}
    made: Obj = {"name": name, "resources": {"requests": dict(listed), "limits": dict(listed)}}
    return {**made, "restartPolicy": "Always"} if sidecar else made


def pod(*containers: Obj, init: tuple[Obj, ...] = (), uid: str = "u1") -> Obj:
    return {
        "metadata": {"name": f"pod-{uid}", "namespace": "ns", "uid": uid},
        "spec": {"containers": list(containers), "initContainers": list(init)},
        "status": {},
    }


def names(made: Obj) -> frozenset[str]:
    return frozenset(each["name"] for each in (*made["spec"]["initContainers"], *made["spec"]["containers"]))
