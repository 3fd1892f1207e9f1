"""The line discipline of a terminal: keys in, lines and an echo out. A client's own terminal is in raw mode, so
nothing is echoed or edited unless this end does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Line:
    text: str


Key = Literal["interrupt", "end"]


@dataclass(slots=True)
class Terminal:
    echoes: bool
    _typed: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> tuple[bytes, list[Line | Key]]:
        """(what to show, what was entered)"""
        shown = bytearray()
        entered: list[Line | Key] = []
        for byte in data:
            if byte in (0x0A, 0x0D):
                shown += b"\r\n"
                entered.append(Line(self._typed.decode(errors="replace")))
                self._typed.clear()
            elif not self.echoes:
                self._typed.append(byte)
            elif byte == 0x03:
                shown += b"^C\r\n"
                entered.append("interrupt")
                self._typed.clear()
            elif byte == 0x04:
                if not self._typed:
                    entered.append("end")
            elif byte in (0x08, 0x7F):
                if self._typed:
                    self._typed.pop()
                    shown += b"\b \b"
            elif byte >= 0x20 or byte == 0x09:
                self._typed.append(byte)
                shown.append(byte)
        return (bytes(shown) if self.echoes else b""), entered

    def rest(self) -> str:
        """What was typed and never entered."""
        return self._typed.decode(errors="replace")
