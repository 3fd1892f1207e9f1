"""Sets of indexes as Jobs write them: `1,3-5,7`, in rising order."""

from __future__ import annotations

import re

_INTEGER = re.compile("[+-]?[0-9]+").fullmatch


class IndexesError(ValueError):
    """The text is no set of indexes, or one has an index that is too large; the message is upstream's."""


def count(text: str, completions: int) -> int:
    """How many indexes there are, all below `completions`."""
    last: int | None = None
    total = 0
    for part in text.split(",") if text else ():
        first, end = _interval(part, completions)
        if last is not None and last >= first:
            raise IndexesError(f"non-increasing order, previous: {last}, current: {first}")
        total += end - first + 1
        last = end
    return total


def first_common(one: str, other: str, completions: int) -> int | None:
    """The first index that is in both sets. Parts that cannot be read are left out."""
    mine, theirs = _intervals(one, completions), _intervals(other, completions)
    shared = [max(a, c) for a, b in mine for c, d in theirs if a <= d and c <= b]
    return min(shared, default=None)


def _intervals(text: str, completions: int) -> list[tuple[int, int]]:
    found = []
    for part in text.split(",") if text else ():
        try:
            found.append(_interval(part, completions))
        except IndexesError:
            continue
    return found


def _interval(part: str, completions: int) -> tuple[int, int]:
    limits = part.split("-")
    if len(limits) > 2:
        raise IndexesError(
            f'the fragment "{part}" violates the requirement that an index interval can have at most two parts '
            "separated by '-'"
        )
    first, *rest = (_index(limit, completions) for limit in limits)
    if not rest:
        return first, first
    if first >= rest[0]:
        raise IndexesError(f"non-increasing order, previous: {first}, current: {rest[0]}")
    return first, rest[0]


def _index(text: str, completions: int) -> int:
    if not _INTEGER(text):
        raise IndexesError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise IndexesError(f'too large index: "{text}"')
    return int(text)
