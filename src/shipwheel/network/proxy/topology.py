"""Which of a Service's endpoints this node sends traffic to (KEP-2433, KEP-1669, KEP-3015).

Ready endpoints are used, those advised for this node or zone if every endpoint carries such advice and some
is meant for us. Where nothing is ready, endpoints that are terminating but still serve are better than
nothing; this is decided for the Cluster and for the Local policy apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shipwheel.network.proxy.model import Endpoint, ServicePort


@dataclass(frozen=True, slots=True)
class Place:
    """Where this proxy runs."""

    node_name: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Reachable:
    cluster: tuple[Endpoint, ...] = ()
    """For traffic under the Cluster policy; empty when the Service never needs it."""
    local: tuple[Endpoint, ...] = ()
    """For traffic under the Local policy; empty when the Service never needs it."""
    anywhere: bool = False
    """Some endpoint could serve on some node, if not from here."""

    @property
    def all(self) -> tuple[Endpoint, ...]:
        return tuple(dict.fromkeys((*self.cluster, *self.local)))


def reachable(port: ServicePort, endpoints: Sequence[Endpoint], place: Place) -> Reachable:
    ready = [each for each in endpoints if each.ready]
    draining = [each for each in endpoints if each.serving and each.terminating]
    cluster: Sequence[Endpoint] = ()
    local: Sequence[Endpoint] = ()
    if port.uses_cluster_endpoints:
        advised = _advised(ready, place)
        cluster = [each for each in ready if advised(each)] or draining
    if port.uses_local_endpoints:
        local = [each for each in ready if each.local]
        local = local or [each for each in draining if each.local and not each.ready]
    anywhere = bool(ready or draining) if port.uses_local_endpoints else bool(cluster)
    return Reachable(tuple(cluster), tuple(local), anywhere)


def _advised(ready: Sequence[Endpoint], place: Place) -> Callable[[Endpoint], bool]:
    """The test that hints put endpoints to; everything passes where hints are incomplete or not for us."""
    if ready and all(each.nodes for each in ready) and any(place.node_name in each.nodes for each in ready):
        return lambda each: place.node_name in each.nodes
    if ready and all(each.zones for each in ready) and any(place.zone in each.zones for each in ready):
        return lambda each: place.zone in each.zones
    return lambda each: True
