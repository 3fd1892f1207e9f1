"""Reading a list that hardly changes: only items that the list before did not have are decoded.

Sandboxes and containers are listed every second, and from one second to the next nearly all of them say the same, in
any order: containerd is in Go, where the entries of a map (labels, annotations) come in another order each time. So
items are compared by their fields in an order of our own. What was made of an item is used again; it is immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from shipwheel.api.protobuf import DecodeError, Message, decode, in_order
from shipwheel.kubelet.runtime.base import RuntimeFault

_T = TypeVar("_T")


class Listing(Generic[_T]):
    """`form` makes of a decoded `message` what callers get."""

    def __init__(self, message: Message, form: Callable[[dict[str, Any]], _T]) -> None:
        self._message = message
        self._form = form
        self._known: dict[bytes, _T] = {}

    def read(self, items: Iterable[bytes]) -> list[_T]:
        """All items of a list, without repetitions; RuntimeFault when one is malformed."""
        before = self._known
        now: dict[bytes, _T] = {}
        try:
            for raw in items:
                key = in_order(raw)
                found = before.get(key)
                now[key] = self._form(decode(self._message, raw)) if found is None else found
        except DecodeError as error:
            raise RuntimeFault("INTERNAL", str(error)) from error
        self._known = now
        return list(now.values())
