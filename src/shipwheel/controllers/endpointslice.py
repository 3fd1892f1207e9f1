"""EndpointSlices: the addresses behind each Service, a hundred to a slice.

Every slice is watched by every node, so the fewer change the better: `plan` keeps endpoints where they are,
fills up slices that change anyway, and makes new ones only for the rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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
    owner_reference,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import ENDPOINT_SLICES, NODES, SERVICES
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.endpointslice_meter import SliceMeter, Totals, slices_for
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
from shipwheel.controllers.topology_hints import TopologyCache, by_traffic_distribution, wants_auto_hints

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER_NAME = "endpointslice-controller.k8s.io"
ZONE = "topology.kubernetes.io/zone"

_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})


@dataclass(slots=True)
class Changes:
    """What to do to the slices of one Service and address family."""

    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    totals: Totals = field(default_factory=Totals)

    @property
    def count(self) -> int:
        """How many slices change."""
        return len(self.create) + len(self.update) + len(self.delete)


def address_types(service: Obj) -> list[str]:
    """`IPv4`, `IPv6`: the families to make slices for."""
    families = service["spec"].get("ipFamilies")
    if families:
        return list(families)
    if is_headless(service):
        return ["IPv4", "IPv6"]
    return ["IPv6" if ":" in service["spec"]["clusterIP"] else "IPv4"]


def endpoint_ports(service: Obj, pod: Obj) -> list[Obj]:
    """The ports of a Service on one pod; those that the pod does not have are left out."""
    ports: list[Obj] = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is None:
            continue
        entry: Obj = {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": number}
        if port.get("appProtocol") is not None:
            entry["appProtocol"] = port["appProtocol"]
        ports.append(entry)
    return ports


def endpoint(service: Obj, pod: Obj, node: Obj | None, family: str) -> Obj | None:
    """A pod as an endpoint of a family; None when it has no address of that family."""
    addresses = [each for each in map(_canonical, addresses_of(pod)) if (":" in each) == (family == "IPv6")]
    if not addresses:
        return None
    serving = podutil.is_ready(pod)
    terminating = is_being_deleted(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    result: Obj = {
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod),
        },
    }  # fmt: skip
    hostname = hostname_for(pod, service)
    if hostname:
        result["hostname"] = hostname
    if pod["spec"].get("nodeName"):
        result["nodeName"] = pod["spec"]["nodeName"]
    zone = labels_of(node).get(ZONE) if node else None
    if zone:
        result["zone"] = zone
    return result


def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address)) if ":" in address else address


def slice_labels(service: Obj) -> dict[str, str]:
    """The Service's labels and the reserved ones."""
    labels = {key: value for key, value in labels_of(service).items() if key not in _RESERVED}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[SERVICE_NAME] = name_of(service)
    labels[MANAGED_BY] = CONTROLLER_NAME
    return labels


def new_slice(service: Obj, family: str, ports: Sequence[Obj], endpoints: list[Obj]) -> Obj:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": podutil.generate_name_prefix(name_of(service)),
            "namespace": namespace_of(service),
            "labels": slice_labels(service),
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": list(ports),
    }


def plan(
    service: Obj,
    family: str,
    pods: Iterable[Obj],
    node_of: Callable[[str], Obj | None],
    existing: Iterable[Obj],
    *,
    max_endpoints: int,
) -> Changes:
    """The changes that make the slices of one family show the pods. A pod whose node is unknown is left out,
    unless even addresses that are not ready are to be published."""
    changes = Changes()
    present = list(existing)
    slices: dict[Any, list[Obj]] = {}
    for each in present:
        if _is_owned_by(each, service):
            slices.setdefault(ports_key(each.get("ports") or ()), []).append(each)
        else:
            changes.delete.append(each)
    wanted: dict[Any, tuple[list[Obj], dict[Any, Obj]]] = {}
    for pod in pods:
        if not is_reachable(pod, even_if_terminating=True):
            continue
        ports = endpoint_ports(service, pod)
        group = wanted.setdefault(ports_key(ports), (ports, {}))
        node = node_of(pod["spec"].get("nodeName", ""))
        if node is None and not service["spec"].get("publishNotReadyAddresses"):
            continue
        made = endpoint(service, pod, node, family)
        if made is not None:
            group[1][_endpoint_key(made)] = made
    for key, (ports, endpoints) in wanted.items():
        _fit(changes, service, family, ports, endpoints, slices.get(key, []), max_endpoints)
    for key, obsolete in slices.items():
        if key not in wanted:
            changes.delete += obsolete
    if len(present) == len(changes.delete) and not changes.create:
        _keep_placeholder(changes, service, family)
    sizes = [len(endpoints) for _, endpoints in wanted.values()]
    changes.totals = Totals(
        endpoints=sum(sizes),
        actual=len(present) + len(changes.create) - len(changes.delete),
        desired=max(sum(slices_for(size, max_endpoints) for size in sizes), 1),
    )
    return changes


