"""Counting a Job's ended pods, each exactly once, whatever fails in between (KEP-2307).

A pod that has ended keeps a finalizer until its end is in the Job's status. First its uid is written to
`uncountedTerminatedPods`, then its finalizer is taken off, then the uid leaves the list and the counter goes up.
Wherever this is interrupted, the next sync finds out how far it got.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition, is_being_deleted, uid_of
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.job.indexes import Indexes
from shipwheel.controllers.job.plan import (
    View,
    has_failed,
    index_of,
    is_indexed,
    is_tracked,
    make_condition,
)
from shipwheel.controllers.job.policy import judge_failure

MOST_UNCOUNTED = 500


@dataclass(slots=True)
class Tally:
    """The status to write before finalizers are taken off, and the pods to take them off."""

    status: Obj
    release: list[Obj] = field(default_factory=list)
    more: bool = False
    """There are more ended pods than fit into one status."""
    verdict: Obj | None = None
    """The terminal condition that will follow."""
    handled: list[str] = field(default_factory=list)
    """The actions of the failure policy's rules that have applied."""


def _lists(status: Obj) -> tuple[list[str], list[str]]:
    uncounted = status.setdefault("uncountedTerminatedPods", {})
    return uncounted.setdefault("succeeded", []), uncounted.setdefault("failed", [])


def settle(status: Obj, held: set[str]) -> None:
    """Count the uids whose finalizer is gone; `held` are those that still have it."""
    good, bad = _lists(status)
    for uids, counter in ((good, "succeeded"), (bad, "failed")):
        kept = [uid for uid in uids if uid in held]
        if len(kept) != len(uids):
            status[counter] = (status.get(counter) or 0) + len(uids) - len(kept)
            uids[:] = kept


def held_uids(found: View) -> set[str]:
    return {uid_of(pod) for pod in found.pods if is_tracked(pod, found.released)}


def tally(found: View, status: Obj) -> Tally:
    """Note all pods that have ended. `status` is changed."""
    job = found.job
    result = Tally(status, verdict=found.verdict)
    settle(status, held_uids(found))
    good, bad = _lists(status)
    known_good, known_bad = set(good), set(bad)
    new_indexes: set[int] = set()
    succeeding = found.verdict is not None and found.verdict["type"] == "SuccessCriteriaMet"
    pods = sorted(found.pods, key=lambda pod: _order(index_of(pod))) if is_indexed(job) else found.pods
    for pod in pods:
        if not is_tracked(pod, found.released) or not _may_release(found, pod):
            continue
        result.release.append(pod)
        uid, index = uid_of(pod), index_of(pod)
        if podutil.phase_of(pod) == "Succeeded" and uid not in known_bad:
            if is_indexed(job):
                if index is not None and found.counted(pod) and index not in found.previous_indexes:
                    new_indexes.add(index)
            elif uid not in known_good:
                good.append(uid)
        elif (
            (has_failed(job, pod) or (found.verdict is not None and not succeeding))
            and uid not in known_bad
            and found.counted(pod)
        ):
            judged = judge_failure(job["spec"].get("podFailurePolicy"), pod)
            result.handled += [judged.action] if judged.action else []
            bad += [uid] if judged.counts else []
        if len(new_indexes) + len(good) + len(bad) >= MOST_UNCOUNTED:
            result.more = True
            break
    if is_indexed(job):
        completed = found.previous_indexes | Indexes.of(new_indexes)
        status["succeeded"] = len(completed)
        status["completedIndexes"] = str(completed)
        if found.failed_indexes is not None:
            status["failedIndexes"] = str(found.failed_indexes)
    _announce(result, found)
    return result


def _order(index: int | None) -> int:
    return -1 if index is None else index


def _may_release(found: View, pod: Obj) -> bool:
    """Its end is certain, or does not matter any more."""
    if is_being_deleted(found.job) or found.verdict is not None or podutil.phase_of(pod) == "Succeeded":
        return True
    if not has_failed(found.job, pod):
        return False
    index = index_of(pod)
    waiting = found.delayed.get(index) if index is not None else None
    return waiting is None or uid_of(waiting) != uid_of(pod)


def _announce(result: Tally, found: View) -> None:
    """How the Job will end is told before its last pods have gone; the terminal condition comes after them."""
    verdict = found.verdict
    if verdict is None or verdict["type"] not in ("FailureTarget", "SuccessCriteriaMet"):
        return
    conditions = result.status.get("conditions") or []
    if condition({"status": result.status}, verdict["type"]) is None:
        result.status["conditions"] = [*conditions, verdict]
    terminal = "Failed" if verdict["type"] == "FailureTarget" else "Complete"
    result.verdict = make_condition(terminal, "True", verdict.get("reason", ""), verdict.get("message", ""), found.now)


def finish(status: Obj, verdict: Obj | None, terminating: int) -> bool:
    """Put the terminal condition into the status once everything is counted and gone; True when that is so."""
    good, bad = _lists(status)
    if verdict is None or good or bad or terminating > 0:
        return False
    status["conditions"] = [*(status.get("conditions") or ()), verdict]
    if verdict["type"] == "Complete":
        status["completionTime"] = verdict["lastTransitionTime"]
    return True


def fresh_status(job: Obj) -> Obj:
    """A copy of the Job's status to work on."""
    status = copy.deepcopy(job.get("status") or {})
    _lists(status)
    return status


def start(status: Obj, found: View) -> None:
    """A Job starts when it is first seen not suspended."""
    if not status.get("startTime") and not found.job["spec"].get("suspend"):
        status["startTime"] = rfc3339(found.now)


def same_status(old: Obj, new: Obj) -> bool:
    def normal(status: Obj) -> Obj:
        uncounted = {key: value for key, value in (status.get("uncountedTerminatedPods") or {}).items() if value}
        rest = {key: value for key, value in status.items() if key != "uncountedTerminatedPods"}
        if uncounted:
            rest["uncountedTerminatedPods"] = uncounted
        return {
            key: value for key, value in rest.items() if value not in (0, "", None) or key in ("ready", "terminating")
        }

    return normal(old) == normal(new)
