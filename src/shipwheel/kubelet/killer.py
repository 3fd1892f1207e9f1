"""Stopping what runs of a pod: hooks first, containers in the order in which they are to end, in the time they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import lifecycle, podspec
from shipwheel.kubelet.container_config import restored
from shipwheel.kubelet.hooks import HookFault, Hooks
from shipwheel.kubelet.lifecycle import KillReason
from shipwheel.kubelet.observed import ContainerObservation, PodObservation
from shipwheel.kubelet.runtime.base import Runtime, RuntimeFault
from shipwheel.kubelet.services import Record
from shipwheel.kubelet.words import rpc_error

log = logging.getLogger(__name__)


class KillFault(Exception):
    """Something of the pod could not be stopped."""


@dataclass(frozen=True, slots=True)
class Killer:
    runtime: Runtime
    clock: Clock
    record: Record
    hooks: Hooks

    async def kill(
        self,
        pod: Obj,
        container: Obj,
        container_id: str,
        message: str = "",
        reason: KillReason = "",
        *,
        grace: int | None = None,
        turn: Callable[[float], Awaitable[None]] | None = None,
        pod_ip: str = "",
    ) -> None:
        """Stop a container: its preStop hook, its turn, then the signal. `grace` overrides what the object says.
        KillFault when the runtime refuses."""
        left = float(lifecycle.stop_grace(pod, container, reason))
        text = message or f"Stopping container {container['name']}"
        self.record(pod, container, "Normal", "Killing", text)
        if grace is not None:
            left = float(grace)
        handler = (container.get("lifecycle") or {}).get("preStop")
        if handler and left > 0:
            left -= await self._pre_stop(pod, container, container_id, handler, left, pod_ip)
        if turn is not None and left > 0:
            began = self.clock.monotonic()
            await turn(left)
            left -= int(self.clock.monotonic() - began)
        seconds = max(int(left), lifecycle.MINIMUM_GRACE)
        try:
            await self.runtime.stop_container(container_id, seconds)
        except RuntimeFault as fault:
            if fault.code != "NOT_FOUND":
                raise KillFault(f"failed to kill container {container['name']}: {rpc_error(fault)}") from fault

    async def _pre_stop(
        self, pod: Obj, container: Obj, container_id: str, handler: Obj, limit: float, pod_ip: str
    ) -> int:
        """Run the hook, at most `limit` seconds; returns the whole seconds it took."""
        began = self.clock.monotonic()
        hook = asyncio.ensure_future(self.hooks.run(pod, container, container_id, handler, pod_ip))
        timer = asyncio.ensure_future(self.clock.sleep(limit))
        try:
            await asyncio.wait({hook, timer}, return_when=asyncio.FIRST_COMPLETED)
            if hook.done():
                hook.result()
        except HookFault as fault:
            log.info("%s", fault)
            self.record(pod, container, "Warning", "FailedPreStopHook", "PreStopHook failed")
        finally:
            for each in (hook, timer):
                each.cancel()
            await asyncio.gather(hook, timer, return_exceptions=True)
        return int(self.clock.monotonic() - began)

    async def kill_pod(self, pod: Obj, observed: PodObservation, grace: int | None = None) -> None:
        """Stop every running container, sidecars last, then the sandboxes. KillFault when something resists."""
        running = observed.running
        waits = lifecycle.termination_order(pod, {each.name for each in running})
        stopped = {each.name: asyncio.Event() for each in running}
        faults: list[str] = []

        async def stop(seen: ContainerObservation) -> None:
            async def turn(limit: float) -> None:
                await self._within(limit, [stopped[name] for name in waits.get(seen.name, ())])

            container = podspec.find_container(pod, seen.name)
            try:
                if container is None:
                    await self._kill_unknown(seen.id, grace)
                else:
                    ip = observed.ips[0] if observed.ips else ""
                    await self.kill(
                        pod, container, seen.id, grace=grace,
                        turn=turn if waits.get(seen.name) else None, pod_ip=ip,
                    )  # fmt: skip
            except KillFault as fault:
                faults.append(str(fault))
            stopped[seen.name].set()

        async with asyncio.TaskGroup() as group:
            for seen in running:
                group.create_task(stop(seen))
        for sandbox in observed.sandboxes:
            try:
                await self.runtime.stop_sandbox(sandbox.id)
            except RuntimeFault as fault:
                if fault.code != "NOT_FOUND":
                    faults.append(f"failed to stop sandbox {sandbox.id}: {rpc_error(fault)}")
        if faults:
            raise KillFault("; ".join(faults))

    async def _within(self, limit: float, events: Sequence[asyncio.Event]) -> None:
        async def all_set() -> None:
            for event in events:
                await event.wait()

        wait = asyncio.ensure_future(all_set())
        timer = asyncio.ensure_future(self.clock.sleep(limit))
        try:
            await asyncio.wait({wait, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (wait, timer):
                each.cancel()
            await asyncio.gather(wait, timer, return_exceptions=True)

    async def _kill_unknown(self, container_id: str, grace: int | None) -> None:
        """Stop a container that its pod's object does not name, by what its own annotations say."""
        try:
            status = await self.runtime.container_status(container_id)
        except RuntimeFault as fault:
            if fault.code == "NOT_FOUND":
                return
            raise KillFault(rpc_error(fault)) from fault
        pod, container = restored(status.labels, status.annotations)
        await self.kill(pod, container, container_id, grace=grace)
