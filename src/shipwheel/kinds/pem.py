"""Finding the blocks of a PEM text (RFC 7468)."""

from __future__ import annotations

import re
from typing import NamedTuple

_BLOCK = re.compile(rb"-----BEGIN ([^\n]*)-----[ \t\r]*\n(.*?)-----END \1-----", re.DOTALL)


class Block(NamedTuple):
    kind: str
    """`CERTIFICATE`, `PRIVATE KEY`, ..."""
    text: bytes
    """All of it, from BEGIN to END."""
    has_headers: bool


def blocks(text: bytes) -> list[Block]:
    """The blocks in order; what lies between them is passed over."""
    return [Block(found[1].decode(errors="replace"), found[0], b":" in found[2]) for found in _BLOCK.finditer(text)]
