"""ServiceCIDRs (KEP-1880): says that a range of Service addresses is ready, and keeps one that is being deleted
until no address depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition, is_being_deleted, labels_of, name_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import IP_ADDRESSES, SERVICE_CIDRS
from shipwheel.controllers.framework import Context, is_not_found

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
_ALLOCATOR = "ipallocator.k8s.io"
_GRACE_SECONDS = 10.0
"""API servers may not have heard yet that the range is being deleted, and give out an address of it."""

_IN_USE = (
    "There are still IPAddresses referencing the ServiceCIDR, "
    "please remove them or create a new ServiceCIDR"
)  # fmt: skip

_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def networks(cidr: Obj) -> list[_Network]:
    found: list[_Network] = []
    for text in cidr["spec"].get("cidrs") or ():
        try:
            found.append(ip_network(text))
        except ValueError:
            continue
    return found


def address_of(address: Obj) -> _Address | None:
    """The address that an IPAddress stands for, if a Service has it."""
    if labels_of(address).get(_MANAGED_BY) != _ALLOCATOR:
        return None
    try:
        return ip_address(name_of(address))
    except ValueError:
        return None


def holds(cidr: Obj, address: _Address) -> bool:
    """The address is one that the range gives out: neither its network's nor its last one."""
    for network in networks(cidr):
        if address in network and address != network.network_address:
            return address.version == 6 or address != network.broadcast_address
    return False


def within(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def overlap(one: Obj, other: Obj) -> bool:
    return any(left.overlaps(right) for left in networks(one) for right in networks(other))


def can_go(cidr: Obj, all_cidrs: Iterable[Obj], addresses: Iterable[Obj]) -> bool:
    """No address would be left without a range: another range holds all of this one, or each address of it."""
    others = [each for each in all_cidrs if name_of(each) != name_of(cidr)]
    if all(any(within(mine, its) for each in others for its in networks(each)) for mine in networks(cidr)):
        return True
    for each in addresses:
        address = address_of(each)
        if address is not None and holds(cidr, address) and not any(holds(other, address) for other in others):
            return False
    return True


class ServiceCidrController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._cidrs = ctx.informer(SERVICE_CIDRS)
        self._addresses = ctx.informer(IP_ADDRESSES)
        self._loop = ctx.loop("servicecidrs", self.reconcile, workers=5, informers=(self._cidrs, self._addresses))
        self._cidrs.add_handler(self._on_cidr)
        self._addresses.add_handler(self._on_address)

    async def run(self) -> None:
        await self._loop.run()

    def _on_cidr(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        self._loop.on_event(kind, new, old)
        if new is not None and old is None:
            for other in self._cidrs.list():
                if overlap(other, new):
                    self._loop.add(other)

    def _on_address(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and old is not None:
            return
        address = address_of(new if new is not None else old or {"metadata": {"name": ""}})
        for cidr in self._cidrs.list() if address is not None else ():
            if address is not None and holds(cidr, address):
                self._loop.add(cidr)

    async def reconcile(self, key: str) -> float | None:
        cidr = self._cidrs.get("", key)
        if cidr is None:
            return None
        if is_being_deleted(cidr):
            return await self._release(cidr)
        if FINALIZER not in (cidr["metadata"].get("finalizers") or ()):
            await self._patch(cidr, {"finalizers": [FINALIZER]})
        try:
            await self._set_ready(cidr, "True", "", "Kubernetes Service CIDR is ready")
        except ApiError:
            message = "The ServiceCIDR Status can not be set to Ready=True"
            self._ctx.recorder.event(cidr, "Warning", "KubernetesServiceCIDRError", message)
            raise
        return None

    async def _release(self, cidr: Obj) -> float | None:
        if not can_go(cidr, self._cidrs.list(), self._addresses.list()):
            await self._set_ready(cidr, "False", "Terminating", _IN_USE)
            return None
        deleted = parse_time(cidr["metadata"]["deletionTimestamp"])
        left = _GRACE_SECONDS - (self._ctx.clock.now() - deleted).total_seconds()
        if left > 0:
            return left
        if FINALIZER in (cidr["metadata"].get("finalizers") or ()):
            await self._patch(cidr, {"$deleteFromPrimitiveList/finalizers": [FINALIZER]})
        return None

    async def _patch(self, cidr: Obj, metadata: Obj) -> None:
        try:
            await self._ctx.client.patch(SERVICE_CIDRS, name_of(cidr), "", {"metadata": metadata}, kind="strategic")
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _set_ready(self, cidr: Obj, status: str, reason: str, message: str) -> None:
        current = condition(cidr, "Ready") or {}
        if (current.get("status"), current.get("reason", ""), current.get("message")) == (status, reason, message):
            return
        ready = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": rfc3339(self._ctx.clock.now()),
        }
        applied = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": name_of(cidr)},
            "status": {"conditions": [ready]},
        }
        await self._ctx.client.patch(
            SERVICE_CIDRS,
            name_of(cidr),
            "",
            applied,
            kind="apply",
            subresource="status",
            field_manager="service-cidr-controller",
            force=True,
        )