def _fit(
    changes: Changes,
    service: Obj,
    family: str,
    ports: Sequence[Obj],
    wanted: dict[Any, Obj],
    existing: Sequence[Obj],
    max_endpoints: int,
) -> None:
    """Place the endpoints of one set of ports into its slices."""
    left = dict(wanted)
    labels = slice_labels(service)
    unchanged: list[Obj] = []
    touched: list[Obj] = []
    for each in existing:
        old = each.get("endpoints") or []
        kept = [left.pop(key) for entry in old if (key := _endpoint_key(entry)) in left]
        changes.removed += len(old) - len(kept)
        if not kept and old:
            changes.delete.append(each)
        elif len(kept) != len(old) or not all(map(_same_endpoint, kept, old)):
            touched.append(_changed(each, labels, _with_hints(kept, old)))
        elif labels_of(each) != labels:
            touched.append(_changed(each, labels, list(old)))
        else:
            unchanged.append(each)
    changes.added += len(left)
    rest = list(left.values())
    for each in sorted(touched, key=lambda entry: -len(entry["endpoints"])):
        room = max_endpoints - len(each["endpoints"])
        if room > 0:
            each["endpoints"] += rest[:room]
            del rest[:room]
    while rest:
        chosen = _fullest_with_room(unchanged, len(rest), max_endpoints)
        if chosen is not None:
            unchanged.remove(chosen)
            touched.append(_changed(chosen, labels, [*(chosen.get("endpoints") or ()), *rest]))
            break
        changes.create.append(new_slice(service, family, ports, rest[:max_endpoints]))
        del rest[:max_endpoints]
    changes.update += touched


def _changed(old: Obj, labels: dict[str, str], endpoints: list[Obj]) -> Obj:
    metadata = {**old["metadata"], "labels": labels}
    return {**old, "metadata": metadata, "endpoints": endpoints}


def _fullest_with_room(slices: Sequence[Obj], count: int, max_endpoints: int) -> Obj | None:
    """The slice that is fullest when `count` endpoints are added; None when they fit into none."""
    room = {id(each): max_endpoints - len(each.get("endpoints") or ()) - count for each in slices}
    fitting = [each for each in slices if 0 <= room[id(each)] < max_endpoints]
    return min(fitting, key=lambda each: room[id(each)], default=None)


def _keep_placeholder(changes: Changes, service: Obj, family: str) -> None:
    """A Service without endpoints has one empty slice, so that it can be told from one not yet looked at."""
    placeholder = new_slice(service, family, [], [])
    if len(changes.delete) == 1:
        there = changes.delete[0]
        if (
            not there.get("endpoints")
            and not there.get("ports")
            and labels_of(there) == labels_of(placeholder)
            and _is_owned_by(there, service)
        ):
            changes.delete.clear()
            return
    changes.create.append(placeholder)


def reuse(changes: Changes, service: Obj) -> None:
    """Rather than deleting one slice and creating another, change the one into the other."""
    for old in list(changes.delete):
        if not changes.create:
            return
        new = changes.create[-1]
        if old["addressType"] == new["addressType"] and _is_owned_by(old, service):
            metadata = {**old["metadata"], "labels": labels_of(new)}
            changes.create.pop()
            changes.delete.remove(old)
            changes.update.append({**new, "metadata": metadata})


