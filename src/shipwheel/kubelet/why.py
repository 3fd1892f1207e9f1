"""What keeps a pod that has a node from running, or from being ready.

Everything is read through the API, with the rights of whoever asks: the pod, its node, its events, and the last lines
of containers that ended. `obstacles` is a plain function of those; it says what stands in the way now, not everything
that ever went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, is_being_deleted
from shipwheel.client.client import Client
from shipwheel.client.resources import EVENTS, NODES, PODS
from shipwheel.kubelet import podspec

LOG_LINES = 5
_IMAGE = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)
_UNPREPARED = frozenset(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"))
_BEFORE_CONTAINERS = frozenset(("ContainerCreating", "PodInitializing", ""))
_PREPARING: Mapping[str, str] = {
    "FailedAttachVolume": "volume",
    "FailedMount": "volume",
    "FailedMapVolume": "volume",
    "FailedCreatePodSandBox": "sandbox",
    "FailedPodSandBoxStatus": "sandbox",
    "FailedCreatePodContainer": "sandbox",
    "NetworkNotReady": "network",
}
"""Events that tell why no container was started yet, and of what they speak."""
_EXIT_CODES = {
    126: "the command is there but cannot be executed",
    127: "the command was not found",
    128: "the command could not be started",
    134: "it ended itself with SIGABRT",
    137: "it was killed (SIGKILL)",
    139: "it accessed memory that it may not (SIGSEGV)",
    143: "it was asked to end (SIGTERM)",
}
_REMEDIES = {
    "image": "check the image's name and tag, the registry, and the pull secrets",
    "InvalidImageName": "write the image as [registry/]name[:tag][@digest]",
    "ErrImageNeverPull": "load the image on the node, or choose another imagePullPolicy",
    "CreateContainerConfigError": "create what the container refers to, or make the reference optional",
    "OOMKilled": "raise the container's memory limit, or let it use less",
    "volume": "see to it that what the volume is made of exists and that its driver runs on the node",
    "network": "see to it that the node has a network plugin",
}


@dataclass(frozen=True, slots=True)
class Obstacle:
    subject: str
    """`pod`, `node n1`, `volume`, `container web`, ..."""
    problem: str
    evidence: Sequence[str] = ()
    """What events and logs say."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    pod: Obj
    node: Obj | None = None
    """None when there is none of that name, or it cannot be read."""
    events: Sequence[Obj] = ()
    """About the pod, the oldest first."""
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The last lines of a container's last run, by container."""


async def explain(client: Client, namespace: str, name: str) -> list[Obstacle]:
    """What is in the way of a pod; nothing when it runs well, or has no node yet. ApiError when it cannot be read."""
    pod = await client.get(PODS, name, namespace)
    return obstacles(await _gather(client, pod)) if pod["spec"].get("nodeName") else []


async def _gather(client: Client, pod: Obj) -> Evidence:
    meta = pod["metadata"]
    about = f"involvedObject.uid={meta['uid']}"
    node, events = await asyncio.gather(
        _node(client, pod["spec"]["nodeName"]), client.list(EVENTS, meta["namespace"], field_selector=about)
    )
    ended = [name for name, status in _statuses(pod) if _last_end(status)]
    logs = await asyncio.gather(*(_log(client, meta, name) for name in ended))
    return Evidence(pod, node, sorted(events["items"], key=_seen_at), dict(zip(ended, logs, strict=True)))


async def _node(client: Client, name: str) -> Obj | None:
    try:
        return await client.get(NODES, name)
    except ApiError:
        return None


async def _log(client: Client, meta: Obj, container: str) -> list[str]:
    """The end of what the container's last run wrote; nothing when that is gone."""
    for previous in ("true", "false"):
        query = {"container": container, "tailLines": str(LOG_LINES), "previous": previous}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        try:
            return (await client.request("GET", path, query=query)).body.decode(errors="replace").splitlines()
        except ApiError:
            continue
    return []


