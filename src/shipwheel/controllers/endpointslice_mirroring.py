"""EndpointSlices for Endpoints that somebody makes by hand: a Service without a selector works either way."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    is_being_deleted,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.endpointslice import MANAGED_BY, SERVICE_NAME, by_service, ports_key
from shipwheel.controllers.framework import Context, Writes, is_not_found, namespace_is_terminating
from shipwheel.controllers.service_pods import LAST_CHANGE, LEADER
from shipwheel.controllers.subsets import repack

MIRROR_NAME = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"

_NOT_COPIED = frozenset({LAST_CHANGE, "kubectl.kubernetes.io/last-applied-configuration"})


def should_mirror(endpoints: Obj, service: Obj | None) -> bool:
    return (
        service is not None
        and service["spec"].get("selector") is None
        and labels_of(endpoints).get(SKIP_MIRROR) != "true"
        and LEADER not in annotations_of(endpoints)
    )


@dataclass(slots=True)
class Mirror:
    """The slices that show an Endpoints object, by family and ports; and what of it they cannot show."""

    slices: dict[tuple[Any, ...], Obj] = field(default_factory=dict)
    invalid: int = 0
    skipped: int = 0


def mirror(endpoints: Obj, *, most: int) -> Mirror:
    """One slice for each family and set of ports, of at most `most` endpoints."""
    result = Mirror()
    for subset in repack(endpoints.get("subsets") or ()):
        ports = [_port(port) for port in subset.get("ports") or ()]
        ready = [(address, True) for address in subset.get("addresses") or ()]
        others = [(address, False) for address in subset.get("notReadyAddresses") or ()]
        added = 0
        for address, is_ready in (*ready, *others):
            family = _family(address["ip"])
            if added >= most:
                result.skipped += 1
            elif not family:
                result.invalid += 1
            else:
                key = (family, *ports_key(ports))
                made = result.slices.setdefault(key, _slice(endpoints, family, ports))
                made["endpoints"].append(_endpoint(address, is_ready))
                added += 1
    return result


def _family(ip: str) -> str:
    try:
        return f"IPv{ipaddress.ip_address(ip).version}"
    except ValueError:
        return ""


def _port(port: Obj) -> Obj:
    return {"name": "", "protocol": "TCP", **port}


def _endpoint(address: Obj, ready: bool) -> Obj:
    entry: Obj = {"addresses": [str(ipaddress.ip_address(address["ip"]))], "conditions": {"ready": ready}}
    for key in ("hostname", "nodeName", "targetRef"):
        if address.get(key):
            entry[key] = address[key]
    return entry


def _slice(endpoints: Obj, family: str, ports: Sequence[Obj]) -> Obj:
    annotations = {key: value for key, value in annotations_of(endpoints).items() if key not in _NOT_COPIED}
    metadata: Obj = {
        "generateName": podutil.generate_name_prefix(name_of(endpoints)),
        "namespace": namespace_of(endpoints),
        "labels": {**labels_of(endpoints), SERVICE_NAME: name_of(endpoints), MANAGED_BY: MIRROR_NAME},
        "ownerReferences": [owner_reference(endpoints)],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "endpoints": [],
        "ports": list(ports),
    }


def is_same(there: Obj, wanted: Obj) -> bool:
    meta, other = there["metadata"], wanted["metadata"]
    return (
        _sorted(there.get("endpoints") or ()) == _sorted(wanted["endpoints"])
        and all((meta.get(key) or {}) == (other.get(key) or {}) for key in ("labels", "annotations"))
        and [each["uid"] for each in meta.get("ownerReferences") or ()] == [other["ownerReferences"][0]["uid"]]
    )


def _sorted(endpoints: Iterable[Obj]) -> list[Any]:
    return sorted(str(sorted(entry.items(), key=str)) for entry in endpoints)


class EndpointSliceMirroringController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._endpoints = ctx.informer(ENDPOINTS)
        self._services = ctx.informer(SERVICES)
        self._slices = ctx.informer(ENDPOINT_SLICES, {"service": by_service})
        self._writes = Writes()
        self._loop = ctx.loop(
            "endpoint_slice_mirroring",
            self.reconcile,
            workers=ctx.config.mirroring_concurrent_service_endpoint_syncs,
            informers=(self._endpoints, self._services, self._slices),
            writes=self._writes,
        )
        self._endpoints.add_handler(self._on_endpoints)
        self._services.add_handler(self._loop.on_event)
        self._slices.add_handler(self._on_slice)

    async def run(self) -> None:
        await self._loop.run()

    def _on_endpoints(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        endpoints = new if new is not None else old
        assert endpoints is not None
        key = f"{namespace_of(endpoints)}/{name_of(endpoints)}"
        self._loop.queue.add_after(key, self._ctx.config.mirroring_endpointslice_updates_batch_period)

    def _on_slice(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for each in (new, old):
            if each is not None and labels_of(each).get(MANAGED_BY) == MIRROR_NAME:
                for key in by_service(each):
                    self._loop.queue.add(key)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        endpoints = self._endpoints.get(namespace, name)
        existing = [
            each for each in self._slices.by_index("service", key) if labels_of(each).get(MANAGED_BY) == MIRROR_NAME
        ]
        if endpoints is None or not should_mirror(endpoints, self._services.get(namespace, name)):
            self._writes.forget(key)
            for each in existing:
                await self._delete(each)
            return None
        wanted = mirror(endpoints, most=self._ctx.config.mirroring_max_endpoints_per_subset)
        self._tell(endpoints, wanted)
        await self._apply(key, endpoints, wanted.slices, existing)
        return None

    def _tell(self, endpoints: Obj, wanted: Mirror) -> None:
        if wanted.invalid:
            message = f"Skipped {wanted.invalid} invalid IP addresses when mirroring to EndpointSlices"
            self._ctx.recorder.event(endpoints, "Warning", "InvalidIPAddress", message)
        if wanted.skipped:
            most = self._ctx.config.mirroring_max_endpoints_per_subset
            message = (
                f"A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{wanted.skipped + wanted.invalid} addresses were skipped"
            )
            self._ctx.recorder.event(endpoints, "Warning", "TooManyAddressesToMirror", message)

    async def _apply(
        self, key: str, endpoints: Obj, wanted: dict[tuple[Any, ...], Obj], existing: Iterable[Obj]
    ) -> None:
        missing = dict(wanted)
        spare: list[Obj] = []
        for there in existing:
            place = (there["addressType"], *ports_key(there.get("ports") or ()))
            made = missing.pop(place, None)
            if made is None:
                spare.append(there)
            elif not is_same(there, made):
                await self._update(key, there, made)
        for made in missing.values():
            reusable = next((there for there in spare if there["addressType"] == made["addressType"]), None)
            if reusable is not None:
                spare.remove(reusable)
                await self._update(key, reusable, made)
            elif not is_being_deleted(endpoints):
                try:
                    created = await self._ctx.client.create(ENDPOINT_SLICES, made, namespace_of(endpoints))
                except ApiError as error:
                    if namespace_is_terminating(error):
                        return
                    raise
                self._writes.wrote(key, self._slices, created)
        for there in spare:
            await self._delete(there)

    async def _update(self, key: str, there: Obj, made: Obj) -> None:
        metadata = {**there["metadata"]}
        metadata.pop("annotations", None)
        metadata |= {name: made["metadata"][name] for name in ("labels", "ownerReferences")}
        if made["metadata"].get("annotations"):
            metadata["annotations"] = made["metadata"]["annotations"]
        written = await self._ctx.client.update(ENDPOINT_SLICES, {**made, "metadata": metadata})
        self._writes.wrote(key, self._slices, written)

    async def _delete(self, each: Obj) -> None:
        try:
            await self._ctx.client.delete(ENDPOINT_SLICES, name_of(each), namespace_of(each), uid=uid_of(each))
        except ApiError as error:
            if not is_not_found(error):
                raise
