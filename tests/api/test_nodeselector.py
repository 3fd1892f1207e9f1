"""Node selectors: every operator, on every kind of value; terms are ORed, requirements ANDed."""

from __future__ import annotations

import pytest

from shipwheel.api import nodeselector
from shipwheel.api.meta import Obj

NAME = "metadata.name"
NODE: Obj = {"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8", "empty": "", "padded": " 8"}}}


def need(key: str, operator: str, *values: str) -> Obj:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def spec(*terms: Obj, selector: dict[str, str] | None = None) -> Obj:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"nodeSelector": selector or {}, "affinity": {"nodeAffinity": required}}


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (need("disk", "In", "ssd", "nvme"), True),
        (need("disk", "In", "nvme"), False),
        (need("gone", "In", "ssd"), False),
        (need("empty", "In", ""), True),
        (need("disk", "NotIn", "nvme"), True),
        (need("disk", "NotIn", "ssd"), False),
        (need("gone", "NotIn", "ssd"), True),
        (need("disk", "Exists"), True),
        (need("empty", "Exists"), True),
        (need("gone", "Exists"), False),
        (need("disk", "DoesNotExist"), False),
        (need("gone", "DoesNotExist"), True),
        (need("cores", "Gt", "7"), True),
        (need("cores", "Gt", "8"), False),
        (need("cores", "Lt", "9"), True),
        (need("cores", "Lt", "8"), False),
        (need("cores", "Gt", "-1"), True),
        (need("disk", "Gt", "1"), False),
        (need("gone", "Lt", "1"), False),
        (need("padded", "Gt", "1"), False),
        (need("cores", "Gt", "many"), False),
        (need("cores", "Gt", "1", "2"), False),
        (need("cores", "Gt"), False),
        (need("cores", "Near", "8"), False),
    ],
)
def test_a_requirement(requirement: Obj, holds: bool):
    assert nodeselector.any_term([{"matchExpressions": [requirement]}], NODE) is holds


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({}, True),
        ({"nodeSelector": {"disk": "ssd"}}, True),
        ({"nodeSelector": {"disk": "ssd", "gone": ""}}, False),
        (spec(), False),
        (spec({}), False),
        (spec({}, {"matchExpressions": [need("disk", "Exists")]}), True),
        (spec({"matchExpressions": [need("disk", "Exists"), need("gone", "Exists")]}), False),
        (spec({"matchExpressions": [need("gone", "Exists")]}, {"matchFields": [need(NAME, "In", "n1")]}), True),
        (spec({"matchFields": [need(NAME, "In", "n2")]}), False),
        (spec({"matchFields": [need(NAME, "NotIn", "n2")]}), True),
        (spec({"matchFields": [need(NAME, "In", "n1")]}, selector={"disk": "nvme"}), False),
    ],
)  # fmt: skip
def test_a_pods_spec(spec: Obj, fits: bool):
    assert nodeselector.fits(spec, NODE) is fits
