"""Comparing pod templates."""

from __future__ import annotations

from typing import Any


def without_empty(value: Any) -> Any:
    """A JSON value without nulls and empty lists, which say nothing. An empty struct (`emptyDir: {}`) does."""
    if isinstance(value, dict):
        cleaned = {key: without_empty(each) for key, each in value.items()}
        return {key: each for key, each in cleaned.items() if each is not None and each != []}
    if isinstance(value, list):
        return [without_empty(each) for each in value]
    return value
