"""How many devices of a class each node can reach, and how many of them are given away.

Extended resources that devices stand for are scored by it like any other resource, where a configuration names them
among those to be scored (KEP-5004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shipwheel.api.meta import Obj, name_of
from shipwheel.scheduler.devices.allocator import selected
from shipwheel.scheduler.devices.pools import DeviceId, Reach
from shipwheel.scheduler.devices.wishes import AllocationError
from shipwheel.scheduler.framework import Handle
from shipwheel.scheduler.table import Floats


@dataclass(slots=True)
class _Count:
    version: tuple[int, ...]
    devices: list[Sequence[DeviceId]]
    """By row."""
    there: Floats
    given: Floats
    epoch: int = -1
    seen: int = 0


class Census:
    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._kept: dict[str, _Count] = {}

    def of(self, device_class: Obj) -> tuple[Floats, Floats]:
        """By row, the devices of a class that there are, and those of them that are given away."""
        table, listers = self._handle.table, self._handle.listers
        version = (
            listers.resource_slices.version,
            listers.device_classes.version,
            table.node_version,
            table.size,
        )
        name = name_of(device_class)
        kept = self._kept.get(name)
        if kept is None or kept.version != version:
            devices = [self._reached(device_class, row) for row in range(table.size)]
            there = np.array([len(each) for each in devices], np.float64)
            kept = self._kept[name] = _Count(version, devices, there, np.zeros(table.size))
        self._count(kept)
        return kept.there, kept.given

    def _reached(self, device_class: Obj, row: int) -> Sequence[DeviceId]:
        node = self._handle.table.nodes[row]
        if node is None:
            return ()
        reach = Reach(name_of(node), lambda selector: self._handle.nodes.selects(selector, row))
        try:
            return [
                device.id
                for pool in self._handle.ledger.slices().pools(reach)
                for device in pool.devices
                if (not device.spec.get("perDeviceNodeSelection") or reach.of(device.obj))
                and selected(device, device_class, f"class {name_of(device_class)}")
            ]
        except AllocationError:
            return ()  # whoever wants such a device is told by the search for it

    def _count(self, kept: _Count) -> None:
        """Count again where something was given or given back."""
        ledger = self._handle.ledger
        in_use = ledger.in_use()
        nodes = ledger.touched_since(kept.epoch, kept.seen)
        known = self._handle.table.rows
        rows = range(len(kept.devices)) if nodes is None else [known[node] for node in nodes if node in known]
        for row in rows:
            kept.given[row] = sum(map(in_use.has, kept.devices[row]))
        kept.epoch, kept.seen = ledger.touched_epoch, len(ledger.touched)
