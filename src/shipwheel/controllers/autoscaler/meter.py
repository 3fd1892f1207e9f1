"""The autoscaler's metrics about itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shipwheel.client.metrics import exponential
from shipwheel.controllers.framework import Context

_PREFIX = "horizontal_pod_autoscaler_controller"
_ACTION = "The label 'action' should be either 'scale_down', 'scale_up', or 'none'."
_ERROR = "The label 'error' should be either 'spec', 'internal', or 'none'."
_FIRST = (
    "Note that if both spec and internal errors happen during a reconciliation, the first one to occur is "
    "reported in `error` label."
)
_TYPE = "The label 'metric_type' corresponds to HPA.spec.metrics[*].type"


@dataclass(slots=True)
class Observation:
    """What came of one reconciliation."""

    action: str = "none"
    error: str = "none"


@dataclass(slots=True)
class Computation:
    """What one metric asked for; None: it failed."""

    wanted: int | None = None


class Meter:
    def __init__(self, ctx: Context) -> None:
        self._clock = ctx.clock
        metrics = ctx.metrics
        labels, of_metric = ("action", "error"), ("action", "error", "metric_type")
        buckets = exponential(0.001, 2, 15)
        self._reconciliations = metrics.counter(
            f"{_PREFIX}_reconciliations_total",
            f"[BETA] Number of reconciliations of HPA controller. {_ACTION} Also, {_ERROR} {_FIRST}",
            labels,
        )
        self._reconciliation_seconds = metrics.histogram(
            f"{_PREFIX}_reconciliation_duration_seconds",
            f"[BETA] The time(seconds) that the HPA controller takes to reconcile once. {_ACTION} Also, {_ERROR} "
            f"{_FIRST}",
            buckets,
            labels,
        )
        self._computations = metrics.counter(
            f"{_PREFIX}_metric_computation_total",
            f"[BETA] Number of metric computations. {_ACTION} Also, {_ERROR} {_TYPE}",
            of_metric,
        )
        self._computation_seconds = metrics.histogram(
            f"{_PREFIX}_metric_computation_duration_seconds",
            f"[BETA] The time(seconds) that the HPA controller takes to calculate one metric. {_ACTION} {_ERROR} "
            f"{_TYPE}",
            buckets,
            of_metric,
        )
        self.autoscalers = metrics.gauge(
            f"{_PREFIX}_num_horizontal_pod_autoscalers", "[ALPHA] Current number of controlled HPA objects."
        )
        self.desired = metrics.gauge(
            f"{_PREFIX}_desired_replicas",
            "[ALPHA] Current desired replica count for HPA objects.",
            ("namespace", "hpa_name"),
        )

    @contextmanager
    def reconciliation(self) -> Iterator[Observation]:
        start, seen = self._clock.monotonic(), Observation()
        try:
            yield seen
        except Exception:
            seen.error = "internal"
            raise
        finally:
            self._reconciliations.labels(seen.action, seen.error).inc()
            duration = self._clock.monotonic() - start
            self._reconciliation_seconds.labels(seen.action, seen.error).observe(duration)

    @contextmanager
    def metric(self, kind: str, current: int) -> Iterator[Computation]:
        """One metric of type `kind` is asked, while there are `current` replicas."""
        start, seen = self._clock.monotonic(), Computation()
        try:
            yield seen
        finally:
            error = "none" if seen.wanted is not None else "internal"
            wanted = current if seen.wanted is None else seen.wanted
            action = "scale_up" if wanted > current else "scale_down" if wanted < current else "none"
            self._computations.labels(action, error, kind).inc()
            self._computation_seconds.labels(action, error, kind).observe(self._clock.monotonic() - start)
