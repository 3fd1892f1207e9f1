"""How many EndpointSlices there are and how they change: the numbers by which churn and waste are judged."""

from __future__ import annotations

from dataclasses import dataclass

from shipwheel.client.metrics import Metrics, exponential

_PREFIX = "endpoint_slice_controller"


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one Service: endpoints, slices there are, and slices there would be if all were full."""

    endpoints: int = 0
    actual: int = 0
    desired: int = 0


def slices_for(endpoints: int, most: int) -> int:
    """The fewest slices that hold so many endpoints of the same ports."""
    return -(-endpoints // most)


class SliceMeter:
    def __init__(self, metrics: Metrics) -> None:
        buckets = exponential(2, 2, 15)
        self._added = metrics.histogram(
            f"{_PREFIX}_endpoints_added_per_sync", "[BETA] Number of endpoints added on each Service sync", buckets
        )
        self._removed = metrics.histogram(
            f"{_PREFIX}_endpoints_removed_per_sync", "[BETA] Number of endpoints removed on each Service sync", buckets
        )
        self._endpoints = metrics.gauge(f"{_PREFIX}_endpoints_desired", "[BETA] Number of endpoints desired")
        self._actual = metrics.gauge(f"{_PREFIX}_num_endpoint_slices", "[BETA] Number of EndpointSlices")
        self._desired = metrics.gauge(
            f"{_PREFIX}_desired_endpoint_slices",
            "[BETA] Number of EndpointSlices that would exist with perfect endpoint allocation",
        )
        self.changes = metrics.counter(f"{_PREFIX}_changes", "[ALPHA] Number of EndpointSlice changes", ("operation",))
        self._changed = metrics.histogram(
            f"{_PREFIX}_endpointslices_changed_per_sync",
            "[ALPHA] Number of EndpointSlices changed on each Service sync",
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            ("topology", "traffic_distribution"),
        )
        self._services = metrics.gauge(
            f"{_PREFIX}_services_count_by_traffic_distribution",
            "[BETA] Number of Services using some specific trafficDistribution",
            ("traffic_distribution",),
        )
        self._known: dict[str, Totals] = {}
        self._distributions: dict[str, str] = {}

    def synced(
        self, key: str, totals: Totals, *, added: int, removed: int, changed: int, topology: str, distribution: str
    ) -> None:
        """One look at a Service has come to this. `topology` is `Auto` or `Disabled`."""
        self._added.observe(added)
        self._removed.observe(removed)
        self._changed.labels(topology, distribution).observe(changed)
        self._replace(key, totals)
        self._follow(key, distribution)

    def forget(self, key: str) -> None:
        """The Service is gone."""
        self._replace(key, Totals())
        del self._known[key]
        self._follow(key, "")

    def _replace(self, key: str, totals: Totals) -> None:
        before = self._known.get(key, Totals())
        self._known[key] = totals
        self._endpoints.inc(totals.endpoints - before.endpoints)
        self._actual.inc(totals.actual - before.actual)
        self._desired.inc(totals.desired - before.desired)

    def _follow(self, key: str, distribution: str) -> None:
        before = self._distributions.pop(key, "")
        if distribution:
            self._distributions[key] = distribution
        if before != distribution:
            if before:
                self._services.labels(before).dec()
            if distribution:
                self._services.labels(distribution).inc()
