"""The garbage collector: nothing with a living owner is ever deleted, everything else is in the end."""

from __future__ import annotations

import random

import pytest

from shipwheel.api import errors
from shipwheel.api.meta import Obj
from shipwheel.client.resources import CONFIG_MAPS, NAMESPACES, REPLICA_SETS, SECRETS
from shipwheel.controllers.garbage_collector import GarbageCollector
from shipwheel.controllers.garbage_collector.graph import EVERYWHERE, Graph, Identity
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults


def identity(name: str, namespace: str = "default", kind: str = "ConfigMap") -> Identity:
    return Identity("v1", kind, namespace, name, f"uid-{name}")


def meta(*owners: str, **fields: object) -> Obj:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": f"uid-{name}", "blockOwnerDeletion": True}
        for name in owners
    ]
    return {"ownerReferences": references, **fields}


def names(nodes) -> set[str]:
    return {node.identity.name for node in nodes}


class TestGraph:
    def test_an_owner_never_seen_is_examined(self):
        todo = Graph().observe(identity("child"), meta("parent"))
        assert names(todo.examine) == {"parent"}

    def test_an_owner_seen_is_believed(self):
        graph = Graph()
        graph.observe(identity("parent"), meta())
        assert graph.observe(identity("child"), meta("parent")).examine == []

    def test_dependents_are_examined_when_their_owner_goes(self):
        graph = Graph()
        graph.observe(identity("parent"), meta())
        graph.observe(identity("child"), meta("parent"))
        assert names(graph.remove("uid-parent").examine) == {"child"}
        assert graph.is_absent(identity("parent"))

    def test_an_owner_that_was_gone_is_not_after_it_is_seen(self):
        graph = Graph()
        graph.observe(identity("child"), meta("parent"))
        graph.remove("uid-parent")
        graph.observe(identity("parent"), meta())
        assert not graph.is_absent(identity("parent"))

    def test_foreground_deletion_examines_the_dependents_and_then_the_owner(self):
        graph = Graph()
        graph.observe(identity("parent"), meta())
        graph.observe(identity("child"), meta("parent"))
        deleted = meta(deletionTimestamp="x", finalizers=["foregroundDeletion"])
        assert names(graph.observe(identity("parent"), deleted).examine) == {"child", "parent"}
        assert names(graph.remove("uid-child").examine) == {"parent"}

    def test_orphaning(self):
        graph = Graph()
        todo = graph.observe(identity("parent"), meta(deletionTimestamp="x", finalizers=["orphan"]))
        assert names(todo.orphan) == {"parent"}

    def test_an_owner_in_another_namespace_is_reported(self):
        graph = Graph()
        graph.observe(identity("parent", "elsewhere"), meta())
        todo = graph.observe(identity("child"), meta("parent"))
        assert [dependent.name for dependent, _ in todo.misplaced] == ["child"]
        assert names(todo.examine) == {"child"}

    def test_an_owner_of_another_name_is_no_owner_but_nothing_to_report(self):
        graph = Graph()
        graph.observe(identity("parent"), meta())
        reference = {"apiVersion": "v1", "kind": "Secret", "name": "parent", "uid": "uid-parent"}
        todo = graph.observe(identity("child"), {"ownerReferences": [reference]})
        assert todo.misplaced == []
        assert names(todo.examine) == {"child"}

    def test_an_owner_that_dependents_describe_differently_is_looked_for_everywhere(self):
        """One in another namespace says that it has the same owner; it must not be the death of the right one's."""
        graph = Graph()
        graph.observe(identity("forged", "a"), meta("parent"))
        graph.observe(identity("child", "b"), meta("parent"))
        assert graph.get("uid-parent").identity == identity("parent", "a")
        todo = graph.miss(identity("parent", "a"))
        assert names(todo.examine) == {"forged", "parent"}
        assert graph.get("uid-parent").identity == identity("parent", "b")
        assert not graph.is_absent(identity("parent", "b"))
        assert names(graph.miss(identity("parent", "b")).examine) == {"child"}
        assert graph.get("uid-parent") is None

    def test_an_owner_without_a_namespace_is_missed_in_all(self):
        graph = Graph()
        for namespace in ("a", "b"):
            graph.observe(identity(f"child-{namespace}", namespace), meta("parent"))
        todo = graph.miss(identity("parent", EVERYWHERE))
        assert names(todo.examine) == {"child-a", "child-b"}
        assert graph.get("uid-parent") is None

    def test_one_that_was_seen_is_not_missed(self):
        graph = Graph()
        graph.observe(identity("child", "b"), meta("parent"))
        graph.observe(identity("parent", "b"), meta())
        assert graph.miss(identity("parent", "b")).examine == []
        assert graph.get("uid-parent") is not None

    def test_a_reference_taken_away_unlinks(self):
        graph = Graph()
        graph.observe(identity("parent"), meta())
        graph.observe(identity("child"), meta("parent"))
        graph.observe(identity("child"), meta())
        assert graph.remove("uid-parent").examine == []


