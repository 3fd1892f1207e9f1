"""A priority level as the server runs it: its object's facts, its queues, its seats, and how busy it is."""

from __future__ import annotations

from shipwheel.api.meta import Obj, name_of
from shipwheel.apiserver.flowcontrol.places import Headers
from shipwheel.apiserver.flowcontrol.queueset import QueueSet, Queuing
from shipwheel.apiserver.flowcontrol.retries import RetryAfter
from shipwheel.apiserver.flowcontrol.shares import Borrower, Demand, Limits, limits_of, rounded, widest
from shipwheel.apiserver.flowcontrol.tally import Tally
from shipwheel.apiserver.flowcontrol.usage import Usage


class Level:
    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.uid = ""
        self.exempt = False
        self.shares = 0
        self.lendable: int | None = None
        self.borrowing: int | None = None
        self.queuing: Queuing | None = None
        self.limits = Limits()
        self.current = 0
        self.target = 0.0
        self.most = 0
        """How many seats one request may take, 0: any number."""
        self.quiescing = False
        """Its object is gone; it stays until everybody has left."""
        self.queues = QueueSet(now=now)
        self.demand = Demand()
        self.usage = Usage()
        self.retry = RetryAfter()
        self._demanded: dict[int, float] = {}
        self._high = 0
        self._since = self._period = now
        self._seats = self._room = 1

    def read(self, obj: Obj) -> None:
        """Be as a PriorityLevelConfiguration says."""
        spec = obj["spec"]
        self.uid = obj["metadata"].get("uid", "")
        self.exempt = self.queues.exempt = spec["type"] == "Exempt"
        part = spec.get("exempt" if self.exempt else "limited") or {}
        self.shares = part.get("nominalConcurrencyShares") or 0
        self.lendable = part.get("lendablePercent")
        self.borrowing = part.get("borrowingLimitPercent")
        queuing = (part.get("limitResponse") or {}).get("queuing")
        self.queuing = None
        if queuing is not None:
            self.queuing = Queuing(queuing["queues"], queuing["handSize"], queuing["queueLengthLimit"])
        self.quiescing = False

    def divide(self, *, all_shares: float, seats: int) -> None:
        """Find the limits, of `seats` seats for all levels."""
        self.limits = limits_of(self.shares, self.lendable, self.borrowing, all_shares=all_shares, seats=seats)
        self.most = widest(self.limits.nominal, self.queuing.hand) if self.queuing is not None else 0

    def look_back(self, now: float) -> None:
        """Note how busy the level was since this was last called."""
        occupied = self.queues.take_occupancy(now)
        span, self._since = now - self._since, now
        idle = max(span - sum(occupied.values()), 0.0)
        self.usage.add(occupied, idle=idle, seats=self._seats, room=self._room)
        for (in_use, wanted, *_), seconds in occupied.items():
            demanded = in_use + wanted
            self._demanded[demanded] = self._demanded.get(demanded, 0.0) + seconds
            self._high = max(self._high, demanded)

    def end_period(self, now: float) -> Borrower:
        """What the level needed since the last period ended."""
        self.look_back(now)
        self.demand = self.demand.next(self._demanded, now - self._period, self._high)
        self._demanded, self._period = {}, now
        self._high = self.queues.seats_in_use + self.queues.seats_waiting
        return Borrower(self.exempt, self.limits, self.demand, self.current)

    def limit(self, current: int, target: float, now: float, *, seats: int) -> None:
        """Go on with this many seats. `QueueSet.dispatch` is called for after."""
        self.current, self.target = current, target
        self.queues.configure(self.queuing, current, now)
        self._seats = current or max(1, rounded(seats / 10))
        self._room = self.queuing.queues * self.queuing.length_limit if self.queuing is not None else 1


class Flow:
    """What has the same flow schema and distinguisher: `hand` is the queues it may wait in."""

    __slots__ = ("distinguisher", "hand", "headers", "level", "schema", "tally")

    def __init__(self, schema: Obj, distinguisher: str, level: Level, hand: tuple[int, ...], tally: Tally) -> None:
        self.schema = name_of(schema)
        self.distinguisher = distinguisher
        self.level = level
        self.hand = hand
        self.tally = tally
        self.headers: Headers = (
            ("X-Kubernetes-Pf-Flowschema-Uid", schema["metadata"].get("uid", "")),
            ("X-Kubernetes-Pf-Prioritylevel-Uid", level.uid),
        )
