"""Node selectors: whether a node is one that a pod, or a volume, asks for.

A node selector (core/v1 NodeSelector) is a list of terms of which one must hold; a term's requirements must all
hold, over the node's labels and its name. Everybody who places, admits or counts pods asks here. Taints are another
question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from shipwheel.api.meta import Obj, labels_of, name_of

NODE_NAME = "metadata.name"
"""The only field that `matchFields` knows."""


def fits(spec: Obj, node: Obj) -> bool:
    """The node has what a pod's spec requires of it: its node selector and its required node affinity."""
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any_term(required.get("nodeSelectorTerms") or (), node)


def any_term(terms: Iterable[Obj], node: Obj) -> bool:
    """Any of the terms holds. An empty term holds for no node."""
    return any(_holds(term, node) for term in terms)


def _holds(term: Obj, node: Obj) -> bool:
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return _all(expressions, labels_of(node)) and _all(fields, {NODE_NAME: name_of(node)})


def _all(requirements: Iterable[Obj], values: Mapping[str, str]) -> bool:
    return all(tester(each)(values.get(each["key"])) for each in requirements)


def tester(requirement: Obj) -> Callable[[str | None], bool]:
    """A requirement as a test of its key's value, None where there is none. What makes no sense holds for nothing."""
    operator, values = requirement["operator"], requirement.get("values") or []
    wanted = frozenset(values)
    match operator:
        case "In":
            return lambda value: value is not None and value in wanted
        case "NotIn":
            return lambda value: value is None or value not in wanted
        case "Exists":
            return lambda value: value is not None
        case "DoesNotExist":
            return lambda value: value is None
    bound = _integer(values[0]) if len(values) == 1 and operator in ("Gt", "Lt") else None

    def compare(value: str | None) -> bool:
        number = _integer(value)
        if number is None or bound is None:
            return False
        return number > bound if operator == "Gt" else number < bound

    return compare


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None and not text[:1].isspace() else None
    except ValueError:
        return None
