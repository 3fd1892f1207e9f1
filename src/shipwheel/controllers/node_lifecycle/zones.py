"""How fast nodes may be given up, by zone.

When one node falls silent it has died. When most do, it is the network, and evicting everything would make it
worse: a zone with many silent nodes is given up slowly, or in a small cluster not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from shipwheel.api.meta import Obj, labels_of


class ZoneState(Enum):
    INITIAL = "Initial"
    NORMAL = "Normal"
    FULL_DISRUPTION = "FullDisruption"
    PARTIAL_DISRUPTION = "PartialDisruption"


@dataclass(frozen=True, slots=True)
class EvictionRates:
    """Flags `--node-eviction-rate` and so on; nodes a second."""

    normal: float = 0.1
    reduced: float = 0.01
    large_cluster: int = 50
    unhealthy_threshold: float = 0.55


def zone_of(node: Obj) -> str:
    """Region and zone as one key, as upstream's metrics show it; empty without either."""
    labels = labels_of(node)
    region = labels.get("topology.kubernetes.io/region") or labels.get("failure-domain.beta.kubernetes.io/region", "")
    zone = labels.get("topology.kubernetes.io/zone") or labels.get("failure-domain.beta.kubernetes.io/zone", "")
    return f"{region}:\x00:{zone}" if region or zone else ""


def state_of(ready: Iterable[bool], threshold: float) -> tuple[int, ZoneState]:
    """(how many nodes are not ready, what that means for their zone)."""
    states = list(ready)
    bad = states.count(False)
    if bad and bad == len(states):
        return bad, ZoneState.FULL_DISRUPTION
    if bad > 2 and bad / len(states) >= threshold:
        return bad, ZoneState.PARTIAL_DISRUPTION
    return bad, ZoneState.NORMAL


def rate_of(state: ZoneState, size: int, rates: EvictionRates) -> float:
    """Nodes a second that may be tainted in a zone of `size` nodes."""
    if state is ZoneState.PARTIAL_DISRUPTION:
        return rates.reduced if size > rates.large_cluster else 0.0
    return rates.normal


class TaintQueue:
    """The nodes of a zone that wait for their NoExecute taint, oldest first, with a token bucket of one."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = 1.0
        self._stamp = now
        self._waiting: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, node: str) -> bool:
        return node in self._waiting

    @property
    def rate(self) -> float:
        return self._rate

    def set_rate(self, rate: float, now: float) -> None:
        if rate != self._rate:
            self._refill(now)
            self._rate = rate

    def add(self, node: str) -> None:
        self._waiting.setdefault(node)

    def remove(self, node: str) -> None:
        self._waiting.pop(node, None)

    def take(self, now: float) -> str | None:
        """The next node, if there is one and it is time."""
        self._refill(now)
        if not self._waiting or self._tokens < 1 or self._rate <= 0:
            return None
        self._tokens -= 1
        node = next(iter(self._waiting))
        del self._waiting[node]
        return node

    def _refill(self, now: float) -> None:
        self._tokens = min(1.0, self._tokens + (now - self._stamp) * self._rate)
        self._stamp = now
