"""Sets of CPUs as the kernel writes them: `0-3,8`."""

from __future__ import annotations

from collections.abc import Iterable

CpuSet = frozenset[int]
NONE: CpuSet = frozenset()


def parse(text: str) -> CpuSet:
    """ValueError when the text is no list of CPUs."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise ValueError(f"invalid range {part!r} ({low} > {high})")
        found.update(range(low, high + 1))
    return frozenset(found)


def shown(cpus: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
