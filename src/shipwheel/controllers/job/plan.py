"""Where a Job stands, and which pods it should have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.meta import Obj, annotations_of, condition, is_being_deleted, is_condition_true, uid_of
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.job.backoff import Backoff, finished_at
from shipwheel.controllers.job.indexes import Indexes
from shipwheel.controllers.job.policy import judge_failure, success_rule_met

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
MANAGER = "kubernetes.io/job-controller"

AT_ONCE = 500


def make_condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": rfc3339(now),
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    }


def is_indexed(job: Obj) -> bool:
    return job["spec"].get("completionMode") == "Indexed"


def is_suspended(job: Obj) -> bool:
    return bool(job["spec"].get("suspend"))


def is_finished(job: Obj) -> bool:
    return is_condition_true(job, "Complete") or is_condition_true(job, "Failed")


def is_ours(job: Obj) -> bool:
    return job["spec"].get("managedBy") in (None, MANAGER)


def _by_index_limit(job: Obj) -> int | None:
    return job["spec"].get("backoffLimitPerIndex")


def replaces_failed_only(job: Obj) -> bool:
    """A pod on its way out is replaced only when it has ended."""
    policy = job["spec"].get("podReplacementPolicy")
    return policy == "Failed" or job["spec"].get("podFailurePolicy") is not None


def has_failed(job: Obj, pod: Obj) -> bool:
    phase = podutil.phase_of(pod)
    if phase == "Failed":
        return True
    return not replaces_failed_only(job) and is_being_deleted(pod) and phase != "Succeeded"


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdecimal() else None


def _number(pod: Obj, annotation: str) -> int:
    text = annotations_of(pod).get(annotation, "")
    return int(text) if text.isdecimal() else 0


def is_tracked(pod: Obj, released: Iterable[str]) -> bool:
    """Its end has still to be counted. `released` are those whose finalizer we have taken off already."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ()) and uid_of(pod) not in released


@dataclass(slots=True)
class View:
    """A Job with its pods, and what follows from them."""

    job: Obj
    pods: Sequence[Obj]
    released: frozenset[str]
    now: datetime
    active: list[Obj] = field(default_factory=list)
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    previous_indexes: Indexes = field(default_factory=Indexes)
    succeeded_indexes: Indexes = field(default_factory=Indexes)
    failed_indexes: Indexes | None = None
    delayed: dict[int, Obj] = field(default_factory=dict)
    """By index, the failed pod that waits to be replaced: it carries the count of failures."""
    verdict: Obj | None = None
    """FailureTarget, SuccessCriteriaMet or Failed: how the Job ends."""
    look_after: float | None = None

    @property
    def completions(self) -> int | None:
        return self.job["spec"].get("completions")

    def counted(self, pod: Obj) -> bool:
        """Whether the pod may count: of an Indexed Job only those with an index that it has."""
        if not is_indexed(self.job):
            return True
        index = index_of(pod)
        return index is not None and index < (self.completions or 0)


def view(job: Obj, pods: Sequence[Obj], released: frozenset[str], backoff: Backoff, now: datetime) -> View:
    """Take stock of a Job that is not finished."""
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    known_good, known_bad = set(uncounted.get("succeeded") or ()), set(uncounted.get("failed") or ())
    found = View(job, pods, released, now)
    found.active = [pod for pod in pods if podutil.is_active(pod)]
    found.terminating = sum(podutil.is_terminating(pod) for pod in pods)
    tracked = [pod for pod in pods if is_tracked(pod, released) and found.counted(pod)]
    good = [pod for pod in tracked if podutil.phase_of(pod) == "Succeeded" and uid_of(pod) not in known_good]
    bad = [pod for pod in tracked if has_failed(job, pod) and uid_of(pod) not in known_bad]
    policy = job["spec"].get("podFailurePolicy")
    found.succeeded = (status.get("succeeded") or 0) + len(good) + len(known_good)
    counted_bad = sum(judge_failure(policy, pod).counts for pod in bad)
    found.failed = (status.get("failed") or 0) + counted_bad + len(known_bad)
    found.backoff = backoff.after(good, bad)
    found.verdict = _lasting_verdict(found) or _failure(found)
    if is_indexed(job):
        _take_stock_of_indexes(found, tracked)
    return found


