"""Answers as a Table, or as metadata alone, instead of the objects themselves.

A server knows best which fields of its kinds people want to see, so clients ask it for rows
(`as=Table;g=meta.k8s.io`): https://kubernetes.io/docs/reference/using-api/api-concepts/, "Receiving resources as
Tables". All columns are sent; a client shows those of priority 0, and the others with `-o wide`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from shipwheel.api.errors import bad_request
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column

DEFAULT_COLUMNS = (
    Column("Name", lambda obj, now: obj["metadata"].get("name", ""), format="name"),
    Column("Created At", lambda obj, now: obj["metadata"].get("creationTimestamp"), type="date"),
)
"""For kinds that declare none."""

_INCLUDES = ("None", "Metadata", "Object")


def table(
    objects: Iterable[Obj],
    columns: Sequence[Column],
    *,
    now: datetime,
    include: str = "Metadata",
    metadata: Obj | None = None,
    version: str = "v1",
    headers: bool = True,
) -> Obj:
    """The `Table` of these objects.

    `include` is the request's `includeObject`, `metadata` the list's own. In a watch only the first event has
    `headers`. Raises ApiError 400 for another `include`.
    """
    columns = columns or DEFAULT_COLUMNS
    include = include or "Metadata"
    check_include(include)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata or {},
        "columnDefinitions": [definition(each) for each in columns] if headers else None,
        "rows": [row(each, columns, now=now, include=include, version=version) for each in objects],
    }


def check_include(include: str) -> None:
    """Raises ApiError 400 when the `includeObject` of a request is none of the three."""
    if include not in _INCLUDES:
        raise bad_request(
            "Unable to convert to Table as requested: includeObject: "
            f"Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
        )


def definition(column: Column) -> Obj:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def row(
    obj: Obj,
    columns: Sequence[Column],
    *,
    now: datetime,
    include: str,
    version: str = "v1",
    beside: Obj | None = None,
) -> Obj:
    """`beside`: the object as it comes with the row, where `columns` read another form of it."""
    shown: Any = None
    if include == "Object":
        shown = obj if beside is None else beside
    elif include == "Metadata":
        shown = partial_metadata(obj, version=version)
    return {"cells": [column.value(obj, now) for column in columns], "object": shown}


def partial_metadata(obj: Obj, *, version: str = "v1") -> Obj:
    """`PartialObjectMetadata`: the object without spec, status and the like."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj.get("metadata") or {},
    }


def partial_metadata_list(objects: Iterable[Obj], metadata: Obj, *, version: str = "v1") -> Obj:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "items": [partial_metadata(each, version=version) for each in objects],
    }
