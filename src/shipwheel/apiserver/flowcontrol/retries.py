"""When those who were sent away should come back: later, the more of them there are."""

from __future__ import annotations

from collections import deque

_MOST = 32
"""Seconds."""


class RetryAfter:
    """Doubles while many are sent away, and goes back a second at a time, as TCP's window does the other way round.
    Seconds are whole ones of any clock."""

    def __init__(self) -> None:
        self.seconds = 1
        self._now = 0
        self._count = 0
        self._changed = 0
        self._history: deque[tuple[int, int]] = deque()
        """(second, how many were sent away in it), the current one excepted."""

    def note(self, now: int) -> None:
        """Somebody is sent away."""
        if now == self._now:
            self._count += 1
            return
        self._history.append((self._now, self._count))
        while self._history and self._now - self._history[0][0] > min(2 * self.seconds, _MOST):
            self._history.popleft()
        self._now, self._count = now, 1
        lately = sum(count for second, count in self._history if now - second <= self.seconds)
        if now - self._changed >= self.seconds and lately >= 3 * self.seconds:
            self.seconds = min(2 * self.seconds, _MOST)
            self._changed = now
        elif lately < self.seconds and self.seconds > 1:
            self.seconds -= 1