def _lasting_verdict(found: View) -> Obj | None:
    """How the Job ends has been decided before, or a failed pod decides it by the policy."""
    met = condition(found.job, "SuccessCriteriaMet")
    if met is not None and met["status"] == "True":
        return met
    target = condition(found.job, "FailureTarget")
    if target is not None and target["status"] == "True":
        return make_condition("Failed", "True", target.get("reason", ""), target.get("message", ""), found.now)
    policy = found.job["spec"].get("podFailurePolicy")
    if policy is not None:
        for pod in found.pods:
            if has_failed(found.job, pod) and (why := judge_failure(policy, pod).fails_job):
                return make_condition("FailureTarget", "True", "PodFailurePolicy", why, found.now)
    return None


def _failure(found: View) -> Obj | None:
    """Too many failures, or too much time. Also notes when the time will be up."""
    job, now = found.job, found.now
    spec = job["spec"]
    limit = spec.get("backoffLimit")
    limit = 6 if limit is None else limit
    if found.failed > limit or _restarts_exceed(job, found.pods, limit):
        reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return make_condition("FailureTarget", "True", reason, message, now)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not is_suspended(job):
        started = (job.get("status") or {}).get("startTime")
        left = deadline - ((now - parse_time(started)).total_seconds() if started else 0)
        if left <= 0:
            message = "Job was active longer than specified deadline"
            return make_condition("FailureTarget", "True", "DeadlineExceeded", message, now)
        found.look_after = left
    return None


def _restarts_exceed(job: Obj, pods: Iterable[Obj], limit: int) -> bool:
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.get("restartCount", 0)
        for pod in pods
        if podutil.phase_of(pod) in ("Running", "Pending")
        for key in ("initContainerStatuses", "containerStatuses")
        for status in (pod.get("status") or {}).get(key) or ()
    )
    return restarts > 0 if limit == 0 else restarts >= limit


def _take_stock_of_indexes(found: View, tracked: Iterable[Obj]) -> None:
    job, now = found.job, found.now
    spec, status = job["spec"], job.get("status") or {}
    completions = found.completions or 0
    tracked = list(tracked)
    found.previous_indexes = Indexes.parse(status.get("completedIndexes") or "", completions)
    new = {index_of(pod) for pod in tracked if podutil.phase_of(pod) == "Succeeded"}
    found.succeeded_indexes = found.previous_indexes | Indexes.of(index for index in new if index is not None)
    found.succeeded = len(found.succeeded_indexes)
    if _by_index_limit(job) is not None:
        failed = {index_of(pod) for pod in tracked if _index_has_failed(job, pod)}
        old = Indexes.parse(status.get("failedIndexes") or "", completions)
        found.failed_indexes = old | Indexes.of(index for index in failed if index is not None)
        count = len(found.failed_indexes)
        most = spec.get("maxFailedIndexes")
        if found.verdict is None and most is not None and count > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            found.verdict = make_condition("FailureTarget", "True", "MaxFailedIndexesExceeded", message, now)
        elif found.verdict is None and count and count + found.succeeded >= completions:
            found.verdict = make_condition("FailureTarget", "True", "FailedIndexes", "Job has failed indexes", now)
        found.delayed = _delayed(found, tracked)
    if found.verdict is None:
        met = success_rule_met(spec.get("successPolicy"), found.succeeded_indexes, completions)
        if met:
            found.verdict = make_condition("SuccessCriteriaMet", "True", "SuccessPolicy", met, now)


def _index_has_failed(job: Obj, pod: Obj) -> bool:
    if not has_failed(job, pod):
        return False
    verdict = judge_failure(job["spec"].get("podFailurePolicy"), pod)
    limit = _by_index_limit(job) or 0
    return verdict.action == "FailIndex" or (verdict.counts and _number(pod, INDEX_FAILURES) >= limit)


def _delayed(found: View, tracked: Iterable[Obj]) -> dict[int, Obj]:
    """By index that is to be tried again, the last failed pod."""
    busy = {index_of(pod) for pod in found.active}
    last: dict[int, Obj] = {}
    for pod in tracked:
        index = index_of(pod)
        if index is None or not has_failed(found.job, pod) or index in busy:
            continue
        if index in found.succeeded_indexes or index in (found.failed_indexes or ()):
            continue
        other = last.get(index)
        if other is None or (_attempts(other), finished_at(other)) <= (_attempts(pod), finished_at(pod)):
            last[index] = pod
    return last


def _attempts(pod: Obj) -> int:
    return _number(pod, INDEX_FAILURES) + _number(pod, INDEX_IGNORED)


