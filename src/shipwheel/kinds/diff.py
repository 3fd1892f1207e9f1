"""What changed, for messages that refuse a change."""

from __future__ import annotations

import difflib
from typing import Any

import yaml


def changes(old: Any, new: Any) -> str:
    """The lines by which the new value differs from the old, each with a sign, between lines that stayed."""
    before, after = (yaml.safe_dump(value, default_flow_style=False).splitlines() for value in (old, new))
    lines = difflib.unified_diff(before, after, lineterm="", n=2)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
