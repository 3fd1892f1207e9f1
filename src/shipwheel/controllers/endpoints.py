"""Endpoints: all addresses of a Service in one object, for those who do not read EndpointSlices yet."""

from __future__ import annotations

import math
from collections.abc import Iterable

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import ENDPOINTS, SERVICES
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import Context, Writes, is_not_found, namespace_is_terminating
from shipwheel.controllers.service_pods import (
    HEADLESS,
    LAST_CHANGE,
    LEADER,
    TriggerTimes,
    addresses_of,
    affects_endpoints,
    find_port,
    has_endpoints,
    hostname_for,
    is_headless,
    is_reachable,
    selects,
    services_for,
)
from shipwheel.controllers.subsets import repack

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"

_MANAGER = "endpoint-controller"
_CAPACITY = 1000


def subsets_of(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The subsets for the pods behind a Service, canonically."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    family = (service["spec"].get("ipFamilies") or [""])[0]
    subsets: list[Obj] = []
    for pod in pods:
        if not is_reachable(pod, even_if_terminating=publish):
            continue
        address = _address(service, pod, family)
        if address is None:
            continue
        field = "addresses" if publish or podutil.is_ready(pod) else "notReadyAddresses"
        subsets += [{field: [address], "ports": ports} for ports in _ports(service, pod)]
    return repack(subsets)


def _address(service: Obj, pod: Obj, family: str) -> Obj | None:
    addresses = addresses_of(pod)
    if family:
        addresses = [each for each in addresses if (":" in each) == (family == "IPv6")]
    if not addresses:
        return None
    address: Obj = {"ip": addresses[0]}
    hostname = hostname_for(pod, service)
    if hostname:
        address["hostname"] = hostname
    if pod["spec"].get("nodeName"):
        address["nodeName"] = pod["spec"]["nodeName"]
    address["targetRef"] = {
        "kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod),
    }  # fmt: skip
    return address


def _ports(service: Obj, pod: Obj) -> list[list[Obj]]:
    """Each port of the Service that the pod has, on its own; a headless Service without ports has none of them."""
    declared = service["spec"].get("ports") or ()
    if not declared:
        return [[]] if is_headless(service) else []
    found: list[list[Obj]] = []
    for port in declared:
        number = find_port(pod, port)
        if number is not None:
            found.append(
                [{**{key: port[key] for key in ("name", "protocol", "appProtocol") if key in port}, "port": number}]
            )
    return found


def truncate(subsets: list[Obj]) -> tuple[list[Obj], bool]:
    """At most a thousand addresses, ready ones before others, each subset losing its share; and whether that
    cut anything off."""
    ready = sum(len(each.get("addresses") or ()) for each in subsets)
    total = ready + sum(len(each.get("notReadyAddresses") or ()) for each in subsets)
    if total <= _CAPACITY:
        return subsets, False
    if ready > _CAPACITY:
        keep, room, of = "addresses", _CAPACITY, ready
    else:
        keep, room, of = "notReadyAddresses", _CAPACITY - ready, total - ready
    left = room
    cut: list[Obj] = []
    for each in subsets:
        entries = each.get(keep) or []
        share = min(math.ceil(len(entries) * room / of), left)
        left -= min(share, len(entries))
        subset = {**each, keep: entries[:share]}
        if keep == "addresses":
            subset.pop("notReadyAddresses", None)
        if not subset[keep]:
            del subset[keep]
        if subset.get("addresses") or subset.get("notReadyAddresses"):
            cut.append(subset)
    return cut, True


def wanted_labels(service: Obj) -> dict[str, str]:
    labels = {key: value for key, value in labels_of(service).items() if key != HEADLESS}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[MANAGED_BY] = _MANAGER
    return labels


def _comparable(subsets: Iterable[Obj]) -> list[Obj]:
    """Subsets without what does not matter: order, and the version of the pods they refer to."""
    packed = repack(subsets)
    for subset in packed:
        for field in ("addresses", "notReadyAddresses"):
            if field in subset:
                subset[field] = [_without_version(each) for each in subset[field]]
    return packed


def _without_version(address: Obj) -> Obj:
    target = address.get("targetRef")
    if not target or "resourceVersion" not in target:
        return address
    return {**address, "targetRef": {key: value for key, value in target.items() if key != "resourceVersion"}}


class EndpointsController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._services = ctx.informer(SERVICES)
        self._pods = ctx.pods()
        self._endpoints = ctx.informer(ENDPOINTS)
        self._writes = Writes()
        self._times = TriggerTimes()
        self._loop = ctx.loop(
            "endpoint",
            self.reconcile,
            workers=ctx.config.concurrent_endpoint_syncs,
            informers=(self._services, self._pods, self._endpoints),
            writes=self._writes,
        )
        self._services.add_handler(self._loop.on_event)
        self._pods.add_handler(self._on_pod)
        self._endpoints.add_handler(self._on_endpoints)

    async def run(self) -> None:
        await self._endpoints.wait_synced()
        for each in self._endpoints.list():  # whose Service went while nobody looked
            if LEADER not in annotations_of(each):
                self._loop.add(each)
        await self._loop.run()

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and old is not None and not affects_endpoints(new, old):
            return
        pods = [pod for pod in (new, old) if pod is not None]
        in_namespace = self._services.list(namespace_of(pods[0]))
        for service in services_for(in_namespace, *(labels_of(pod) for pod in pods)):
            self._loop.queue.add_after(key_of(service), self._ctx.config.endpoint_updates_batch_period)

    def _on_endpoints(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None and old is not None:
            self._loop.add(old)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        service = self._services.get(namespace, name)
        current = self._endpoints.get(namespace, name)
        if service is None:
            self._times.forget(key)
            self._writes.forget(key)
            if current is not None:
                await self._delete(current)
            return None
        if not has_endpoints(service):
            return None
        pods = [pod for pod in self._pods.list(namespace) if selects(service, labels_of(pod))]
        trigger = self._times.of(key, service, pods)
        subsets, over = truncate(subsets_of(service, pods))
        labels = wanted_labels(service)
        if (
            current is not None
            and _comparable(current.get("subsets") or ()) == _comparable(subsets)
            and labels_of(current) == labels
            and (annotations_of(current).get(OVER_CAPACITY) == "truncated") == over
        ):
            return None
        base = current or {
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "namespace": namespace},
        }  # fmt: skip
        annotations = {
            key: value for key, value in annotations_of(base).items() if key not in (LAST_CHANGE, OVER_CAPACITY)
        }
        if trigger:
            annotations[LAST_CHANGE] = trigger
        if over:
            annotations[OVER_CAPACITY] = "truncated"
        metadata = {**base["metadata"], "labels": labels, "annotations": annotations}
        await self._write(key, {**base, "metadata": metadata, "subsets": subsets}, is_new=current is None)
        return None

    async def _write(self, key: str, endpoints: Obj, *, is_new: bool) -> None:
        client = self._ctx.client
        try:
            if is_new:
                written = await client.create(ENDPOINTS, endpoints)
            else:
                written = await client.update(ENDPOINTS, endpoints)
        except ApiError as error:
            if is_new and namespace_is_terminating(error):
                return
            name = f"{namespace_of(endpoints)}/{name_of(endpoints)}"
            if is_new:
                reason, message = (
                    "FailedToCreateEndpoint",
                    f"Failed to create endpoint for service {name}: {error}",
                )
            else:
                reason, message = "FailedToUpdateEndpoint", f"Failed to update endpoint {name}: {error}"
            self._ctx.recorder.event(endpoints, "Warning", reason, message)
            raise
        self._writes.wrote(key, self._endpoints, written)

    async def _delete(self, current: Obj) -> None:
        try:
            await self._ctx.client.delete(ENDPOINTS, name_of(current), namespace_of(current), uid=uid_of(current))
        except ApiError as error:
            if not is_not_found(error):
                raise
