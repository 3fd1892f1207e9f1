"""What the search for devices has come to on each node, remembered until something that it depends on has changed.

Thousands of pods of one template wish for the same, and giving devices to one of them changes what there is on one
node (or, where nodes share a pool, on all that reach it). So only there is looked again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import orjson

from shipwheel.api.meta import Obj
from shipwheel.scheduler.devices.ledger import Ledger
from shipwheel.scheduler.framework import Handle
from shipwheel.scheduler.table import Codes, Floats, Mask

UNKNOWN, FOUND = 0, 1
_KEPT = 64


class Outcomes:
    """By row, for claims that wish for the same."""

    def __init__(self, size: int) -> None:
        self._codes: Codes = np.zeros(size, np.int32)
        """UNKNOWN, FOUND, or what comes after: a reason why not."""
        self._reasons: list[str] = []
        self.preferences: Floats = np.zeros(size)
        """How much of what was wished for first was found."""
        self.epoch = -1
        self.seen = 0

    def unknown(self) -> Mask:
        """Where nobody has looked yet, or something has changed since."""
        return self._codes == UNKNOWN

    def found(self) -> Mask:
        return self._codes == FOUND

    def reasons(self) -> Sequence[tuple[str, Mask]]:
        """Why there is nothing, and where."""
        return [(reason, self._codes == code) for code, reason in enumerate(self._reasons, FOUND + 1)]

    def note(self, row: int, reason: str, preference: float = 0.0) -> None:
        """What a search came to; no reason: it has found something."""
        if reason and reason not in self._reasons:
            self._reasons.append(reason)
        self._codes[row] = FOUND + 1 + self._reasons.index(reason) if reason else FOUND
        self.preferences[row] = preference

    def forget(self, rows: Sequence[int] | slice) -> None:
        self._codes[rows] = UNKNOWN


class Memory:
    """The outcomes of the wishes seen lately."""

    def __init__(self, handle: Handle) -> None:
        self._ledger: Ledger = handle.ledger
        self._listers = handle.listers
        self._table = handle.table
        self._version: tuple[int, ...] = ()
        self._kept: OrderedDict[bytes, Outcomes] = OrderedDict()

    def of(self, claims: Sequence[Obj]) -> Outcomes:
        """What is known about these claims (only what they ask for counts, not which they are)."""
        table, ledger = self._table, self._ledger
        version = (
            self._listers.resource_slices.version,
            self._listers.device_classes.version,
            table.node_version,
            table.size,
        )
        if version != self._version:
            self._version = version
            self._kept.clear()
        key = orjson.dumps([each.get("spec") for each in claims])
        outcomes = self._kept.get(key)
        if outcomes is None:
            outcomes = self._kept[key] = Outcomes(table.size)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        ledger.in_use()
        nodes = ledger.touched_since(outcomes.epoch, outcomes.seen)
        rows = slice(None) if nodes is None else [table.rows[node] for node in nodes if node in table.rows]
        outcomes.forget(rows)
        outcomes.epoch, outcomes.seen = ledger.touched_epoch, len(ledger.touched)
        return outcomes
