"""Waiting longer after every failure: the delays of CrashLoopBackOff and ImagePullBackOff.

The delay starts at `initial` seconds, doubles with each failure up to `maximum`, and is forgotten when nothing failed
for twice the maximum (so a container that ran for ten minutes starts anew). Times are whatever the caller counts
in, seconds; the object holds no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL_SECONDS = 10.0
MAXIMUM_SECONDS = 300.0


@dataclass(slots=True)
class _Entry:
    delay: float
    updated: float


class BackOff:
    def __init__(self, initial: float = INITIAL_SECONDS, maximum: float = MAXIMUM_SECONDS) -> None:
        self._initial = initial
        self._maximum = maximum
        self._entries: dict[str, _Entry] = {}

    def limit(self, maximum: float) -> None:
        """Let no delay grow beyond `maximum` seconds."""
        self._maximum = maximum
        self._initial = min(self._initial, maximum)

    def delay(self, key: str) -> float:
        """The current delay in seconds; 0 when nothing failed yet."""
        entry = self._entries.get(key)
        return entry.delay if entry else 0.0

    def failed(self, key: str, when: float, *, now: float) -> None:
        """Count a failure that happened at `when`."""
        entry = self._entries.get(key)
        if entry is None or self._forgotten(entry, when):
            self._entries[key] = _Entry(self._initial, now)
        else:
            entry.delay = min(entry.delay * 2, self._maximum)
            entry.updated = now

    def wait(self, key: str, when: float, *, now: float) -> float:
        """Seconds still to wait after a failure at `when`; 0 to go on."""
        entry = self._entries.get(key)
        if entry is None or self._forgotten(entry, when):
            return 0.0
        return max(0.0, when + entry.delay - now)

    def wait_since_update(self, key: str, *, now: float) -> float:
        """Seconds still to wait after the last failure that was counted."""
        entry = self._entries.get(key)
        if entry is None or self._forgotten(entry, now):
            return 0.0
        return max(0.0, entry.updated + entry.delay - now)

    def forget(self, prefix: str) -> None:
        """Drop every key that begins with `prefix`."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            del self._entries[key]

    def _forgotten(self, entry: _Entry, when: float) -> bool:
        return when - entry.updated > 2 * self._maximum
