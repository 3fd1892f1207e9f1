"""Random clusters and pods, small enough to be refused often and for every reason."""

from __future__ import annotations

import random
from typing import Any

from .model import Obj, World

ZONES = ("a", "b", "c")
APPS = ("web", "db", "job")
NAMESPACES = {"default": {"team": "one"}, "other": {"team": "two"}}
IMAGES = {"web:1": 300 << 20, "db:2": 900 << 20, "tool:latest": 40 << 20}
HOST, ZONE = "kubernetes.io/hostname", "zone"


def world(rng: random.Random, *, nodes: int = 6, pods: int = 10) -> World:
    machines = [node(rng, f"node-{index}") for index in range(rng.randint(1, nodes))]
    names = [each["metadata"]["name"] for each in machines]
    placed = [(pod(rng, f"old-{index}"), rng.choice(names)) for index in range(rng.randint(0, pods))]
    for each, _ in placed:
        if rng.random() < 0.1:
            each["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return World(machines, placed, NAMESPACES)


def node(rng: random.Random, name: str) -> Obj:
    labels = {HOST: name, "disk": rng.choice(("ssd", "hdd")), "rank": str(rng.randint(0, 5))}
    if rng.random() < 0.85:
        labels[ZONE] = rng.choice(ZONES)
    taints = [
        {"key": rng.choice(("gpu", "old")), "value": rng.choice(("", "yes")), "effect": effect}
        for effect in ("NoSchedule", "PreferNoSchedule", "NoExecute")
        if rng.random() < 0.12
    ]
    allocatable = {"cpu": str(rng.randint(1, 4)), "memory": f"{rng.randint(1, 8)}Gi", "pods": str(rng.randint(1, 8))}
    if rng.random() < 0.3:
        allocatable["example.com/gpu"] = str(rng.randint(1, 3))
    images = [{"names": [image], "sizeBytes": size} for image, size in IMAGES.items() if rng.random() < 0.4]
    spec: Obj = {"taints": taints} if taints else {}
    if rng.random() < 0.08:
        spec["unschedulable"] = True
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "images": images},
    }


