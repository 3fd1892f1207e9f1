"""Every request gets seats at its priority level, waits for them, or is sent away (KEP-1040).

The thin edge around `queueset`: it follows the flow schemas and priority levels, remembers what it found out about
whom, keeps the time, and wakes those whose turn it is. What a request belongs to is looked up by who asks for what, so
that one that need not wait costs few microseconds.

One event loop carries out all requests, so a seat is not a share of the processor. It is held while a request waits
for something (the store, the client that reads its answer, another server, its next turn) and others go on. A plain
read waits for nothing: it has come and gone before another request is looked at, and finds seats taken only by
requests that are slow, or many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj, name_of
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.flowcontrol import shares
from shipwheel.apiserver.flowcontrol.level import Flow, Level
from shipwheel.apiserver.flowcontrol.matching import distinguisher, first_match, in_order
from shipwheel.apiserver.flowcontrol.places import NO_PLACE, READING, Place, TooMany, lasts_long
from shipwheel.apiserver.flowcontrol.queueset import NARROW, Claim, Verdict, Width
from shipwheel.apiserver.flowcontrol.shuffle import deal, flow_hash
from shipwheel.apiserver.flowcontrol.tally import TIMED_OUT, Tally
from shipwheel.apiserver.flowcontrol.watches import Watches
from shipwheel.apiserver.flowcontrol.width import WRITING, Stored, width_of_list, width_of_write
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request
from shipwheel.kinds.flowcontrol import mandatory

_REMEMBERED = 8192
_MOST_PATIENCE = 60.0
CATCH_ALL = "catch-all"


class SeatPlace(Claim):
    """A request's seats, or its place in a queue."""

    __slots__ = ("_control", "flow", "headers", "info", "turn", "user")

    def __init__(self, control: PriorityAndFairness, flow: Flow, width: Width, info: RequestInfo, user: UserInfo):
        self.width = width
        self.hand = flow.hand
        self.queue = None
        self.flow = flow
        self.headers = flow.headers
        self.info = info
        self.user = user
        self.turn: asyncio.Future[None] | None = None
        self._control: PriorityAndFairness | None = control

    def leave(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.finish(self)


class PriorityAndFairness:
    """`seats` is how many there are for all levels; `read` gives the FlowSchemas and PriorityLevelConfigurations that
    there are; `stored` how much there is of what a request is about."""

    def __init__(
        self,
        *,
        seats: int,
        clock: Clock,
        watches: Watches,
        read: Callable[[], tuple[list[Obj], list[Obj]]],
        stored: Callable[[RequestInfo], Stored | None],
    ) -> None:
        self.seats = seats
        self.clock = clock
        self.watches = watches
        self.levels: dict[str, Level] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        """By priority level and flow schema."""
        self.fair_fraction = 0.0
        self._read = read
        self._stored = stored
        self._schemas: list[Obj] = []
        self._catch_all: Obj = {}
        self._flows: dict[tuple[str, str], Flow] = {}
        self._found: dict[tuple[object, ...], Flow] = {}
        self._stale = True
        self._monotonic = clock.monotonic

    # Requests.

    def admit(self, info: RequestInfo, user: UserInfo, request: Request) -> Place:
        """Seats, or a place in a queue. Raises `TooMany`."""
        verb = info.verb
        if info.is_resource:
            if info.subresource and verb != "watch" and lasts_long(info):
                return NO_PLACE
            key: tuple[object, ...] = (
                user.name, user.groups, verb, info.resource, info.namespace, info.subresource, info.group,
            )  # fmt: skip
        else:
            key = (user.name, user.groups, verb, info.path)
        flow = self._found.get(key) or self._find(key, info, user)
        width = NARROW if verb == "get" else self._width(flow, info, request)
        place = SeatPlace(self, flow, width, info, user)
        now = self._monotonic()
        verdict = flow.level.queues.arrive(place, now)
        tally = flow.tally
        if width is not NARROW:
            tally.wide[width.seats] = tally.wide.get(width.seats, 0) + 1
        if verdict is Verdict.EXECUTE:
            tally.at_once += 1
            return place
        if verdict is Verdict.WAIT:
            assert place.queue is not None
            tally.lengths.observe(len(place.queue.waiting))
            place.turn = asyncio.get_running_loop().create_future()
            self._dispatch(flow.level, now)
            return place
        tally.reject(verdict.value, 0.0)
        raise self._sent_away(flow, now)

    async def wait(self, place: Place, patience: float) -> None:
        """Until it is a request's turn. Raises `TooMany` when it does not come in time."""
        assert isinstance(place, SeatPlace) and place.turn is not None
        alarm = asyncio.get_running_loop().call_later(min(patience, _MOST_PATIENCE), self._give_up, place)
        try:
            await place.turn
        except TooMany:
            raise
        except BaseException:
            if not self._withdraw(place):
                place.leave()  # its turn has just come
            raise
        finally:
            alarm.cancel()
        place.flow.tally.waited.observe(place.started - place.arrived)

    def _give_up(self, place: SeatPlace) -> None:
        if self._withdraw(place):
            assert place.turn is not None
            place.turn.set_exception(self._sent_away(place.flow, self._monotonic()))

    def _withdraw(self, place: SeatPlace) -> bool:
        level, now = place.flow.level, self._monotonic()
        if not level.queues.withdraw(place, now):
            return False
        place.flow.tally.reject(TIMED_OUT, now - place.arrived)
        self._dispatch(level, now)
        self._tidy(level)
        return True

    def finish(self, place: SeatPlace) -> None:
        """A request has been carried out."""
        now = self._monotonic()
        flow = place.flow
        level = flow.level
        queues = level.queues
        queues.finish(place, now)
        executed = flow.tally.watched if place.info.verb == "watch" else flow.tally.executed
        executed.observe(now - place.started)
        if place.width.linger:
            asyncio.get_running_loop().call_later(place.width.linger, self._release, place)
        elif queues.waiting:
            self._dispatch(level, now)
        if level.quiescing:
            self._tidy(level)

    def serving(self, kind: str) -> int:
        return sum(executing for executing, place in self.places() if _kind(place.info) == kind)

    def waiting(self, kind: str) -> int:
        return sum(not executing for executing, place in self.places() if _kind(place.info) == kind)

    def places(self) -> Iterator[tuple[bool, SeatPlace]]:
        """All requests that have a place, and whether they are carried out."""
        for level in self.levels.values():
            for _, position, place in level.queues.claims():
                assert isinstance(place, SeatPlace)
                yield position < 0, place

    def _release(self, place: SeatPlace) -> None:
        now = self._monotonic()
        place.flow.level.queues.release(place, now)
        self._dispatch(place.flow.level, now)

    def _dispatch(self, level: Level, now: float) -> None:
        queues = level.queues
        if not queues.waiting:
            return
        for place in queues.dispatch(now):
            assert isinstance(place, SeatPlace) and place.turn is not None
            if not place.turn.done():
                place.turn.set_result(None)
        if isinstance(queues.blocked, SeatPlace):
            queues.blocked.flow.tally.unaccommodated += 1

    def _sent_away(self, flow: Flow, now: float) -> TooMany:
        flow.level.retry.note(int(now))
        return TooMany(flow.level.retry.seconds, flow.headers)

    def _width(self, flow: Flow, info: RequestInfo, request: Request) -> Width:
        if info.verb in WRITING:
            watches = self.watches.interested(info)
            flow.tally.watches.observe(watches)
            return width_of_write(info, watches, flow.level.most)
        if info.verb in ("list", "watch"):
            return width_of_list(info, request, self._stored(info), flow.level.most)
        return NARROW

    # Whose request it is.

    def _find(self, key: tuple[object, ...], info: RequestInfo, user: UserInfo) -> Flow:
        if self._stale:
            self.refresh()
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
            self._flows.clear()
        schema = first_match(self._schemas, info, user) or self._catch_all
        told_apart_by = distinguisher(schema["spec"], info, user)
        flow = self._flows.get((name_of(schema), told_apart_by))
        if flow is None:
            flow = self._flows[name_of(schema), told_apart_by] = self._make_flow(schema, told_apart_by)
        self._found[key] = flow
        return flow

    def _make_flow(self, schema: Obj, told_apart_by: str) -> Flow:
        level = self.levels[schema["spec"]["priorityLevelConfiguration"]["name"]]
        hand: tuple[int, ...] = ()
        if level.queuing is not None:
            entropy = flow_hash(name_of(schema), told_apart_by)
            hand = deal(entropy, queues=level.queuing.queues, hand=level.queuing.hand)
        tally = self.tallies.setdefault((level.name, name_of(schema)), Tally())
        return Flow(schema, told_apart_by, level, hand, tally)

    # The configuration.

    def forget(self) -> None:
        """The configuration has changed: look at it before the next request, and soon in any case."""
        self._found.clear()
        if not self._stale:
            self._stale = True
            asyncio.get_running_loop().call_soon(self.refresh)

    def refresh(self) -> None:
        """Be as the objects say."""
        if not self._stale:
            return
        self._stale = False
        self._found.clear()
        self._flows.clear()
        now = self._monotonic()
        schemas, configurations = self._read()
        levels: dict[str, Level] = {}
        for obj in (*configurations, *_missing(mandatory.PRIORITY_LEVELS, configurations)):
            name = name_of(obj)
            levels[name] = self.levels.get(name) or Level(name, now)
            levels[name].read(obj)
        usable = [each for each in schemas if each["spec"]["priorityLevelConfiguration"]["name"] in levels]
        exempt, catch_all = (_missing({name: mandatory.FLOW_SCHEMAS[name]}, usable) for name in ("exempt", CATCH_ALL))
        self._schemas = [*exempt, *in_order(usable), *catch_all]
        self._catch_all = next(each for each in self._schemas if name_of(each) == CATCH_ALL)
        for name, level in self.levels.items():
            if name not in levels and not level.queues.idle:
                level.quiescing = True
                levels[name] = level
        self.levels = levels
        total = float(sum(level.shares for level in levels.values()))
        for level in levels.values():
            level.divide(all_shares=total, seats=self.seats)
        self.adjust(now)

    def adjust(self, now: float) -> None:
        """Let levels lend and borrow seats according to what they needed since this was last done."""
        borrowers = {name: level.end_period(now) for name, level in self.levels.items()}
        allocation = shares.adjust(borrowers)
        self.fair_fraction = allocation.fair_fraction
        for name, level in self.levels.items():
            level.limit(allocation.current[name], allocation.targets[name], now, seats=self.seats)
            self._dispatch(level, now)

    def look_back(self) -> None:
        """Bring what is told of the past up to date."""
        now = self._monotonic()
        for level in self.levels.values():
            level.look_back(now)

    def _tidy(self, level: Level) -> None:
        """A level whose object is gone goes with its last request."""
        if level.quiescing and level.queues.idle:
            self.forget()

    async def run(self) -> None:
        """Adjust the limits every ten seconds until cancelled."""
        while True:
            await self.clock.sleep(shares.ADJUSTMENT_SECONDS)
            self.refresh()
            self.adjust(self._monotonic())


def _missing(wanted: dict[str, Obj], present: list[Obj]) -> list[Obj]:
    """Objects that there must be, but are not (yet), as they would be."""
    names = {name_of(obj) for obj in present}
    return [{"metadata": {"name": name}, "spec": spec} for name, spec in wanted.items() if name not in names]


def _kind(info: RequestInfo) -> str:
    return "readOnly" if info.verb in READING else "mutating"
