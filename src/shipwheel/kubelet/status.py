"""A pod's status: a pure function of its specification, of what was observed and of what was reported before.

Conditions are those that the kubelet owns (`OWNED_CONDITIONS`); conditions of others are kept as they are. A
terminal phase is never left again, and is reported only when nothing of the pod can be running any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.api.quantity import Quantity
from shipwheel.kubelet import lifecycle, podspec
from shipwheel.kubelet.allocation import Allocation
from shipwheel.kubelet.container_status import RESTARTING_ALL, Waiting, container_statuses
from shipwheel.kubelet.lifecycle import ProbeResults
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.resources import pod_limits, pod_requests, qos_class

OWNED_CONDITIONS = frozenset(
    {
        "PodScheduled",
        "Ready",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
        "PodResizePending",
        "PodResizeInProgress",
        "AllContainersRestarting",
    }
)
"""Conditions that only the kubelet writes."""
SHARED_CONDITIONS = frozenset({"DisruptionTarget"})
MESSAGE_BYTES = 12 * 1024
"""What the termination messages of one pod may take together."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status is made from, besides the pod and what was observed of it."""

    runtime_name: str
    host_ips: Sequence[str] = ()
    reasons: Mapping[str, Waiting] = field(default_factory=dict)
    """Why a container could not be started, by its name."""
    probes: ProbeResults = field(default_factory=ProbeResults)
    resize_conditions: Sequence[Obj] = ()
    allocation: Allocation = field(default_factory=Allocation)
    """The resources that the pod and its containers were last set to."""
    kubelet_started_at: int = 0
    """Nanoseconds since 1970: containers started well before it belong to the kubelet's predecessor."""
    supports_rro: bool = False


def pod_status(
    pod: Obj,
    observed: PodObservation,
    previous: Obj | None,
    facts: Facts,
    *,
    now: datetime,
    terminal: bool = False,
) -> Obj:
    """The status to report. `previous` is the last one made here (else the pod's own is used); `terminal` says
    that nothing of the pod runs and nothing will."""
    api = pod.get("status") or {}
    old = previous if previous is not None else api
    generation = pod["metadata"].get("generation") or 0
    status: Obj = {"observedGeneration": generation} if generation else {}
    _set_addresses(status, pod, observed, facts)
    status["qosClass"] = api.get("qosClass") or qos_class(pod)
    _set_containers(status, pod, observed, old, facts)
    _set_started_and_ready(status, pod, old, facts)

    regular = status["containerStatuses"]
    init = status.get("initContainerStatuses") or []
    phase = pod_phase(pod, [*regular, *init], terminal=terminal, initialized=_any_active_started(pod, observed))
    if not podspec.is_terminal(phase):
        for before in (old.get("phase"), api.get("phase")):
            if before is not None and podspec.is_terminal(before):
                phase = before
                break
    if podspec.is_terminal(api.get("phase")):
        phase = api["phase"]
    status["phase"] = phase
    _set_resources(status, pod, facts.allocation)
    if phase == old.get("phase"):
        for name in ("reason", "message"):
            text = old.get(name) or api.get(name)
            if text:
                status[name] = text

    status["conditions"] = _conditions(pod, observed, status, old, facts)
    _stamp_transitions(status["conditions"], old.get("conditions") or (), now)
    status["startTime"] = old.get("startTime") or api.get("startTime") or rfc3339(now)
    _limit_messages(pod, status)
    return status


def rejected(pod: Obj, reason: str, message: str, *, now: datetime) -> Obj:
    """The status of a pod that this node does not admit."""
    api = pod.get("status") or {}
    return {
        **({"observedGeneration": pod["metadata"]["generation"]} if pod["metadata"].get("generation") else {}),
        "qosClass": api.get("qosClass") or qos_class(pod),
        "phase": "Failed",
        "reason": reason,
        "message": f"Pod was rejected: {message}",
        "startTime": api.get("startTime") or rfc3339(now),
        "conditions": list(api.get("conditions") or ()),
    }


