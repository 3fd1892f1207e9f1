"""Taints and tolerations: what keeps pods off a node or a device, and what lets them on all the same."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> Obj | None:
    """The first toleration that covers a taint."""
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != taint["effect"]:
            continue
        if toleration.get("key") and toleration["key"] != taint["key"]:
            continue
        operator = toleration.get("operator") or "Equal"
        value, tolerated = taint.get("value") or "", toleration.get("value") or ""
        if operator == "Exists" or (operator == "Equal" and value == tolerated):
            return toleration
        if operator in ("Gt", "Lt") and _compares(operator, value, tolerated):
            return toleration
    return None


def _compares(operator: str, taint: str, toleration: str) -> bool:
    """KEP-5471: the taint's value, as a number, is greater (less) than the toleration's."""
    try:
        left, right = int(taint), int(toleration)
    except ValueError:
        return False
    return left > right if operator == "Gt" else left < right
