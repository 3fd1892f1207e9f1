"""What a simulated pod's status says in each state. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipwheel.api.meta import Obj


@dataclass(slots=True)
class Life:
    """A pod's state, and how it came to it. Times are as objects have them."""

    state: str = "Pending"
    since: str = ""
    """When it came to the state."""
    started: str = ""
    """When its containers started last."""
    restarts: int = 0
    exit: int = 0
    reason: str = ""
    message: str = ""
    ended: Obj | None = None
    """How its containers ended the last time."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Shape:
    """What of a pod's spec its status repeats; the same one for all pods of a template."""

    containers: tuple[tuple[str, str], ...]
    """(name, image)"""
    init_containers: tuple[tuple[str, str, bool], ...] = ()
    """(name, image, whether it stays)"""


def status_patch(uid: str, life: Life, shape: Shape, *, started: str, host_ip: str, addresses: Sequence[str]) -> Obj:
    """A strategic merge patch for the status subresource. `started` is when the node took the pod on; the uid makes
    the server refuse the patch for another pod of the same name."""
    phase = _PHASES[life.state]
    running, ready = life.state in ("Running", "NotReady", "BackOff"), life.state == "Running"
    over = phase in ("Succeeded", "Failed")
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed" if over else "ContainersNotReady"
    names = " ".join(name for name, _ in shape.containers)
    message = "" if over or ready else f"containers with unready status: [{names}]"
    conditions = [
        _condition("PodReadyToStartContainers", not over, "", "", life.since),
        _condition("Initialized", True, "PodCompleted" if phase == "Succeeded" else "", "", started),
        _condition("Ready", ready, "" if ready else reason, message, life.since),
        _condition("ContainersReady", ready, "" if ready else reason, message, life.since),
    ]
    status: Obj = {
        "phase": phase,
        "conditions": conditions,
        "startTime": started,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "containerStatuses": [_container(uid, name, image, life) for name, image in shape.containers],
    }
    if addresses:
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": each} for each in addresses]
    if shape.init_containers:
        status["initContainerStatuses"] = [
            _init_container(uid, name, image, started, stays=stays and running)
            for name, image, stays in shape.init_containers
        ]
    if life.state == "Failed" and life.ended is None:
        status["reason"], status["message"] = life.reason, life.message
    return {"metadata": {"uid": uid}, "status": status}


_PHASES = {
    "Pending": "Pending",
    "Waiting": "Pending",
    "Running": "Running",
    "NotReady": "Running",
    "BackOff": "Running",
    "Succeeded": "Succeeded",
    "Failed": "Failed",
}


def ended(life: Life, now: str) -> Obj:
    """How containers that exit now have ended."""
    found = {"exitCode": life.exit, "startedAt": life.started or now, "finishedAt": now}
    found["reason"] = life.reason or ("Error" if life.exit else "Completed")
    return {**found, "message": life.message} if life.message else found


def _container(uid: str, name: str, image: str, life: Life) -> Obj:
    ready = life.state == "Running"
    status: Obj = {
        "name": name,
        "image": image,
        "imageID": f"simulated://{image}",
        "ready": ready,
        "started": life.state in ("Running", "NotReady"),
        "restartCount": life.restarts,
        "state": _state(uid, name, life),
    }
    if life.started:
        status["containerID"] = _id(uid, name, life.restarts)
    if life.ended and life.state not in ("Succeeded", "Failed"):
        status["lastState"] = {"terminated": {**life.ended, "containerID": _id(uid, name, life.restarts - 1)}}
    return status


def _state(uid: str, name: str, life: Life) -> Obj:
    match life.state:
        case "Running" | "NotReady":
            return {"running": {"startedAt": life.started}}
        case "BackOff":
            return {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
        case "Succeeded" | "Failed" if life.ended:
            return {"terminated": {**life.ended, "containerID": _id(uid, name, life.restarts)}}
        case "Failed" | "Succeeded":
            code = 137 if life.state == "Failed" else 0
            return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    waiting = {"reason": life.reason or "ContainerCreating"}
    return {"waiting": {**waiting, "message": life.message} if life.message else waiting}


def _init_container(uid: str, name: str, image: str, at: str, *, stays: bool) -> Obj:
    over = {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}
    return {
        "name": name,
        "image": image,
        "imageID": f"simulated://{image}",
        "containerID": _id(uid, name, 0),
        "ready": True,
        "started": stays,
        "restartCount": 0,
        "state": {"running": {"startedAt": at}} if stays else {"terminated": over},
    }


def _id(uid: str, container: str, attempt: int) -> str:
    return f"simulated://{uid}-{container}-{max(attempt, 0)}"


def _condition(kind: str, holds: bool, reason: str, message: str, since: str) -> Obj:
    found = {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": since}
    return {**found, "reason": reason or None, "message": message or None}


def life_of(status: Obj) -> Life:
    """What a status that was written before tells: who starts anew goes on from it."""
    phase = status.get("phase", "Pending")
    containers = status.get("containerStatuses") or ()
    if phase in ("Succeeded", "Failed"):
        return Life(phase)
    if not containers:
        return Life()
    first = containers[0]
    state = first.get("state") or {}
    running, waiting = state.get("running"), state.get("waiting") or {}
    last = dict((first.get("lastState") or {}).get("terminated") or {})
    last.pop("containerID", None)
    since = next((each["lastTransitionTime"] for each in status.get("conditions") or () if each["type"] == "Ready"), "")
    found = Life(since=since, restarts=first.get("restartCount", 0), ended=last or None)
    if running:
        found.state, found.started = "Running" if first.get("ready") else "NotReady", running["startedAt"]
    elif waiting.get("reason") == "CrashLoopBackOff":
        found.state, found.started = "BackOff", last.get("startedAt", "")
    elif waiting.get("reason") != "ContainerCreating":
        found.state, found.reason, found.message = "Waiting", waiting.get("reason", ""), waiting.get("message", "")
    return found
