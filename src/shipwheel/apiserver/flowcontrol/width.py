"""How many seats a request is thought to take.

A list takes one for each 100 kB of stored objects that it reads, ten at most where they come from the watch cache,
which sends them piece by piece; a watch that begins with what there is, the same until that is sent. A write takes one
while it is carried out, and where many watch what it changes, one for each ten of them for five milliseconds after.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shipwheel.api.selectors import parse_field_selector
from shipwheel.apiserver.flowcontrol.queueset import NARROW, Width
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request

_BYTES_PER_SEAT = 100_000
_CACHED_BYTES = 1_000_000
"""As much of a list from the watch cache is in memory at a time, at most."""
_LIST_SEATS, _WRITE_SEATS = 100, 10
_WATCHES_PER_SEAT = 10
_EVENT_SECONDS = 0.005
WRITING = frozenset({"create", "update", "patch", "delete"})
"""The verbs whose events others watch."""


class Stored(NamedTuple):
    """What there is of a kind."""

    objects: int
    size: int
    """In bytes."""


def width_of_list(info: RequestInfo, request: Request, known: Stored | None, most: int) -> Width:
    """The width of a list or a watch, which may take `most` seats (0: any number). `known` is None for what is not
    stored here."""
    version = request.parameter("resourceVersion")
    if info.verb == "watch" and version not in ("", "0") and not request.flag("sendInitialEvents"):
        return NARROW
    if known is None or not known.objects:
        return NARROW
    limit = request.parameter("limit")
    read = min(known.objects, int(limit)) if limit.isdigit() and int(limit) else known.objects
    cached = info.verb == "watch" or not _asks_for_the_past(request, version, limit)
    if name_asked(info, request):
        read = 1
    elif not cached and (request.parameter("fieldSelector") or request.parameter("labelSelector")):
        read = max(read, known.objects // 2)
    size = read * (known.size // known.objects)
    if cached:
        size = min(size, _CACHED_BYTES)
    seats = min(math.ceil(size / _BYTES_PER_SEAT), most or _LIST_SEATS, _LIST_SEATS)
    return Width(seats) if seats > 1 else NARROW


def _asks_for_the_past(request: Request, version: str, limit: str) -> bool:
    match = request.parameter("resourceVersionMatch")
    if match:
        return match != "NotOlderThan"
    if request.parameter("continue"):
        return True
    return version not in ("", "0") and limit not in ("", "0")


def width_of_write(info: RequestInfo, watches: int, most: int) -> Width:
    """The width of a write to what `watches` watch: their events keep the server busy after its answer."""
    if watches < _WATCHES_PER_SEAT or (info.resource == "serviceaccounts" and info.subresource == "token"):
        return NARROW
    seats = math.ceil(watches / _WATCHES_PER_SEAT)
    held = min(seats, most or _WRITE_SEATS, _WRITE_SEATS)
    return Width(1, held, seats * _EVENT_SECONDS / held)


def name_asked(info: RequestInfo, request: Request) -> str:
    """The one object that a list or a watch is about, if it is."""
    return info.name or pinned(request, "metadata.name") or ""


def pinned(request: Request, field: str) -> str | None:
    """The value of a field that every object must have, None when any may do."""
    text = request.parameter("fieldSelector")
    if field not in text:
        return None
    try:
        return parse_field_selector(text).requires(field)
    except ValueError:
        return None
