"""Answers as a Table, or as metadata alone, instead of the objects themselves.

A server knows best which fields of its kinds people want to see, so clients ask it for rows
(`as=Table;g=meta.k8s.io`): https://kubernetes.io/docs/reference/using-api/api-concepts/, "Receiving resources as
Tables". All columns are sent; a client shows those of priority 0, and the others with `-o wide`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from shipwheel.api.ages import UNKNOWN, human_duration
from shipwheel.api.clock import parse_time
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
    conditions: Sequence[Obj] = (),
) -> Obj:
    """`beside`: the object as it comes with the row, where `columns` read another form of it. `conditions` are the
    row's own (TableRowCondition)."""
    made: Obj = {"cells": [column.value(obj, now) for column in columns]}
    if conditions:
        made["conditions"] = list(conditions)
    return {**made, "object": _shown(obj, beside, include, version)}


def _shown(obj: Obj, beside: Obj | None, include: str, version: str) -> Any:
    if include == "Object":
        return obj if beside is None else beside
    return partial_metadata(obj, version=version) if include == "Metadata" else None


class KeptRow(NamedTuple):
    """A row as JSON, but for the ages that stand between its pieces."""

    pieces: tuple[bytes, ...]
    moments: tuple[float, ...]
    """What each age is that of, in seconds since 1970."""

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    def at(self, now: float) -> bytes:
        first, *rest = self.pieces
        parts = [first]
        for moment, piece in zip(self.moments, rest, strict=True):
            parts += [b'"', human_duration(now - moment).encode(), b'"', piece]
        return b"".join(parts)


class _Asked(Exception):
    pass


class _Unasked:
    """Stands for the time where a row is made to be kept: a cell that does anything with it fails."""

    def _refuse(self, *_: Any) -> Any:
        raise _Asked

    __getattr__ = __sub__ = __rsub__ = __add__ = __radd__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __str__ = __repr__ = __format__ = __bool__ = _refuse


_UNASKED: Any = _Unasked()


def keep_row(
    obj: Obj,
    columns: Sequence[Column],
    *,
    include: str,
    version: str = "v1",
    beside: Obj | None = None,
    conditions: Sequence[Obj] = (),
) -> KeptRow | None:
    """The row at any time; None when it depends on the time otherwise than by ages."""
    pieces: list[bytes] = []
    moments: list[float] = []
    piece = b'{"cells":['
    try:
        for position, column in enumerate(columns):
            if position:
                piece += b","
            if column.moment is None:
                piece += orjson.dumps(column.value(obj, _UNASKED))
            elif since := column.moment(obj):
                pieces.append(piece)
                moments.append(parse_time(since).timestamp())
                piece = b""
            else:
                piece += orjson.dumps(UNKNOWN)
    except _Asked:
        return None
    told = b'"conditions":%b,' % orjson.dumps(conditions) if conditions else b""
    pieces.append(piece + b'],%b"object":%b}' % (told, orjson.dumps(_shown(obj, beside, include, version))))
    return KeptRow(tuple(pieces), tuple(moments))


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
