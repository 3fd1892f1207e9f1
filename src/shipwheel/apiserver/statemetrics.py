"""What the metrics tell of the server's state: objects, watch caches, addresses and ports, who asked for what.

Nothing of it is kept up to date for the metrics' sake: it is looked up when somebody reads them. The tallies are plain
counters, because they are counted on every request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shipwheel import KUBERNETES_VERSION
from shipwheel.api.resource import Resource

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

_KIND = ("group", "resource")
_DEPRECATED = ("group", "version", "resource", "subresource", "removed_release")


@dataclass(frozen=True, slots=True)
class Tallies:
    """Counted where it happens."""

    authenticated: Counter[str] = field(default_factory=Counter)
    """Requests by user name."""
    authentications: Counter[str] = field(default_factory=Counter)
    """By outcome: `success`, `failure`."""
    authorizations: Counter[str] = field(default_factory=Counter)
    """By outcome: `allowed`, `denied`, `no-opinion`."""
    deprecated: set[tuple[str, str, str, str, str]] = field(default_factory=set)
    """The deprecated APIs that somebody asked for: group, version, resource, subresource, the release without it."""


class StateMetrics(Collector):
    def __init__(self, server: ApiServer, tallies: Tallies) -> None:
        self._server = server
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        yield from self._objects()
        yield from self._watches()
        yield from self._requests()
        yield from self._allocators()
        yield from self._versions()

    def _objects(self) -> Iterator[Metric]:
        storage = GaugeMetricFamily(
            "apiserver_storage_objects",
            "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects.",
            labels=("resource",),
        )
        objects = GaugeMetricFamily("apiserver_resource_objects", "[ALPHA] Number of stored objects.", labels=_KIND)
        revisions = GaugeMetricFamily(
            "apiserver_watch_cache_resource_version", "[ALPHA] Current resource version of watch cache.", labels=_KIND
        )
        watchers = GaugeMetricFamily(
            "apiserver_registered_watchers",
            "[ALPHA] Number of currently registered watchers for a given resource.",
            labels=("group", "version", "kind"),
        )
        sizes = GaugeMetricFamily(
            "apiserver_resource_size_estimate_bytes",
            "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of "
            "serialized objects. In case of a fetching error, the value will be -1.",
            labels=_KIND,
        )
        cache = self._server.cache
        for resource, known in cache.kinds():
            named = (resource.group, resource.plural)
            sizes.add_metric(named, known.size)
            storage.add_metric((str(resource.group_resource),), len(known.entries))
            objects.add_metric(named, len(known.entries))
            revisions.add_metric(named, cache.revision)
            if known.watchers:
                watchers.add_metric(_gvk(resource), len(known.watchers))
        yield from (storage, objects, sizes, revisions, watchers)

    def _watches(self) -> Iterator[Metric]:
        reader = self._server.reader
        events = CounterMetricFamily(
            "apiserver_watch_events_total", "[ALPHA] Number of events sent in watch clients",
            labels=("group", "version", "resource"),
        )  # fmt: skip
        (sizes,) = reader.sent.collect()
        for sample in sizes.samples:
            if sample.name.endswith("_count"):
                events.add_metric([sample.labels[name] for name in ("group", "version", "resource")], sample.value)
        initial = CounterMetricFamily(
            "apiserver_init_events_total",
            "[ALPHA] Counter of init events processed in watch cache broken by resource type.",
            labels=_KIND,
        )
        for kind, count in reader.initial_events.items():
            initial.add_metric(kind, count)
        received, dispatched = (
            CounterMetricFamily(
                f"apiserver_watch_cache_events_{word}_total",
                f"[ALPHA] Counter of events {word} in watch cache broken by resource type.",
                labels=_KIND,
            )
            for word in ("received", "dispatched")
        )
        loads = CounterMetricFamily(
            "apiserver_watch_cache_initializations_total",
            "[ALPHA] Counter of watch cache initializations broken by resource type.",
            labels=_KIND,
        )
        for resource, known in self._server.cache.kinds():
            named = (resource.group, resource.plural)
            loads.add_metric(named, known.loads)
            if known.received:
                received.add_metric(named, known.received)
                dispatched.add_metric(named, known.received)
        yield from (events, sizes, initial, received, dispatched, loads)

    def _requests(self) -> Iterator[Metric]:
        tallies = self._tallies
        # Gauges, because the exposition would let a counter's name end in `_total`.
        users = GaugeMetricFamily(
            "authenticated_user_requests", "[ALPHA] Counter of authenticated requests by username.",
            labels=("username",),
        )  # fmt: skip
        for name, count in tallies.authenticated.items():
            users.add_metric((name,), count)
        authentications = GaugeMetricFamily(
            "authentication_attempts", "[ALPHA] Counter of authenticated attempts.", labels=("result",)
        )
        for result, count in tallies.authentications.items():
            authentications.add_metric((result,), count)
        authorizations = CounterMetricFamily(
            "authorization_attempts_total", "[ALPHA] Counter of authorization attempts by result.", labels=("result",)
        )
        for result, count in tallies.authorizations.items():
            authorizations.add_metric((result,), count)
        deprecated = GaugeMetricFamily(
            "apiserver_requested_deprecated_apis", "[STABLE] Deprecated APIs that have been requested.",
            labels=_DEPRECATED,
        )  # fmt: skip
        for api in sorted(tallies.deprecated):
            deprecated.add_metric(api, 1)
        yield from (users, authentications, authorizations, deprecated)

    def _allocators(self) -> Iterator[Metric]:
        services = self._server.services
        taken, free = (
            GaugeMetricFamily(
                f"kube_apiserver_clusterip_allocator_{word}_ips",
                f"[ALPHA] Gauge measuring the number of {word} IPs for Services",
                labels=("cidr",),
            )
            for word in ("allocated", "available")
        )
        for cidr, used, size in services.address_use():
            taken.add_metric((cidr,), used)
            free.add_metric((cidr,), size - used)
        ports_taken, ports_free = (
            GaugeMetricFamily(
                f"kube_apiserver_nodeport_allocator_{word}_ports",
                f"[ALPHA] Gauge measuring the number of {word} NodePorts for Services",
            )
            for word in ("allocated", "available")
        )
        used, size = services.port_use()
        ports_taken.add_metric((), used)
        ports_free.add_metric((), size - used)
        yield from (taken, free, ports_taken, ports_free)

    def _versions(self) -> Iterator[Metric]:
        major, minor, _ = KUBERNETES_VERSION.lstrip("v").split(".")
        build = GaugeMetricFamily(
            "kubernetes_build_info", "[BETA] What was built.", labels=("major", "minor", "git_version")
        )
        build.add_metric((major, minor, KUBERNETES_VERSION), 1)
        compatible = GaugeMetricFamily(
            "version_info", "[ALPHA] Provides the compatibility version info of the component.",
            labels=("component", "binary", "emulation", "min_compat"),
        )  # fmt: skip
        compatible.add_metric(("kube", f"{major}.{minor}", f"{major}.{minor}", f"{major}.{int(minor) - 1}"), 1)
        yield from (build, compatible)


def _gvk(resource: Resource) -> tuple[str, str, str]:
    storage = resource.storage
    return storage.group, storage.version, resource.kind