@dataclass(frozen=True, slots=True)
class Work:
    """Pods to create (by index; None for a Job without indexes) and to delete; and when to look again. `action` is
    what metrics call it."""

    action: Literal["tracking", "pods_created", "pods_deleted"] = "tracking"
    create: tuple[int | None, ...] = ()
    delete: tuple[Obj, ...] = ()
    look_after: float | None = None


def plan(found: View) -> Work:
    """What to do about a Job that goes on."""
    job = found.job
    if is_suspended(job):
        return Work("pods_deleted", delete=tuple(_to_remove(found, len(found.active))))
    parallelism = job["spec"].get("parallelism")
    wanted = 1 if parallelism is None else parallelism
    if found.completions is None:
        if found.succeeded > 0:
            wanted = len(found.active)
    else:
        wanted = max(min(found.completions - found.succeeded, wanted), 0)
    surplus = _to_remove(found, max(len(found.active) - wanted, 0))
    if surplus:
        return Work("pods_deleted", delete=tuple(surplus[:AT_ONCE]))
    waiting_for = found.terminating if replaces_failed_only(job) else 0
    missing = wanted - len(found.active) - waiting_for
    if missing <= 0:
        return Work()
    if _by_index_limit(job) is None:
        left = found.backoff.left(found.now)
        if left > 0:
            return Work("pods_created", look_after=left)
    missing = min(missing, AT_ONCE)
    if not is_indexed(job):
        return Work("pods_created", create=(None,) * missing)
    return _create_indexes(found, missing)


def _create_indexes(found: View, missing: int) -> Work:
    job = found.job
    taken = Indexes.of(index for pod in found.active if (index := index_of(pod)) is not None)
    taken |= found.succeeded_indexes
    if replaces_failed_only(job):
        taken |= Indexes.of(
            index for pod in found.pods if podutil.is_terminating(pod) and (index := index_of(pod)) is not None
        )
    if found.failed_indexes is not None:
        taken |= found.failed_indexes
    pending = [index for index, _ in zip(taken.missing(found.completions or 0), range(missing), strict=False)]
    if _by_index_limit(job) is None:
        return Work("pods_created", create=tuple(pending))
    waits = {index: _index_backoff(found.delayed.get(index), found.now) for index in pending}
    ready = tuple(index for index in pending if waits[index] <= 0)
    if ready or not pending:
        later = min((each for each in waits.values() if each > 0), default=None)
        return Work("pods_created", create=ready, look_after=later)
    return Work("pods_created", look_after=min(waits.values()))


def _index_backoff(failed: Obj | None, now: datetime) -> float:
    if failed is None:
        return 0.0
    return Backoff(_attempts(failed) + 1, finished_at(failed)).left(now)


def failure_counts(job: Obj, replaced: Obj | None) -> dict[str, str]:
    """The annotations of a new pod that count the failures of its index."""
    if replaced is None:
        return {INDEX_FAILURES: "0"}
    counts = judge_failure(job["spec"].get("podFailurePolicy"), replaced).counts
    failures = _number(replaced, INDEX_FAILURES) + counts
    ignored = _number(replaced, INDEX_IGNORED) + (not counts)
    annotations = {INDEX_FAILURES: str(failures)}
    if ignored:
        annotations[INDEX_IGNORED] = str(ignored)
    return annotations


def _to_remove(found: View, least: int) -> list[Obj]:
    """At least so many active pods to delete; of an Indexed Job all that have no index or a doubled one."""
    remove: list[Obj] = []
    left = list(found.active)
    if is_indexed(found.job):
        by_index: dict[int | None, list[Obj]] = {}
        for pod in found.active:
            by_index.setdefault(index_of(pod), []).append(pod)
        left = []
        for index, pods in by_index.items():
            if index is None or index >= (found.completions or 0):
                remove += pods
                continue
            ordered = sorted(pods, key=_removal_order)
            remove += ordered[:-1]
            left.append(ordered[-1])
    if len(remove) < least:
        remove += sorted(left, key=_removal_order)[: least - len(remove)]
    return remove


def _removal_order(pod: Obj) -> tuple[Any, ...]:
    """First what does least: not assigned, pending, not ready, ready for the shortest time, youngest."""
    since = podutil.ready_since(pod)
    regular, sidecar = podutil.restarts(pod)
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1, "Running": 2}.get(podutil.phase_of(pod), 0),
        podutil.is_ready(pod),
        -(since.timestamp() if since else 0.0),
        -regular,
        -sidecar,
        -parse_time(pod["metadata"]["creationTimestamp"]).timestamp(),
    )
