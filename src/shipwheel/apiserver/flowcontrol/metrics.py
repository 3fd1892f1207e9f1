"""What `/metrics` tells of priority and fairness, under upstream's names.

Everything is looked up when somebody reads it: what is under way in the queues, what has been in the tallies. Two
metrics of upstream's are missing: `epoch_advance_total`, because nothing here overflows, and
`read_vs_write_current_requests`, which would cost every request more than it tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from shipwheel.apiserver.flowcontrol.fairness import PriorityAndFairness
from shipwheel.apiserver.flowcontrol.level import Level
from shipwheel.apiserver.flowcontrol.tally import Tally
from shipwheel.client.histogram import Series

_LEVEL = ("priority_level",)
_FLOW = ("priority_level", "flow_schema")
_SEATS = (1, 2, 4, 8, 16, 32, 64, 100)
_STAGE = "(initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem"
_TIMED = "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of"


class FairnessMetrics(Collector):
    def __init__(self, fairness: PriorityAndFairness) -> None:
        self._fairness = fairness

    def collect(self) -> Iterator[Metric]:
        self._fairness.refresh()
        self._fairness.look_back()
        yield from self._limits()
        yield from self._progress()
        yield from self._under_way()
        yield from self._counted()
        yield from self._distributions()
        yield from self._usage()

    def _limits(self) -> Iterator[Metric]:
        levels = self._fairness.levels.values()
        for name, help, read in (
            ("nominal_limit_seats", "[BETA] Nominal number of execution seats configured for each priority level",
             lambda level: level.limits.nominal),
            ("request_concurrency_limit",
             "[ALPHA] Nominal number of execution seats configured for each priority level",
             lambda level: level.limits.nominal),
            ("lower_limit_seats",
             "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
             lambda level: level.limits.lower),
            ("upper_limit_seats",
             "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
             lambda level: level.limits.upper),
            ("current_limit_seats",
             "[ALPHA] current derived number of execution seats available to each priority level",
             lambda level: level.current),
            ("demand_seats_high_watermark", "[ALPHA] High watermark, over last adjustment period, of demand_seats",
             lambda level: level.demand.high),
            ("demand_seats_average", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats",
             lambda level: level.demand.average),
            ("demand_seats_stdev",
             "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
             lambda level: level.demand.deviation),
            ("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", lambda level: level.demand.smoothed),
            ("target_seats", "[ALPHA] Seat allocation targets", lambda level: level.target),
        ):  # fmt: skip
            family = _gauge(name, help, _LEVEL)
            for level in levels:
                family.add_metric((level.name,), read(level))
            yield family
        fraction = _gauge(
            "seat_fair_frac",
            "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it",
        )
        fraction.add_metric((), self._fairness.fair_fraction)
        yield fraction

    def _progress(self) -> Iterator[Metric]:
        current = _gauge("current_r", "[ALPHA] R(time of last change)", _LEVEL)
        dispatched = _gauge("dispatch_r", "[ALPHA] R(time of last dispatch)", _LEVEL)
        latest = _gauge("latest_s", "[ALPHA] S(most recently dispatched request)", _LEVEL)
        bounds = _gauge(
            "next_s_bounds",
            "[ALPHA] min and max, over queues, of S(oldest waiting request in queue)",
            (*_LEVEL, "bound"),
        )
        discounted = _gauge(
            "next_discounted_s_bounds",
            "[ALPHA] min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
            (*_LEVEL, "bound"),
        )
        for level in self._fairness.levels.values():
            current.add_metric((level.name,), level.queues.r)
            if level.queuing is None:
                continue
            progress = level.queues.progress
            dispatched.add_metric((level.name,), progress.r)
            latest.add_metric((level.name,), progress.chosen)
            bounds.add_metric((level.name, "max"), progress.high)
            bounds.add_metric((level.name, "min"), progress.low)
            discounted.add_metric((level.name, "max"), progress.high_discounted)
            discounted.add_metric((level.name, "min"), progress.low_discounted)
        yield from (current, dispatched, latest, bounds, discounted)

    def _under_way(self) -> Iterator[Metric]:
        requests: dict[bool, Counter[tuple[str, str]]] = {True: Counter(), False: Counter()}
        seats: dict[bool, Counter[tuple[str, str]]] = {True: Counter(), False: Counter()}
        for executing, place in self._fairness.places():
            flow = (place.flow.level.name, place.flow.schema)
            requests[executing][flow] += 1
            seats[executing][flow] += place.width.seats
        executing_requests = (
            "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API "
            "Priority and Fairness subsystem"
        )
        for name, help, counts in (
            ("current_executing_requests", executing_requests, requests[True]),
            ("current_executing_seats",
             f"[BETA] Concurrency (number of seats) occupied by the currently executing {_STAGE}", seats[True]),
            ("request_concurrency_in_use",
             f"[ALPHA] Concurrency (number of seats) occupied by the currently executing {_STAGE}", seats[True]),
            ("current_inqueue_requests",
             "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
             requests[False]),
            ("current_inqueue_seats",
             "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
             seats[False]),
        ):  # fmt: skip
            family = _gauge(name, help, _FLOW)
            for flow in self._fairness.tallies:
                family.add_metric(flow, counts[flow])
            yield family

    def _counted(self) -> Iterator[Metric]:
        dispatched = _counter(
            "dispatched_requests_total", "[BETA] Number of requests executed by API Priority and Fairness subsystem"
        )
        rejected = _counter(
            "rejected_requests_total",
            "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
            (*_FLOW, "reason"),
        )
        unaccommodated = _counter(
            "request_dispatch_no_accommodation_total",
            "[ALPHA] Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
        )
        for flow, tally in self._fairness.tallies.items():
            dispatched.add_metric(flow, tally.at_once + sum(tally.waited.counts))
            for reason, count in tally.rejected.items():
                rejected.add_metric((*flow, reason), count)
            if tally.unaccommodated:
                unaccommodated.add_metric(flow, tally.unaccommodated)
        yield from (dispatched, rejected, unaccommodated)

    def _distributions(self) -> Iterator[Metric]:
        lengths = _histogram(
            "request_queue_length_after_enqueue",
            "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is "
            "enqueued",
            _FLOW,
        )
        waits = _histogram(
            "request_wait_duration_seconds",
            "[BETA] Length of time a request spent waiting in its queue",
            (*_FLOW, "execute"),
        )
        executions = _histogram(
            "request_execution_seconds",
            "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in "
            "the API Priority and Fairness subsystem",
            (*_FLOW, "type"),
        )
        watches = _histogram(
            "watch_count_samples",
            "[ALPHA] count of watchers for mutating requests in API Priority and Fairness",
            _FLOW,
        )
        seats = _histogram(
            "work_estimated_seats",
            "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API "
            "Priority and Fairness",
            _FLOW,
        )
        for flow, tally in self._fairness.tallies.items():
            level = self._fairness.levels.get(flow[0])
            if level is not None and level.queuing is not None:
                _add(lengths, flow, _with(tally.lengths, 1, tally.at_once))
            if level is not None and not level.exempt:
                _add(waits, (*flow, "true"), _with(tally.waited, 0, tally.at_once))
                if tally.rejected:
                    _add(waits, (*flow, "false"), tally.refused)
            for kind, series in (("regular", tally.executed), ("watch", tally.watched)):
                if any(series.counts):
                    _add(executions, (*flow, kind), series)
            if any(tally.watches.counts):
                _add(watches, flow, tally.watches)
            _add(seats, flow, _seats_of(tally))
        yield from (lengths, waits, executions, watches, seats)

    def _usage(self) -> Iterator[Metric]:
        demand = _histogram(
            "demand_seats",
            f"{_TIMED} (the number of seats each priority level could use) / (nominal number of seats for that level)",
            _LEVEL,
        )
        seats = _histogram(
            "priority_level_seat_utilization",
            f"{_TIMED} utilization of seats for any stage of execution (but only initial stage for WATCHes)",
            (*_LEVEL, "phase"),
        )
        requests = _histogram(
            "priority_level_request_utilization",
            f"{_TIMED} number of requests (as a fraction of the relevant limit) waiting or in any stage of "
            "execution (but only initial stage for WATCHes)",
            ("phase", *_LEVEL),
        )
        level: Level
        for level in self._fairness.levels.values():
            _add(demand, (level.name,), level.usage.demand)
            _add(seats, (level.name, "executing"), level.usage.seats)
            _add(requests, ("executing", level.name), level.usage.executing)
            _add(requests, ("waiting", level.name), level.usage.waiting)
        yield from (demand, seats, requests)


def _gauge(name: str, help: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"apiserver_flowcontrol_{name}", help, labels=labels)


def _counter(name: str, help: str, labels: tuple[str, ...] = _FLOW) -> CounterMetricFamily:
    return CounterMetricFamily(f"apiserver_flowcontrol_{name}", help, labels=labels)


def _histogram(name: str, help: str, labels: tuple[str, ...]) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"apiserver_flowcontrol_{name}", help, labels=labels)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], series: Series) -> None:
    edges = [*map(floatToGoString, series.bounds), "+Inf"]
    family.add_metric(labels, list(zip(edges, accumulate(series.counts), strict=True)), series.sum)


def _with(series: Series, value: int, count: int) -> Series:
    """The same with `count` more observations of a value."""
    more = Series(series.bounds)
    if count:
        more.observe(value)
    more.counts = [each * count + known for each, known in zip(more.counts, series.counts, strict=True)]
    more.sum = series.sum + value * count
    return more


def _seats_of(tally: Tally) -> Series:
    found = Series(_SEATS)
    for seats, count in tally.widths().items():
        found = _with(found, seats, count)
    return found
