"""DaemonSets: where their pods belong (pure), and their life on the fake API."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.client.resources import DAEMON_SETS, NODES, PODS
from shipwheel.controllers.daemonset import DaemonSetController
from shipwheel.controllers.daemonset.plan import by_node, node_of, placement, roll, should_run, status_of, template_for
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW
from tests.controllers.world import World, template

LABELS = {"app": "agent"}


def daemon_set(strategy: Obj | None = None, **spec: object) -> Obj:
    return {
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": LABELS},
            "template": template(LABELS),
            "updateStrategy": strategy
            or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            **spec,
        },
    }


def with_spec(**spec: object) -> Obj:
    return daemon_set(template=template(LABELS, **spec))


NO_SCHEDULE = {"key": "k", "effect": "NoSchedule"}
NO_EXECUTE = {"key": "k", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("ds", "node", "expected"),
    [
        (daemon_set(), objects.node(), (True, True)),
        (daemon_set(), objects.node(taints=[NO_SCHEDULE]), (False, True)),
        (daemon_set(), objects.node(taints=[NO_EXECUTE]), (False, False)),
        (with_spec(tolerations=[{"operator": "Exists"}]), objects.node(taints=[NO_EXECUTE, NO_SCHEDULE]), (True, True)),
        (
            daemon_set(),
            objects.node(taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
            (True, True),
        ),
        (
            daemon_set(),
            objects.node(taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
            (True, True),
        ),
        (with_spec(nodeSelector={"disk": "ssd"}), objects.node(), (False, False)),
        (with_spec(nodeSelector={"disk": "ssd"}), objects.node(labels={"disk": "ssd"}), (True, True)),
        (with_spec(nodeName="other"), objects.node(), (False, False)),
        (
            daemon_set(),
            objects.node(taints=[{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]),
            (False, True),
        ),
        (
            with_spec(hostNetwork=True),
            objects.node(taints=[{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]),
            (True, True),
        ),
    ],
)
def test_on_which_nodes_it_runs(ds, node, expected):
    assert should_run(ds, node) == expected


def test_a_pod_is_bound_to_its_node_by_affinity():
    made = template_for(
        with_spec(
            affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}
        ),
        "n7",
        "h",
    )
    assert node_of({"spec": made["spec"]}) == "n7"
    assert made["metadata"]["labels"] == {**LABELS, "controller-revision-hash": "h"}


def agent(name: str, node: str = "n1", hashed: str = "new", **fields: object) -> Obj:
    return objects.pod(name, node=node, labels={**LABELS, "controller-revision-hash": hashed}, **fields)


def names(pods) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]


class TestPlacement:
    def place(self, ds: Obj, nodes: list[Obj], *pods: Obj, wait: float = 0):
        return placement(ds, nodes, by_node(pods), "new", NOW, lambda node: wait)

    def test_a_pod_for_each_node_that_has_none(self):
        plan = self.place(daemon_set(), [objects.node("n1"), objects.node("n2")], agent("a"))
        assert (plan.create, plan.delete) == (["n2"], [])

    def test_of_several_the_oldest_stays(self):
        plan = self.place(daemon_set(), [objects.node()], agent("young", created=10), agent("old", created=20))
        assert names(plan.delete) == ["young"]

    def test_where_it_may_not_run_it_goes(self):
        plan = self.place(with_spec(nodeSelector={"a": "b"}), [objects.node()], agent("a"))
        assert names(plan.delete) == ["a"]

    def test_failed_pods_are_replaced_after_a_while(self):
        failed = agent("a", phase="Failed")
        assert names(self.place(daemon_set(), [objects.node()], failed).failed) == ["a"]
        waiting = self.place(daemon_set(), [objects.node()], failed, wait=7)
        assert (waiting.delete, waiting.look_after) == ([], 7)

    def test_pods_that_wait_for_a_node_that_has_gone_are_deleted(self):
        meant = template_for(daemon_set(), "gone", "new")["spec"]
        orphan = objects.pod("a", "Pending", node="", spec=meant)
        assert names(self.place(daemon_set(), [objects.node()], orphan).delete) == ["a"]


class TestRoll:
    def nodes(self, count: int) -> list[Obj]:
        return [objects.node(f"n{index}") for index in range(count)]

    def test_as_many_go_as_may_be_unavailable(self):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
        pods = [agent(f"p{index}", f"n{index}", "old") for index in range(4)]
        assert len(roll(daemon_set(strategy), self.nodes(4), by_node(pods), "new", NOW).delete) == 2

    def test_those_that_do_not_work_go_at_once_and_first(self):
        pods = [
            agent("ok", "n0", "old"),
            agent("dead", "n1", "old", ready=False),
            agent("dead2", "n2", "old", ready=False),
        ]
        assert names(roll(daemon_set(), self.nodes(3), by_node(pods), "new", NOW).delete) == ["dead", "dead2"]

    def test_a_new_pod_that_is_not_ready_holds_the_others_back(self):
        pods = [agent("new", "n0", ready=False), agent("old", "n1", "old")]
        assert roll(daemon_set(), self.nodes(2), by_node(pods), "new", NOW).delete == []

    def test_with_surge_the_new_one_comes_first(self):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        pods = [agent(f"p{index}", f"n{index}", "old") for index in range(3)]
        plan = roll(daemon_set(strategy), self.nodes(3), by_node(pods), "new", NOW)
        assert (len(plan.create), plan.delete) == (1, [])
        both = [*pods, agent("fresh", "n0")]
        assert names(roll(daemon_set(strategy), self.nodes(3), by_node(both), "new", NOW).delete) == ["p0"]

    @given(
        st.lists(st.tuples(st.sampled_from(["old", "new"]), st.booleans(), st.booleans()), min_size=1, max_size=8),
        st.integers(1, 4),
    )
    def test_available_pods_never_fall_below_the_bound(self, states, limit):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": limit}}
        pods = [
            agent(f"p{index}", f"n{index}", hashed, ready=ready, deleted=deleted)
            for index, (hashed, ready, deleted) in enumerate(states)
        ]
        plan = roll(daemon_set(strategy), self.nodes(len(states)), by_node(pods), "new", NOW)
        available = {f"p{index}" for index, (_, ready, deleted) in enumerate(states) if ready and not deleted}
        left = available - set(names(plan.delete))
        assert len(left) >= min(len(available), len(states) - limit)


def test_the_numbers_of_the_status():
    nodes = [objects.node("n1"), objects.node("n2"), objects.node("n3", taints=[NO_SCHEDULE]), objects.node("n4")]
    pods = [agent("a", "n1"), agent("b", "n2", "old", ready=False), agent("c", "n3")]
    found = status_of(daemon_set(), nodes, by_node(pods), "new", NOW)
    assert found == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "desiredNumberScheduled": 3,
        "numberReady": 1,
        "observedGeneration": 0,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
    }


def run_daemons(cluster: World) -> None:
    for pod in cluster.api.list(PODS):
        if pod["metadata"].get("deletionTimestamp"):
            cluster.finish_deletion(pod)
        elif pod["status"]["phase"] == "Pending":
            cluster.start_pod(pod, node_of(pod))


def is_complete(cluster: World, image: str, count: int) -> bool:
    status = cluster.api.get(DAEMON_SETS, "agent", "default")["status"]
    pods = cluster.api.list(PODS)
    return (
        len(pods) == count == len({pod["spec"].get("nodeName") for pod in pods})
        and {pod["spec"]["containers"][0]["image"] for pod in pods} == {image}
        and status.get("numberAvailable") == status.get("updatedNumberScheduled") == count
    )


def set_image(cluster: World, image: str) -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    cluster.api.change(DAEMON_SETS, "agent", "default", change)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_every_node_gets_its_pod_and_a_roll_out_keeps_its_bound(seed):
    faults = Faults()
    if seed is not None:
        faults = Faults(fail_before=0.05, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = World((DaemonSetController,), faults)
    for index in range(5):
        cluster.add_node(f"n{index}")
    async with cluster.running():
        cluster.api.create(DAEMON_SETS, daemon_set())

        def placed() -> bool:
            run_daemons(cluster)
            return is_complete(cluster, "i", 5)

        await cluster.until(placed, within=600)
        cluster.add_node("n9")
        await cluster.until(lambda: (run_daemons(cluster), is_complete(cluster, "i", 6))[1], within=600)
        set_image(cluster, "j")

        def rolled() -> bool:
            running = [
                pod
                for pod in cluster.api.list(PODS)
                if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
            ]
            assert len(running) >= 5
            run_daemons(cluster)
            return is_complete(cluster, "j", 6)

        await cluster.until(rolled, within=600)


async def test_a_node_that_gets_a_taint_loses_its_pod():
    cluster = World((DaemonSetController,))
    cluster.add_node("n1")
    async with cluster.running():
        cluster.api.create(DAEMON_SETS, daemon_set())
        await cluster.until(lambda: (run_daemons(cluster), is_complete(cluster, "i", 1))[1])
        cluster.api.change(NODES, "n1", "", lambda node: node["spec"].update(taints=[NO_EXECUTE]))
        await cluster.until(lambda: (run_daemons(cluster), not cluster.api.list(PODS))[1])
        await cluster.settle(1)
        status = cluster.api.get(DAEMON_SETS, "agent", "default")["status"]
        assert (status["desiredNumberScheduled"], status["numberMisscheduled"]) == (0, 0)
