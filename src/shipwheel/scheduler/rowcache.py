"""Numbers that depend on each row alone, worked out again only for the rows that have changed.

A thousand pods of one template change a row each; what their other thousands of rows score stays as it was. And nodes
of one type that such pods fill one by one all come through the same states: what was worked out for the first is known
for the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shipwheel.scheduler.table import Floats, NodeTable

Rows = slice | npt.NDArray[np.int64]
_KEPT = 64
_WORTH_IT = 8
"""Up to this part of all rows; with more of them changed, working all out is faster."""
_STATES = 4096

State = tuple[float, ...]


@dataclass(slots=True)
class _Kept:
    values: Floats
    epoch: int
    seen: int
    known: dict[State, float]
    """What has been worked out for a single row, by its state."""


class RowCache:
    """What is returned must not be changed, and is only good until the next call."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, _Kept] = OrderedDict()

    def get(self, table: NodeTable, key: object, columns: Sequence[Floats], work: Callable[[Rows], Floats]) -> Floats:
        """`work` for all rows. What it says of one depends on nothing but `key` and what `columns` have there."""
        kept = self._kept.get(key)
        seen = len(table.touched)
        if kept is None or kept.epoch != table.touched_epoch or len(kept.values) != table.size:
            known = kept.known if kept is not None else {}
            kept = self._kept[key] = _Kept(work(slice(0, table.size)), table.touched_epoch, seen, known)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        elif changed := table.touched[kept.seen :]:
            if len(changed) * _WORTH_IT > table.size:
                kept.values = work(slice(0, table.size))
            else:
                _renew(kept, changed, columns, work)
            kept.seen = seen
        self._kept.move_to_end(key)
        return kept.values


def _renew(kept: _Kept, changed: Sequence[int], columns: Sequence[Floats], work: Callable[[Rows], Floats]) -> None:
    """Bring rows up to date; only those in a state that none was in before are worked out."""
    states = {row: tuple([column.item(row) for column in columns]) for row in changed}
    if len(kept.known) > _STATES:
        kept.known.clear()
    new = {state: row for row, state in states.items() if state not in kept.known}
    if new:
        kept.known.update(zip(new, work(np.array([*new.values()])).tolist(), strict=True))
    for row, state in states.items():
        kept.values[row] = kept.known[state]
