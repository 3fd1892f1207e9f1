"""Who watches what, as far as flow control is concerned: the more watch what a write changes, the wider it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from shipwheel.apiserver.flowcontrol.places import TooMany
from shipwheel.apiserver.flowcontrol.width import name_asked, pinned
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request

_INDEXED = {"pods": "spec.nodeName"}
"""Fields by which events find their watchers: few events concern one who asks for a value of it."""

_Scope = tuple[str, str, str, str]


class Watches:
    """How many watch what: a group's resource, in a namespace or in all, one object or all.

    `limit` (`--max-watches-inflight`, which is ours) is how many there may be at a time, 0: any number."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.running = 0
        self._counts: Counter[_Scope] = Counter()

    def begin(self, info: RequestInfo, request: Request) -> Callable[[], None]:
        """Note a watch; what is returned notes its end. Raises `TooMany`."""
        if 0 < self.limit <= self.running:
            raise TooMany(1)
        self.running += 1
        field = _INDEXED.get(info.resource)
        scope = None
        if field is None or not pinned(request, field):
            scope = (info.group, info.resource, info.namespace, name_asked(info, request))
            self._counts[scope] += 1

        def end() -> None:
            self.running -= 1
            if scope is not None:
                self._counts[scope] -= 1
                if not self._counts[scope]:
                    del self._counts[scope]

        return end

    def interested(self, info: RequestInfo) -> int:
        """How many a write concerns."""
        counts, group, resource, namespace, name = self._counts, info.group, info.resource, info.namespace, info.name
        found = counts.get((group, resource, "", ""), 0)
        if namespace:
            found += counts.get((group, resource, namespace, ""), 0)
        if name:
            found += counts.get((group, resource, namespace, name), 0)
        return found
