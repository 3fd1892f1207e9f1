"""`job_controller_*`: what upstream's Job controller tells of itself."""

from __future__ import annotations

from prometheus_client import Counter

from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics, exponential
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.job.indexes import Indexes
from shipwheel.controllers.job.plan import FINALIZER, View, is_indexed

_MODE = "completion_mode"


class JobMetrics:
    def __init__(self, metrics: Metrics) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            return metrics.counter(f"job_controller_{name}", help, labels)

        self._syncs = counter("job_syncs_total", "[STABLE] The number of job syncs", _MODE, "result", "action")
        self._sync_seconds = metrics.histogram(
            "job_controller_job_sync_duration_seconds",
            "[STABLE] The time it took to sync a job",
            exponential(0.004, 2, 15),
            (_MODE, "result", "action"),
        )
        self._finished = counter(
            "jobs_finished_total", "[STABLE] The number of finished jobs", _MODE, "result", "reason"
        )
        self._foreign = counter(
            "jobs_by_external_controller_total",
            "[ALPHA] The number of Jobs managed by an external controller",
            "controller_name",
        )
        self._pods_finished = counter(
            "job_pods_finished_total", "[STABLE] The number of finished Pods that are fully tracked", _MODE, "result"
        )
        self._handled = counter(
            "pod_failures_handled_by_failure_policy_total",
            "[BETA] The number of failed Pods handled by failure policy with respect to the failure policy action "
            "applied based on the matched rule. Possible values of the action label correspond to the possible values "
            'for the failure policy rule action, which are: "FailJob", "Ignore" and "Count".',
            "action",
        )
        self._tracked = counter(
            "terminated_pods_tracking_finalizer_total",
            "[BETA] The number of terminated pods (phase=Failed|Succeeded) that have the finalizer "
            'batch.kubernetes.io/job-tracking The event label can be "add" or "delete".',
            "event",
        )
        self._indexes = counter(
            "job_finished_indexes_total",
            "[ALPHA] The number of finished indexes. Possible values for the status label are: "
            '"succeeded", "failed". Possible values for the backoffLimit label are: "perIndex" and "global"',
            "status",
            "backoffLimit",
        )
        self._created = counter(
            "job_pods_creation_total",
            "[ALPHA] The number of Pods created by the Job controller labelled with a reason for the Pod creation. "
            "This metric also distinguishes between Pods created using different PodReplacementPolicy settings. "
            'Possible values of the "reason" label are: "new", "recreate_terminating_or_failed", "recreate_failed". '
            'Possible values of the "status" label are: "succeeded", "failed".',
            "reason",
            "status",
        )

    def synced(self, job: Obj, action: str, seconds: float, *, ok: bool) -> None:
        labels = (_mode(job), "success" if ok else "error", action)
        self._syncs.labels(*labels).inc()
        self._sync_seconds.labels(*labels).observe(seconds)

    def finished(self, job: Obj, verdict: Obj) -> None:
        result = "succeeded" if verdict["type"] == "Complete" else "failed"
        self._finished.labels(_mode(job), result, verdict.get("reason", "")).inc()

    def managed_by(self, other: str) -> None:
        self._foreign.labels(other).inc()

    def counted(self, job: Obj, old: Obj, new: Obj) -> None:
        """What has been added to the counters from one status to the next."""
        if is_indexed(job):
            per_index = job["spec"].get("backoffLimitPerIndex") is not None
            limit = "perIndex" if per_index else "global"
            succeeded = _indexes_added(job, old, new, "completedIndexes")
            self._indexes.labels("succeeded", limit).inc(succeeded)
            if per_index:
                self._indexes.labels("failed", limit).inc(_indexes_added(job, old, new, "failedIndexes"))
        else:
            succeeded = max((new.get("succeeded") or 0) - (old.get("succeeded") or 0), 0)
        failed = max((new.get("failed") or 0) - (old.get("failed") or 0), 0)
        for result, number in (("succeeded", succeeded), ("failed", failed)):
            self._pods_finished.labels(_mode(job), result).inc(number)

    def handled(self, action: str) -> None:
        """The failure policy has had its say about a failed pod."""
        self._handled.labels(action).inc()

    def tracked(self, new: Obj | None, old: Obj | None) -> None:
        """A pod has changed: it may have come to be, or ceased to be, an ended one that is still to be counted."""
        now, before = _is_tracked_end(new), _is_tracked_end(old)
        if now != before:
            self._tracked.labels("add" if now else "delete").inc()

    def created(self, found: View, succeeded: int, failed: int) -> None:
        if found.job["spec"].get("podReplacementPolicy") == "Failed" and found.failed > 0:
            reason = "recreate_failed"
        elif found.failed > 0 or found.terminating > 0:
            reason = "recreate_terminating_or_failed"
        else:
            reason = "new"
        for status, number in (("succeeded", succeeded), ("failed", failed)):
            if number:
                self._created.labels(reason, status).inc(number)


def _mode(job: Obj) -> str:
    return "Indexed" if is_indexed(job) else "NonIndexed"


def _indexes_added(job: Obj, old: Obj, new: Obj, field: str) -> int:
    completions = job["spec"].get("completions") or 0
    now, before = (len(Indexes.parse(status.get(field) or "", completions)) for status in (new, old))
    return max(now - before, 0)


def _is_tracked_end(pod: Obj | None) -> bool:
    return pod is not None and podutil.is_terminal(pod) and FINALIZER in (pod["metadata"].get("finalizers") or ())
