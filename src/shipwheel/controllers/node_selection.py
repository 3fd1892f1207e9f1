"""Whether a node is one that a pod asks for: node selector and required node affinity."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj, labels_of, name_of


def is_wanted(spec: Obj, node: Obj) -> bool:
    """The node has what the pod's spec requires of it. Taints are another question."""
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or matches_terms(required.get("nodeSelectorTerms") or (), node)


def matches_terms(terms: Iterable[Obj], node: Obj) -> bool:
    """A node selector: any of its terms holds. An empty term holds for no node."""
    return any(_term_holds(term, node) for term in terms)


def _term_holds(term: Obj, node: Obj) -> bool:
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = labels_of(node)
    names = {"metadata.name": name_of(node)}
    return all(_holds(each, labels) for each in expressions) and all(_holds(each, names) for each in fields)


def _holds(requirement: Obj, values: dict[str, str]) -> bool:
    value = values.get(requirement["key"])
    wanted = requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value is None or value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                left, right = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return left > right if operator == "Gt" else left < right
    return False
