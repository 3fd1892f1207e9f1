"""Which volumes go with which claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api import quantity
from shipwheel.api.meta import Obj
from shipwheel.kinds.claims import (
    best_match,
    claims_of,
    class_of,
    default_class,
    is_reserved_for,
    mismatch,
    not_made_for,
    reserved,
    says_class,
)


def claim(storage: str = "5Gi", modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: object) -> Obj:
    requests = {"requests": {"storage": storage}}
    full = {"accessModes": list(modes), "resources": requests, "storageClassName": "", **spec}
    return {"metadata": {"name": "c", "namespace": "d", "uid": "u"}, "spec": full}


def volume(name: str, storage: str = "5Gi", modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: object) -> Obj:
    full = {"capacity": {"storage": storage}, "accessModes": list(modes), **spec}
    return {"metadata": {"name": name, "labels": {"disk": name}}, "spec": full, "status": {"phase": "Available"}}


REFERENCE = {"name": "c", "namespace": "d", "uid": "u"}


@pytest.mark.parametrize(
    ("volumes", "wanted", "expected"),
    [
        ([volume("big", "9Gi"), volume("right", "6Gi"), volume("small", "4Gi")], claim(), "right"),
        ([volume("small", "4Gi")], claim(), None),
        ([volume("all", "5Gi", ("ReadWriteOnce", "ReadWriteMany")), volume("one", "9Gi")], claim(), "one"),
        ([volume("one")], claim(modes=("ReadWriteMany",)), None),
        ([volume("block", volumeMode="Block"), volume("files")], claim(), "files"),
        ([volume("block", volumeMode="Block")], claim(volumeMode="Block"), "block"),
        ([volume("gold", storageClassName="gold")], claim(), None),
        ([volume("gold", storageClassName="gold")], claim(storageClassName="gold"), "gold"),
        ([volume("a"), volume("b")], claim(selector={"matchLabels": {"disk": "b"}}), "b"),
        ([volume("taken", claimRef={**REFERENCE, "name": "other"})], claim(), None),
        ([volume("free", "5Gi"), volume("kept", "9Gi", claimRef={"name": "c", "namespace": "d"})], claim(), "kept"),
        ([volume("kept", claimRef={"name": "c", "namespace": "d"}, storageClassName="x")], claim(), "kept"),
        ([volume("earlier", claimRef={**REFERENCE, "uid": "before"})], claim(), None),
        ([volume("fast", volumeAttributesClassName="fast")], claim(), None),
        ([{**volume("leaving"), "metadata": {"name": "leaving", "deletionTimestamp": "x"}}], claim(), None),
        ([{**volume("busy"), "status": {"phase": "Bound"}}], claim(), None),
    ],
)
def test_the_best_match(volumes, wanted, expected):
    found = best_match(wanted, volumes)
    assert (found and found["metadata"]["name"]) == expected


def test_claims_that_wait_for_their_consumer_only_get_what_is_kept_for_them():
    kept = volume("kept", claimRef={"name": "c", "namespace": "d"})
    assert best_match(claim(), [volume("free")], only_reserved=True) is None
    assert best_match(claim(), [volume("free"), kept], only_reserved=True) is kept


MODES = st.lists(
    st.sampled_from(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]), min_size=1, max_size=3, unique=True
)


@given(st.lists(st.tuples(st.integers(1, 9), MODES), max_size=8), st.integers(1, 9), MODES)
def test_no_smaller_volume_would_have_done(offers, size, modes):
    volumes = [volume(f"v{index}", f"{gi}Gi", tuple(offered)) for index, (gi, offered) in enumerate(offers)]
    wanted = claim(f"{size}Gi", tuple(modes))
    fitting = [each for each in volumes if not mismatch(each, wanted)]
    found = best_match(wanted, volumes)
    assert (found is None) == (not fitting)
    if found is not None:
        assert found in fitting
        same = [each for each in fitting if len(each["spec"]["accessModes"]) <= len(found["spec"]["accessModes"])]
        least = min(quantity.value(each["spec"]["capacity"]["storage"]) for each in same)
        assert quantity.value(found["spec"]["capacity"]["storage"]) == least


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (volume("v"), ""),
        (volume("v", "1Gi"), "requested PV is too small"),
        (volume("v", storageClassName="x"), "storageClassName does not match"),
        (volume("v", volumeAttributesClassName="x"), "volumeAttributesClassName does not match"),
        (volume("v", volumeMode="Block"), "incompatible volumeMode"),
        (volume("v", modes=("ReadOnlyMany",)), "incompatible accessMode"),
    ],
)
def test_why_a_volume_does_not_fit(made, expected):
    assert mismatch(made, claim()) == expected


def test_reserving():
    free = volume("v")
    bound = reserved(free, claim())
    assert is_reserved_for(bound, claim())
    assert bound["metadata"]["annotations"] == {"pv.kubernetes.io/bound-by-controller": "yes"}
    assert reserved(bound, claim()) is bound
    by_hand = reserved(volume("v", claimRef={"name": "c", "namespace": "d"}), claim())
    assert by_hand["spec"]["claimRef"]["uid"] == "u"
    assert "annotations" not in by_hand["metadata"]


def storage_class(name: str, created: str, default: bool = True) -> Obj:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}}


def test_the_default_class():
    classes = [storage_class("b", "2026-01-02"), storage_class("a", "2026-01-02"), storage_class("old", "2026-01-01")]
    found = default_class([*classes, storage_class("newest", "2026-01-09", default=False)])
    assert found["metadata"]["name"] == "a"
    assert default_class([]) is None


def test_naming_a_class():
    nameless = claim()
    del nameless["spec"]["storageClassName"]
    assert not says_class(nameless)
    assert says_class(claim())
    old = {**nameless, "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "gold"}}}
    assert says_class(old)
    assert class_of(old) == "gold"


def test_the_claims_of_a_pod():
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "empty", "emptyDir": {}},
    ]
    pod = {"metadata": {"name": "p", "namespace": "d", "uid": "x"}, "spec": {"volumes": volumes}}
    assert claims_of(pod) == ["mine", "p-scratch"]
    assert not_made_for(claim(), pod) == "PVC d/c was not created for pod d/p (pod is not owner)"
    owned = claim()
    owned["metadata"]["ownerReferences"] = [{"uid": "x", "controller": True}]
    assert not_made_for(owned, pod) == ""
