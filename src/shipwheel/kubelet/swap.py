"""How much of a machine's swap a container may use (KEP-2400): none, or in proportion to the memory it asked for.

Only cgroup v2 can tell memory and swap apart. With v1 the runtime keeps containers from swapping by itself.
"""

from __future__ import annotations

from pathlib import Path

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import ZERO
from shipwheel.kubelet import podspec
from shipwheel.kubelet.resources import limits_of, qos_class, requests_of

LIMITED = "LimitedSwap"
FILE = "memory.swap.max"


def allowance(pod: Obj, container: Obj, *, memory: int, swap: int) -> int:
    """Bytes of swap for a container of a machine with so much memory and swap, if swap is shared out at all: pods that
    are critical, have all they need (Guaranteed) or asked for nothing (BestEffort) get none."""
    asked = requests_of(container).get("memory", ZERO)
    if not may(pod, container) or memory <= 0 or asked.value() > memory:
        return 0
    return int(asked.value() / memory * swap)


def may(pod: Obj, container: Obj) -> bool:
    """Whether the container has a share, where there is swap to share."""
    asked, limit = requests_of(container).get("memory", ZERO), limits_of(container).get("memory", ZERO)
    return not podspec.is_critical(pod) and qos_class(pod) == "Burstable" and asked != limit


def is_accounted(mount: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether the kernel limits swap by cgroup (v2): the root has no such file, those below it have."""
    try:
        return any((each / FILE).exists() for each in mount.iterdir() if each.is_dir())
    except OSError:
        return False