def obstacles(evidence: Evidence) -> list[Obstacle]:
    """The first to be removed comes first."""
    return [*_of_node(evidence), *_of_pod(evidence), *_of_preparation(evidence), *_of_containers(evidence)]


def _of_node(evidence: Evidence) -> Iterator[Obstacle]:
    name = evidence.pod["spec"]["nodeName"]
    if evidence.node is None:
        yield Obstacle(f"node {name}", "there is no such node", remedy="start the node, or delete the pod")
        return
    ready = condition(evidence.node, "Ready") or {}
    if ready.get("status") != "True":
        state = "is not ready" if ready.get("status") == "False" else "is not heard of"
        yield Obstacle(f"node {name}", f"it {state}: {ready.get('message', 'it has told nothing yet')}")


def _of_pod(evidence: Evidence) -> Iterator[Obstacle]:
    pod = evidence.pod
    status, meta = pod.get("status") or {}, pod["metadata"]
    if is_being_deleted(pod):
        finalizers = meta.get("finalizers") or ()
        waits = f", and waits for its finalizers: {', '.join(finalizers)}" if finalizers else ""
        stuck = _newest(evidence.events, ("FailedKillPod",))
        yield Obstacle("pod", f"it is being deleted since {meta['deletionTimestamp']}{waits}", _told(stuck))
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Obstacle("pod", f"{status['reason']}: {status.get('message', '')}".removesuffix(": "))
    for kind in ("PodResizePending", "PodResizeInProgress"):
        found = condition(pod, kind) or {}
        if found.get("status") == "True" and found.get("message"):
            yield Obstacle("resize", f"{found.get('reason') or kind}: {found['message']}")
    if _all_ready(pod):
        for gate in pod["spec"].get("readinessGates") or ():
            kind = gate["conditionType"]
            found = condition(pod, kind) or {}
            if found.get("status") != "True":
                said = f" ({found['message']})" if found.get("message") else ""
                yield Obstacle("readiness gate", f"condition {kind} is not True{said}")


def _of_preparation(evidence: Evidence) -> Iterator[Obstacle]:
    """What has to be there before the first container: volumes, the sandbox, its network."""
    statuses = dict(_statuses(evidence.pod))
    if (evidence.pod.get("status") or {}).get("phase", "Pending") != "Pending":
        return
    if any(_waiting(each).get("reason", "") not in _BEFORE_CONTAINERS for each in statuses.values()):
        return
    if any(_running(each) or _last_end(each) for each in statuses.values()):
        return
    begun = _newest(evidence.events, ("Scheduled", "Pulling", "Pulled", "Created", "Started"))
    told: dict[str, list[str]] = {}
    for event in evidence.events:
        subject = _PREPARING.get(event.get("reason", ""))
        if subject and not (begun and begun.get("reason") != "Scheduled" and _seen_at(event) < _seen_at(begun)):
            told.setdefault(subject, []).extend(each for each in _told(event) if each not in told.get(subject, ()))
    for subject, lines in told.items():
        yield Obstacle(subject, "it cannot be set up", lines[-3:], _REMEDIES.get(subject, ""))


def _of_containers(evidence: Evidence) -> Iterator[Obstacle]:
    for name, status in _statuses(evidence.pod):
        spec = podspec.find_container(evidence.pod, name)
        if spec is None:
            continue
        events = [each for each in evidence.events if f"{{{name}}}" in each["involvedObject"].get("fieldPath", "")]
        yield from _of_container(evidence, spec, status, events)


