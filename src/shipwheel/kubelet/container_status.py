"""The status of each container: a pure function of what was observed and of what was reported before.

What was reported before matters because a runtime forgets: a container that was seen running and is gone must not
look as if it had never run (its pod would go back to Pending, and a job would run twice).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.kubelet import lifecycle, podspec
from shipwheel.kubelet.observed import ContainerObservation, PodObservation

STATUS_UNKNOWN = "ContainerStatusUnknown"
RESTARTING_ALL = "RestartingAllContainers"
LOST = "The container could not be located when the pod was terminated"
LOST_AT_DELETION = "The container could not be located when the pod was deleted.  The container used to be Running"
REMOVED_TO_RESTART = "The container is removed because RestartAllContainers in place"
INIT_FORGOTTEN = (
    "Unable to get init container status from container runtime and pod has been initialized, "
    "treat it as exited normally"
)
KILLED_EXIT_CODE = 137
NEVER = "1970-01-01T00:00:00Z"
"""The start of a container that ended before it was running."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container could not be started the last time: `state.waiting`."""

    reason: str
    message: str = ""


def container_statuses(
    pod: Obj,
    observed: PodObservation,
    specs: Sequence[Obj],
    previous: Iterable[Obj],
    reasons: Mapping[str, Waiting],
    *,
    runtime_name: str,
    actuated: Mapping[str, Obj] | None = None,
    init: bool = False,
    restarting_all: bool = False,
    supports_rro: bool = False,
) -> list[Obj]:
    """Statuses of `specs`, in the order of their names (init containers in the order of the specification).

    `previous` are the statuses reported before; by container name, `reasons` are the failures to start and `actuated`
    the resources that running containers were last set to.
    """
    old = {each["name"]: each for each in previous}
    statuses = {each["name"]: _initial(pod, each, old.get(each["name"]), supports_rro=supports_rro) for each in specs}
    for spec in specs:
        name = spec["name"]
        if observed.latest(name) is None and name in old:
            _gone(pod, statuses[name], old[name], restarting_all=restarting_all)

    for spec in specs:
        name = spec["name"]
        newest_two = [each for each in observed.containers if each.name == name][:2]
        if not newest_two:
            continue
        status = _observed(newest_two[0], old.get(name), runtime_name, restarting_all=restarting_all)
        if len(newest_two) > 1:
            status["lastState"] = _observed(newest_two[1], None, runtime_name)["state"]
        if "volumeMounts" not in status and "volumeMounts" in statuses[name]:
            status["volumeMounts"] = statuses[name]["volumeMounts"]
        _add_resources(status, spec, newest_two[0], (actuated or {}).get(name))
        statuses[name] = status

    for spec in specs:
        _explain_waiting(pod, observed, spec, statuses[spec["name"]], reasons, init=init)

    for status in statuses.values():
        status.setdefault("lastState", {})
        status.setdefault("ready", False)
        status.setdefault("restartCount", 0)
        status.setdefault("imageID", "")
    return list(statuses.values()) if init else [statuses[name] for name in sorted(statuses)]


def _initial(pod: Obj, spec: Obj, old: Obj | None, *, supports_rro: bool) -> Obj:
    """What is reported of a container of which the runtime knows nothing."""
    if old and (old.get("state") or {}).get("terminated"):
        return _copy(old)
    waiting = "PodInitializing" if podspec.init_containers(pod) else "ContainerCreating"
    status: Obj = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "state": {"waiting": {"reason": waiting}},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
    }
    mounts = [_volume_mount_status(each, supports_rro) for each in spec.get("volumeMounts") or ()]
    if mounts:
        status["volumeMounts"] = mounts
    if old:
        status["restartCount"] = old.get("restartCount", 0)
        status["lastState"] = old.get("lastState") or {}
    return status


def _volume_mount_status(mount: Obj, supports_rro: bool) -> Obj:
    status: Obj = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        status["readOnly"] = True
        wanted = mount.get("recursiveReadOnly") or "Disabled"
        enabled = wanted == "Enabled" or (wanted == "IfPossible" and supports_rro)
        status["recursiveReadOnly"] = "Enabled" if enabled else "Disabled"
    return status


def _gone(pod: Obj, status: Obj, old: Obj, *, restarting_all: bool) -> None:
    """Note that a container which was reported before is not there any more."""
    state = old.get("state") or {}
    if restarting_all and "waiting" not in state:
        terminated = {"reason": RESTARTING_ALL, "message": REMOVED_TO_RESTART, "exitCode": KILLED_EXIT_CODE}
        status["state"] = {"waiting": {"reason": RESTARTING_ALL, "message": REMOVED_TO_RESTART}}
        status["lastState"] = {"terminated": _with_times(terminated)}
        status["restartCount"] = old.get("restartCount", 0) + 1
        return
    if not state.get("running") or (status.get("lastState") or {}).get("terminated"):
        return
    terminated = {"reason": STATUS_UNKNOWN, "message": LOST_AT_DELETION, "exitCode": KILLED_EXIT_CODE}
    status["lastState"] = {"terminated": _with_times(terminated)}
    if not is_being_deleted(pod):
        status["restartCount"] = status.get("restartCount", 0) + 1


