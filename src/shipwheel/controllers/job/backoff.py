"""How long to wait after failures before pods are made again: 10 s, doubling to 10 min."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shipwheel.api.clock import parse_time
from shipwheel.api.meta import Obj, condition

_START = 10.0
_MAX = 600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The failures since the last success."""

    failures: int = 0
    last_failure: datetime | None = None

    def after(self, succeeded: Iterable[Obj], failed: Iterable[Obj]) -> Backoff:
        """With pods that have ended since."""
        successes = sorted(map(finished_at, succeeded))
        failures = sorted(map(finished_at, failed))
        if not successes:
            if not failures:
                return self
            return Backoff(self.failures + len(failures), failures[-1])
        later = [moment for moment in failures if moment > successes[-1]]
        return Backoff(len(later), later[-1] if later else None)

    def left(self, now: datetime) -> float:
        """Seconds to wait from `now`."""
        if not self.failures or self.last_failure is None:
            return 0.0
        delay = min(_START * 2 ** min(self.failures - 1, 20), _MAX)
        return max((self.last_failure - now).total_seconds() + delay, 0.0)


def finished_at(pod: Obj) -> datetime:
    """When a pod ended, as well as that can be told."""
    status = pod.get("status") or {}
    sidecars = {
        each["name"] for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"
    }
    containers = list(status.get("containerStatuses") or ())
    containers += [each for each in status.get("initContainerStatuses") or () if each["name"] in sidecars]
    ends = [((each.get("state") or {}).get("terminated") or {}).get("finishedAt") for each in containers]
    if ends and all(ends):
        return max(parse_time(end) for end in ends if end)
    ready = condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return parse_time(ready["lastTransitionTime"])
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return parse_time(meta["deletionTimestamp"]) - timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)
    return parse_time(meta["creationTimestamp"])