def ended_by(status: Obj, reason: str, message: str, condition: Obj | None = None) -> Obj:
    """The status of a pod that the node ends: by an eviction, its deadline, a shutdown."""
    result = {**status, "phase": "Failed", "reason": reason, "message": message}
    if condition is not None:
        kept = [each for each in status["conditions"] if each["type"] != condition["type"]]
        result["conditions"] = [*kept, condition]
    return result


def disruption_target(pod: Obj, message: str, now: datetime) -> Obj:
    """The condition of a pod that the node ends for a reason of its own (KEP-3329)."""
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "TerminationByKubelet",
        "message": message,
        "lastTransitionTime": rfc3339(now),
    }
    if pod["metadata"].get("generation"):
        target["observedGeneration"] = pod["metadata"]["generation"]
    return target


def terminated(pod: Obj, status: Obj) -> Obj:
    """The last status of a pod: whatever is not known to have ended is taken to have failed."""
    result = {**status}
    started = any(
        "waiting" not in (each.get("state") or {}) or (each.get("lastState") or {}).get("terminated")
        for each in status.get("containerStatuses") or ()
    )
    inits = status.get("initContainerStatuses") or []
    initialized = started or not podspec.init_containers(pod) or _all_init_passed(pod, inits)
    if initialized:
        result["containerStatuses"] = [_ended(each) for each in status.get("containerStatuses") or ()]
    last = 0
    for index, each in enumerate(inits):
        if "waiting" not in (each.get("state") or {}) or (each.get("lastState") or {}).get("terminated"):
            last = index
    if inits:
        result["initContainerStatuses"] = [_ended(each) if index <= last else each for index, each in enumerate(inits)]
    if not podspec.is_static(pod) and not podspec.is_terminal(result.get("phase")):
        result["phase"] = "Failed"
    return result


def _all_init_passed(pod: Obj, inits: Sequence[Obj]) -> bool:
    passed = {
        each["name"]
        for each in inits
        if ((each.get("state") or {}).get("terminated") or {}).get("exitCode", 1) == 0 or each.get("started")
    }
    return all(each["name"] in passed for each in podspec.init_containers(pod))


def _ended(status: Obj) -> Obj:
    if (status.get("state") or {}).get("terminated"):
        return status
    lost = {
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "exitCode": 137,
        "startedAt": None,
        "finishedAt": None,
    }
    return {**status, "state": {"terminated": lost}, "ready": False, "started": False}


def merge(reported: Obj, new: Obj, *, could_be_running: bool, now: datetime) -> Obj:
    """The status to write over the one that the API server has: conditions of others stay, a terminal phase
    waits until nothing can be running, and a terminal pod is not ready."""
    merged = {**new}
    owned = [each for each in new.get("conditions") or () if each["type"] in OWNED_CONDITIONS]
    others = [each for each in reported.get("conditions") or () if each["type"] not in OWNED_CONDITIONS]
    turning = podspec.is_terminal(new.get("phase")) and not podspec.is_terminal(reported.get("phase"))
    if turning and not could_be_running:
        for each in new.get("conditions") or ():
            if each["type"] in SHARED_CONDITIONS:
                others = [*(other for other in others if other["type"] != each["type"]), each]
    merged["conditions"] = [*others, *owned]
    if turning and could_be_running:
        for name in ("phase", "reason", "message"):
            merged.pop(name, None)
            if name in reported:
                merged[name] = reported[name]
    if podspec.is_terminal(merged.get("phase")):
        reason = "PodFailed" if merged["phase"] == "Failed" else "PodCompleted"
        merged["conditions"] = [_not_ready(each, reason, now) for each in merged["conditions"]]
    for name in ("resourceClaimStatuses", "extendedResourceClaimStatus", "nominatedNodeName"):
        merged.pop(name, None)
        if name in reported:
            merged[name] = reported[name]
    return merged


def _not_ready(each: Obj, reason: str, now: datetime) -> Obj:
    if each["type"] not in ("Ready", "ContainersReady") or each["status"] != "True":
        return each
    return {**each, "status": "False", "reason": reason, "lastTransitionTime": rfc3339(now)}


