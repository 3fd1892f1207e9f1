"""Numbers that depend on each row alone, worked out again only for the rows that have changed.

A thousand pods of one template change a row each; what their other thousands of rows score stays as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shipwheel.scheduler.table import Floats, NodeTable

Rows = slice | npt.NDArray[np.int64]
_KEPT = 64
_WORTH_IT = 8
"""Up to this part of all rows; with more of them changed, working all out is faster."""


@dataclass(slots=True)
class _Kept:
    values: Floats
    epoch: int
    seen: int


class RowCache:
    """What is returned must not be changed, and is only good until the next call."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, _Kept] = OrderedDict()

    def get(self, table: NodeTable, key: object, work: Callable[[Rows], Floats]) -> Floats:
        """`work` for all rows."""
        kept = self._kept.get(key)
        seen = len(table.touched)
        if kept is None or kept.epoch != table.touched_epoch or len(kept.values) != table.size:
            kept = self._kept[key] = _Kept(work(slice(0, table.size)), table.touched_epoch, seen)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        elif changed := table.touched[kept.seen :]:
            if len(changed) * _WORTH_IT > table.size:
                kept.values = work(slice(0, table.size))
            else:
                rows = np.array(changed)
                kept.values[rows] = work(rows)
            kept.seen = seen
        self._kept.move_to_end(key)
        return kept.values