def _is_owned_by(each: Obj, service: Obj) -> bool:
    return any(
        reference["uid"] == uid_of(service) and reference["kind"] == "Service"
        for reference in each["metadata"].get("ownerReferences") or ()
    )


def ports_key(ports: Iterable[Obj]) -> tuple[Any, ...]:
    entries = (
        (
            port.get("name") or "",
            port.get("protocol") or "",
            port.get("port") or 0,
            port.get("appProtocol") or "",
        )
        for port in ports
    )
    return tuple(sorted(entries))


def _endpoint_key(entry: Obj) -> tuple[Any, ...]:
    """What makes it the same endpoint: its addresses and the pod behind it."""
    target = entry.get("targetRef") or {}
    return (
        tuple(sorted(entry["addresses"])), entry.get("hostname", ""), target.get("kind"), target.get("namespace"),
        target.get("name"), target.get("uid"),
    )  # fmt: skip


def _same_endpoint(one: Obj, other: Obj) -> bool:
    keys = ("addresses", "conditions", "hostname", "nodeName", "zone", "targetRef")
    return all((one.get(key) or None) == (other.get(key) or None) for key in keys)


def _with_hints(kept: list[Obj], old: Iterable[Obj]) -> list[Obj]:
    """Carry hints over: whether they still hold is decided for all slices together."""
    hints = {_endpoint_key(entry): entry["hints"] for entry in old if entry.get("hints")}
    return [{**entry, "hints": hints[key]} if (key := _endpoint_key(entry)) in hints else entry for entry in kept]


