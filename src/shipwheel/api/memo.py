"""What pure functions made of JSON values, kept by the values' content.

Objects come in great numbers with parts that are the same to the byte: the specs of all pods of a Deployment. To find
out a second time what such a part defaults to, what is wrong with it or which fields it has costs a hundred times what
it costs to write it as JSON and look that up. Nothing is assumed about who sends it, and nothing can be stale: the
function must depend on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import orjson

P = ParamSpec("P")
T = TypeVar("T")

KEPT = 1 << 19
"""Bytes of JSON for which one function's results are kept."""


class Memo(Generic[T]):
    """Results by key, within bounds: what nobody asks for while half as much is taken in is forgotten."""

    def __init__(self, kept: int = KEPT) -> None:
        self._half = kept // 2
        self._largest = kept // 16
        self._size = 0
        self._young: dict[Hashable, T] = {}
        self._old: dict[Hashable, T] = {}

    def get(self, key: Hashable, size: int) -> T | None:
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, size, found)
        return found

    def put(self, key: Hashable, size: int, result: T) -> None:
        """`size` is that of the key, in bytes; what is large is not kept."""
        if size > self._largest:
            return
        self._size += size
        if self._size > self._half:
            self._young, self._old, self._size = {}, self._young, size
        self._young[key] = result


def remembered(function: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """For a pure function of a JSON value and of further positional arguments that can be hashed. What it makes is
    shared by all who ask, and so not to be changed."""
    memo: Memo[tuple[T]] = Memo()

    @wraps(function)
    def recall(value: Any, *facts: P.args, **none: P.kwargs) -> T:
        content = orjson.dumps(value)
        key = (content, facts)
        known = memo.get(key, len(content))
        if known is None:
            known = (function(value, *facts, **none),)
            memo.put(key, len(content), known)
        return known[0]

    return recall
