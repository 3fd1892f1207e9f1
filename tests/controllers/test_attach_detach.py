"""Attaching CSI volumes: to one node at a time, and away only when nobody can be using them."""

from __future__ import annotations

import pytest

from shipwheel.api.meta import Obj
from shipwheel.client.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)
from shipwheel.controllers.volumes import AttachDetachController
from shipwheel.controllers.volumes.attachments import (
    Wanted,
    attachment_name,
    make_plan,
    multi_attach_message,
    unique_name,
)
from tests.controllers import objects
from tests.controllers.fakeapi import Faults
from tests.controllers.world import World, without_faults

NAME = "kubernetes.io/csi/disk.example.com^h1"
OUT = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}


def volume(name: str = "v", handle: str = "h1", modes: tuple[str, ...] = ("ReadWriteOnce",)) -> Obj:
    csi = {"driver": "disk.example.com", "volumeHandle": handle}
    return {"metadata": {"name": name}, "spec": {"csi": csi, "accessModes": list(modes)}}


def attachment(*, attached: bool = True, deleted: bool = False) -> Obj:
    meta = {"name": attachment_name(NAME, "n1"), "uid": "a"} | ({"deletionTimestamp": "x"} if deleted else {})
    return {"metadata": meta, "spec": {"nodeName": "n1"}, "status": {"attached": attached}}


def test_names():
    assert unique_name(volume()) == NAME
    assert attachment_name(NAME, "n1").startswith("csi-")
    assert len(attachment_name(NAME, "n1")) == 68
    assert attachment_name(NAME, "n1") != attachment_name(NAME, "n2")


@pytest.mark.parametrize(
    ("node", "used", "wanted", "unneeded", "force", "expected"),
    [
        (objects.node(), set(), True, 0, True, ("keep", None)),
        (objects.node(), set(), False, 0, True, ("", None)),
        (objects.node(), {NAME}, False, 0, True, ("wait", 360)),
        (objects.node(), {NAME}, False, 999, True, ("wait", None)),  # it is healthy: it will unmount
        (objects.node(ready="Unknown"), {NAME}, False, 100, True, ("wait", 260)),
        (objects.node(ready="Unknown"), {NAME}, False, 361, True, ("timeout", None)),
        (objects.node(ready="Unknown"), {NAME}, False, 361, False, ("wait", None)),
        (objects.node(ready="Unknown", taints=[OUT]), {NAME}, False, 0, True, ("out-of-service", None)),
        (None, {NAME}, False, 10, True, ("wait", 350)),
        (None, {NAME}, False, 361, True, ("timeout", None)),
        (None, set(), False, 0, True, ("", None)),
    ],
)
def test_when_to_detach(node, used, wanted, unneeded, force, expected):
    plan = make_plan(
        node,
        used=used,
        wanted={NAME: Wanted(volume(), ())} if wanted else {},
        attached={NAME: attachment()},
        unneeded_for=lambda each: unneeded,
        force_on_timeout=force,
    )
    what, wait = expected
    if what in ("keep", "wait"):
        assert plan.detach == ()
        assert plan.report == (NAME,)
    else:
        assert [each.forced for each in plan.detach] == [what]
        assert plan.report == (), "the kubelet must not begin to use what is being detached"
    assert plan.wait == wait


def test_what_is_not_attached_is_not_reported():
    plan = make_plan(
        objects.node(),
        used=set(),
        wanted={NAME: Wanted(volume(), ())},
        attached={NAME: attachment(attached=False)},
        unneeded_for=lambda each: 0,
        force_on_timeout=True,
    )
    assert (plan.report, plan.attach, plan.detach) == ((), (), ())


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([objects.pod("a")], "Volume is already used by pod(s) a"),
        ([objects.pod("a"), {**objects.pod("b"), "metadata": {"name": "b", "namespace": "far"}}],
         "Volume is already used by pod(s) a and 1 pod(s) in different namespaces"),
        ([{**objects.pod("b"), "metadata": {"name": "b", "namespace": "far"}}],
         "Volume is already used by 1 pod(s) in different namespaces"),
        ([], "Volume is already exclusively attached to one node and can't be attached to another"),
    ],
)  # fmt: skip
def test_why_it_cannot_be_attached_twice(others, expected):
    assert multi_attach_message(volume(), objects.pod("p"), others) == f'Multi-Attach error for volume "v" {expected}'


# On the fake API


def world(faults: Faults | None = None, modes: tuple[str, ...] = ("ReadWriteOnce",)) -> World:
    cluster = World((AttachDetachController,), faults or Faults())
    managed = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    for name in ("n1", "n2"):
        cluster.add_node(name)
        cluster.api.change(NODES, name, "", lambda node: node["metadata"].update(annotations=managed))
    claim = cluster.api.create(
        PERSISTENT_VOLUME_CLAIMS,
        {"metadata": {"name": "c", "namespace": "default"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}},
    )
    made = volume(modes=modes)
    made["spec"]["claimRef"] = {"namespace": "default", "name": "c", "uid": claim["metadata"]["uid"]}
    cluster.api.create(PERSISTENT_VOLUMES, made)
    return cluster


def add_pod(cluster: World, name: str, node: str) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    body = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [], "volumes": volumes, "nodeName": node},
    }
    cluster.api.create(PODS, body)


