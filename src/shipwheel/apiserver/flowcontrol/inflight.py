"""`--enable-priority-and-fairness=false`: so many reads and so many writes at a time, and nobody waits."""

from __future__ import annotations

from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flowcontrol.places import NO_PLACE, READING, Headers, Place, TooMany, lasts_long
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request

MASTERS = "system:masters"


class _Taken:
    __slots__ = ("_counts", "_kind")
    headers: Headers = ()
    turn = None

    def __init__(self, counts: dict[str, int], kind: str) -> None:
        self._counts = counts
        self._kind = kind
        counts[kind] += 1

    def leave(self) -> None:
        if self._kind:
            self._counts[self._kind] -= 1
            self._kind = ""


class MaxInFlight:
    """Limits of 0 are none."""

    def __init__(self, *, reading: int, mutating: int) -> None:
        self.limits = {"readOnly": reading, "mutating": mutating}
        self.used = dict.fromkeys(self.limits, 0)

    def admit(self, info: RequestInfo, user: UserInfo, request: Request) -> Place:
        if lasts_long(info):
            return NO_PLACE
        kind = "readOnly" if info.verb in READING else "mutating"
        if 0 < self.limits[kind] <= self.used[kind]:
            if MASTERS in user.groups:
                return NO_PLACE
            raise TooMany(1)
        return _Taken(self.used, kind)

    async def wait(self, place: Place, patience: float) -> None:
        """Nobody has to."""

    def serving(self, kind: str) -> int:
        return self.used[kind]

    def waiting(self, kind: str) -> int:
        return 0
