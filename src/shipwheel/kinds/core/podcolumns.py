"""The columns of pods: above all the one word that says how a pod is doing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shipwheel.api.ages import since
from shipwheel.api.meta import Obj, condition, is_condition_true
from shipwheel.api.resource import Column
from shipwheel.kinds.columns import AGE, NAME, NONE, dig, text


def is_restartable_init(container: Obj | None) -> bool:
    """A sidecar: an init container that keeps running beside the regular ones (KEP-753)."""
    return container is not None and container.get("restartPolicy") == "Always"


def status_word(pod: Obj) -> str:
    """What the Status column says: the phase, or whatever explains better why the pod is not running."""
    status = pod.get("status") or {}
    phase = status.get("phase", "")
    word = status.get("reason") or phase
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("reason") == "SchedulingGated":
        word = "SchedulingGated"
    initializing = _init_word(pod)
    if initializing:
        word = initializing
    if not initializing or is_condition_true(pod, "Initialized"):
        word = _containers_word(pod, word)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return word


def _init_word(pod: Obj) -> str:
    """Why the pod is not past its init containers; empty when it is."""
    init_containers = pod["spec"].get("initContainers") or ()
    declared = {container["name"]: container for container in init_containers}
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    for index, status in enumerate(statuses):
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated and terminated.get("exitCode", 0) == 0:
            continue
        if is_restartable_init(declared.get(status["name"])) and status.get("started"):
            continue
        if terminated:
            return "Init:" + _end_of(terminated)
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return "Init:" + waiting["reason"]
        return f"Init:{index}/{len(init_containers)}"
    return ""


def _containers_word(pod: Obj, word: str) -> str:
    running = False
    failure = ""
    for status in reversed((pod.get("status") or {}).get("containerStatuses") or ()):
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            word = waiting["reason"]
        elif terminated:
            word = _end_of(terminated)
            if terminated.get("exitCode", 0) != 0:
                failure = word
        elif status.get("ready") and state.get("running") is not None:
            running = True
    if word == "Completed":
        if running and is_condition_true(pod, "Ready"):
            return "Running"
        return failure or ("NotReady" if running else word)
    return word


def _end_of(terminated: Obj) -> str:
    if terminated.get("reason"):
        return terminated["reason"]
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _ready(pod: Obj, now: datetime) -> str:
    sidecars = {
        container["name"] for container in pod["spec"].get("initContainers") or () if is_restartable_init(container)
    }
    status = pod.get("status") or {}
    ready = sum(
        1
        for each in status.get("initContainerStatuses") or ()
        if each["name"] in sidecars and each.get("started") and each.get("ready")
    )
    if not _init_word(pod) or is_condition_true(pod, "Initialized"):
        ready += sum(
            1
            for each in status.get("containerStatuses") or ()
            if each.get("ready") and (each.get("state") or {}).get("running") is not None
        )
    return f"{ready}/{len(pod['spec'].get('containers') or ()) + len(sidecars)}"


def _restarts(pod: Obj, now: datetime) -> str:
    status = pod.get("status") or {}
    init = status.get("initContainerStatuses") or ()
    if _init_word(pod) and not is_condition_true(pod, "Initialized"):
        counted = list(init)
    else:
        sidecars = {each["name"] for each in pod["spec"].get("initContainers") or () if is_restartable_init(each)}
        counted = [each for each in init if each["name"] in sidecars]
        counted += status.get("containerStatuses") or ()
    restarts = sum(each.get("restartCount", 0) for each in counted)
    last = max((dig(each, "lastState", "terminated", "finishedAt") or "" for each in counted), default="")
    return f"{restarts} ({since(last, now)} ago)" if restarts and last else str(restarts)


def _address(pod: Obj, now: datetime) -> str:
    addresses = (pod.get("status") or {}).get("podIPs")
    return addresses[0].get("ip") or NONE if addresses else NONE


def _readiness_gates(pod: Obj, now: datetime) -> Any:
    gates = pod["spec"].get("readinessGates")
    if not gates:
        return NONE
    open_gates = sum(1 for gate in gates if is_condition_true(pod, gate["conditionType"]))
    return f"{open_gates}/{len(gates)}"


POD_COLUMNS = (
    NAME,
    Column("Ready", _ready),
    Column("Status", lambda pod, now: status_word(pod)),
    Column("Restarts", _restarts),
    AGE,
    Column("IP", _address, priority=1),
    Column("Node", text("spec", "nodeName", absent=NONE), priority=1),
    Column("Nominated Node", text("status", "nominatedNodeName", absent=NONE), priority=1),
    Column("Readiness Gates", _readiness_gates, priority=1),
)


_ENDED = {
    "Succeeded": {
        "type": "Completed",
        "status": "True",
        "reason": "Succeeded",
        "message": "The pod has completed successfully.",
    },
    "Failed": {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},
}


def ended(pod: Obj) -> list[Obj]:
    """What the row of a pod that runs no more says of it."""
    condition = _ENDED.get((pod.get("status") or {}).get("phase", ""))
    return [condition] if condition else []
