"""Values that are a number or a text: ports by name, and shares of a whole (`maxSurge: 25%`)."""

from __future__ import annotations

import re

IntOrString = int | str

_INTEGER = re.compile(r"[+-]?[0-9]+")


def is_percent(value: IntOrString) -> bool:
    return isinstance(value, str) and value.endswith("%")


def scaled_value(value: IntOrString, total: int, *, round_up: bool) -> int:
    """The number itself, or that percentage of `total`.

    Raises ValueError, in upstream's words, for text that is no percentage.
    """
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError("invalid value for IntOrString: invalid type: string is not a percentage")
    share = value[:-1]
    if not _INTEGER.fullmatch(share):
        raise ValueError(
            f'invalid value for IntOrString: invalid value "{value}": strconv.Atoi: parsing "{share}": invalid syntax'
        )
    hundredfold = int(share) * total
    return -(-hundredfold // 100) if round_up else hundredfold // 100


def int_value(value: IntOrString) -> int:
    """The number, or what the text says as a number; 0 when it is no number."""
    if isinstance(value, int):
        return value
    return int(value) if _INTEGER.fullmatch(value) else 0


def parse(text: str) -> IntOrString:
    """A number where the text is one (of 32 bits), else the text: for flags and query parameters."""
    if _INTEGER.fullmatch(text) and -(2**31) <= int(text) < 2**31:
        return int(text)
    return text
