from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column
from shipwheel.api.table import DEFAULT_COLUMNS, keep_row, partial_metadata_list, row, table

NOW = datetime(2024, 1, 1, tzinfo=UTC)
POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web", "creationTimestamp": "2023-12-31T23:00:00Z"},
    "spec": {"nodeName": "n1"},
}
COLUMNS = (
    Column("Name", lambda obj, now: obj["metadata"]["name"], format="name"),
    Column("Hour", lambda obj, now: now.hour, type="integer", description="of the day"),
    Column("Node", lambda obj, now: obj["spec"]["nodeName"], priority=1),
)


def test_a_table_has_a_row_for_each_object():
    found = table([POD], COLUMNS, now=NOW, metadata={"resourceVersion": "7"})
    assert found["kind"] == "Table"
    assert found["apiVersion"] == "meta.k8s.io/v1"
    assert found["metadata"] == {"resourceVersion": "7"}
    assert found["columnDefinitions"] == [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Hour", "type": "integer", "format": "", "description": "of the day", "priority": 0},
        {"name": "Node", "type": "string", "format": "", "description": "", "priority": 1},
    ]
    (only,) = found["rows"]
    assert only["cells"] == ["web", 0, "n1"]
    assert only["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": POD["metadata"],
    }


def test_how_much_of_the_object_comes_along():
    assert table([POD], COLUMNS, now=NOW, include="Object")["rows"][0]["object"] == POD
    assert table([POD], COLUMNS, now=NOW, include="None")["rows"][0]["object"] is None
    assert table([POD], COLUMNS, now=NOW, include="", version="v1beta1")["rows"][0]["object"]["apiVersion"] == (
        "meta.k8s.io/v1beta1"
    )
    with pytest.raises(ApiError) as caught:
        table([], COLUMNS, now=NOW, include="All")
    assert caught.value.code == 400


def test_headers_only_once_in_a_watch():
    assert table([POD], COLUMNS, now=NOW, headers=False)["columnDefinitions"] is None


def test_kinds_without_columns_have_two():
    found = table([POD], (), now=NOW)
    assert [each["name"] for each in found["columnDefinitions"]] == [each.name for each in DEFAULT_COLUMNS]
    assert found["rows"][0]["cells"] == ["web", "2023-12-31T23:00:00Z"]


def test_metadata_alone():
    found = partial_metadata_list([POD], {"continue": "x"})
    assert found["metadata"] == {"continue": "x"}
    assert [each["metadata"]["name"] for each in found["items"]] == ["web"]
    assert "spec" not in found["items"][0]


AGE = Column("Age", lambda obj, now: "1h", moment=lambda obj: obj["metadata"].get("creationTimestamp"))


@pytest.mark.parametrize("columns", [
    (COLUMNS[0], AGE, COLUMNS[2]),
    (AGE, COLUMNS[0]),
    (COLUMNS[0], AGE),
    (AGE,),
    (AGE, COLUMNS[0], AGE, COLUMNS[2], AGE),
    (COLUMNS[0], COLUMNS[2]),
    DEFAULT_COLUMNS,
])  # fmt: skip
@pytest.mark.parametrize("include", ["None", "Metadata", "Object"])
def test_a_kept_row_is_the_row(columns: tuple[Column, ...], include: str):
    kept = keep_row(POD, columns, include=include)
    assert kept is not None
    assert json.loads(kept.at(NOW.timestamp())) == {
        **row(POD, columns, now=NOW, include=include),
        "cells": ["60m" if each is AGE else each.value(POD, NOW) for each in columns],
    }


def test_a_kept_row_ages():
    kept = keep_row(POD, (COLUMNS[0], AGE), include="None")
    assert kept is not None
    later = NOW + timedelta(days=2)
    assert json.loads(kept.at(later.timestamp()))["cells"] == ["web", "2d1h"]
    ageless = keep_row({"metadata": {"name": "web"}}, (COLUMNS[0], AGE), include="None")
    assert ageless is not None
    assert json.loads(ageless.at(0.0))["cells"] == ["web", "<unknown>"]


def test_a_row_that_depends_on_the_time_otherwise_is_not_kept():
    assert keep_row(POD, COLUMNS, include="None") is None

    def caught(obj: Obj, now: datetime) -> str:
        try:
            return str(now - datetime(2020, 1, 1, tzinfo=UTC))
        except (TypeError, ValueError):
            return "never"

    assert keep_row(POD, (Column("Since", caught),), include="None") is None
