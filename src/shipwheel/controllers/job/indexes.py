"""Sets of completion indexes, as intervals: `0-2,4,6-9` in a Job's status."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Indexes:
    """Disjoint intervals (first, last), ascending and not adjacent."""

    intervals: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str, completions: int) -> Indexes:
        """Read a status field; what is garbled or beyond `completions` is left out."""
        found: list[tuple[int, int]] = []
        for part in text.split(",") if text else ():
            first, _, last = part.partition("-")
            if first.isdecimal() and (not last or last.isdecimal()) and int(first) < completions:
                found.append((int(first), min(int(last or first), completions - 1)))
        return cls(_merged(found))

    @classmethod
    def of(cls, indexes: Iterable[int]) -> Indexes:
        return cls(_merged((index, index) for index in indexes))

    def __or__(self, other: Indexes) -> Indexes:
        return Indexes(_merged((*self.intervals, *other.intervals)))

    def __contains__(self, index: int) -> bool:
        place = bisect.bisect_right(self.intervals, (index, float("inf"))) - 1
        return place >= 0 and self.intervals[place][1] >= index

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.intervals)

    def __str__(self) -> str:
        parts = []
        for first, last in self.intervals:
            if last == first:
                parts.append(str(first))
            else:
                parts.append(f"{first}{',' if last == first + 1 else '-'}{last}")
        return ",".join(parts)

    def common(self, other: Indexes) -> int:
        """How many indexes are in both."""
        count = left = right = 0
        while left < len(self.intervals) and right < len(other.intervals):
            (first, last), (other_first, other_last) = self.intervals[left], other.intervals[right]
            count += max(min(last, other_last) - max(first, other_first) + 1, 0)
            if last <= other_last:
                left += 1
            if other_last <= last:
                right += 1
        return count

    def missing(self, limit: int) -> Iterator[int]:
        """The indexes below `limit` that are not here, ascending."""
        candidate = 0
        for first, last in self.intervals:
            yield from range(candidate, min(first, limit))
            candidate = last + 1
        yield from range(candidate, limit)


def _merged(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
