"""`$(NAME)` in commands, arguments and values: replaced when the name is known, left as it is when not.

`$$` stands for one `$`, so `$$(NAME)` is the literal `$(NAME)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:(\$)|\(([^)]*)\))")


def expand(text: str, *scopes: Mapping[str, str]) -> str:
    """Replace references by the value in the first scope that knows the name."""

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        for scope in scopes:
            if match[2] in scope:
                return scope[match[2]]
        return match[0]

    return _REFERENCE.sub(replace, text)


def references(text: str) -> list[str]:
    """The names a text refers to, in their order."""
    return [match[2] for match in _REFERENCE.finditer(text) if match[1] is None]