def _of_container(evidence: Evidence, spec: Obj, status: Obj, events: Sequence[Obj]) -> Iterator[Obstacle]:
    name = spec["name"]
    subject = f"container {name}"
    waiting, end = _waiting(status), _last_end(status)
    reason = waiting.get("reason", "")
    if reason in _IMAGE:
        yield Obstacle(
            subject,
            f"its image {spec['image']} cannot be had: {reason}: {waiting.get('message', '')}",
            remedy=_REMEDIES.get(reason, _REMEDIES["image"]),
        )
    elif reason in _UNPREPARED or reason == "PostStartHookError":
        problem = f"it cannot be started: {reason}: {waiting.get('message', '')}"
        yield Obstacle(subject, problem, remedy=_REMEDIES.get(reason, ""))
    elif end and not _running(status) and not _succeeded(status):
        yield _ended(evidence, spec, status, end, events)
    elif _running(status) and not status.get("ready"):
        yield _not_ready(spec, status, events)


def _ended(evidence: Evidence, spec: Obj, status: Obj, end: Obj, events: Sequence[Obj]) -> Obstacle:
    name, code, reason = spec["name"], end.get("exitCode"), end.get("reason", "")
    meaning = f" ({_EXIT_CODES[code]})" if code in _EXIT_CODES and reason in ("Error", "") else ""
    if reason == "OOMKilled":
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        meaning = f" (it used more memory than its limit of {limit})" if limit else " (the node had no memory left)"
    times = status.get("restartCount", 0)
    again = f"; started again {times} times" if times else ""
    waiting = _waiting(status).get("message", "")
    probe = _newest([each for each in events if " failed " in each.get("message", "")], ("Killing",))
    hook = _newest(events, ("FailedPostStartHook",))
    evidence_lines = [
        *([end["message"].strip()] if end.get("message") else []),
        *_told(probe),
        *(_told(_newest(events, ("Unhealthy",))) if probe else ()),
        *_told(hook),
        *([waiting] if waiting else []),
        *(f"log: {line}" for line in evidence.logs.get(name, ())),
    ]
    return Obstacle(
        f"container {name}",
        f"it ended with exit code {code}, {reason or 'Error'}{meaning}{again}",
        evidence_lines,
        _REMEDIES.get(reason, ""),
    )


def _not_ready(spec: Obj, status: Obj, events: Sequence[Obj]) -> Obstacle:
    unhealthy = _told(_newest(events, ("Unhealthy", "ProbeWarning")))
    if status.get("started") is False and spec.get("startupProbe"):
        return Obstacle(f"container {spec['name']}", "it runs, but its startup probe has not succeeded", unhealthy)
    if spec.get("readinessProbe"):
        return Obstacle(f"container {spec['name']}", "it runs, but its readiness probe does not succeed", unhealthy)
    return Obstacle(f"container {spec['name']}", "it runs, but is not ready yet", unhealthy)


# --- Reading objects


def _statuses(pod: Obj) -> Iterator[tuple[str, Obj]]:
    """Those of containers that the pod needs, in the order in which they start."""
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind) or ():
            yield each["name"], each


def _waiting(status: Obj) -> Obj:
    return (status.get("state") or {}).get("waiting") or {}


def _running(status: Obj) -> bool:
    return "running" in (status.get("state") or {})


def _succeeded(status: Obj) -> bool:
    return ((status.get("state") or {}).get("terminated") or {}).get("exitCode") == 0


def _last_end(status: Obj) -> Obj:
    """How the container ended the last time; empty if it never did."""
    for state in ("state", "lastState"):
        found = (status.get(state) or {}).get("terminated")
        if found:
            return found
    return {}


def _all_ready(pod: Obj) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return bool(statuses) and all(each.get("ready") for each in statuses)


def _seen_at(event: Obj) -> str:
    return event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", "")


def _newest(events: Iterable[Obj], reasons: Sequence[str]) -> Obj | None:
    found = None
    for event in events:
        if event.get("reason") in reasons:
            found = event
    return found


def _told(event: Obj | None) -> list[str]:
    if event is None:
        return []
    times = event.get("count") or 1
    often = f" ({times} times)" if times > 1 else ""
    return [f"{event['reason']}: {event.get('message', '').strip()}{often}"]
