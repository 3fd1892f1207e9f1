"""Nodes that fall silent: conditions, taints, zones' paces, and what becomes of their pods."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.clock import rfc3339, rfc3339_micro
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import LEASES, NODES, PODS
from shipwheel.controllers.node_lifecycle import NodeLifecycleController
from shipwheel.controllers.node_lifecycle.health import expired, observe, silent_conditions
from shipwheel.controllers.node_lifecycle.taints import missing_labels, no_execute_taints, no_schedule_taints
from shipwheel.controllers.node_lifecycle.zones import EvictionRates, TaintQueue, ZoneState, rate_of, state_of, zone_of
from shipwheel.controllers.taint_eviction import TaintEvictionController
from tests.controllers import objects
from tests.controllers.objects import NOW, ago
from tests.controllers.world import World

TAINT = "node.kubernetes.io/"


def keys(taints: list[Obj] | None) -> list[tuple[str, str]] | None:
    return None if taints is None else [(each["key"], each["effect"]) for each in taints]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (objects.node(), None),
        (objects.node(ready="False"), [(TAINT + "not-ready", "NoSchedule")]),
        (objects.node(ready="Unknown"), [(TAINT + "unreachable", "NoSchedule")]),
        (objects.node(taints=[{"key": TAINT + "not-ready", "effect": "NoSchedule"}]), []),
        (objects.node(taints=[{"key": "mine", "effect": "NoSchedule"}]), None),
    ],
)
def test_taints_that_follow_from_conditions(node, expected):
    assert keys(no_schedule_taints(node, "now")) == expected


def test_pressure_and_cordon():
    node = objects.node()
    node["spec"]["unschedulable"] = True
    node["status"]["conditions"] += [
        {"type": "MemoryPressure", "status": "True"},
        {"type": "DiskPressure", "status": "False"},
    ]
    found = keys(no_schedule_taints(node, "now"))
    assert found == [(TAINT + "memory-pressure", "NoSchedule"), (TAINT + "unschedulable", "NoSchedule")]


@pytest.mark.parametrize(
    ("present", "ready", "expected"),
    [
        ([], "True", None),
        ([], "False", ["not-ready"]),
        ([], "Unknown", ["unreachable"]),
        (["not-ready"], "Unknown", ["unreachable"]),
        (["unreachable"], "True", []),
        (["unreachable"], "Unknown", None),
    ],
)
def test_no_execute_taints(present, ready, expected):
    node = objects.node(taints=[{"key": TAINT + key, "effect": "NoExecute"} for key in present])
    found = no_execute_taints(node, ready, "now")
    assert (None if found is None else [each["key"].removeprefix(TAINT) for each in found]) == expected


def test_old_labels_are_kept_in_step():
    assert missing_labels({"kubernetes.io/os": "linux"}) == {"beta.kubernetes.io/os": "linux"}
    assert missing_labels({"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}) == {}


class TestHealth:
    def test_only_changes_count_not_the_kubelets_clock(self):
        node = objects.node()
        first = observe(None, node, None, 100, 5)
        assert observe(first, node, None, 130, 35) is first
        assert expired(first, 151, 50)
        node["status"]["conditions"][0]["lastHeartbeatTime"] = "1999-01-01T00:00:00Z"
        assert observe(first, node, None, 140, 45).probed == 140

    def test_a_lease_is_as_good_as_a_heartbeat(self):
        first = observe(None, objects.node(), {"spec": {"renewTime": ago(10)}}, 100, 5)
        assert observe(first, objects.node(), {"spec": {"renewTime": ago(0)}}, 140, 45).probed == 140

    def test_a_node_that_never_reported_is_judged_by_its_age(self):
        never = {"metadata": {"name": "n", "creationTimestamp": ago(70)}, "spec": {}, "status": {}}
        assert expired(observe(None, never, None, 100, 70), 100, 60)

    def test_what_a_silent_node_is_said_to_be(self):
        node = objects.node()
        found = silent_conditions(node, NOW)
        assert [(each["type"], each["status"], each["reason"]) for each in found] == [
            ("Ready", "Unknown", "NodeStatusUnknown"),
            ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
        ]
        assert silent_conditions({**node, "status": {"conditions": found}}, NOW) is None


class TestZones:
    @pytest.mark.parametrize(
        ("ready", "expected"),
        [
            ([True] * 3, ZoneState.NORMAL),
            ([False, False, True], ZoneState.NORMAL),
            ([False] * 3 + [True], ZoneState.PARTIAL_DISRUPTION),
            ([False] * 3 + [True] * 3, ZoneState.NORMAL),
            ([False], ZoneState.FULL_DISRUPTION),
        ],
    )
    def test_states(self, ready, expected):
        assert state_of(ready, 0.55)[1] is expected

    @pytest.mark.parametrize(
        ("state", "size", "expected"),
        [
            (ZoneState.NORMAL, 10, 0.1),
            (ZoneState.FULL_DISRUPTION, 10, 0.1),
            (ZoneState.PARTIAL_DISRUPTION, 51, 0.01),
            (ZoneState.PARTIAL_DISRUPTION, 50, 0.0),
        ],
    )
    def test_rates(self, state, size, expected):
        assert rate_of(state, size, EvictionRates()) == expected

    def test_names(self):
        labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
        assert zone_of(objects.node(labels=labels)) == "r:\x00:z"
        assert zone_of(objects.node()) == ""

    @given(st.floats(0.01, 1), st.integers(1, 30))
    def test_no_faster_than_the_rate(self, rate, nodes):
        queue = TaintQueue(rate, 0)
        for number in range(nodes):
            queue.add(f"n{number}")
        taken = [tick for tick in range(200) if queue.take(float(tick)) is not None]
        assert len(taken) <= min(nodes, 1 + rate * 200 + 1e-9)
        assert taken[0] == 0

    def test_none_at_rate_zero(self):
        queue = TaintQueue(0.1, 0)
        queue.set_rate(0, 0)
        queue.add("n")
        assert queue.take(1000) is None


# On the fake API


def world() -> World:
    return World((NodeLifecycleController, TaintEvictionController))


def beat(cluster: World, *names: str) -> None:
    heard = {"status": "True", "lastHeartbeatTime": rfc3339(cluster.clock.now())}
    for name in names:
        cluster.api.change(NODES, name, "", lambda node: node["status"]["conditions"][0].update(heard))


def add_pod(cluster: World, name: str, node: str, *tolerations: Obj) -> None:
    body = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [], "nodeName": node, "tolerations": list(tolerations)},
    }
    cluster.start_pod(cluster.api.create(PODS, body), node)


FIVE_MINUTES = {"key": TAINT + "unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}


def taint_keys(cluster: World, name: str) -> set[tuple[str, str]]:
    return {(each["key"], each["effect"]) for each in cluster.api.get(NODES, name)["spec"].get("taints", ())}


async def test_a_node_dies_and_its_pods_go_after_five_minutes():
    """Six minutes of a cluster's life in a moment."""
    cluster = world()
    for name in ("n1", "n2", "n3"):
        cluster.add_node(name)
    async with cluster.running():
        add_pod(cluster, "patient", "n1", FIVE_MINUTES)
        add_pod(cluster, "hasty", "n1")
        add_pod(cluster, "elsewhere", "n2")
        for _ in range(9):
            beat(cluster, "n2", "n3")
            await cluster.settle(5)
        assert condition(cluster.api.get(NODES, "n1"), "Ready")["status"] == "True"
        for _ in range(3):
            beat(cluster, "n2", "n3")
            await cluster.settle(5)
        ready = condition(cluster.api.get(NODES, "n1"), "Ready")
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
        assert {(TAINT + "unreachable", "NoSchedule"), (TAINT + "unreachable", "NoExecute")} <= taint_keys(
            cluster, "n1"
        )
        assert condition(cluster.api.get(PODS, "patient", "default"), "Ready")["status"] == "False"
        assert cluster.api.get(PODS, "hasty", "default")["metadata"].get("deletionTimestamp")
        for _ in range(58):
            beat(cluster, "n2", "n3")
            await cluster.settle(5)
        assert not cluster.api.get(PODS, "patient", "default")["metadata"].get("deletionTimestamp")
        for _ in range(4):
            beat(cluster, "n2", "n3")
            await cluster.settle(5)
        patient = cluster.api.get(PODS, "patient", "default")
        assert patient["metadata"].get("deletionTimestamp")
        assert condition(patient, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
        assert not cluster.api.get(PODS, "elsewhere", "default")["metadata"].get("deletionTimestamp")
        assert ("TaintManagerEviction", "Marking for deletion Pod default/patient") in cluster.events()


async def test_a_node_that_comes_back_keeps_its_pods():
    cluster = world()
    for name in ("n1", "n2", "n3"):
        cluster.add_node(name)
    async with cluster.running():
        add_pod(cluster, "patient", "n1", FIVE_MINUTES)
        for _ in range(30):
            beat(cluster, "n2", "n3")
            await cluster.settle(5)
        assert (TAINT + "unreachable", "NoExecute") in taint_keys(cluster, "n1")
        for _ in range(70):
            beat(cluster, "n1", "n2", "n3")
            await cluster.settle(5)
        assert taint_keys(cluster, "n1") == set()
        assert not cluster.api.get(PODS, "patient", "default")["metadata"].get("deletionTimestamp")
        assert ("TaintManagerEviction", "Cancelling deletion of Pod default/patient") in cluster.events()


async def test_a_lease_keeps_a_node_alive():
    cluster = world()
    cluster.add_node("n1")
    cluster.add_node("n2")
    lease = {"metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"renewTime": ""}}
    cluster.api.create(LEASES, lease)
    async with cluster.running():
        for _ in range(20):
            now = rfc3339_micro(cluster.clock.now())
            cluster.api.change(LEASES, "n1", "kube-node-lease", lambda obj, now=now: obj["spec"].update(renewTime=now))
            await cluster.settle(10)
        assert condition(cluster.api.get(NODES, "n1"), "Ready")["status"] == "True"
        assert condition(cluster.api.get(NODES, "n2"), "Ready")["status"] == "Unknown"


async def test_when_all_fall_silent_it_is_we_who_are_cut_off():
    cluster = world()
    for name in ("n1", "n2", "n3", "n4"):
        cluster.add_node(name)
    async with cluster.running():
        add_pod(cluster, "hasty", "n1")
        await cluster.pass_time(600, step=5)
        assert all(condition(node, "Ready")["status"] == "Unknown" for node in cluster.api.list(NODES))
        assert not any(effect == "NoExecute" for name in ("n1", "n2") for _, effect in taint_keys(cluster, name))
        assert not cluster.api.get(PODS, "hasty", "default")["metadata"].get("deletionTimestamp")


async def test_nodes_of_a_zone_are_given_up_one_in_ten_seconds():
    cluster = world()
    names = [f"n{index}" for index in range(10)]
    for name in names:
        cluster.add_node(name)
    dead, alive = names[:4], names[4:]
    async with cluster.running():
        when: dict[str, float] = {}
        for _ in range(30):
            beat(cluster, *alive)
            await cluster.settle(5)
            for name in dead:
                if (TAINT + "unreachable", "NoExecute") in taint_keys(cluster, name):
                    when.setdefault(name, cluster.clock.monotonic())
        times = sorted(when.values())
        assert len(times) == 4
        assert all(later - earlier >= 5 for earlier, later in pairwise(times))
        assert times[-1] - times[0] >= 25
