"""Why a pod is where it is, or nowhere: for each node, which rules refuse it or what it scores, and what would help.

The decision is taken once more, by the same rules over the cluster as it is now, read through the API with the rights
of whoever asks. So it needs nothing from the scheduler that runs, be it this one or another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, key_of, name_of
from shipwheel.client.client import Client
from shipwheel.client.informer import Store
from shipwheel.client.resources import NODES, PODS
from shipwheel.scheduler.configuration import ProfileConfig
from shipwheel.scheduler.pods import TERMINAL, Shapes

if TYPE_CHECKING:
    from shipwheel.scheduler.framework import Cycle, Profile
    from shipwheel.scheduler.listers import Listers

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one node."""

    node: str
    refusals: Sequence[tuple[str, str]] = ()
    """(rule, reason), all there are: not only those of the first rule, as in events."""
    score: int = 0
    scores: Mapping[str, int] = field(default_factory=dict)
    """By rule, weighted."""
    remedies: Sequence[str] = ()
    """What would make the pod fit here, a thing for each refusal that there is one for."""


@dataclass(frozen=True, slots=True)
class Explanation:
    pod: str
    node: str
    """Where it is; empty when it waits."""
    message: str
    """What the scheduler said of its last attempt."""
    rejected: str
    """Why no node was looked at; empty when they were."""
    verdicts: Sequence[Verdict]
    """The best nodes first, then those that lack the least."""
    preemption: str = ""
    """What taking pods of lower priority away would do."""


async def explain(client: Client, namespace: str, name: str) -> Explanation:
    """Explain a pod. ApiError when it, or what the rules look at, cannot be read."""
    from shipwheel.scheduler.framework import Handle
    from shipwheel.scheduler.nodes import NodeRules
    from shipwheel.scheduler.profiles import build
    from shipwheel.scheduler.table import NodeTable, PodEntry

    pod = await client.get(PODS, name, namespace)
    listers = await _listers(client)
    table, shapes = NodeTable(listers.namespace_labels), Shapes()
    for node in (await client.list(NODES))["items"]:
        table.set_node(node)
    for other in (await client.list(PODS))["items"]:
        where = other["spec"].get("nodeName")
        ended = (other.get("status") or {}).get("phase") in TERMINAL
        if where and not ended and key_of(other) != key_of(pod):
            table.add(PodEntry(key_of(other), other, shapes.of(other), where))
    profile = build(ProfileConfig(), Handle(table, NodeRules(table), listers))
    placed = pod["spec"].get("nodeName", "")
    # The question is where it could be, so where it is does not count.
    free = {**pod, "spec": {key: value for key, value in pod["spec"].items() if key != "nodeName"}}
    return judge(profile, profile.cycle(free, shapes.of(free)), placed)


def judge(profile: Profile, cycle: Cycle, placed: str) -> Explanation:
    """The explanation, from a table that has everything in it."""
    from shipwheel.scheduler.framework import Diagnosis, PluginError, Rejection, failing_as

    pod, table = cycle.pod, cycle.table
    gates = [each["name"] for each in pod["spec"].get("schedulingGates") or ()]
    rejected = f"it waits for its scheduling gates: {', '.join(gates)}" if gates else ""
    refusals: dict[int, list[tuple[str, str]]] = {row: [] for row in table.rows.values()}
    try:
        for plugin in profile.at("preFilter"):
            with failing_as("PreFilter", plugin):
                verdict = plugin.pre_filter(cycle)
            if isinstance(verdict, Rejection):
                rejected = rejected or verdict.reason
        for plugin in profile.at("filter"):
            with failing_as("Filter", plugin):
                for refusal in plugin.filter(cycle):
                    for row in refusal.mask.nonzero()[0].tolist():
                        if row in refusals:
                            refusals[row].append((plugin.name, refusal.reason))
    except PluginError as error:
        rejected = rejected or str(error)
    feasible = cycle.none()
    for row, reasons in refusals.items():
        feasible[row] = not reasons and not rejected
    scores = profile.scores(cycle, feasible) if feasible.any() else {}
    verdicts = []
    for name, row in table.rows.items():
        if feasible[row]:
            each = {plugin: int(values[row]) * profile.weights[plugin] for plugin, values in scores.items()}
            verdicts.append(Verdict(name, score=sum(each.values()), scores=each))
        else:
            remedies = [remedy for _, reason in refusals[row] if (remedy := _remedy(cycle, row, reason))]
            verdicts.append(Verdict(name, refusals[row], remedies=remedies))
    verdicts.sort(key=lambda each: (len(each.refusals), -each.score, each.node))
    preemption = ""
    if not feasible.any() and not rejected and not placed:
        diagnosis = Diagnosis(table.count)
        profile.feasible(cycle, diagnosis)
        for plugin in profile.at("postFilter"):
            result = plugin.post_filter(cycle, diagnosis, profile)
            if result.node:
                victims = ", ".join(key_of(each) for each in result.victims)
                preemption = f"{result.node} would do if these had to go: {victims}"
    said = (condition(pod, "PodScheduled") or {}).get("message") or ""
    return Explanation(cycle.key, placed, said, rejected, verdicts, preemption)