def pod_phase(pod: Obj, statuses: Sequence[Obj], *, terminal: bool, initialized: bool) -> str:
    """The phase that container statuses add up to. `initialized`: a regular container of the current sandbox
    has been created, so sidecars that restart do not make the pod pending again."""
    known = {each["name"]: each for each in statuses}
    pending_init = 0
    pending_sidecars = 0
    unknown = running = waiting = stopped = stopped_for_good = succeeded = 0

    for container in podspec.init_containers(pod):
        status = known.get(container["name"])
        state = (status or {}).get("state") or {}
        if podspec.is_sidecar(container):
            if status is None:
                unknown += 1
            elif "running" in state:
                pending_sidecars += not status.get("started")
                running += 1
            elif "terminated" in state:
                pass
            elif "waiting" in state:
                if not (status.get("lastState") or {}).get("terminated"):
                    pending_sidecars += 1
                    waiting += 1
            else:
                pending_sidecars += 1
                unknown += 1
            continue
        ended = state.get("terminated")
        if status is not None and "waiting" in state:
            ended = (status.get("lastState") or {}).get("terminated")
        if not ended:
            pending_init += 1
        elif ended.get("exitCode", 0) != 0 and not _restarts(pod, container, ended):
            return "Failed"

    for container in podspec.containers(pod):
        status = known.get(container["name"])
        state = (status or {}).get("state") or {}
        if status is None:
            unknown += 1
        elif "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            stopped_for_good += not _restarts(pod, container, state["terminated"])
            succeeded += state["terminated"].get("exitCode", 0) == 0
        elif "waiting" in state:
            last = (status.get("lastState") or {}).get("terminated")
            if last:
                stopped += 1
                stopped_for_good += not _restarts(pod, container, last)
            else:
                waiting += 1
        else:
            unknown += 1

    if pending_init or (pending_sidecars and not initialized) or waiting:
        return "Pending"
    if running and not unknown:
        return "Running"
    if not running and stopped and not unknown:
        if (terminal and not podspec.is_static(pod)) or stopped == stopped_for_good:
            return "Succeeded" if stopped == succeeded else "Failed"
        return "Running"
    return "Pending"


def _restarts(pod: Obj, container: Obj, ended: Obj) -> bool:
    return ended.get("reason") == RESTARTING_ALL or podspec.should_restart(pod, container, ended.get("exitCode", 0))


def _any_active_started(pod: Obj, observed: PodObservation) -> bool:
    names = {each["name"] for each in podspec.containers(pod)}
    return any(each.name in names for each in observed.active)


def _set_addresses(status: Obj, pod: Obj, observed: PodObservation, facts: Facts) -> None:
    ips = list(order_ips(observed.ips, facts.host_ips))
    if podspec.is_host_network(pod) and facts.host_ips:
        ips = ips or [facts.host_ips[0]]
        if len(facts.host_ips) == 2 and len(ips) == 1 and _family(ips[0]) != _family(facts.host_ips[1]):
            ips.append(facts.host_ips[1])
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": each} for each in ips]
    if facts.host_ips:
        status["hostIP"] = facts.host_ips[0]
        status["hostIPs"] = [{"ip": each} for each in facts.host_ips[:2]]


def _set_resources(status: Obj, pod: Obj, allocation: Allocation) -> None:
    """What the pod as a whole was given, and what of it is in force while it runs (KEP-5419)."""
    allocated = _texts(pod_requests(pod))
    if allocated:
        status["allocatedResources"] = allocated
    held = allocation.in_force_on(pod) if status["phase"] == "Running" else pod
    requests, limits = _texts(pod_requests(held)), _texts(pod_limits(held))
    both = {part: listed for part, listed in (("requests", requests), ("limits", limits)) if listed}
    if both:
        status["resources"] = both


def _texts(amounts: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(amount) for name, amount in amounts.items()}


def order_ips(ips: Iterable[str], host_ips: Sequence[str]) -> list[str]:
    """At most one address of each family, the family of the node's first address first."""
    first = _family(host_ips[0]) if host_ips else 4
    known = list(ips)
    found = [next((each for each in known if _family(each) == family), None) for family in (first, 10 - first)]
    return [str(ip_address(each)) for each in found if each]


def _family(address: str) -> int:
    return ip_address(address).version


