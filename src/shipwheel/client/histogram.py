"""A histogram that may be asked for anywhere: prometheus-client's takes locks and counts its way up to the bucket.

A pod that is scheduled is measured some fifteen times. Who observes is in one thread, that of the event loop; from
others an observation may be lost now and then, and nothing worse.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """The values of one set of labels."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, each without those before it."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.sum += value
        self.counts[bisect_left(self.bounds, value)] += 1


class Histogram(Collector):
    """`bounds` are the upper bounds of the buckets, in order, without the last (infinity)."""

    def __init__(self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._bounds = tuple(bounds)
        self._edges = [*map(floatToGoString, self._bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Series] = {}
        if not labels:
            self.observe = self.labels().observe

    def labels(self, *values: str) -> Series:
        """The series of these values of the labels."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not as many as {values}")
            series = self._series[values] = Series(self._bounds)
        return series

    def remove(self, *values: str) -> None:
        """Forget a series. KeyError when there is none of these values."""
        del self._series[values]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, series in self._series.items():
            total, buckets = 0, []
            for edge, count in zip(self._edges, series.counts, strict=True):
                total += count
                buckets.append((edge, total))
            family.add_metric(values, buckets, series.sum)
        yield family
