"""Conditions of flow schemas and priority levels: each kind once."""

from __future__ import annotations

from shipwheel.api.errors import duplicate, required
from shipwheel.api.meta import Obj
from shipwheel.kinds.checks import Errors


def check_conditions(obj: Obj, errors: Errors) -> None:
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}].type", condition.get("type", "")
        if kind in seen:
            errors.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            errors.append(required(path))