def pod(rng: random.Random, name: str, *, priority: int | None = None) -> Obj:
    namespace = rng.choice(("default", "default", "other"))
    spec: Obj = {"containers": [_container(rng) for _ in range(rng.randint(1, 2))]}
    if rng.random() < 0.15:
        spec["initContainers"] = [_container(rng) | _sidecar(rng) for _ in range(rng.randint(1, 2))]
        for each in spec["initContainers"]:
            each.pop("ports", None)
    if rng.random() < 0.1:
        spec["overhead"] = {"cpu": "100m"}
    if rng.random() < 0.3:
        spec["tolerations"] = [_toleration(rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.1:
        spec["nodeSelector"] = {"disk": rng.choice(("ssd", "hdd"))}
    if rng.random() < 0.3:
        spec["topologySpreadConstraints"] = [_constraint(rng) for _ in range(rng.randint(1, 2))]
    affinity = _affinity(rng)
    if affinity:
        spec["affinity"] = affinity
    if priority is not None:
        spec["priority"] = priority
    labels = {"app": rng.choice(APPS), "track": rng.choice(("one", "two"))}
    return {"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}, "spec": spec}


def _container(rng: random.Random) -> Obj:
    container: Obj = {"name": "main", "image": rng.choice([*IMAGES, "unknown:3"])}
    requests: dict[str, str] = {}
    if rng.random() < 0.7:
        requests["cpu"] = rng.choice(("100m", "250m", "500m", "1", "2"))
    if rng.random() < 0.6:
        requests["memory"] = rng.choice(("64Mi", "512Mi", "1Gi", "2Gi"))
    if rng.random() < 0.1:
        requests["example.com/gpu"] = "1"
    if requests:
        container["resources"] = {"requests": requests}
    if rng.random() < 0.15:
        port: Obj = {"containerPort": 80, "hostPort": rng.choice((80, 81)), "protocol": rng.choice(("TCP", "UDP"))}
        if rng.random() < 0.3:
            port["hostIP"] = rng.choice(("10.0.0.1", "10.0.0.2"))
        container["ports"] = [port]
    return container


def _sidecar(rng: random.Random) -> Obj:
    return {"restartPolicy": "Always"} if rng.random() < 0.5 else {}


def _toleration(rng: random.Random) -> Obj:
    toleration: Obj = {}
    if rng.random() < 0.8:
        toleration["key"] = rng.choice(("gpu", "old", "node.kubernetes.io/unschedulable"))
    if "key" not in toleration or rng.random() < 0.5:
        toleration["operator"] = "Exists"
    elif rng.random() < 0.5:
        toleration["value"] = "yes"
    if rng.random() < 0.5:
        toleration["effect"] = rng.choice(("NoSchedule", "PreferNoSchedule", "NoExecute"))
    return toleration


def _selector(rng: random.Random) -> Obj | None:
    kind = rng.random()
    if kind < 0.05:
        return None
    if kind < 0.1:
        return {}
    if kind < 0.7:
        return {"matchLabels": {"app": rng.choice(APPS)}}
    if kind < 0.85:
        return {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [rng.choice(APPS)]}]}
    return {"matchExpressions": [{"key": "track", "operator": "Exists"}], "matchLabels": {"app": rng.choice(APPS)}}


def _constraint(rng: random.Random) -> Obj:
    constraint: Obj = {
        "topologyKey": rng.choice((HOST, ZONE, ZONE, "disk")),
        "maxSkew": rng.randint(1, 2),
        "whenUnsatisfiable": rng.choice(("DoNotSchedule", "ScheduleAnyway")),
        "labelSelector": _selector(rng),
    }
    if rng.random() < 0.2 and constraint["whenUnsatisfiable"] == "DoNotSchedule":
        constraint["minDomains"] = rng.randint(1, 3)
    if rng.random() < 0.2:
        constraint["nodeAffinityPolicy"] = "Ignore"
    if rng.random() < 0.2:
        constraint["nodeTaintsPolicy"] = "Honor"
    if rng.random() < 0.2 and constraint["labelSelector"]:
        constraint["matchLabelKeys"] = ["track"]
    return constraint


def _term(rng: random.Random) -> Obj:
    term: Obj = {"topologyKey": rng.choice((HOST, ZONE)), "labelSelector": _selector(rng)}
    kind = rng.random()
    if kind < 0.1:
        term["namespaces"] = ["other"]
    elif kind < 0.2:
        term["namespaceSelector"] = {}
    elif kind < 0.3:
        term["namespaceSelector"] = {"matchLabels": {"team": rng.choice(("one", "two"))}}
    if rng.random() < 0.1 and term["labelSelector"]:
        term["matchLabelKeys"] = ["track"]
    return term


def _node_term(rng: random.Random) -> Obj:
    kind = rng.random()
    if kind < 0.1:
        return {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-0", "node-1"]}]}
    if kind < 0.15:
        return {}
    expressions: list[Any] = [
        {"key": "disk", "operator": "In", "values": ["ssd"]},
        {"key": "zone", "operator": "NotIn", "values": ["a"]},
        {"key": "rank", "operator": "Gt", "values": ["2"]},
        {"key": "rank", "operator": "Lt", "values": ["3"]},
        {"key": "zone", "operator": "Exists"},
        {"key": "zone", "operator": "DoesNotExist"},
    ]
    return {"matchExpressions": rng.sample(expressions, rng.randint(1, 2))}


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _affinity(rng: random.Random) -> Obj:
    affinity: Obj = {}
    if rng.random() < 0.15:
        affinity.setdefault("nodeAffinity", {})[REQUIRED] = {
            "nodeSelectorTerms": [_node_term(rng) for _ in range(rng.randint(1, 2))]
        }
    if rng.random() < 0.15:
        affinity.setdefault("nodeAffinity", {})[PREFERRED] = [
            {"weight": rng.randint(1, 100), "preference": _node_term(rng)} for _ in range(rng.randint(1, 3))
        ]
    for kind in ("podAffinity", "podAntiAffinity"):
        if rng.random() < 0.12:
            affinity.setdefault(kind, {})[REQUIRED] = [_term(rng) for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.12:
            affinity.setdefault(kind, {})[PREFERRED] = [
                {"weight": rng.randint(1, 100), "podAffinityTerm": _term(rng)} for _ in range(rng.randint(1, 2))
            ]
    return affinity
