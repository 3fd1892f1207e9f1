"""Label selectors as objects carry them (`matchLabels`, `matchExpressions`)."""

from __future__ import annotations

from collections.abc import Mapping

from shipwheel.api.meta import Obj


def matches(selector: Obj | None, labels: Mapping[str, str] | None) -> bool:
    """Whether the selector takes in an object with these labels. None takes in nothing, an empty one everything."""
    if selector is None:
        return False
    labels = labels or {}
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(requirement, labels) for requirement in selector.get("matchExpressions") or ()
    )


def _meets(requirement: Obj, labels: Mapping[str, str]) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    if operator == "In":
        return key in labels and labels[key] in (requirement.get("values") or ())
    if operator == "NotIn":
        return key not in labels or labels[key] not in (requirement.get("values") or ())
    return (key in labels) == (operator == "Exists")