def _set_containers(status: Obj, pod: Obj, observed: PodObservation, old: Obj, facts: Facts) -> None:
    restarting_all = lifecycle.should_restart_all(pod, observed, old)
    for field_name, specs, init in (
        ("initContainerStatuses", podspec.init_containers(pod), True),
        ("containerStatuses", podspec.containers(pod), False),
        ("ephemeralContainerStatuses", podspec.ephemeral_containers(pod), False),
    ):
        if not specs and field_name != "containerStatuses":
            continue
        status[field_name] = container_statuses(
            pod,
            observed,
            specs,
            old.get(field_name) or (),
            facts.reasons,
            runtime_name=facts.runtime_name,
            actuated=facts.allocation.actuated,
            init=init,
            restarting_all=restarting_all,
            supports_rro=facts.supports_rro,
        )


_ADOPTED_BEFORE = 10 * 1_000_000_000
"""A container that started this long before the kubelet was running before the kubelet was restarted."""


def _set_started_and_ready(status: Obj, pod: Obj, old: Obj, facts: Facts) -> None:
    """`started` follows the startup probe, `ready` the readiness probe; without a probe both follow the state."""
    was_ready = any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in (pod.get("status") or {}).get("conditions") or ()
    )
    specs = {each["name"]: each for each in podspec.all_containers(pod)}
    for each in (*(status.get("initContainerStatuses") or ()), *status["containerStatuses"]):
        spec = specs[each["name"]]
        running = each["state"].get("running")
        container_id = each.get("containerID", "").rpartition("//")[2]
        each["started"] = bool(running) and _has_started(spec, each, container_id, facts)
        if each["name"] in {init["name"] for init in podspec.init_containers(pod)} and not podspec.is_sidecar(spec):
            each["ready"] = (each["state"].get("terminated") or {}).get("exitCode") == 0
            continue
        each["ready"] = bool(each["started"]) and _is_ready(spec, container_id, running, facts, was_ready)
    for each in status.get("ephemeralContainerStatuses") or ():
        each["ready"] = False
        each.pop("started", None)


def _has_started(spec: Obj, status: Obj, container_id: str, facts: Facts) -> bool:
    result = facts.probes.startup.get(container_id)
    if result is not None:
        return result == "Success"
    return bool(status.get("started")) or not spec.get("startupProbe")


def _is_ready(spec: Obj, container_id: str, running: Obj | None, facts: Facts, was_ready: bool) -> bool:
    if not spec.get("readinessProbe"):
        return True
    result = facts.probes.readiness.get(container_id)
    if result is not None:
        return result == "Success"
    # Until the first probe of a restarted kubelet, what its predecessor said holds.
    started = (running or {}).get("startedAt")
    if not started or not facts.kubelet_started_at:
        return False
    started_at = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp() * 1e9
    return was_ready and started_at < facts.kubelet_started_at - _ADOPTED_BEFORE


def _conditions(pod: Obj, observed: PodObservation, status: Obj, old: Obj, facts: Facts) -> list[Obj]:
    api = pod.get("status") or {}
    conditions = [dict(each) for each in api.get("conditions") or () if each["type"] not in OWNED_CONDITIONS]
    for each in old.get("conditions") or ():
        if each["type"] in SHARED_CONDITIONS:
            conditions = [*(other for other in conditions if other["type"] != each["type"]), dict(each)]
    conditions += [dict(each) for each in facts.resize_conditions]
    statuses = [*(status.get("initContainerStatuses") or ()), *status["containerStatuses"]]
    phase = status["phase"]
    sandbox_needed, _, _ = lifecycle.sandbox_changed(pod, observed)
    containers_ready = containers_ready_condition(pod, statuses, phase)
    owned = [
        _condition("PodReadyToStartContainers", not sandbox_needed),
        initialized_condition(pod, statuses, phase, old),
        ready_condition(pod, conditions, containers_ready),
        containers_ready,
        _condition("PodScheduled", True),
    ]
    if podspec.could_restart_all(pod):
        owned.append(_restarting_condition(pod, observed, phase, old))
    generation = pod["metadata"].get("generation")
    if generation:
        for each in owned:
            each["observedGeneration"] = generation
    return conditions + owned


