"""The kernel settings that a kubelet counts on, and what to do where they differ.

Upstream's kubelet changes them by itself unless it is told to protect them. Here the machine is somebody's: they are
left as they are, and with `protectKernelDefaults` the kubelet does not start where they differ, as upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

EXPECTED: Mapping[str, int] = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""By their path below `/proc/sys`."""


def faults(root: Path = Path("/proc/sys")) -> list[str]:
    """What differs, each in upstream's words."""
    found = []
    for name, expected in EXPECTED.items():
        try:
            actual = int((root / name).read_text())
        except (OSError, ValueError) as error:
            found.append(str(error))
            continue
        if actual != expected:
            found.append(f"invalid kernel flag: {name}, expected value: {expected}, actual value: {actual}")
    return found