# On the fake API


def create(cluster: World, name: str, *owners: Obj, gvr=CONFIG_MAPS, blocks: bool = True, **fields: object) -> Obj:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocks,
        }
        for owner in owners
    ]
    body = {"metadata": {"name": name, "namespace": "default", "ownerReferences": references}, **fields}
    return cluster.api.create(gvr, body)


def exists(cluster: World, name: str, gvr=CONFIG_MAPS) -> bool:
    return cluster.api.get(gvr, name, "default") is not None


def world(faults: Faults | None = None) -> World:
    return World((GarbageCollector,), faults or Faults())


async def test_background_deletion_takes_the_whole_tree():
    cluster = world()
    async with cluster.running():
        root = create(cluster, "root")
        child = create(cluster, "child", root, gvr=SECRETS)
        create(cluster, "grandchild", child)
        bystander = create(cluster, "bystander")
        cluster.api.delete(CONFIG_MAPS, "root", "default", propagationPolicy="Background")
        await cluster.until(lambda: not exists(cluster, "child", SECRETS) and not exists(cluster, "grandchild"))
        assert exists(cluster, bystander["metadata"]["name"])


async def test_an_object_with_another_living_owner_only_loses_the_reference():
    cluster = world()
    async with cluster.running():
        one, other = create(cluster, "one"), create(cluster, "other")
        create(cluster, "child", one, other)
        cluster.api.delete(CONFIG_MAPS, "one", "default")

        def has_one_owner() -> bool:
            return len(cluster.api.get(CONFIG_MAPS, "child", "default")["metadata"]["ownerReferences"]) == 1

        await cluster.until(has_one_owner)
        await cluster.pass_time(30, step=5)
        (left,) = cluster.api.get(CONFIG_MAPS, "child", "default")["metadata"]["ownerReferences"]
        assert left["name"] == "other"


async def test_foreground_deletion_waits_for_blocking_dependents():
    cluster = world()
    async with cluster.running():
        root = create(cluster, "root")
        held = create(cluster, "held", root)
        create(cluster, "free", root, blocks=False)
        cluster.api.change(CONFIG_MAPS, "held", "default", lambda obj: obj["metadata"].update(finalizers=["x/y"]))
        cluster.api.delete(CONFIG_MAPS, "root", "default", propagationPolicy="Foreground")
        await cluster.until(lambda: "deletionTimestamp" in cluster.api.get(CONFIG_MAPS, "held", "default")["metadata"])
        await cluster.pass_time(20, step=5)
        assert exists(cluster, "root"), "a dependent that blocks is still there"
        cluster.api.change(CONFIG_MAPS, "held", "default", lambda obj: obj["metadata"].pop("finalizers"))
        await cluster.until(lambda: not exists(cluster, "root"))
        assert held["metadata"]["name"] == "held"
        await cluster.until(lambda: not exists(cluster, "free"))