def _observed(seen: ContainerObservation, old: Obj | None, runtime_name: str, *, restarting_all: bool = False) -> Obj:
    container_id = f"{runtime_name}://{seen.id}"
    status: Obj = {
        "name": seen.name,
        "image": seen.image,
        "imageID": seen.image_ref,
        "containerID": container_id,
        "restartCount": seen.restart_count,
        "lastState": {},
        "ready": False,
    }
    if old:
        if old.get("volumeMounts"):
            status["volumeMounts"] = old["volumeMounts"]
        status["restartCount"] = max(seen.restart_count, old.get("restartCount", 0))
        ended_before = (old.get("state") or {}).get("terminated")
        if old.get("containerID") != container_id and ended_before:
            status["lastState"] = {"terminated": ended_before}
        elif (old.get("lastState") or {}).get("terminated"):
            status["lastState"] = old["lastState"]
    was_running = bool(old and (old.get("state") or {}).get("running"))
    if seen.running:
        status["state"] = {"running": {"startedAt": timestamp(seen.started_at)}}
        if old:
            ended = (old.get("state") or {}).get("terminated")
            if ended and old.get("restartCount", 0) >= seen.restart_count and old["containerID"] != container_id:
                status["restartCount"] = old.get("restartCount", 0) + 1
            if old.get("started") is not None and old.get("containerID") == container_id:
                status["started"] = old["started"]
    elif seen.exited:
        status["state"] = {"terminated": _terminated(seen, container_id)}
    elif seen.state == "UNKNOWN" and was_running:
        reason = RESTARTING_ALL if restarting_all else STATUS_UNKNOWN
        terminated = {"reason": reason, "message": LOST, "exitCode": KILLED_EXIT_CODE}
        status["state"] = {"terminated": _with_times(terminated)}
        status["restartCount"] = old.get("restartCount", 0) + 1 if old else 1
    else:
        status["state"] = {"waiting": {}}
    if seen.user is not None:
        uid, gid, groups = seen.user
        linux: Obj = {"uid": uid, "gid": gid}
        if groups:
            linux["supplementalGroups"] = list(groups)
        status["user"] = {"linux": linux}
    return status


def _terminated(seen: ContainerObservation, container_id: str) -> Obj:
    terminated: Obj = {
        "exitCode": seen.exit_code,
        "reason": seen.reason,
        "message": seen.message,
        "startedAt": timestamp(seen.started_at) or NEVER,
        "finishedAt": timestamp(seen.finished_at) or NEVER,
        "containerID": container_id,
    }
    return {key: value for key, value in terminated.items() if value != ""}


def _with_times(terminated: Obj) -> Obj:
    """An end of which no times are known."""
    return {**terminated, "startedAt": None, "finishedAt": None}


def _add_resources(status: Obj, spec: Obj, seen: ContainerObservation, actuated: Obj | None) -> None:
    """Resources in force: what the runtime tells of a running container, else what it was last set to, else what was
    allocated."""
    resources = spec.get("resources") or {}
    status["resources"] = _copy(resources)
    if resources.get("requests"):
        status["allocatedResources"] = dict(resources["requests"])
    if not seen.running:
        return
    told = actual_resources(seen)
    for part in ("limits", "requests"):
        declared = status["resources"].get(part)
        if declared is None:
            continue
        last = (actuated or {}).get(part) or {}
        for name in ("cpu", "memory"):
            amount = told.get((part, name)) or (last.get(name) if name in declared else None)
            if amount:
                declared[name] = amount


def actual_resources(seen: ContainerObservation) -> dict[tuple[str, str], str]:
    """What the runtime says is applied, as quantities by (`limits`|`requests`, resource name)."""
    linux = seen.resources
    if linux is None:
        return {}
    found: dict[tuple[str, str], str] = {}
    if linux.cpu_period > 0 and linux.cpu_quota > 0:
        milli = linux.cpu_quota * 1000 // linux.cpu_period
        if milli > 10:
            found["limits", "cpu"] = _milli(milli)
    if linux.cpu_shares > 2:
        found["requests", "cpu"] = _milli(-(-linux.cpu_shares * 1000 // 1024))
    if linux.memory_limit_bytes > 0:
        found["limits", "memory"] = _binary(linux.memory_limit_bytes)
    return found


def _milli(value: int) -> str:
    return str(value // 1000) if value % 1000 == 0 else f"{value}m"


def _binary(value: int) -> str:
    for suffix, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if value % size == 0:
            return f"{value // size}{suffix}"
    return str(value)


def _explain_waiting(
    pod: Obj, observed: PodObservation, spec: Obj, status: Obj, reasons: Mapping[str, Waiting], *, init: bool
) -> None:
    """Say why a container that should run does not; change `status` in place."""
    name = spec["name"]
    if init:
        seen = observed.latest(name)
        if seen is not None and seen.exited and seen.exit_code == 0 and not podspec.is_sidecar(spec):
            return
        forgotten = (
            seen is None
            and not podspec.is_sidecar(spec)
            and "waiting" in status["state"]
            and lifecycle.any_regular_created(pod, observed)
        )
        if forgotten:
            ended = {"reason": "Completed", "message": INIT_FORGOTTEN, "exitCode": 0}
            status["state"] = {"terminated": _with_times(ended)}
            return
    reason = reasons.get(name)
    if reason is None or not lifecycle.wants_start(pod, spec, observed):
        return
    if status["state"].get("terminated"):
        status["lastState"] = status["state"]
    waiting = {"reason": reason.reason}
    if reason.message:
        waiting["message"] = reason.message
    status["state"] = {"waiting": waiting}


def timestamp(nanoseconds: int) -> str | None:
    """`metav1.Time` of nanoseconds since 1970; none for 0."""
    if not nanoseconds:
        return None
    return rfc3339(datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC))


def _copy(part: Obj) -> Obj:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in part.items()}
