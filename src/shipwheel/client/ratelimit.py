"""How often something may be done: so often a second on average, so many times at once."""

from __future__ import annotations

from shipwheel.api.clock import Clock


class TokenBucket:
    """At most `qps` a second on average, `burst` at once."""

    def __init__(self, qps: float, burst: int, clock: Clock) -> None:
        self._qps = qps
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._stamp = clock.monotonic()

    async def take(self) -> None:
        """Wait one's turn."""
        self._fill()
        self._tokens -= 1
        if self._tokens < 0:
            await self._clock.sleep(-self._tokens / self._qps)

    def try_take(self) -> bool:
        """Whether it may be done now."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._stamp) * self._qps)
        self._stamp = now
