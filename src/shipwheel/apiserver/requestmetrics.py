"""What the API server counts of its requests, under upstream's names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Resource, UserInfo, Version
from shipwheel.apiserver.flowcontrol.places import FlowControl
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.apiserver.statemetrics import Tallies
from shipwheel.client.httpserver import Answer, Request, Response, Stream
from shipwheel.client.metrics import Metrics

_DURATIONS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_SIZES = tuple(1000.0 * 10**power for power in range(7))


class RequestMetrics:
    """Instruments with their labels bound are kept by what they count: a request costs two additions."""

    def __init__(self, metrics: Metrics, flow: FlowControl) -> None:
        names = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code")
        self._total = metrics.counter(
            "apiserver_request_total",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, "
            "scope, component, and HTTP response code.",
            names,
        )
        shape = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
        self._seconds = metrics.histogram(
            "apiserver_request_duration_seconds",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, "
            "subresource, scope and component.",
            _DURATIONS,
            shape,
        )
        self._sizes = metrics.histogram(
            "apiserver_response_sizes",
            "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope "
            "and component.",
            _SIZES,
            ("verb", "group", "version", "resource", "subresource", "scope", "component"),
        )
        inflight = metrics.gauge(
            "apiserver_current_inflight_requests",
            "Requests being served right now, per kind of request.",
            ("request_kind",),
        )
        waiting = metrics.gauge(
            "apiserver_current_inqueue_requests",
            "[ALPHA] Requests waiting for their turn right now, per kind of request.",
            ("request_kind",),
        )
        for kind in ("readOnly", "mutating"):
            inflight.labels(kind).set_function(partial(flow.serving, kind))
            waiting.labels(kind).set_function(partial(flow.waiting, kind))
        self._longrunning = metrics.gauge(
            "apiserver_longrunning_requests",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, "
            "resource, scope and component. Not all requests are tracked this way.",
            ("verb", "group", "version", "resource", "subresource", "scope", "component"),
        )
        self._terminations = metrics.counter(
            "apiserver_request_terminations_total",
            "[ALPHA] Number of requests which apiserver terminated in self-defense.",
            ("verb", "group", "version", "resource", "subresource", "scope", "component", "code"),
        )
        self._aborts = metrics.counter(
            "apiserver_request_aborts_total",
            "[ALPHA] Number of requests which apiserver aborted possibly due to a timeout, for each group, version, "
            "verb, resource, subresource and scope",
            ("verb", "group", "version", "resource", "subresource", "scope"),
        )
        self._bound: dict[tuple[Any, ...], tuple[Any, Any, Any]] = {}
        self.tallies = Tallies()

    def authenticated(self, user: UserInfo) -> None:
        self.tallies.authentications["success"] += 1
        self.tallies.authenticated[_compressed(user.name)] += 1

    def authorized(self, allowed: bool) -> None:
        self.tallies.authorizations["allowed" if allowed else "no-opinion"] += 1

    def deprecated(self, info: RequestInfo, version: Version) -> None:
        """Somebody asks for what will go, or is gone elsewhere."""
        api = (info.group, info.version, info.resource, info.subresource, version.removed_in)
        self.tallies.deprecated.add(api)

    def observe(self, info: RequestInfo, request: Request, answer: Answer, seconds: float) -> None:
        status = answer.status if isinstance(answer, Response | Stream) else 101
        key = (info.verb, info.group, info.version, info.resource, info.subresource, bool(info.name), status)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._bind(info, status)
        count, duration, size = bound
        count()
        if status == 401:
            self.tallies.authentications["failure"] += 1
        if isinstance(answer, Response):
            duration(seconds)
            size(len(answer.body))

    def _bind(self, info: RequestInfo, status: int) -> tuple[Any, Any, Any]:
        scope = _scope(info)
        verb = _verb(info)
        shared = (info.group, info.version, info.resource, info.subresource, scope, "apiserver")
        return (
            self._total.labels(verb, "", *shared, str(status)).inc,
            self._seconds.labels(verb, "", *shared).observe,
            self._sizes.labels(verb, *shared).observe,
        )

    def terminated(self, info: RequestInfo, code: int) -> None:
        """A request was ended to save the server: 429, 504."""
        subresource = info.subresource if info.is_resource else info.path
        kind = (info.group, info.version, info.resource, subresource, _scope(info))
        self._terminations.labels(_verb(info), *kind, "apiserver", str(code)).inc()

    def aborted(self, info: RequestInfo) -> None:
        """A request's answer was broken off."""
        kind = (info.group, info.version, info.resource, info.subresource, _scope(info))
        self._aborts.labels(_verb(info), *kind).inc()

    def begin_long(self, info: RequestInfo) -> Callable[[], None]:
        """Note that a long-running request began; returns what notes its end."""
        gauge = self._longrunning.labels(
            _verb(info), info.group, info.version, info.resource, info.subresource, _scope(info), "apiserver"
        )
        gauge.inc()
        return gauge.dec


class StoreRequestMetrics:
    """What writes cost the store, whichever it is: named after etcd, as upstream has it."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("operation", "group", "resource")
        self._seconds = metrics.histogram(
            "etcd_request_duration_seconds",
            "[ALPHA] Etcd request latency in seconds for each operation and object type.",
            _DURATIONS,
            labels,
        )
        self._total = metrics.counter(
            "etcd_requests_total", "[ALPHA] Etcd request counts for each operation and object type.", labels
        )
        self._bound: dict[tuple[str, GroupResource], tuple[Any, Any]] = {}

    def observe(self, operation: str, resource: Resource, seconds: float) -> None:
        key = (operation, resource.group_resource)
        bound = self._bound.get(key)
        if bound is None:
            labels = (operation, *resource.group_resource)
            bound = self._bound[key] = (self._total.labels(*labels).inc, self._seconds.labels(*labels).observe)
        count, duration = bound
        count()
        duration(seconds)


_KNOWN_USERS = frozenset({"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"})


def _compressed(user_name: str) -> str:
    """Few enough names to be a label."""
    if user_name in _KNOWN_USERS:
        return user_name
    return "email_id" if "@" in user_name else "other"


_VERBS = {
    "get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
    "delete": "DELETE", "deletecollection": "DELETECOLLECTION",
}  # fmt: skip


def _verb(info: RequestInfo) -> str:
    return _VERBS.get(info.verb, info.verb.upper() if info.verb.isalpha() else "OTHER")


def _scope(info: RequestInfo) -> str:
    if not info.is_resource:
        return ""
    if info.name:
        return "resource"
    return "namespace" if info.namespace else "cluster"
