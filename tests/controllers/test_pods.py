"""What controllers ask about pods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.controllers.pods import (
    by_deletion_preference,
    deletion_cost,
    generate_name_prefix,
    is_available,
    next_availability,
    pod_from_template,
)
from tests.controllers.objects import NOW, ago, pod


def cost(value: str):
    return {"annotations": {"controller.kubernetes.io/pod-deletion-cost": value}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("-7", -7), ("0", 0), ("+5", 0), ("05", 0), ("x", 0), ("2147483648", 0), ("2147483647", 2147483647)],
)
def test_the_deletion_cost_must_be_a_plain_int32(text, expected):
    assert deletion_cost(pod(**cost(text))) == expected


ORDER = [
    pod("unassigned", "Pending", node=""),
    pod("pending", "Pending"),
    pod("unready", ready=False),
    pod("cheap", **cost("-10")),
    pod("crowded", node="n2"),
    pod("ready-for-a-minute", ready_for=60),
    pod("ready-for-an-hour", ready_for=3600, status={"containerStatuses": [{"name": "c", "restartCount": 9}]}),
    pod("steady", ready_for=3600, created=3600),
    pod("old", ready_for=3600, created=36000),
    pod("dear", **cost("10")),
]


@given(st.permutations(ORDER))
def test_the_order_in_which_a_replica_set_gives_up_pods(shuffled):
    related = [*ORDER, pod("other", node="n2"), *(pod(f"o{index}", node="n2") for index in range(20))]
    ranked = by_deletion_preference(shuffled, related, NOW)
    assert [each["metadata"]["name"] for each in ranked] == [each["metadata"]["name"] for each in ORDER]


def test_ages_are_compared_on_a_logarithmic_scale():
    """So of two pods of nearly the same age any may go: what decides is the uid."""
    older, younger = pod("b", created=3600, uid="1"), pod("a", created=3500, uid="2")
    ranked = by_deletion_preference([younger, older], [], NOW)
    assert ranked[0] is older


@pytest.mark.parametrize(
    ("ready_for", "minimum", "expected"), [(0, 0, True), (9, 10, False), (10, 10, True), (11, 10, True)]
)
def test_available_is_ready_for_long_enough(ready_for, minimum, expected):
    assert is_available(pod(ready_for=ready_for), minimum, NOW) is expected
    assert not is_available(pod(ready=False, ready_for=ready_for), minimum, NOW)


def test_when_the_next_pod_becomes_available():
    pods = [pod("a", ready_for=3), pod("b", ready_for=7), pod("c", ready_for=90), pod("d", ready=False)]
    assert next_availability(pods, 10, NOW) == 3.0
    assert next_availability(pods, 0, NOW) is None
    assert next_availability([pods[2]], 10, NOW) is None


def test_a_pod_from_a_template_has_its_metadata_but_not_its_name():
    template = {
        "metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["f/g"]},
        "spec": {"containers": []},
    }
    made = pod_from_template(template, {"uid": "u"}, "web")
    assert made["metadata"] == {
        "generateName": "web-",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "finalizers": ["f/g"],
        "ownerReferences": [{"uid": "u"}],
    }


def test_prefixes_of_names_stay_valid():
    assert generate_name_prefix("web") == "web-"
    assert generate_name_prefix("web.") == "web."
    assert ago(0) == "2026-05-01T12:00:00Z"
