"""For nodes that run no processes: nobody needs a part of the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shipwheel.api.meta import Obj
from shipwheel.kubelet.managers.base import Refused
from shipwheel.kubelet.services import Extras
from shipwheel.kubelet.volumes.csi.registration import PluginHandler


class NoManagers:
    async def run(self) -> None:
        await asyncio.Event().wait()

    def plugin_handlers(self) -> Mapping[str, PluginHandler]:
        return {}

    async def admit(self, pod: Obj) -> Refused | None:
        return None

    def counted(self, allocatable: Mapping[str, str]) -> Mapping[str, str]:
        return allocatable

    def capacity(self) -> Mapping[str, tuple[int, int]]:
        return {}

    async def prepare(self, pod: Obj) -> None:
        return

    async def unprepare(self, pod: Obj) -> None:
        return

    async def extras(self, pod: Obj, container: Obj) -> Extras:
        return Extras()

    def has_own_cpus(self, uid: str, name: str = "") -> bool:
        return False

    def statuses(self, pod: Obj, status: Obj) -> Obj:
        return status
