"""How the runtime is: asked every few seconds, and often while it, or its network, is not ready."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shipwheel.api.clock import Clock
from shipwheel.kubelet.node_status import runtime_faults
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault, RuntimeStatus

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
WAIT_SECONDS = 0.1


class RuntimeState:
    """`changed` is called when the runtime or its network got ready, or is not any more."""

    def __init__(self, runtime: Runtime, clock: Clock, changed: Callable[[], None]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._changed = changed
        self.name = ""
        self.version = ""
        self.status = RuntimeStatus()
        """The last that the runtime told."""
        self.fault = "container runtime status check may not have completed yet"
        """Why the runtime is not ready; empty when it is."""
        self.network_fault = "container runtime network not ready: its status is not known yet"

    async def meet(self) -> None:
        """Wait until the runtime answers: nothing can be decided before."""
        told = False
        while not self.name:
            try:
                info = await self._runtime.info()
                self.name, self.version = info.name, info.version
            except RuntimeFault as fault:
                if not told:
                    log.warning("waiting for the container runtime: %s", fault.message)
                    told = True
                await self._clock.sleep(WAIT_SECONDS)
        await self.check()

    async def run(self) -> None:
        """Keep asking until cancelled."""
        while True:
            ready = not self.fault and not self.network_fault
            await self._clock.sleep(CHECK_SECONDS if ready else WAIT_SECONDS)
            await self.check()

    async def check(self) -> None:
        before = (self.fault, self.network_fault, self.status)
        try:
            self.status = await self._runtime.status()
            self.fault, self.network_fault = runtime_faults(self.status.conditions)
        except RuntimeFault as fault:
            self.fault = f"container runtime is down: {fault.message}"
        if (self.fault, self.network_fault, self.status) != before:
            self._changed()

    async def use_pod_cidr(self, cidr: str) -> None:
        """Tell the runtime from which range pods get their addresses; again while it does not listen."""
        while True:
            try:
                await self._runtime.set_pod_cidr(cidr)
                return
            except RuntimeFault as fault:
                log.warning("telling the runtime the pod CIDR %s: %s", cidr, fault.message)
            await self._clock.sleep(CHECK_SECONDS)