async def test_orphans_are_set_free_before_their_owner_goes():
    cluster = world()
    async with cluster.running():
        root = create(cluster, "root")
        create(cluster, "child", root)
        cluster.api.delete(CONFIG_MAPS, "root", "default", propagationPolicy="Orphan")
        await cluster.until(lambda: not exists(cluster, "root"))
        await cluster.pass_time(20, step=5)
        assert cluster.api.get(CONFIG_MAPS, "child", "default")["metadata"]["ownerReferences"] == []


async def test_a_circle_of_objects_that_wait_for_one_another_is_broken():
    cluster = world()
    async with cluster.running():
        one = create(cluster, "one")
        other = create(cluster, "other", one)

        def close(obj: Obj) -> None:
            reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["metadata"]["uid"]}
            obj["metadata"]["ownerReferences"] = [{**reference, "blockOwnerDeletion": True}]

        cluster.api.change(CONFIG_MAPS, "one", "default", close)
        await cluster.settle(1)
        cluster.api.delete(CONFIG_MAPS, "one", "default", propagationPolicy="Foreground")
        await cluster.until(lambda: not exists(cluster, "one") and not exists(cluster, "other"))


async def test_an_owner_in_another_namespace_counts_as_absent_and_is_told_of():
    cluster = world()
    async with cluster.running():
        far = cluster.api.create(CONFIG_MAPS, {"metadata": {"name": "far", "namespace": "elsewhere"}})
        await cluster.settle(1)
        create(cluster, "child", far)
        await cluster.until(lambda: not exists(cluster, "child"))
        (event,) = cluster.events("OwnerRefInvalidNamespace")
        assert event[1] == (
            f"ownerRef [v1/ConfigMap, namespace: default, name: far, uid: {far['metadata']['uid']}] "
            'does not exist in namespace "default"'
        )


async def test_a_cluster_wide_owner_may_own_what_is_in_a_namespace():
    cluster = world()
    async with cluster.running():
        owner = cluster.api.create(NAMESPACES, {"metadata": {"name": "team"}})
        create(cluster, "child", owner)
        await cluster.pass_time(20, step=5)
        assert exists(cluster, "child")


@pytest.mark.parametrize("seed", range(10))
async def test_who_claims_an_owner_from_elsewhere_harms_nobody(seed):
    """The owner's watch is late, and an object in another namespace has named it first."""
    cluster = world(Faults(lag=1.0, seed=seed))
    async with cluster.running():
        await cluster.settle(2)
        owner = cluster.api.create(SECRETS, {"metadata": {"name": "owner", "namespace": "b"}})
        reference = {"apiVersion": "v1", "kind": "Secret", "name": "owner", "uid": owner["metadata"]["uid"]}
        for name, namespace in (("forged", "a"), ("child", "b")):
            body = {"metadata": {"name": name, "namespace": namespace, "ownerReferences": [reference]}}
            cluster.api.create(CONFIG_MAPS, body)
        await cluster.until(lambda: cluster.api.get(CONFIG_MAPS, "forged", "a") is None, within=300, step=1)
        await cluster.pass_time(60, step=5)
        assert cluster.api.get(CONFIG_MAPS, "child", "b")


async def test_an_owner_of_an_unknown_kind_is_not_taken_for_gone():
    cluster = world()
    async with cluster.running():
        strange = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "u"}}
        create(cluster, "child", strange)
        await cluster.pass_time(120, step=10)
        assert exists(cluster, "child")


