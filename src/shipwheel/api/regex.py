"""Regular expressions as the API means them: Go's, which is RE2.

Patterns come from whoever may create a CustomResourceDefinition or an admission policy, and are run on data of
whoever may create an object, so they must not be able to take exponential time. RE2's own library keeps both
promises: the same dialect, and time linear in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from re import Match
from typing import Protocol


class Pattern(Protocol):
    def search(self, text: str) -> object | None:
        """A match anywhere in `text`, or None."""

    def finditer(self, text: str) -> Iterator[Match[str]]:
        """All matches, one after the other."""


class PatternError(ValueError):
    """The pattern is not a regular expression."""


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Pattern:
    """Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise PatternError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
