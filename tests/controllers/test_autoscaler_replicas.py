"""From metrics to replicas, and how fast they may change: the autoscaler's cores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj
from shipwheel.controllers.autoscaler import behavior as taming
from shipwheel.controllers.autoscaler import replicas as counting
from shipwheel.controllers.autoscaler.behavior import Memory, remember, tame
from shipwheel.controllers.autoscaler.metrics import resource_metrics, shown_selector
from shipwheel.controllers.autoscaler.replicas import NoReplicas, PodMetric, Settings, Tolerances

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = Settings(cpu_initialization_period=300, initial_readiness_delay=30)
TENTH = Tolerances(0.1, 0.1)


def pod(
    name: str,
    *,
    phase: str = "Running",
    ready: bool | None = True,
    age: float = 3600,
    changed: float = 3500,
    deleting: bool = False,
    request: str | None = "1",
    **spec: object,
) -> Obj:
    """A pod that started `age` seconds ago and whose readiness changed `changed` seconds ago."""
    resources = {"requests": {"cpu": request}} if request else {}
    made: Obj = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": resources}], **spec},
        "status": {"phase": phase, "startTime": rfc3339(NOW - timedelta(seconds=age))},
    }
    if deleting:
        made["metadata"]["deletionTimestamp"] = rfc3339(NOW)
    if ready is not None:
        since = rfc3339(NOW - timedelta(seconds=changed))
        made["status"]["conditions"] = [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}]
    return made


def metrics(**values: int) -> dict[str, PodMetric]:
    """Values in thousandths, measured just now."""
    return {name: PodMetric(value, NOW) for name, value in values.items()}


class TestGroups:
    @pytest.mark.parametrize(
        ("it", "measured", "resource", "expected"),
        [
            (pod("a"), True, "cpu", "ready"),
            (pod("a", deleting=True), True, "cpu", "ignored"),
            (pod("a", phase="Failed"), True, "cpu", "ignored"),
            (pod("a", phase="Pending"), True, "cpu", "unready"),
            (pod("a", phase="Pending"), False, "memory", "unready"),
            (pod("a"), False, "cpu", "missing"),
            (pod("a", ready=False), False, "cpu", "missing"),
            (pod("a", ready=None), True, "cpu", "unready"),
            (pod("a", ready=None), True, "memory", "ready"),
            # Within the five minutes of starting, what is measured before it was ready says nothing.
            (pod("a", ready=False, age=60, changed=50), True, "cpu", "unready"),
            (pod("a", ready=True, age=200, changed=100), True, "cpu", "ready"),
            (pod("a", ready=True, age=200, changed=30), True, "cpu", "unready"),
            # After them, one that has never been ready does not count, one that was does.
            (pod("a", ready=False, age=600, changed=590), True, "cpu", "unready"),
            (pod("a", ready=False, age=600, changed=10), True, "cpu", "ready"),
            (pod("a", ready=False, age=600, changed=590), True, "memory", "ready"),
        ],
    )
    def test_of_a_pod(self, it, measured, resource, expected):
        groups = counting.group([it], metrics(a=1) if measured else {}, resource, SETTINGS, NOW)
        found = [name for name in ("unready", "missing", "ignored") if getattr(groups, name)]
        assert (found or ["ready"]) == [expected]
        assert groups.ready == (expected == "ready")

    def test_a_pod_without_a_start_time_is_starting(self):
        it = pod("a")
        del it["status"]["startTime"]
        assert counting.group([it], metrics(a=1), "cpu", SETTINGS, NOW).unready == {"a"}


class TestRequests:
    def test_containers_and_sidecars_are_added_up(self):
        sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}}}
        once = {"name": "i", "resources": {"requests": {"cpu": "5"}}}
        assert counting.requests_of([pod("a", initContainers=[sidecar, once])], "cpu") == {"a": 1250}

    def test_of_one_container(self):
        two = [{"name": name, "resources": {"requests": {"cpu": cpu}}} for name, cpu in (("x", "1"), ("y", "2"))]
        made = pod("a")
        made["spec"]["containers"] = two
        assert counting.requests_of([made], "cpu", "y") == {"a": 2000}

    def test_of_the_whole_pod(self):
        assert counting.requests_of([pod("a", resources={"requests": {"cpu": "3"}})], "cpu") == {"a": 3000}
        # A container that is named counts by its own.
        assert counting.requests_of([pod("a", resources={"requests": {"cpu": "3"}})], "cpu", "c") == {"a": 1000}

    @pytest.mark.parametrize(
        ("it", "resource", "container", "message"),
        [
            (pod("a", request=None), "cpu", "", "missing request for cpu in container c of Pod a"),
            (pod("a"), "memory", "", "missing request for memory in container c of Pod a"),
            (pod("a"), "cpu", "other", "container other not found in Pod a"),
        ],
    )
    def test_missing(self, it, resource, container, message):
        with pytest.raises(NoReplicas, match=message):
            counting.requests_of([it], resource, container)


def by_utilization(pods: list[Obj], measured: dict[str, PodMetric], percent: int, current: int) -> counting.Proposal:
    groups = counting.group(pods, measured, "cpu", SETTINGS, NOW)
    return counting.by_utilization(
        pods, measured, lambda: counting.requests_of(pods, "cpu"), percent, current, TENTH, groups
    )


def by_average(pods: list[Obj], measured: dict[str, PodMetric], target: int, current: int) -> counting.Proposal:
    groups = counting.group(pods, measured, "", SETTINGS, NOW)
    return counting.by_average(pods, measured, target, current, TENTH, groups)


STARTING = {"ready": False, "age": 20, "changed": 19}


class TestUtilization:
    @pytest.mark.parametrize(
        ("pods", "values", "percent", "replicas"),
        [
            # (pods' options by name), (use in thousandths), target, replicas wanted
            ({"a": {}, "b": {}, "c": {}}, {"a": 300, "b": 500, "c": 700}, 30, 5),
            ({"a": {}, "b": {}, "c": {}, "d": {}, "e": {}}, {"a": 100, "b": 300, "c": 500, "d": 250, "e": 250}, 50, 3),
            ({"a": {}, "b": {}}, {"a": 1000, "b": 1000}, 100, 2),
            # Within a tenth of the target nothing changes, beyond it does.
            ({"a": {}, "b": {}, "c": {}}, {"a": 1010, "b": 1030, "c": 1020}, 100, 3),
            ({"a": {}, "b": {}, "c": {}}, {"a": 1110, "b": 1110, "c": 1110}, 100, 4),
            ({"a": {}, "b": {}, "c": {}}, {"a": 910, "b": 910, "c": 910}, 100, 3),
            ({"a": {}, "b": {}, "c": {}, "d": {}}, {"a": 700, "b": 700, "c": 700, "d": 700}, 100, 3),
            # Pods that are not ready count as idle when scaling up, not at all when scaling down.
            ({"a": STARTING, "b": {}, "c": {}}, {"a": 300, "b": 500, "c": 700}, 30, 4),
            ({"a": STARTING, "b": {}, "c": STARTING}, {"a": 400, "b": 500, "c": 700}, 30, 3),
            ({"a": STARTING, "b": {}, "c": {}}, {"a": 900, "b": 250, "c": 250}, 50, 1),
            # Pods that are pending have no say, those that ended or are being deleted none either.
            ({"a": {"phase": "Pending"}, "b": {}, "c": {}}, {"b": 500, "c": 700}, 30, 4),
            ({"a": {"phase": "Failed"}, "b": {}, "c": {}}, {"b": 500, "c": 700}, 30, 4),
            ({"a": {"deleting": True}, "b": {}, "c": {}}, {"a": 9000, "b": 500, "c": 700}, 30, 4),
            # Pods without metrics: idle when scaling up, fully used when scaling down.
            ({"a": {}, "b": {}, "c": {}}, {"a": 600, "b": 600}, 30, 4),
            ({"a": {}, "b": {}, "c": {}}, {"a": 400, "b": 950}, 100, 3),
            ({"a": {}, "b": {}, "c": {}, "d": {}}, {"a": 100, "b": 100, "c": 100}, 50, 3),
            # Where the assumption would turn the direction, nothing changes.
            ({"a": {}, "b": {}, "c": {}, "d": {}}, {"a": 1000}, 60, 4),
            ({"a": {}, "b": {}, "c": {}, "d": {}}, {"a": 450}, 50, 4),
            # A pod without metrics counts for more than all of its request when the target does.
            ({"a": {}, "b": {}, "c": {}, "d": {}}, {"a": 2000, "b": 2000, "c": 2000}, 300, 3),
        ],
    )
    def test_replicas(self, pods, values, percent, replicas):
        made = [pod(name, **options) for name, options in pods.items()]
        assert by_utilization(made, metrics(**values), percent, len(made)).replicas == replicas

    def test_what_is_reported(self):
        made = [pod("a"), pod("b", request="3")]
        assert by_utilization(made, metrics(a=1000, b=1000), 50, 2) == counting.Proposal(2, 1000, 50)

    def test_metrics_of_pods_that_are_not_the_target_s_are_left_out(self):
        assert by_utilization([pod("a")], metrics(a=500, stranger=9000), 50, 1).replicas == 1

    @pytest.mark.parametrize(
        ("pods", "values", "message"),
        [
            ([], {"a": 1}, "no pods returned by selector while calculating replica count"),
            ([pod("a")], {}, r"did not receive metrics for targeted pods \(pods might be unready\)"),
            ([pod("a", **STARTING)], {"a": 1}, "did not receive metrics for targeted pods"),
            ([pod("a")], {"stranger": 1}, "no metrics returned matched known pods"),
            ([pod("a", request=None)], {"a": 1}, "missing request for cpu"),
            ([pod("a", request=None)], {}, "did not receive metrics for targeted pods"),
        ],
    )
    def test_no_number(self, pods, values, message):
        with pytest.raises(NoReplicas, match=message):
            by_utilization(pods, metrics(**values), 50, 1)


class TestAverage:
    @pytest.mark.parametrize(
        ("values", "missing", "target", "replicas"),
        [
            ([20_000, 10_000, 30_000], 0, 15_000, 4),
            ([20_000, 10_000, 30_000], 0, 20_000, 3),
            ([12_000] * 5, 0, 20_000, 3),
            ([1_100, 1_100], 0, 1_000, 2),
            ([50_000, 25_000], 1, 25_000, 3),
            ([50_000, 50_000], 1, 25_000, 4),
            ([10_000, 10_000], 2, 20_000, 3),
            ([1], 0, 1_000_000, 1),
        ],
    )
    def test_replicas(self, values, missing, target, replicas):
        measured = {f"p{number}": value for number, value in enumerate(values)}
        made = [pod(name) for name in [*measured, *(f"m{number}" for number in range(missing))]]
        assert by_average(made, metrics(**measured), target, len(made)).replicas == replicas


class TestValues:
    @pytest.mark.parametrize(
        ("usage", "target", "ready", "current", "replicas"),
        [
            (20_000, 10_000, 3, 3, 6),
            (10_500, 10_000, 3, 3, 3),
            (5_000, 10_000, 4, 4, 2),
            (40_000, 10_000, 1, 3, 4),
            # From nothing, the ratio itself.
            (25_000, 10_000, 0, 0, 3),
            (0, 10_000, 0, 0, 0),
            (2**62, 1, 4, 4, 2**31 - 1),
        ],
    )
    def test_one_value(self, usage, target, ready, current, replicas):
        assert counting.by_value(usage, target, lambda: ready, current, TENTH) == replicas

    def test_pods_are_not_counted_without_need(self):
        def fail() -> int:
            raise AssertionError

        assert counting.by_value(10_000, 10_000, fail, 3, TENTH) == 3

    @pytest.mark.parametrize(
        ("usage", "target", "current", "replicas", "average"),
        [
            (8_600, 2_000, 3, 5, 2_867),
            (6_300, 2_000, 3, 3, 2_100),
            (4_000, 2_000, 3, 2, 1_334),
            (4_000, 2_000, 0, 2, 0),
            (0, 2_000, 0, 0, 0),
            (2**63 - 1, 1, 1, 2**31 - 1, 2**63 - 1),
        ],
    )
    def test_one_value_shared(self, usage, target, current, replicas, average):
        found = counting.by_value_per_pod(usage, target, current, TENTH)
        assert found.replicas == replicas
        assert found.average == pytest.approx(average)

    def test_only_running_and_ready_pods_are_ready(self):
        made = [pod("a"), pod("b", ready=False), pod("c", phase="Succeeded"), pod("d", ready=None)]
        assert counting.ready_count(made) == 1
        with pytest.raises(NoReplicas, match="unable to calculate ready pods: no pods returned by selector"):
            counting.ready_count([])


class TestTolerances:
    @pytest.mark.parametrize(
        ("ratio", "within"), [(0.94, False), (0.95, True), (1.0, True), (1.5, True), (1.51, False)]
    )
    def test_each_direction_has_its_own(self, ratio, within):
        assert Tolerances(0.05, 0.5).allow(ratio) is within


pods_of = st.lists(
    st.tuples(
        st.sampled_from(
            [{}, STARTING, {"phase": "Pending"}, {"phase": "Failed"}, {"deleting": True}, {"ready": False}]
        ),
        st.none() | st.integers(0, 5000),
    ),
    min_size=1,
    max_size=8,
)


@given(pods_of, st.integers(1, 300), st.integers(1, 20))
def test_what_is_not_known_never_speaks_for_a_change(described, percent, current):
    """With less known the number is never further from the present one than the known pods alone would have it, and
    never on the other side of it."""
    made = [pod(f"p{index}", **options) for index, (options, _) in enumerate(described)]
    measured = {f"p{index}": value for index, (_, value) in enumerate(described) if value is not None}
    try:
        found = by_utilization(made, metrics(**measured), percent, current)
    except NoReplicas:
        return
    if counting.group(made, metrics(**measured), "cpu", SETTINGS, NOW).missing:
        over = found.percent > percent
        assert found.replicas >= current if over else found.replicas <= current
    assert found.replicas >= 0


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=20), st.integers(10, 90))
def test_more_use_never_means_fewer_pods(used, target):
    made = [pod(f"p{index}") for index in range(len(used))]
    less = by_utilization(made, metrics(**{f"p{index}": value for index, value in enumerate(used)}), target, len(used))
    more = by_utilization(
        made, metrics(**{f"p{index}": value * 2 for index, value in enumerate(used)}), target, len(used)
    )
    assert more.replicas >= less.replicas


class TestResourceMetrics:
    ITEMS = (
        {
            "metadata": {"name": "a"},
            "timestamp": "2026-01-01T12:00:00Z",
            "window": "30s",
            "containers": [
                {"name": "x", "usage": {"cpu": "100m", "memory": "1Ki"}},
                {"name": "y", "usage": {"cpu": "1500u"}},
            ],
        },
        {"metadata": {"name": "b"}, "timestamp": "2026-01-01T12:00:00Z", "window": "30s", "containers": []},
    )

    def test_of_pods(self):
        assert resource_metrics(self.ITEMS, "cpu", "") == {"a": PodMetric(102, NOW, 30.0)}

    def test_of_one_container(self):
        assert resource_metrics(self.ITEMS, "cpu", "x") == {"a": PodMetric(100, NOW, 30.0)}
        assert resource_metrics(self.ITEMS, "memory", "y") == {}

    def test_a_pod_of_which_a_container_is_missing_is_missing(self):
        assert resource_metrics(self.ITEMS, "memory", "") == {}


@pytest.mark.parametrize(
    ("selector", "shown"),
    [
        (None, "nil"),
        (
            {"matchLabels": {"b": "2", "a": "1"}},
            "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{},}",
        ),
        (
            {"matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]},
            "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{"
            "LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}",
        ),
    ],
)
def test_selectors_are_shown_as_upstream_shows_them(selector, shown):
    assert shown_selector(selector) == shown


# Behaviour

UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
DOWN = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


def rules(up: Obj | None = None, down: Obj | None = None) -> Obj:
    return {"scaleUp": {**UP, **(up or {})}, "scaleDown": {**DOWN, **(down or {})}}


def pods_policy(value: int, period: int = 60) -> Obj:
    return {"type": "Pods", "value": value, "periodSeconds": period}


def percent_policy(value: int, period: int = 60) -> Obj:
    return {"type": "Percent", "value": value, "periodSeconds": period}


def once(behavior: Obj | None, current: int, desired: int, minimum: int = 1, maximum: int = 100) -> taming.Tamed:
    return tame(Memory(), behavior, current, desired, minimum, maximum, 300, 1000)


class TestPlainLimits:
    @pytest.mark.parametrize(
        ("current", "desired", "minimum", "maximum", "replicas", "reason"),
        [
            (3, 5, 1, 10, 5, "DesiredWithinRange"),
            (3, 20, 1, 10, 6, "ScaleUpLimit"),
            (1, 20, 1, 10, 4, "ScaleUpLimit"),
            (6, 20, 1, 10, 10, "TooManyReplicas"),
            (6, 12, 1, 12, 12, "DesiredWithinRange"),
            (5, 1, 2, 10, 2, "TooFewReplicas"),
            (5, 5, 1, 10, 5, "DesiredWithinRange"),
        ],
    )
    def test_of(self, current, desired, minimum, maximum, replicas, reason):
        tamed = once(None, current, desired, minimum, maximum)
        assert tamed.replicas == replicas
        able, limited = tamed.conditions
        assert (able.type, able.reason) == ("AbleToScale", "ReadyForNewScale")
        assert (limited.type, limited.reason) == ("ScalingLimited", reason)
        assert limited.status == ("False" if reason == "DesiredWithinRange" else "True")


class TestPolicies:
    @pytest.mark.parametrize(
        ("up", "current", "desired", "replicas", "reason"),
        [
            ({}, 3, 50, 7, "ScaleUpLimit"),
            ({}, 10, 50, 20, "ScaleUpLimit"),
            ({}, 60, 500, 100, "TooManyReplicas"),
            ({"selectPolicy": "Min"}, 10, 50, 14, "ScaleUpLimit"),
            ({"selectPolicy": "Disabled"}, 10, 50, 10, "ScaleUpLimit"),
            ({"policies": [percent_policy(10)]}, 1, 50, 2, "ScaleUpLimit"),
            ({"policies": [pods_policy(1)]}, 1, 2, 2, "DesiredWithinRange"),
        ],
    )
    def test_up(self, up, current, desired, replicas, reason):
        tamed = once(rules(up=up), current, desired)
        assert (tamed.replicas, tamed.conditions[1].reason) == (replicas, reason)

    @pytest.mark.parametrize(
        ("down", "current", "desired", "replicas", "reason"),
        [
            ({}, 10, 2, 2, "DesiredWithinRange"),
            ({}, 10, 0, 1, "TooFewReplicas"),
            ({"policies": [percent_policy(10)]}, 100, 2, 90, "ScaleDownLimit"),
            ({"policies": [percent_policy(10)]}, 5, 2, 4, "ScaleDownLimit"),
            ({"policies": [pods_policy(4), percent_policy(10)]}, 100, 2, 90, "ScaleDownLimit"),
            ({"policies": [pods_policy(4), percent_policy(10)], "selectPolicy": "Min"}, 100, 2, 96, "ScaleDownLimit"),
            ({"selectPolicy": "Disabled"}, 10, 2, 10, "ScaleDownLimit"),
        ],
    )
    def test_down(self, down, current, desired, replicas, reason):
        tamed = once(rules(down=down), current, desired)
        assert (tamed.replicas, tamed.conditions[1].reason) == (replicas, reason)

    def test_what_was_done_in_the_period_counts(self):
        memory, behavior = Memory(), rules(up={"policies": [pods_policy(4, 60)]})
        remember(memory, behavior, 10, 13, 1000)
        assert tame(memory, behavior, 13, 50, 1, 100, 300, 1030).replicas == 14
        assert tame(memory, behavior, 13, 50, 1, 100, 300, 1061).replicas == 17

    def test_what_was_undone_in_the_period_counts_too(self):
        memory, behavior = Memory(), rules(up={"policies": [pods_policy(4, 60)]}, down={"policies": [pods_policy(9)]})
        remember(memory, behavior, 20, 15, 1000)
        assert tame(memory, behavior, 15, 50, 1, 100, 300, 1030).replicas == 24

    def test_a_period_in_which_too_much_happened_allows_nothing(self):
        memory, behavior = Memory(), rules(down={"policies": [pods_policy(2, 60)]})
        remember(memory, behavior, 20, 10, 1000)
        assert tame(memory, behavior, 10, 1, 1, 100, 0, 1030).replicas == 10


class TestStabilization:
    def test_going_down_follows_the_highest_of_the_window(self):
        memory = Memory([(900, 8), (950, 5), (650, 20)])
        tamed = tame(memory, None, 10, 3, 1, 100, 300, 1000)
        assert tamed.replicas == 8
        assert tamed.conditions[0] == taming.Condition(
            "AbleToScale",
            "True",
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
        assert memory.recommendations[-1] == (1000, 3)

    def test_going_up_follows_the_lowest_of_its_window(self):
        memory = Memory([(980, 6), (990, 12), (900, 1)])
        tamed = tame(memory, rules(up={"stabilizationWindowSeconds": 60}), 5, 20, 1, 100, 0, 1000)
        assert tamed.replicas == 6
        assert tamed.conditions[0].reason == "ScaleUpStabilized"

    def test_a_window_of_its_own_for_going_down(self):
        memory = Memory([(950, 8)])
        behavior = rules(down={"stabilizationWindowSeconds": 30})
        assert tame(memory, behavior, 10, 3, 1, 100, 300, 1000).replicas == 3
        memory = Memory([(950, 8)])
        assert tame(memory, rules(), 10, 3, 1, 100, 300, 1000).replicas == 8

    def test_between_the_two_nothing_changes(self):
        memory = Memory([(950, 8), (960, 12)])
        behavior = rules(up={"stabilizationWindowSeconds": 100}, down={"stabilizationWindowSeconds": 100})
        assert tame(memory, behavior, 10, 11, 1, 100, 300, 1000).replicas == 10

    def test_nothing_is_remembered_for_ever(self):
        memory = Memory()
        for second in range(0, 100_000, 15):
            tame(memory, rules(), 3, 3, 1, 10, 300, second)
            remember(memory, rules(), 3, 4, second)
        assert len(memory.recommendations) < 30
        assert len(memory.added) < 5


policies = st.lists(
    st.builds(
        lambda kind, value, period: {"type": kind, "value": value, "periodSeconds": period},
        st.sampled_from(["Pods", "Percent"]),
        st.integers(1, 120),
        st.integers(1, 120),
    ),
    min_size=1,
    max_size=3,
)
directions = st.builds(
    lambda window, select, chosen: {
        "stabilizationWindowSeconds": window, "selectPolicy": select, "policies": chosen,
    },
    st.integers(0, 120),
    st.sampled_from(["Max", "Min", "Disabled"]),
    policies,
)  # fmt: skip
behaviors = st.none() | st.builds(lambda up, down: {"scaleUp": up, "scaleDown": down}, directions, directions)


@given(behaviors, st.lists(st.tuples(st.integers(1, 90), st.integers(0, 60)), max_size=12), st.integers(3, 20))
def test_laws_of_any_history(behavior, history, start):
    """It never leaves the bounds, moves only towards what was recommended lately, and a direction that is disabled
    stays so."""
    memory, current, now = Memory([(0.0, start)]), start, 0.0
    seen = [start]
    for seconds, desired in history:
        now += seconds
        seen.append(desired)
        after = tame(memory, behavior, current, desired, 3, 20, 100, now).replicas
        assert 3 <= after <= 20
        assert after <= max(current, *seen, 3)
        assert after >= min(current, *seen)
        if behavior and behavior["scaleUp"]["selectPolicy"] == "Disabled":
            assert after <= current
        if behavior and behavior["scaleDown"]["selectPolicy"] == "Disabled":
            assert after >= current
        if after != current:
            remember(memory, behavior, current, after, now)
        current = after