def _remedy(cycle: Cycle, row: int, reason: str) -> str:
    """What would undo a refusal."""
    table, shape = cycle.table, cycle.shape
    node = table.nodes[row] or {}
    if reason.startswith("Insufficient "):
        resource = reason.removeprefix("Insufficient ")
        there, used = table.allocatable.get(resource), table.requested.get(resource)
        free = int(there[row] - used[row]) if there is not None and used is not None else 0
        wanted = shape.requests[resource]
        lacking, asked, left = (_shown(resource, amount) for amount in (wanted - free, wanted, free))
        return f"{lacking} more {resource} (it asks for {asked}, {left} is free)"
    match reason:
        case "Too many pods":
            return f"a pod less (the node takes {int(table.pods_allowed[row])})"
        case "node(s) were unschedulable":
            return f"kubectl uncordon {name_of(node)}"
        case "node(s) had untolerated taint(s)":
            return f"tolerations for {', '.join(_untolerated(shape.tolerations, node))}"
        case "node(s) didn't match Pod's node affinity/selector":
            labels = node["metadata"].get("labels") or {}
            missing = [
                f"{key}={value}"
                for key, value in (shape.spec.get("nodeSelector") or {}).items()
                if labels.get(key) != value
            ]
            if missing:
                return f"the node's labels {', '.join(missing)}"
            return "labels on the node as the pod's node affinity wants them"
        case "cannot allocate all claims":
            uses = cycle.pod["spec"].get("resourceClaims") or ()
            named = (each.get("resourceClaimName") or each.get("resourceClaimTemplateName") for each in uses)
            return f"more devices, for {', '.join(filter(None, named)) or 'its extended resources'}"
        case "node(s) didn't have free ports for the requested pod ports":
            return f"free ports: {', '.join(f'{port}/{protocol}' for protocol, _, port in shape.ports)}"
    return ""


def _untolerated(tolerations: Sequence[Obj], node: Obj) -> list[str]:
    from shipwheel.scheduler.pods import tolerated

    found = []
    for taint in (node.get("spec") or {}).get("taints") or ():
        key, value, effect = taint["key"], taint.get("value") or "", taint["effect"]
        if effect != "PreferNoSchedule" and not tolerated(tolerations, key, value, effect):
            found.append(f"{key}={value}:{effect}" if value else f"{key}:{effect}")
    return found


def _shown(resource: str, amount: int) -> str:
    if resource == "cpu":
        return f"{amount}m"
    if resource in ("memory", "ephemeral-storage"):
        return f"{amount / (1 << 20):.0f}Mi"
    return str(amount)


async def _listers(client: Client) -> Listers:
    """Everything else that rules look at, as far as whoever asks may read it."""
    from shipwheel.scheduler.listers import Listers
    from shipwheel.scheduler.watch import LISTED

    listers = Listers()
    for field_name, resource in LISTED.items():
        store: Store = getattr(listers, field_name)
        try:
            listing = await client.list(resource)
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            continue
        for each in listing["items"]:
            store.put(each)
    return listers