def _condition(kind: str, ok: bool, reason: str = "", message: str = "") -> Obj:
    condition: Obj = {"type": kind, "status": "True" if ok else "False", "lastProbeTime": None}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def containers_ready_condition(pod: Obj, statuses: Sequence[Obj], phase: str) -> Obj:
    known = {each["name"]: each for each in statuses}
    expected = [each["name"] for each in (*podspec.sidecars(pod), *podspec.containers(pod))]
    unknown = [name for name in expected if name not in known]
    unready = [name for name in expected if name in known and not known[name].get("ready")]
    if phase == "Succeeded" and not unknown:
        return _condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return _condition("ContainersReady", False, "PodFailed")
    message = _shortcomings(unknown, "unready", unready)
    if message:
        return _condition("ContainersReady", False, "ContainersNotReady", message)
    return _condition("ContainersReady", True)


def ready_condition(pod: Obj, conditions: Sequence[Obj], containers_ready: Obj) -> Obj:
    if containers_ready["status"] != "True":
        return {**containers_ready, "type": "Ready"}
    known = {each["type"]: each for each in conditions}
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in known:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind]["status"] != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]["status"]}')
    if problems:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return _condition("Ready", True)


def initialized_condition(pod: Obj, statuses: Sequence[Obj], phase: str, old: Obj) -> Obj:
    known = {each["name"]: each for each in statuses}
    unknown, incomplete = [], []
    for container in podspec.init_containers(pod):
        status = known.get(container["name"])
        if status is None:
            unknown.append(container["name"])
        elif not status.get("started" if podspec.is_sidecar(container) else "ready"):
            incomplete.append(container["name"])
    if phase == "Succeeded" and not unknown:
        return _condition("Initialized", True, "PodCompleted")
    regular = (known.get(each["name"]) for each in podspec.containers(pod))
    if any(each and each["state"].keys() & {"running", "terminated"} for each in regular):
        return _condition("Initialized", True)
    message = _shortcomings(unknown, "incomplete", incomplete)
    was = any(each["type"] == "Initialized" and each["status"] == "True" for each in old.get("conditions") or ())
    if message and not was:
        return _condition("Initialized", False, "ContainersNotInitialized", message)
    return _condition("Initialized", True)


def _restarting_condition(pod: Obj, observed: PodObservation, phase: str, old: Obj) -> Obj:
    kind = "AllContainersRestarting"
    if podspec.is_terminal(phase):
        return _condition(kind, False, "PodCompleted" if phase == "Succeeded" else "PodFailed")
    gone = all(
        observed.latest(each["name"]) is None for each in (*podspec.init_containers(pod), *podspec.containers(pod))
    )
    if gone or not lifecycle.should_restart_all(pod, observed, old):
        return _condition(kind, False)
    return _condition(kind, True, "RestartAllContainersStarted", "container exited with restart policy rule")


def _shortcomings(unknown: Sequence[str], adjective: str, others: Sequence[str]) -> str:
    """As upstream's messages list names: `containers with unready status: [a b]`."""
    parts = []
    if unknown:
        parts.append(f"containers with unknown status: [{' '.join(unknown)}]")
    if others:
        parts.append(f"containers with {adjective} status: [{' '.join(others)}]")
    return ", ".join(parts)


def _stamp_transitions(conditions: Iterable[Obj], old: Iterable[Obj], now: datetime) -> None:
    """`lastTransitionTime` moves only when the status of a condition does."""
    before = {each["type"]: each for each in old}
    for each in conditions:
        if each["type"] not in OWNED_CONDITIONS | SHARED_CONDITIONS:
            continue
        last = before.get(each["type"])
        if last and last.get("status") == each["status"] and last.get("lastTransitionTime"):
            each["lastTransitionTime"] = last["lastTransitionTime"]
        else:
            each["lastTransitionTime"] = rfc3339(now)


def _limit_messages(pod: Obj, status: Obj) -> None:
    count = sum(1 for _ in podspec.all_containers(pod))
    limit = MESSAGE_BYTES // max(1, count)
    for field_name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(field_name) or ():
            for state in (each.get("state"), each.get("lastState")):
                ended = (state or {}).get("terminated")
                if ended and len(ended.get("message", "").encode()) > limit:
                    ended["message"] = ended["message"].encode()[:limit].decode(errors="ignore")
