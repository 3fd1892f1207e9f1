"""How fields are called in CEL whose names are no names there (KEP-2876): `x-y` is `x__dash__y`."""

from __future__ import annotations

import re
from functools import lru_cache

_RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
     "let", "loop", "package", "namespace", "return", "var", "void", "while")
)  # fmt: skip
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_PARTS = re.compile(r"__|[-./]")
_ALLOWED = re.compile(r"[A-Za-z_./-][\w./-]*", re.ASCII)


@lru_cache(4096)
def escape(name: str) -> str:
    """The field's name in CEL; empty when there is none."""
    if not _ALLOWED.fullmatch(name):
        return ""
    if name in _RESERVED:
        return f"__{name}__"
    return _PARTS.sub(lambda part: _ESCAPES[part[0]], name)
