"""VolumeBinding between deciding and writing: a volume that was chosen is nobody else's."""

from __future__ import annotations

from typing import Any

from shipwheel.scheduler.framework import Handle
from shipwheel.scheduler.listers import Listers
from shipwheel.scheduler.nodes import NodeRules
from shipwheel.scheduler.plugins.volumebinding import VolumeBinding
from shipwheel.scheduler.table import NodeTable

from .build import SHAPES, profile_of

Obj = dict[str, Any]
CLASS = {
    "metadata": {"name": "local"},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}
VOLUME = {
    "metadata": {"name": "only"},
    "spec": {"storageClassName": "local", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]},
    "status": {"phase": "Available"},
}


def _claim(name: str) -> Obj:
    spec = {
        "storageClassName": "local",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}


def _pod(claim: str) -> Obj:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return {"metadata": {"name": claim, "namespace": "default"}, "spec": {"containers": [], "volumes": volumes}}


def _two_pods_for_one_volume() -> Any:
    """Two profiles' plugins, and a cycle of each: both pods' claims want the only volume there is."""
    listers = Listers()
    listers.storage_classes.put(CLASS)
    listers.volumes.put(VOLUME)
    listers.claims.put(_claim("a"))
    listers.claims.put(_claim("b"))
    table = NodeTable(listers.namespace_labels)
    room = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    table.set_node({"metadata": {"name": "one"}, "spec": {}, "status": {"allocatable": room}})
    handle = Handle(table, NodeRules(table), listers)
    first, second = profile_of(handle), profile_of(handle)
    ours, theirs = _binding(first), _binding(second)
    mine, other = (profile.cycle(pod, SHAPES.of(pod)) for profile, pod in ((first, _pod("a")), (second, _pod("b"))))
    assert ours.pre_filter(mine) is None and theirs.pre_filter(other) is None
    return ours, mine, theirs, other


def test_profiles_do_not_choose_the_same_volume() -> None:
    ours, mine, theirs, other = _two_pods_for_one_volume()
    assert ours.reserve(mine, "one") == ""
    assert theirs.reserve(other, "one") != "", "it was chosen for the other profile's pod"
    ours.unreserve(mine, "one")
    assert theirs.reserve(other, "one") == "", "it was given back"


def test_what_is_given_back_twice_is_not_taken_from_who_has_it_now() -> None:
    ours, mine, theirs, other = _two_pods_for_one_volume()
    assert ours.reserve(mine, "one") == ""
    ours.unreserve(mine, "one")  # binding the volumes took too long,
    assert theirs.reserve(other, "one") == ""
    ours.unreserve(mine, "one")  # and so the decision was taken back
    assert ours.reserve(mine, "one") != "", "it is the other claim's"


def _binding(profile: Any) -> VolumeBinding:
    return next(each for each in profile.instances if isinstance(each, VolumeBinding))
