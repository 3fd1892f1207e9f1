"""What is shown of priority and fairness: metrics and dumps."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shipwheel.apiserver.flowcontrol.dumps import PREFIX, Dumps, table
from shipwheel.apiserver.flowcontrol.metrics import FairnessMetrics
from shipwheel.apiserver.flowcontrol.places import TooMany
from tests.apiserver.flowcontrol.test_fairness import ADMIN, BOB, CARL, CREATE, QUEUED, REJECTED, Cluster
from tests.apiserver.flowcontrol.test_width import get

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(cluster: Cluster) -> Samples:
    registry = CollectorRegistry()
    registry.register(FairnessMetrics(cluster.flow))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name.removeprefix("apiserver_flowcontrol_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def busy() -> Cluster:
    """Bob has one request executing and two waiting; carl was refused, the administrator served."""
    cluster = Cluster()
    cluster.add("short", "bob", QUEUED)
    cluster.add("strict", "carl", REJECTED)
    cluster.get(ADMIN, CREATE).leave()
    for _ in range(3):
        cluster.get(BOB)
    cluster.get(CARL)
    with pytest.raises(TooMany):
        cluster.get(CARL)
    return cluster


async def test_metrics() -> None:
    cluster = await busy()
    found = samples(cluster)
    short = {"priority_level": "short", "flow_schema": "short"}
    strict = {"priority_level": "strict", "flow_schema": "strict"}
    exempt = {"priority_level": "exempt", "flow_schema": "exempt"}
    assert of(found, "nominal_limit_seats", priority_level="short") == 1
    assert of(found, "lower_limit_seats", priority_level="short") == 1
    assert of(found, "upper_limit_seats", priority_level="short") == 1
    assert of(found, "current_limit_seats", priority_level="short") == 1
    assert of(found, "current_executing_requests", **short) == 1
    assert of(found, "current_executing_seats", **short) == 1
    assert of(found, "current_inqueue_requests", **short) == 2
    assert of(found, "current_inqueue_seats", **short) == 2
    assert of(found, "dispatched_requests_total", **short) == 1
    assert of(found, "dispatched_requests_total", **exempt) == 1
    assert of(found, "rejected_requests_total", reason="concurrency-limit", **strict) == 1
    assert of(found, "request_queue_length_after_enqueue_count", **short) == 3
    assert of(found, "request_queue_length_after_enqueue_sum", **short) == 1 + 1 + 2
    assert of(found, "request_wait_duration_seconds_count", execute="true", **short) == 1
    assert of(found, "request_wait_duration_seconds_count", execute="false", **strict) == 1
    assert of(found, "request_execution_seconds_count", type="regular", **exempt) == 1
    assert of(found, "work_estimated_seats_bucket", le="1.0", **short) == 3
    assert of(found, "watch_count_samples_count", **exempt) == 1
    assert of(found, "next_s_bounds", priority_level="short", bound="min") >= 0
    assert ("seat_fair_frac", frozenset()) in found
    names = {name for name, _ in found}
    assert {"demand_seats_bucket", "priority_level_seat_utilization_sum", "target_seats", "current_r"} <= names


async def test_how_busy_levels_were() -> None:
    cluster = await busy()
    level = cluster.flow.levels["short"]
    level.look_back(cluster.flow.clock.monotonic() + 10)
    utilization = level.usage.seats
    assert utilization.counts[utilization.bounds.index(1)] == pytest.approx(10e9, rel=0.01)
    assert level.usage.demand.counts[level.usage.demand.bounds.index(4)] == pytest.approx(10e9, rel=0.01)
    assert level.usage.waiting.sum == pytest.approx(10e9 * 2 / 12, rel=0.01)


def test_tables() -> None:
    assert table([("A", "LongName", "C"), ("x", 1, "")]) == "A,      LongName, C\nx,      1,        \n"


async def lines(cluster: Cluster, what: str) -> list[list[str]]:
    path = f"{PREFIX}dump_{what}"
    answer = await Dumps(cluster.flow).paths[path.partition("?")[0]](get(path)[1], ADMIN)
    text = answer.body.decode()  # type: ignore[union-attr]
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]


async def test_dumped_levels() -> None:
    header, *rows = await lines(await busy(), "priority_levels")
    assert header[:3] == ["PriorityLevelName", "ActiveQueues", "IsIdle"]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["short"][1:3] == ["false", "false"]
    assert by_name["short"][3:] == ["2", "1", "1", "0", "0", "0"]
    assert by_name["strict"] == ["0", "false", "false", "0", "1", "1", "1", "0", "0"]
    assert by_name["system"] == ["0", "true", "false", "0", "0", "0", "0", "0", "0"]


async def test_dumped_queues() -> None:
    header, *rows = await lines(await busy(), "queues")
    assert header[-1] == "TotalWorkSum"
    short = [row for row in rows if row[0] == "short"]
    assert [row[1] for row in short] == ["0", "1", "2", "3"]
    (used,) = [row for row in short if row[4] != "0"]
    assert used[2:5] == ["2", "1", "1"]
    assert used[6:] == ["2", "2", "0.00600000ss"]


async def test_dumped_requests() -> None:
    header, *rows = await lines(await busy(), "requests?includeRequestDetails=1")
    assert header[4] == "FlowDistingsher"
    found = [dict(zip(header, row, strict=True)) for row in rows]
    short = [row for row in found if row["PriorityLevelName"] == "short"]
    assert sorted(row["RequestIndexInQueue"] for row in short) == ["-1", "0", "1"]
    (executing,) = [row for row in short if row["RequestIndexInQueue"] == "-1"]
    assert executing["StartTime"][:2] == "20"
    assert {row["StartTime"] for row in short if row is not executing} == {"0001-01-01T00:00:00Z"}
    assert (executing["UserName"], executing["Verb"], executing["APIVersion"]) == ("bob", "get", "v1")
    (strict,) = [row for row in found if row["PriorityLevelName"] == "strict"]
    assert (strict["QueueIndex"], strict["AdditionalLatency"]) == ("-1", "0s")
    assert len((await lines(await busy(), "requests"))[0]) == 10
