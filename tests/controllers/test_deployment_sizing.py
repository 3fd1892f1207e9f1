"""The arithmetic of roll-outs: laws by simulation, upstream's known cases by table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.meta import Obj
from shipwheel.controllers.deployment.sizing import (
    MAX_REPLICAS,
    fenceposts,
    new_set_size,
    old_set_sizes,
    only_active_or_newest,
    proportional_sizes,
    replicas_of,
    reported,
    total,
)


def deployment(replicas: int, surge: int | str = 0, unavailable: int | str = 0, *, present: int = 0) -> Obj:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "metadata": {"name": "d"},
        "spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}},
        "status": {"replicas": present},
    }


def replica_set(name: str, replicas: int, available: int | None = None, *, largest: int | None = None) -> Obj:
    annotations = {} if largest is None else {MAX_REPLICAS: str(largest)}
    return {
        "metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{name[-1]}Z", "annotations": annotations},
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": replicas if available is None else available},
    }


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (10, 0, 0, (0, 1)),
        (10, "0%", "1%", (0, 1)),
        (2, 5, 5, (5, 2)),
        (0, 1, 1, (1, 0)),
        (4, "100%", "100%", (4, 4)),
    ],
)
def test_what_percentages_mean(replicas, surge, unavailable, expected):
    posts = fenceposts(deployment(replicas, surge, unavailable))
    assert (posts.surge, posts.unavailable) == expected


@pytest.mark.parametrize(
    ("wanted", "surge", "old", "new", "expected"),
    [(10, 0, 10, 0, 0), (10, 2, 10, 0, 2), (10, 2, 5, 0, 7), (10, 2, 10, 2, 2), (10, 2, 0, 8, 10)],
)
def test_the_new_set_grows_into_the_room_there_is(wanted, surge, old, new, expected):
    sets = [replica_set("old1", old), replica_set("new2", new)]
    assert new_set_size(deployment(wanted, surge), sets, new) == expected


@pytest.mark.parametrize(
    ("old", "old_available", "new", "new_available", "unavailable", "expected"),
    [
        (10, 10, 0, 0, 2, 8),  # the first step takes what may be missing
        (8, 8, 4, 0, 2, 8),  # nothing of the new set is available yet
        (8, 8, 4, 4, 2, 4),
        (8, 4, 4, 4, 2, 4),  # what is not available anyway goes first
        (10, 10, 0, 0, 0, 10),
    ],
)
def test_the_old_sets_shrink_as_far_as_availability_allows(
    old, old_available, new, new_available, unavailable, expected
):
    olds = [replica_set("old1", old, old_available)]
    sizes = old_set_sizes(deployment(10, 2, unavailable), replica_set("new2", new, new_available), olds)
    assert {rs["metadata"]["name"]: size for rs, size in sizes}.get("old1", old) == expected


def test_the_oldest_set_shrinks_first():
    olds = [replica_set("b2", 3), replica_set("a1", 3)]
    ((shrunk, size),) = old_set_sizes(deployment(6, 1, 1), replica_set("n3", 0), olds)
    assert (shrunk["metadata"]["name"], size) == ("a1", 2)


@pytest.mark.parametrize(
    ("replicas", "surge", "before", "sizes", "expected"),
    [
        (12, 0, 10, {"a1": 5, "b2": 5}, {"a1": 6, "b2": 6}),
        (20, 0, 10, {"a1": 6, "b2": 4}, {"a1": 12, "b2": 8}),
        (5, 0, 10, {"a1": 5, "b2": 5}, {"a1": 2, "b2": 3}),
        (0, 3, 10, {"a1": 5, "b2": 5}, {"a1": 0, "b2": 0}),
        (11, 0, 10, {"a1": 5, "b2": 5}, {"a1": 5, "b2": 6}),  # the rest goes to the newest of the largest
    ],
)
def test_scaling_in_the_middle_keeps_the_proportions(replicas, surge, before, sizes, expected):
    active = [replica_set(name, size, largest=before) for name, size in sizes.items()]
    result = proportional_sizes(deployment(replicas, surge, present=before), active)
    assert {rs["metadata"]["name"]: size for rs, size in result} == expected


@given(
    st.integers(0, 60),
    st.integers(0, 20),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_proportional_scaling_adds_up(replicas, surge, sizes):
    active = [replica_set(f"s{index}", size, largest=sum(sizes)) for index, size in enumerate(sizes)]
    result = proportional_sizes(deployment(replicas, surge, present=sum(sizes)), active)
    allowed = replicas + surge if replicas else 0
    assert all(size >= 0 for _, size in result)
    assert sum(size for _, size in result) == allowed


def test_which_single_set_is_scaled():
    new, old = replica_set("new2", 0), replica_set("old1", 0)
    assert only_active_or_newest(new, [old]) is new
    assert only_active_or_newest(None, [old]) is old
    assert only_active_or_newest(None, []) is None
    busy = replica_set("old1", 3)
    assert only_active_or_newest(new, [busy]) is busy
    assert only_active_or_newest(replica_set("new2", 1), [busy]) is None


@given(data=st.data())
def test_a_roll_out_keeps_its_bounds_and_ends(data):
    """Whichever pods become ready or fail in whatever order, there are never more than allowed, never fewer
    available than promised on our account, and in the end only the new ones."""
    wanted = data.draw(st.integers(1, 12), label="replicas")
    surge = data.draw(st.integers(0, 4), label="surge")
    unavailable = data.draw(st.integers(0, 4), label="unavailable")
    obj = deployment(wanted, surge, unavailable)
    posts = fenceposts(obj)
    olds = [replica_set("old1", wanted, wanted)]
    new = replica_set("new9", 0, 0)
    for step in range(400):
        if replicas_of(new) == wanted and reported([new], "availableReplicas") == wanted and total(olds) == 0:
            break
        size = new_set_size(obj, [*olds, new], replicas_of(new))
        if size != replicas_of(new):
            new["spec"]["replicas"] = size
        else:
            for rs, smaller in old_set_sizes(obj, new, [rs for rs in olds if replicas_of(rs)]):
                rs["spec"]["replicas"] = smaller
                # Of a set that shrinks, those that are not ready go first.
                rs["status"]["availableReplicas"] = min(rs["status"]["availableReplicas"], smaller)
        assert total([*olds, new]) <= wanted + posts.surge
        becomes_ready = step % 2 == 0 or data.draw(st.booleans(), label="a pod becomes ready")
        if becomes_ready and new["status"]["availableReplicas"] < replicas_of(new):
            new["status"]["availableReplicas"] += 1
        assert reported([*olds, new], "availableReplicas") >= wanted - posts.unavailable
    else:
        pytest.fail("the roll-out does not end")
