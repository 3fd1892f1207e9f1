"""Reading a list that hardly changes: only items that the list before did not have are decoded.

Sandboxes and containers are listed every second, and from one second to the next many of them say the same, byte for
byte, though in any order. What was made of such an item is used again; it is immutable. (An item whose labels or
annotations the runtime wrote in another order, as containerd may, is decoded again.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from shipwheel.api.protobuf import DecodeError, Message, decode
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
        for raw in items:
            found = before.get(raw)
            now[raw] = self._decoded(raw) if found is None else found
        self._known = now
        return list(now.values())

    def _decoded(self, raw: bytes) -> _T:
        try:
            return self._form(decode(self._message, raw))
        except DecodeError as error:
            raise RuntimeFault("INTERNAL", str(error)) from error
