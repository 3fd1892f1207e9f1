"""Endpoints: all addresses of a Service in one object, for those who do not read EndpointSlices yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    is_being_deleted,
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

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"

_MANAGER = "endpoint-controller"
_CAPACITY = 1000


def subsets_of(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The subsets, canonically: addresses with the same ports together, everything sorted."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    family = (service["spec"].get("ipFamilies") or [""])[0]
    places: dict[tuple[Any, ...], tuple[Obj, dict[tuple[Any, ...], bool]]] = {}
    for pod in pods:
        if not is_reachable(pod, even_if_terminating=publish):
            continue
        address = _address(service, pod, family)
        if address is None:
            continue
        key = (address["ip"], uid_of(pod), address.get("hostname", ""))
        _, ports = places.setdefault(key, (address, {}))
        ready = publish or podutil.is_ready(pod)
        for port in _ports(service, pod):
            ports[port] = ready
    by_ports: dict[frozenset[tuple[Any, ...]], dict[bool, list[Obj]]] = {}
    for address, ports in places.values():
        # An address without ports counts only for a headless Service, which has the one port that is none.
        if ports:
            ready = all(ports.values())
            by_ports.setdefault(frozenset(ports), {True: [], False: []})[ready].append(address)
    subsets = []
    for ports_key, addresses in by_ports.items():
        subset: Obj = {}
        for ready, name in ((True, "addresses"), (False, "notReadyAddresses")):
            if addresses[ready]:
                subset[name] = sorted(addresses[ready], key=lambda each: (each["ip"], each["targetRef"]["uid"]))
        shown = [_show_port(port) for port in sorted(ports_key) if port]
        if shown:
            subset["ports"] = shown
        subsets.append(subset)
    return sorted(subsets, key=lambda subset: [_sortable(port) for port in subset.get("ports") or ()])


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


def _ports(service: Obj, pod: Obj) -> list[tuple[Any, ...]]:
    """(name, port, protocol, appProtocol) of each; a headless Service without ports has an empty one."""
    declared = service["spec"].get("ports") or ()
    if not declared:
        return [()] if is_headless(service) else []
    found = []
    for port in declared:
        number = find_port(pod, port)
        if number is not None:
            protocol = port.get("protocol", "TCP")
            found.append((port.get("name", ""), number, protocol, port.get("appProtocol") or ""))
    return found


def _show_port(port: tuple[Any, ...]) -> Obj:
    name, number, protocol, app = port
    shown: Obj = {"name": name} if name else {}
    shown |= {"port": number, "protocol": protocol}
    if app:
        shown["appProtocol"] = app
    return shown


def _sortable(port: Obj) -> tuple[Any, ...]:
    return port.get("name", ""), port["port"], port["protocol"]


def truncate(subsets: list[Obj]) -> tuple[list[Obj], bool]:
    """At most a thousand addresses, ready ones before others, each subset losing its share; and whether that
    cut anything off."""
    ready = sum(len(each.get("addresses") or ()) for each in subsets)
    total = ready + sum(len(each.get("notReadyAddresses") or ()) for each in subsets)
    if total <= _CAPACITY:
        return subsets, False
    if ready >= _CAPACITY:
        keep, room, of = "addresses", _CAPACITY, ready
    else:
        keep, room, of = "notReadyAddresses", _CAPACITY - ready, total - ready
    cut: list[Obj] = []
    for index, each in enumerate(subsets):
        entries = each.get(keep) or []
        share = room if index == len(subsets) - 1 else len(entries) * room // of
        subset = {**each, keep: entries[: max(share, 0)]}
        if keep == "addresses":
            subset.pop("notReadyAddresses", None)
        room -= len(subset[keep])
        of -= len(entries)
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


def _comparable(subsets: Iterable[Obj]) -> list[Any]:
    """Subsets without what does not matter: order, and the version of the pods they refer to."""
    result = []
    for subset in subsets:
        rows = []
        for name in ("addresses", "notReadyAddresses"):
            for each in subset.get(name) or ():
                target = {
                    key: value for key, value in (each.get("targetRef") or {}).items() if key != "resourceVersion"
                }
                rows.append((name, each["ip"], each.get("hostname"), each.get("nodeName"), sorted(target.items())))
        ports = [(*_sortable(port), port.get("appProtocol") or "") for port in subset.get("ports") or ()]
        result.append((sorted(ports), sorted(rows, key=str)))
    return sorted(result, key=str)


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
            if labels_of(each).get(MANAGED_BY) == _MANAGER:
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
        if not has_endpoints(service) or is_being_deleted(service):
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
