"""ResourceClaims of pods: made ready by their drivers before a pod's sandbox is made, given back when it has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import RESOURCE_CLAIMS
from shipwheel.kubelet.managers import checkpoint
from shipwheel.kubelet.managers.base import Active
from shipwheel.kubelet.managers.claim_plugins import ClaimDrivers
from shipwheel.kubelet.managers.claim_state import (
    Claim,
    ClaimDevice,
    claim_name,
    claims_of,
    from_checkpoint,
    new_claim,
    read_device,
    requests_of,
    to_checkpoint,
)
from shipwheel.kubelet.managers.measures import ManagerMetrics
from shipwheel.kubelet.services import ClaimFault

log = logging.getLogger(__name__)

STATE_FILE = "dra_manager_state"
RECONCILE_SECONDS = 60.0


class ClaimManager:
    def __init__(
        self,
        directory: Path,
        client: Client | None,
        clock: Clock,
        measures: ManagerMetrics,
        drivers: ClaimDrivers,
    ) -> None:
        """checkpoint.Corrupt when what is on disk cannot be read."""
        self._path = directory / STATE_FILE
        self._client = client
        self._clock = clock
        self._measures = measures
        self._drivers = drivers
        self._lock = asyncio.Lock()
        content = checkpoint.read(self._path)
        restored = from_checkpoint(content) if content is not None else []
        self._claims: dict[tuple[str, str], Claim] = {each.key: each for each in restored}

    def _save(self) -> None:
        checkpoint.write(self._path, to_checkpoint(self._claims.values()))
        self._measures.claims_in_use.clear()
        self._measures.claims_in_use.labels("<any>").set(len(self._claims))
        for driver in {name for each in self._claims.values() for name in each.drivers}:
            used = sum(driver in each.drivers for each in self._claims.values())
            self._measures.claims_in_use.labels(driver).set(used)

    # Preparing

    async def prepare(self, pod: Obj) -> None:
        """Have all claims of the pod ready; ClaimFault."""
        if not any(claims_of(pod)):
            return
        began, failed = self._clock.monotonic(), True
        try:
            async with self._lock:
                await self._prepare(pod)
            failed = False
        except ClaimFault as fault:
            raise ClaimFault(f"prepare dynamic resources: {fault}") from fault
        finally:
            self._observe("PrepareResources", failed, began)

    def _observe(self, operation: str, failed: bool, began: float) -> None:
        labels = (operation, str(failed).lower())
        self._measures.claims_duration.labels(*labels).observe(self._clock.monotonic() - began)

    async def _prepare(self, pod: Obj) -> None:
        namespace, uid = pod["metadata"].get("namespace", ""), pod["metadata"]["uid"]
        fresh = [new_claim(pod, await self._fetch(namespace, name), owned=owned) for name, owned in claims_of(pod)]
        for claim in fresh:
            for driver in claim.drivers:
                self._drivers.get(driver)
        due: list[Claim] = []
        for claim in fresh:
            known = self._claims.setdefault(claim.key, claim)
            if known.uid != claim.uid:
                raise ClaimFault(
                    f"old ResourceClaim with same name {claim.name} and different UID {known.uid} still exists "
                    "(previous pod force-deleted?!)"
                )
            known.pods.add(uid)
            if not known.prepared:
                due.append(known)
        self._write()
        for driver in sorted({name for claim in due for name in claim.drivers}):
            concerned = [claim for claim in due if driver in claim.drivers]
            answers = await self._drivers.prepare(driver, [claim.reference for claim in concerned])
            for claim in concerned:
                claim.drivers[driver] = [read_device(each) for each in answers[claim.uid].get("devices", ())]
        for claim in due:
            claim.prepared = True
        if due:
            self._write()

    async def _fetch(self, namespace: str, name: str) -> Obj:
        if self._client is None:
            raise ClaimFault(f"fetch ResourceClaim {name}: there is no API server")
        try:
            return await self._client.get(RESOURCE_CLAIMS, name, namespace)
        except (ApiError, ConnectionFailed) as error:
            raise ClaimFault(f"fetch ResourceClaim {name}: {error}") from error

    def _write(self) -> None:
        try:
            self._save()
        except OSError as error:
            raise ClaimFault(f"checkpoint ResourceClaim cache: {error}") from error

    # Giving back

    async def unprepare(self, pod: Obj) -> None:
        """Give back what no other pod uses; ClaimFault when a driver cannot."""
        uid = pod["metadata"]["uid"]
        if not any(uid in claim.pods for claim in self._claims.values()):
            return
        began, failed = self._clock.monotonic(), True
        try:
            await self._unprepare(uid)
            failed = False
        except ClaimFault as fault:
            raise ClaimFault(f"unprepare dynamic resources: {fault}") from fault
        finally:
            self._observe("UnprepareResources", failed, began)

    async def _unprepare(self, uid: str) -> None:
        async with self._lock:
            held = [claim for claim in self._claims.values() if uid in claim.pods]
            due = [claim for claim in held if len(claim.pods) == 1]
            for driver in sorted({name for claim in due for name in claim.drivers}):
                concerned = [claim.reference for claim in due if driver in claim.drivers]
                await self._drivers.unprepare(driver, concerned)
            for claim in held:
                claim.pods.discard(uid)
            for claim in due:
                del self._claims[claim.key]
            self._write()

    async def reconcile(self, active: Active) -> None:
        """Give back what pods had that are no more."""
        for uid in {uid for claim in self._claims.values() for uid in claim.pods} - active.keys():
            try:
                await self._unprepare(uid)
            except ClaimFault as fault:
                log.info("giving back the claims of pod %s failed, will retry: %s", uid, fault)

    # What others ask

    def devices_of(self, pod: Obj, container: Obj) -> list[tuple[Claim, str, ClaimDevice]]:
        """(claim, driver, device) of everything that the container has by claims. ClaimFault when a claim is not
        prepared."""
        namespace = pod["metadata"].get("namespace", "")
        found = []
        for name, request in requests_of(pod, container):
            claim = self._claims.get((namespace, name))
            if claim is None:
                raise ClaimFault(
                    f"internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}"
                )
            for driver, devices in claim.drivers.items():
                found += [(claim, driver, each) for each in devices if each.serves(request)]
        return found

    def cdi_of(self, pod: Obj, container: Obj) -> list[str]:
        """The CDI devices that the container gets."""
        return [*dict.fromkeys(cdi for _, _, device in self.devices_of(pod, container) for cdi in device.cdi)]

    def statuses(self, pod: Obj, container: Obj) -> list[Obj]:
        """`allocatedResourcesStatus` of a container."""
        found = []
        namespace = pod["metadata"].get("namespace", "")
        by_name = {each["name"]: each for each in pod["spec"].get("resourceClaims") or ()}
        for asked in (container.get("resources") or {}).get("claims") or ():
            declared = by_name.get(asked["name"])
            request = asked.get("request") or ""
            claim = self._claims.get((namespace, _name_or_none(pod, declared) or ""))
            if claim is None:
                continue
            shown: dict[str, Obj] = {}
            for driver, devices in claim.drivers.items():
                for device in devices:
                    if device.serves(request.partition("/")[0]):
                        health = self._health(driver, device)
                        shown.setdefault(health["resourceID"], health)
            if shown:
                name = f"claim:{asked['name']}/{request}" if request else f"claim:{asked['name']}"
                found.append({"name": name, "resources": [*shown.values()]})
        return found

    def _health(self, driver: str, device: ClaimDevice) -> Obj:
        health = self._drivers.health_of(driver, device.pool, device.name)
        shown = {
            "resourceID": device.cdi[0] if device.cdi else f"{driver}/{device.pool}/{device.name}",
            "health": health.status,
        }
        return {**shown, "message": health.message} if health.message else shown

    def users_of(self, driver: str, devices: Iterable[tuple[str, str]]) -> set[str]:
        """The pods that have one of these devices."""
        wanted = set(devices)
        return {
            uid
            for claim in self._claims.values()
            if any((each.pool, each.name) in wanted for each in claim.drivers.get(driver, ()))
            for uid in claim.pods
        }


def _name_or_none(pod: Obj, declared: Obj | None) -> str | None:
    try:
        return None if declared is None else claim_name(pod, declared)[0]
    except ClaimFault:
        return None
