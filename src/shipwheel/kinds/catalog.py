"""The schemas of the built-in kinds, by definition name or by kind.

The table beside this file is derived by `tools/generate_schemas.py`. It is parsed on first use, and a schema is
made when first asked for; every caller shares it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.schema import Schema, from_openapi

_PREFIX = "io.k8s.api."


@cache
def _table() -> dict[str, dict[str, Any]]:
    return orjson.loads((Path(__file__).parent / "schemas.json").read_bytes())


def _full(name: str) -> str:
    return name if name.startswith("io.k8s.") else _PREFIX + name


@cache
def _shared(short: str) -> Schema:
    return from_openapi(_table()[short], schema, name=_full(short))


def schema(name: str) -> Schema:
    """The definition called e.g. `io.k8s.api.core.v1.Pod`; KeyError when there is none."""
    return _shared(name.removeprefix(_PREFIX))


def names() -> Iterator[str]:
    """Of all definitions."""
    return map(_full, _table())


@cache
def _kinds() -> dict[GroupVersionKind, str]:
    """Definitions that are a kind. Options that belong to every group (`DeleteOptions`) are found under each."""
    return {
        GroupVersionKind(each["group"], each["version"], each["kind"]): short
        for short, node in _table().items()
        for each in node.get("x-kubernetes-group-version-kind", ())
    }


def schema_for(gvk: GroupVersionKind) -> Schema:
    """The schema of a kind; KeyError when it is not built in."""
    return _shared(_kinds()[gvk])
