"""What is counted of the requests of a flow schema at a priority level, where it happens; `metrics` shows it.

Most requests are carried out at once, which is counted in one place: they waited for no time, in a queue of their own.
"""

from __future__ import annotations

from shipwheel.client.histogram import Series

TIMED_OUT = "time-out"
_SECONDS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_LENGTHS = (0, 10, 25, 50, 100, 250, 500, 1000)
_WATCHES = (0, 1, 10, 100, 1000, 10000)


class Tally:
    __slots__ = (
        "at_once",
        "executed",
        "lengths",
        "refused",
        "rejected",
        "unaccommodated",
        "waited",
        "watched",
        "watches",
        "wide",
    )

    def __init__(self) -> None:
        self.at_once = 0
        self.waited = Series(_SECONDS)
        """Seconds of those that were carried out in the end."""
        self.refused = Series(_SECONDS)
        """Seconds of those that were not."""
        self.rejected: dict[str, int] = {}
        """By reason."""
        self.lengths = Series(_LENGTHS)
        """Of queues, after somebody joined them."""
        self.executed = Series(_SECONDS)
        self.watched = Series(_SECONDS)
        """The same of watches: until they have begun."""
        self.wide: dict[int, int] = {}
        """Requests by width, but for those that are as narrow as most."""
        self.watches = Series(_WATCHES)
        """How many watch what a write changes."""
        self.unaccommodated = 0

    def reject(self, reason: str, seconds: float) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        self.refused.observe(seconds)

    def widths(self) -> dict[int, int]:
        """All requests by width."""
        refused = sum(count for reason, count in self.rejected.items() if reason != TIMED_OUT)
        arrived = self.at_once + sum(self.lengths.counts) + refused
        return {
            1: arrived - sum(self.wide.values()) + self.wide.get(1, 0),
            **{n: c for n, c in self.wide.items() if n > 1},
        }
