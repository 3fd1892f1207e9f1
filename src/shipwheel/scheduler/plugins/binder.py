"""DefaultBinder: the pod gets its node through the `binding` subresource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipwheel.scheduler.framework import Cycle, Handle


class DefaultBinder:
    name = "DefaultBinder"
    events: ClassVar = ()

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._handle = handle

    async def bind(self, cycle: Cycle, node: str) -> bool:
        await self._handle.bind(cycle.pod, node)
        return True
