"""Rules about the nodes themselves, whatever runs there: selectors, affinity and taints.

They depend on nothing that scheduling changes, so an answer holds until a node's labels or taints change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from shipwheel.api import nodeselector
from shipwheel.api.meta import Obj
from shipwheel.api.nodeselector import NODE_NAME
from shipwheel.scheduler.pods import Shape, tolerated
from shipwheel.scheduler.table import Mask, NodeTable

Answer = TypeVar("Answer")
_REMEMBERED = 1024


class NodeRules:
    """Answers for all rows of a table. What is returned must not be changed."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._version = -1
        self._answers: OrderedDict[tuple[object, ...], Any] = OrderedDict()

    def remembered(self, key: tuple[object, ...], work: Callable[[], Answer]) -> Answer:
        """`work()`, done once for a key until nodes change."""
        table = self._table
        if self._version != table.node_version:
            self._answers.clear()
            self._version = table.node_version
        if key in self._answers:
            self._answers.move_to_end(key)
            return self._answers[key]
        answer = self._answers[key] = work()
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return answer

    def affinity(self, shape: Shape) -> Mask:
        """Rows that the pod's nodeSelector and required node affinity select."""
        return self.remembered(("affinity", shape.static_key), lambda: self._affinity(shape))

    def _affinity(self, shape: Shape) -> Mask:
        selected = np.ones(self._table.size, np.bool_)
        for key, value in (shape.spec.get("nodeSelector") or {}).items():
            selected &= self._labels(key, frozenset((value,)).__contains__)
        required = shape.node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        if required is not None:
            selected &= self.any_term(required.get("nodeSelectorTerms") or ())
        return selected

    def untolerated(self, shape: Shape) -> Mask:
        """Rows with a taint that keeps the pod away."""
        return self.remembered(("untolerated", shape.static_key), lambda: self._untolerated(shape.tolerations))

    def _untolerated(self, tolerations: Sequence[Obj]) -> Mask:
        found = np.zeros(self._table.size, np.bool_)
        for (key, value, effect), column in self._table.taints.items():
            if effect in ("NoSchedule", "NoExecute") and not tolerated(tolerations, key, value, effect):
                found |= column[: self._table.size]
        return found

    def any_term(self, terms: Iterable[Obj]) -> Mask:
        """Rows that one of the node selector terms selects; an empty term selects none."""
        found = np.zeros(self._table.size, np.bool_)
        for term in terms:
            found |= self.term(term)
        return found

    def selects(self, selector: Obj, row: int) -> bool:
        """Whether a node selector selects a row."""
        terms = selector.get("nodeSelectorTerms") or ()
        return bool(self.remembered(("slice", repr(terms)), lambda: self.any_term(terms))[row])

    def term(self, term: Obj) -> Mask:
        """Rows that a node selector term selects."""
        expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
        if not expressions and not fields:
            return np.zeros(self._table.size, np.bool_)
        found = np.ones(self._table.size, np.bool_)
        for each in expressions:
            found &= self._labels(each["key"], nodeselector.tester(each))
        for each in fields:
            test = nodeselector.tester(each)
            names = (None if node is None else node["metadata"]["name"] for node in self._table.nodes)
            found &= np.fromiter((test(name) for name in names), np.bool_, self._table.size)
        return found

    def _labels(self, key: str, test: Callable[[str | None], bool]) -> Mask:
        return self._table.label(key).where(test)[: self._table.size]

    def has_label(self, key: str) -> Mask:
        return self._table.label(key).codes[: self._table.size] >= 0


def required_names(shape: Shape) -> set[str] | None:
    """The only nodes that required affinity leaves by their names; None: it does not go by names alone.

    Each term must name nodes, as those of DaemonSets' pods do; several names in one term exclude each other.
    """
    required = shape.node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = (required or {}).get("nodeSelectorTerms") or ()
    if not terms:
        return None
    names: set[str] = set()
    for term in terms:
        own: set[str] | None = None
        for each in term.get("matchFields") or ():
            if each["key"] == NODE_NAME and each["operator"] == "In":
                values = set(each.get("values") or ())
                own = values if own is None else own & values
        if own is None:
            return None
        names |= own
    return names
