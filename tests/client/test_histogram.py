"""The histogram shows what prometheus-client's own shows for the same observations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shipwheel.client.metrics import Metrics

BOUNDS = (0.5, 1.0, 2.5)
VALUES = st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.sampled_from(BOUNDS), st.floats(0, 5))))


@given(VALUES)
def test_it_is_exposed_like_prometheus_clients(values: list[tuple[str, float]]) -> None:
    ours = Metrics(process=False)
    registry = CollectorRegistry()
    theirs = Histogram("waits_seconds", "How long", ("kind",), registry=registry, buckets=BOUNDS)
    mine = ours.histogram("waits_seconds", "How long", BOUNDS, ("kind",))
    for kind, value in values:
        mine.labels(kind).observe(value)
        theirs.labels(kind).observe(value)
    assert ours.exposition() == generate_latest(registry)


def test_without_labels_it_is_there_from_the_start() -> None:
    metrics = Metrics(process=False)
    histogram = metrics.histogram("waits_seconds", "How long", BOUNDS)
    assert b"waits_seconds_count 0.0" in metrics.exposition()
    histogram.observe(0.7)
    assert b'waits_seconds_bucket{le="1.0"} 1.0' in metrics.exposition()
    assert b'waits_seconds_bucket{le="0.5"} 0.0' in metrics.exposition()


def test_as_many_values_as_labels() -> None:
    histogram = Metrics(process=False).histogram("waits_seconds", "How long", BOUNDS, ("kind",))
    with pytest.raises(ValueError, match="waits_seconds"):
        histogram.labels("a", "b")
    histogram.labels("a").observe(1)
    histogram.remove("a")
    with pytest.raises(KeyError):
        histogram.remove("a")
