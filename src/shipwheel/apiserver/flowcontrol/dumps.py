"""`/debug/api_priority_and_fairness/`: what there is of levels, queues and requests, as tables for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flowcontrol.fairness import PriorityAndFairness, SeatPlace
from shipwheel.apiserver.flowcontrol.level import Level
from shipwheel.apiserver.flowcontrol.queueset import Queue
from shipwheel.client.flags import format_duration
from shipwheel.client.httpserver import Answer, Request, Response

PREFIX = "/debug/api_priority_and_fairness/"
_LEVELS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip
_QUEUES = (
    "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
    "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
)  # fmt: skip
_REQUESTS = (
    "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
    "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime",
)  # fmt: skip
_DETAILS = ("UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
_NEVER = "0001-01-01T00:00:00Z"
_LEAST_WIDTH = 8

Row = Sequence[object]


class Dumps:
    def __init__(self, fairness: PriorityAndFairness) -> None:
        self._fairness = fairness
        self.paths = {
            f"{PREFIX}dump_priority_levels": self._answering(lambda _: self._levels()),
            f"{PREFIX}dump_queues": self._answering(lambda _: self._queues()),
            f"{PREFIX}dump_requests": self._answering(self._requests),
        }
        """Handlers by path."""

    def _answering(self, rows: Callable[[Request], Iterable[Row]]) -> Callable[[Request, UserInfo], Awaitable[Answer]]:
        async def answer(request: Request, user: UserInfo) -> Answer:
            self._fairness.refresh()
            return Response(200, table(rows(request)).encode(), content_type="text/plain; charset=utf-8")

        return answer

    def _sorted(self) -> list[Level]:
        return sorted(self._fairness.levels.values(), key=lambda level: level.name)

    def _levels(self) -> Iterable[Row]:
        yield _LEVELS
        for level in self._sorted():
            queues = level.queues
            active = sum(bool(queue.waiting) for queue in queues.queues.values())
            yield (
                level.name, active, _bool(queues.idle), _bool(level.quiescing), queues.waiting, queues.executing,
                queues.dispatched, queues.rejected, 0, queues.cancelled,
            )  # fmt: skip

    def _queues(self) -> Iterable[Row]:
        yield _QUEUES
        for level in self._sorted():
            known = level.queues.queues
            count = max([level.queuing.queues if level.queuing is not None else 0, *(index + 1 for index in known)])
            for index in range(count):
                queue = known.get(index) or Queue()
                initial = sum(claim.width.initial for claim in queue.waiting)
                seats = sum(claim.width.seats for claim in queue.waiting)
                work = sum(claim.width.work for claim in queue.waiting)
                yield (
                    level.name, index, len(queue.waiting), len(queue.executing), queue.seats,
                    _seat_seconds(queue.next_r), initial, seats, _seat_seconds(work),
                )  # fmt: skip

    def _requests(self, request: Request) -> Iterable[Row]:
        details = bool(request.parameter("includeRequestDetails"))
        yield (*_REQUESTS, *(_DETAILS if details else ()))
        clock = self._fairness.clock
        wall, now = clock.now(), clock.monotonic()
        for level in self._sorted():
            for index, position, place in level.queues.claims():
                assert isinstance(place, SeatPlace)
                arrived = _moment(wall - timedelta(seconds=now - place.arrived))
                started = _NEVER if position >= 0 else _moment(wall - timedelta(seconds=now - place.started))
                width = place.width
                row = (
                    level.name, place.flow.schema, index, position, place.flow.distinguisher, arrived, width.initial,
                    width.final, format_duration(width.linger), started,
                )  # fmt: skip
                yield (*row, *(_details(place) if details else ()))


def _details(place: SeatPlace) -> Row:
    info = place.info
    version = f"{info.group}/{info.version}" if info.group else info.version
    return (
        place.user.name, info.verb, info.path, info.namespace, info.name, version, info.resource, info.subresource,
    )  # fmt: skip


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _seat_seconds(amount: float) -> str:
    return f"{amount:.8f}ss"


def _moment(moment: datetime) -> str:
    """RFC 3339 with as many digits as there are."""
    return moment.isoformat(timespec="microseconds")[:26].rstrip("0").rstrip(".") + "Z"


def table(rows: Iterable[Row]) -> str:
    """Columns under one another, with commas between them."""
    cells = [[f"{cell}," for cell in row[:-1]] + [f"{row[-1]}"] for row in rows]
    widths = [max(_LEAST_WIDTH, *(len(cell) + 1 for cell in column)) for column in zip(*cells, strict=True)]
    lines = (
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] for row in cells
    )
    return "".join(f"{line}\n" for line in lines)