def delete_any(cluster: World, draw: random.Random, policies: list[str]) -> None:
    alive = [
        obj
        for obj in cluster.api.list(CONFIG_MAPS)
        if obj["metadata"]["name"].startswith("o") and not obj["metadata"].get("deletionTimestamp")
    ]
    if alive:
        victim = draw.choice(alive)["metadata"]["name"]
        cluster.api.delete(CONFIG_MAPS, victim, "default", propagationPolicy=draw.choice(policies))


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_with_a_living_owner_is_deleted(seed):
    """A random forest, random deletions, faults, and a manager that is killed now and then: whenever the collector
    deletes something, every owner of it is gone or waits for it."""
    draw = random.Random(seed)
    faults = Faults(fail_before=0.05, fail_after=0.05, conflict=0.1, break_watch=0.03, expire=0.2, lag=0.1, seed=seed)
    cluster = world(faults)
    judged = 0

    def judge(method: str, path: str, body: Obj | None) -> None:
        nonlocal judged
        if method != "DELETE":
            return
        obj = cluster.api.get(CONFIG_MAPS, path.rsplit("/", 1)[1], "default")
        if obj is None or obj["metadata"]["uid"] != body["preconditions"]["uid"]:
            return
        judged += 1
        if obj["metadata"]["resourceVersion"] != body["preconditions"].get("resourceVersion"):
            return  # it will be refused
        for reference in obj["metadata"].get("ownerReferences", ()):
            owner = cluster.api.get(CONFIG_MAPS, reference["name"], "default")
            if owner is None or owner["metadata"]["uid"] != reference["uid"]:
                continue
            assert "foregroundDeletion" in owner["metadata"].get("finalizers", ()), (obj, owner)

    cluster.api.before_write = judge
    async with cluster.running():
        made: list[Obj] = []
        for index in range(30):
            owners = draw.sample(made, min(len(made), draw.choice([0, 1, 1, 2])))
            alive = [each for each in owners if exists(cluster, each["metadata"]["name"])]
            made.append(create(cluster, f"o{index}", *alive, blocks=draw.random() < 0.7))
            if draw.random() < 0.3:
                await cluster.settle(draw.random())
            if draw.random() < 0.25:
                delete_any(cluster, draw, ["Background", "Foreground", "Orphan"])
            if draw.random() < 0.05:
                await cluster.kill()
                await cluster.start()
        for _ in range(10):
            delete_any(cluster, draw, ["Background", "Foreground"])
            await cluster.settle(draw.random() * 3)
        without_faults(cluster)
        await cluster.pass_time(300, step=10)
        for obj in cluster.api.list(CONFIG_MAPS):
            # What is left has a living owner or never had any, and nothing is stuck on its way out.
            assert not obj["metadata"].get("deletionTimestamp"), obj
            references = obj["metadata"].get("ownerReferences") or []
            assert not references or any(exists(cluster, each["name"]) for each in references)
    assert judged


async def test_a_new_reference_in_the_last_moment_saves_an_object():
    """Between the look at the owners and the deletion somebody adopts the object."""
    cluster = world()
    async with cluster.running():
        old, new = create(cluster, "old"), create(cluster, "new")
        create(cluster, "child", old)
        await cluster.settle(1)

        def adopt(method: str, path: str, body: Obj | None) -> None:
            if method == "DELETE" and path.endswith("/child"):
                cluster.api.before_write = None
                reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "new", "uid": new["metadata"]["uid"]}
                cluster.api.change(
                    CONFIG_MAPS, "child", "default", lambda obj: obj["metadata"]["ownerReferences"].append(reference)
                )

        cluster.api.before_write = adopt
        cluster.api.delete(CONFIG_MAPS, "old", "default")
        await cluster.pass_time(60, step=5)
        assert cluster.api.before_write is None
        assert exists(cluster, "child")


async def test_kinds_that_know_no_strategic_patch_are_written_otherwise():
    cluster = world()

    def refuse(method: str, path: str, body: Obj | None) -> None:
        if method == "PATCH" and any("$patch" in each for each in body["metadata"].get("ownerReferences", ())):
            raise errors.ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format")

    cluster.api.before_write = refuse
    async with cluster.running():
        root = create(cluster, "root", gvr=REPLICA_SETS, spec={"replicas": 0})
        create(cluster, "child", root)
        cluster.api.delete(REPLICA_SETS, "root", "default", propagationPolicy="Orphan")
        await cluster.until(lambda: not exists(cluster, "root", REPLICA_SETS))
        assert cluster.api.get(CONFIG_MAPS, "child", "default")["metadata"]["ownerReferences"] == []
