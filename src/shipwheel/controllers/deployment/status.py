"""What a Deployment reports: numbers, availability and progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.meta import Obj, condition, name_of
from shipwheel.controllers.deployment.sizing import fenceposts, replicas_of, reported, total
from shipwheel.kinds.conditions import remove_condition, renew_condition

_NUMBERS = (
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
)


def make_condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    return {
        "type": kind,
        "status": status,
        "lastUpdateTime": rfc3339(now),
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    }


def has_deadline(deployment: Obj) -> bool:
    return deployment["spec"].get("progressDeadlineSeconds") not in (None, 2**31 - 1)


def base_status(deployment: Obj, sets: Sequence[Obj], new: Obj | None, now: datetime) -> Obj:
    """The numbers, and whether enough is available. `sets` are all, `new` included."""
    old = deployment.get("status") or {}
    available = reported(sets, "availableReplicas")
    status: Obj = {
        "observedGeneration": deployment["metadata"].get("generation") or 0,
        "replicas": reported(sets, "replicas"),
        "updatedReplicas": reported([new] if new else [], "replicas"),
        "readyReplicas": reported(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(total(sets) - available, 0),
    }
    terminating = _terminating(sets)
    if terminating is not None:
        status["terminatingReplicas"] = terminating
    if old.get("collisionCount") is not None:
        status["collisionCount"] = old["collisionCount"]
    if old.get("conditions"):
        status["conditions"] = old["conditions"]
    if available >= replicas_of(deployment) - fenceposts(deployment).unavailable:
        enough = make_condition(
            "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now
        )
    else:
        enough = make_condition(
            "Available", "False", "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.", now,
        )  # fmt: skip
    renew_condition(status, enough)
    return status


def _terminating(sets: Iterable[Obj]) -> int | None:
    """None when a set that has reported does not say."""
    count = 0
    for rs in sets:
        status = rs.get("status") or {}
        if "terminatingReplicas" in status:
            count += status["terminatingReplicas"]
        elif status.get("observedGeneration"):
            return None
    return count


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Everything runs the new template, and nothing else is left."""
    wanted = replicas_of(deployment)
    return (
        all((status.get(key) or 0) == wanted for key in ("updatedReplicas", "replicas", "availableReplicas"))
        and (status.get("observedGeneration") or 0) >= (deployment["metadata"].get("generation") or 0)
    )  # fmt: skip


def _has_progressed(old: Obj, new: Obj) -> bool:
    def number(status: Obj, key: str) -> int:
        return status.get(key) or 0

    old_left = number(old, "replicas") - number(old, "updatedReplicas")
    new_left = number(new, "replicas") - number(new, "updatedReplicas")
    return (
        number(new, "updatedReplicas") > number(old, "updatedReplicas")
        or new_left < old_left
        or number(new, "readyReplicas") > number(old, "readyReplicas")
        or number(new, "availableReplicas") > number(old, "availableReplicas")
    )


def has_timed_out(deployment: Obj, status: Obj, now: datetime) -> bool:
    """No progress for the whole deadline."""
    progressing = condition({"status": status}, "Progressing")
    if not has_deadline(deployment) or progressing is None:
        return False
    if progressing.get("reason") == "NewReplicaSetAvailable":
        return False
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return True
    deadline = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    return parse_time(progressing["lastUpdateTime"]) + deadline < now


def rollout_status(deployment: Obj, sets: Sequence[Obj], new: Obj | None, now: datetime) -> Obj:
    """The status during a roll-out, with its progress."""
    old = deployment.get("status") or {}
    status = base_status(deployment, sets, new, now)
    if not has_deadline(deployment):
        remove_condition(status, "Progressing")
    current = condition(deployment, "Progressing")
    settled = (
        status["replicas"] == status["updatedReplicas"]
        and current is not None
        and current.get("reason") == "NewReplicaSetAvailable"
    )
    if has_deadline(deployment) and not settled:
        subject = f'ReplicaSet "{name_of(new)}"' if new else f'Deployment "{name_of(deployment)}"'
        if is_complete(deployment, status):
            done = f"{subject} has successfully progressed."
            renew_condition(status, make_condition("Progressing", "True", "NewReplicaSetAvailable", done, now))
        elif _has_progressed(old, status):
            entry = make_condition("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
            if current is not None:
                if current["status"] == "True":
                    entry["lastTransitionTime"] = current["lastTransitionTime"]
                remove_condition(status, "Progressing")
            renew_condition(status, entry)
        elif has_timed_out(deployment, status, now):
            late = f"{subject} has timed out progressing."
            renew_condition(status, make_condition("Progressing", "False", "ProgressDeadlineExceeded", late, now))
    failure = _failure(sets, new)
    if failure:
        renew_condition(status, {**failure, "lastUpdateTime": failure["lastTransitionTime"]})
    else:
        remove_condition(status, "ReplicaFailure")
    return status


def _failure(sets: Sequence[Obj], new: Obj | None) -> Obj | None:
    """The failure to report of those of the sets: the new one's first."""
    for rs in (*([new] if new else []), *sets):
        failure = condition(rs, "ReplicaFailure")
        if failure:
            return failure
    return None


def paused_condition(deployment: Obj, now: datetime) -> Obj | None:
    """The Progressing condition to set because of a pause or its end; None when nothing is to be said."""
    if not has_deadline(deployment):
        return None
    current = condition(deployment, "Progressing")
    reason = current.get("reason") if current else None
    if reason == "ProgressDeadlineExceeded":
        return None
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != "DeploymentPaused":
        return make_condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
    if not paused and reason == "DeploymentPaused":
        return make_condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    return None


def next_progress_check(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """Seconds until a stuck roll-out will have timed out; None when it cannot."""
    current = condition(deployment, "Progressing")
    if not has_deadline(deployment) or current is None:
        return None
    if is_complete(deployment, status) or current.get("reason") == "ProgressDeadlineExceeded":
        return None
    deadline = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    left = (parse_time(current["lastUpdateTime"]) + deadline - now).total_seconds()
    return max(left, 0.0) + 1


def same_status(old: Obj, new: Obj) -> bool:
    """Equal, where a number that is absent is zero."""
    return (
        all((old.get(key) or 0) == (new.get(key) or 0) for key in _NUMBERS)
        and old.get("terminatingReplicas") == new.get("terminatingReplicas")
        and old.get("collisionCount") == new.get("collisionCount")
        and (old.get("conditions") or []) == (new.get("conditions") or [])
    )