class EndpointSliceController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._services = ctx.informer(SERVICES)
        self._pods = ctx.pods()
        self._nodes = ctx.informer(NODES)
        self._slices = ctx.informer(ENDPOINT_SLICES, {"service": by_service})
        self._writes = Writes()
        self._times = TriggerTimes()
        self._topology = TopologyCache()
        self._loop = ctx.loop(
            "endpoint_slice",
            self.reconcile,
            workers=ctx.config.concurrent_service_endpoint_syncs,
            informers=(self._services, self._pods, self._nodes, self._slices),
            writes=self._writes,
        )
        self._services.add_handler(self._loop.on_event)
        self._pods.add_handler(self._on_pod)
        self._slices.add_handler(self._on_slice)
        self._nodes.add_handler(self._on_node)
        self._meter = SliceMeter(ctx.metrics)

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and old is not None and not affects_endpoints(new, old):
            return
        pods = [pod for pod in (new, old) if pod is not None]
        in_namespace = self._services.list(namespace_of(pods[0]))
        delay = self._ctx.config.endpointslice_updates_batch_period
        for service in services_for(in_namespace, *(labels_of(pod) for pod in pods)):
            self._loop.queue.add_after(key_of(service), delay)

    def _on_slice(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """Somebody else changed one of ours, or one of ours is gone."""
        for each in (new, old):
            if each is not None and labels_of(each).get(MANAGED_BY) == CONTROLLER_NAME:
                for key in by_service(each):
                    self._loop.queue.add(key)

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if self._topology.nodes_changed(new, old, self._nodes.list()):
            for service in self._services.list():
                if wants_auto_hints(service):
                    self._loop.add(service)
        if new is not None and old is not None and labels_of(new).get(ZONE) == labels_of(old).get(ZONE):
            return
        node = new if new is not None else old
        if node is not None:
            for pod in self._pods.by_index("node", name_of(node)):
                self._on_pod("ADDED", pod, None)

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        service = self._services.get(namespace, name)
        if service is None:
            self._times.forget(key)
            self._writes.forget(key)
            self._topology.forget(key)
            self._meter.forget(key)
            return None
        if not has_endpoints(service):
            return None
        pods = [pod for pod in self._pods.list(namespace) if selects(service, labels_of(pod))]
        existing = [
            each
            for each in self._slices.by_index("service", key)
            if labels_of(each).get(MANAGED_BY) == CONTROLLER_NAME and not is_being_deleted(each)
        ]
        trigger = self._times.of(key, service, pods)
        families = address_types(service)
        for each in existing:
            if each["addressType"] not in families:
                await self._delete(each)
        done: list[Changes] = []
        for family in families:
            in_family = [each for each in existing if each["addressType"] == family]
            changes = plan(
                service, family, pods, lambda node: self._nodes.get("", node), in_family,
                max_endpoints=self._ctx.config.max_endpoints_per_slice,
            )  # fmt: skip
            self._add_hints(key, service, family, changes, in_family)
            reuse(changes, service)
            await self._apply(key, service, changes, trigger)
            done.append(changes)
        self._measure(key, service, done)
        missing = any(
            is_reachable(pod, even_if_terminating=True) and self._nodes.get("", pod["spec"].get("nodeName", "")) is None
            for pod in pods
        )
        return 1.0 if missing and not service["spec"].get("publishNotReadyAddresses") else None

    def _measure(self, key: str, service: Obj, done: Sequence[Changes]) -> None:
        totals = [each.totals for each in done]
        self._meter.synced(
            key,
            Totals(
                sum(each.endpoints for each in totals),
                sum(each.actual for each in totals),
                sum(each.desired for each in totals),
            ),
            added=sum(each.added for each in done),
            removed=sum(each.removed for each in done),
            changed=sum(each.count for each in done),
            topology="Auto" if wants_auto_hints(service) else "Disabled",
            distribution=service["spec"].get("trafficDistribution") or "",
        )

    def _add_hints(self, key: str, service: Obj, family: str, changes: Changes, existing: Sequence[Obj]) -> None:
        """Set, correct or remove the hints of every slice of the family; one that is otherwise unchanged is
        added to the updates."""
        gone = {name_of(each) for each in (*changes.update, *changes.delete)}
        untouched = [each for each in existing if name_of(each) not in gone]
        everything = [*changes.create, *changes.update, *untouched]
        if wants_auto_hints(service):
            hinted, notes = self._topology.hints(key, family, everything)
        else:
            hinted = by_traffic_distribution(service["spec"].get("trafficDistribution"), everything)
            notes = self._topology.removed(key, family)
        for kind, reason, message in notes:
            self._ctx.recorder.event(service, kind, reason, message)
        created, updated = len(changes.create), len(changes.create) + len(changes.update)
        changes.create = hinted[:created]
        changes.update = hinted[created:updated] + [
            new for new, old in zip(hinted[updated:], untouched, strict=True) if new["endpoints"] != old["endpoints"]
        ]

    async def _apply(self, key: str, service: Obj, changes: Changes, trigger: str) -> None:
        client, namespace = self._ctx.client, namespace_of(service)
        if not is_being_deleted(service):
            for each in changes.create:
                try:
                    created = await client.create(ENDPOINT_SLICES, _stamped(each, trigger), namespace)
                except ApiError as error:
                    if namespace_is_terminating(error):
                        return
                    raise
                self._writes.wrote(key, self._slices, created)
                self._meter.changes.labels("create").inc()
        for each in changes.update:
            self._writes.wrote(key, self._slices, await client.update(ENDPOINT_SLICES, _stamped(each, trigger)))
            self._meter.changes.labels("update").inc()
        for each in changes.delete:
            await self._delete(each)

    async def _delete(self, each: Obj) -> None:
        try:
            await self._ctx.client.delete(ENDPOINT_SLICES, name_of(each), namespace_of(each), uid=uid_of(each))
        except ApiError as error:
            if not is_not_found(error):
                raise
        self._meter.changes.labels("delete").inc()


def by_service(each: Obj) -> tuple[str, ...]:
    name = labels_of(each).get(SERVICE_NAME)
    return (f"{namespace_of(each)}/{name}",) if name else ()


def _stamped(each: Obj, trigger: str) -> Obj:
    """With the time of what caused the change, or without one from before."""
    annotations = {key: value for key, value in annotations_of(each).items() if key != LAST_CHANGE}
    if trigger:
        annotations[LAST_CHANGE] = trigger
    metadata = {key: value for key, value in each["metadata"].items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    return {**each, "metadata": metadata}
