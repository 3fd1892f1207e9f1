"""The numbers about EndpointSlices."""

from __future__ import annotations

import pytest

from shipwheel.client.metrics import Metrics
from shipwheel.controllers.endpointslice_meter import SliceMeter, Totals, slices_for


@pytest.mark.parametrize(("endpoints", "slices"), [(0, 0), (1, 1), (100, 1), (101, 2), (1000, 10)])
def test_the_fewest_slices(endpoints, slices):
    assert slices_for(endpoints, 100) == slices


def test_totals_follow_the_services():
    metrics = Metrics(process=False)
    meter = SliceMeter(metrics)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"endpoint_slice_controller_{name}", labels)

    def sync(key: str, totals: Totals, distribution: str = "") -> None:
        meter.synced(key, totals, added=3, removed=1, changed=2, topology="Disabled", distribution=distribution)

    sync("d/a", Totals(150, 3, 2), "PreferClose")
    sync("d/b", Totals(5, 1, 1))
    assert (value("endpoints_desired"), value("num_endpoint_slices"), value("desired_endpoint_slices")) == (155, 4, 3)
    assert value("services_count_by_traffic_distribution", traffic_distribution="PreferClose") == 1
    sync("d/a", Totals(50, 1, 1), "PreferSameNode")
    assert (value("endpoints_desired"), value("num_endpoint_slices"), value("desired_endpoint_slices")) == (55, 2, 2)
    assert value("services_count_by_traffic_distribution", traffic_distribution="PreferClose") == 0
    assert value("services_count_by_traffic_distribution", traffic_distribution="PreferSameNode") == 1
    meter.forget("d/a")
    meter.forget("d/b")
    meter.forget("d/never")
    assert (value("endpoints_desired"), value("num_endpoint_slices"), value("desired_endpoint_slices")) == (0, 0, 0)
    assert value("endpoints_added_per_sync_sum") == 9
    assert value("endpointslices_changed_per_sync_count", topology="Disabled", traffic_distribution="") == 1