def attachments(cluster: World) -> list[str]:
    return [each["spec"]["nodeName"] for each in cluster.api.list(VOLUME_ATTACHMENTS)]


def attach_all(cluster: World, **status: object) -> None:
    """What the external attacher does."""
    for each in cluster.api.list(VOLUME_ATTACHMENTS):
        new = status or {"attached": True}
        cluster.api.change(
            VOLUME_ATTACHMENTS, each["metadata"]["name"], "", lambda obj, new=new: obj.update(status=new)
        )


def reported(cluster: World, node: str) -> list[str]:
    return [each["name"] for each in cluster.api.get(NODES, node)["status"].get("volumesAttached") or ()]


def use(cluster: World, node: str, *names: str) -> None:
    cluster.api.change(NODES, node, "", lambda obj: obj["status"].update(volumesInUse=list(names)))


async def test_from_attaching_to_detaching():
    cluster = world()
    async with cluster.running():
        add_pod(cluster, "p", "n1")
        await cluster.until(lambda: attachments(cluster) == ["n1"])
        assert reported(cluster, "n1") == []
        attach_all(cluster, attached=False, attachError={"time": "2026-01-01T00:00:00Z", "message": "busy"})
        await cluster.settle(1)
        attach_all(cluster)
        await cluster.until(lambda: reported(cluster, "n1") == [NAME])
        assert cluster.events() == [
            ("FailedAttachVolume", 'AttachVolume.Attach failed for volume "v" : busy'),
            ("SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "v" '),
        ]
        use(cluster, "n1", NAME)
        cluster.end_pod(cluster.api.get(PODS, "p", "default"))
        await cluster.pass_time(30, step=5)
        assert attachments(cluster) == ["n1"], "the kubelet still has it mounted"
        use(cluster, "n1")
        await cluster.until(lambda: attachments(cluster) == [])
        assert reported(cluster, "n1") == []


async def test_a_volume_moves_only_when_it_has_been_let_go():
    cluster = world()
    async with cluster.running():
        add_pod(cluster, "old", "n1")
        await cluster.until(lambda: attachments(cluster) == ["n1"])
        attach_all(cluster)
        use(cluster, "n1", NAME)
        add_pod(cluster, "new", "n2")
        await cluster.pass_time(20, step=5)
        assert attachments(cluster) == ["n1"]
        assert cluster.events("FailedAttachVolume") == [
            ("FailedAttachVolume", 'Multi-Attach error for volume "v" Volume is already used by pod(s) old')
        ]
        cluster.end_pod(cluster.api.get(PODS, "old", "default"))
        use(cluster, "n1")
        await cluster.until(lambda: attachments(cluster) == ["n2"], within=5)


async def test_shared_volumes_may_be_on_several_nodes():
    cluster = world(modes=("ReadWriteMany",))
    async with cluster.running():
        add_pod(cluster, "a", "n1")
        add_pod(cluster, "b", "n2")
        await cluster.until(lambda: sorted(attachments(cluster)) == ["n1", "n2"])


async def test_drivers_that_need_no_attaching():
    cluster = world()
    cluster.api.create(CSI_DRIVERS, {"metadata": {"name": "disk.example.com"}, "spec": {"attachRequired": False}})
    async with cluster.running():
        add_pod(cluster, "p", "n1")
        await cluster.pass_time(5)
        assert attachments(cluster) == []


async def test_a_dead_node_keeps_it_for_six_minutes_only():
    cluster = world()
    async with cluster.running():
        add_pod(cluster, "old", "n1")
        await cluster.until(lambda: attachments(cluster) == ["n1"])
        attach_all(cluster)
        use(cluster, "n1", NAME)
        await cluster.settle(1)
        cluster.api.change(NODES, "n1", "", lambda node: node["status"]["conditions"][0].update(status="Unknown"))
        cluster.end_pod(cluster.api.get(PODS, "old", "default"), "Failed")
        add_pod(cluster, "new", "n2")
        await cluster.pass_time(350, step=10)
        assert attachments(cluster) == ["n1"]
        await cluster.until(lambda: attachments(cluster) == ["n2"], within=60)


@pytest.mark.parametrize("seed", range(5))
async def test_never_on_two_nodes_whatever_fails(seed):
    faults = Faults(fail_before=0.05, fail_after=0.05, conflict=0.1, break_watch=0.05, expire=0.2, lag=0.2, seed=seed)
    cluster = world(faults)
    async with cluster.running():
        for turn in range(6):
            here = f"n{turn % 2 + 1}"
            add_pod(cluster, f"p{turn}", here)

            def arrived(here: str = here) -> bool:
                assert len(attachments(cluster)) <= 1
                attach_all(cluster)
                return attachments(cluster) == [here] and reported(cluster, here) == [NAME]

            await cluster.until(arrived, within=300)
            use(cluster, here, NAME)
            if turn == 3:
                await cluster.kill()
                await cluster.start()
            cluster.end_pod(cluster.api.get(PODS, f"p{turn}", "default"))
            await cluster.settle(1)
            use(cluster, here)
        without_faults(cluster)
        await cluster.until(lambda: attachments(cluster) == [], within=300)
