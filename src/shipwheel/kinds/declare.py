"""The words in which kinds declare themselves.

Most kinds say little more than their names: these helpers keep such a declaration to a few lines, and what
many kinds share (a `status`, a `scale`, a `proxy`) is made here once.
"""

from __future__ import annotations

from typing import Any

from shipwheel.api.meta import GroupVersionKind
from shipwheel.api.resource import Subresource, Version
from shipwheel.kinds import catalog

READ_WRITE = ("get", "patch", "update")
"""Verbs of a subresource that is a view of the object."""
ANY_METHOD = ("create", "delete", "get", "patch", "update")
"""Verbs of a proxy: one for each HTTP method."""
STREAM = ("create", "get")
"""Verbs of a subresource that is upgraded to streams: POST, or GET for WebSocket."""

STATUS = Subresource("status", READ_WRITE)


def served(group: str, version: str, kind: str, **facts: Any) -> Version:
    """A version with the schema that the catalog has for it; `facts` are the other fields of `Version`."""
    return Version(group, version, catalog.schema_for(GroupVersionKind(group, version, kind)), **facts)


def older(
    group: str, version: str, kind: str, *, since: str, until: str, replacement: str = "", **facts: Any
) -> Version:
    """A version of the past, which is still served here: deprecated in release `since`, gone upstream in `until`.

    `replacement` is the group and version to use instead.
    """
    instead = f"{replacement} {kind}" if replacement else ""
    text = deprecated(f"{group}/{version}", kind, since, until, instead)
    return served(group, version, kind, deprecation=text, removed_in=until, **facts)


def deprecated(group_version: str, kind: str, since: str, until: str = "", replacement: str = "") -> str:
    """The warning that a request in an old version gets (KEP-1693).

    `since` and `until` are releases (`1.19`): where it was deprecated, and where it went away.
    """
    text = f"{group_version} {kind} is deprecated in v{since}+"
    if until:
        text += f", unavailable in v{until}+"
    return f"{text}; use {replacement}" if replacement else text
