"""The API server as one component: its parts put together, started and stopped.

`ApiServer` is also the `Server` that kinds' own code sees (api/resource.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock, SystemClock
from shipwheel.api.errors import ApiError, not_found, page_not_found
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Attributes, Call, Decision, Resource, UserInfo
from shipwheel.api.scheme import Scheme
from shipwheel.apiserver import bootstrap
from shipwheel.apiserver.admission.chain import Admission
from shipwheel.apiserver.admission.plugins import make_admission
from shipwheel.apiserver.apiservices import ApiServices
from shipwheel.apiserver.authn.requests import Authenticator, TokenAuthenticator
from shipwheel.apiserver.authn.serviceaccount import ServiceAccountAuthenticator, TokenIssuer
from shipwheel.apiserver.authz.chain import ALWAYS_ALLOWED, Authorizer
from shipwheel.apiserver.authz.node import NodeAuthorizer, node_of
from shipwheel.apiserver.authz.rbac import RbacAuthorizer
from shipwheel.apiserver.config import ApiServerConfig
from shipwheel.apiserver.customresources import CustomResources
from shipwheel.apiserver.documents import Documents
from shipwheel.apiserver.flowcontrol.dumps import Dumps
from shipwheel.apiserver.flowcontrol.fairness import PriorityAndFairness
from shipwheel.apiserver.flowcontrol.inflight import MaxInFlight
from shipwheel.apiserver.flowcontrol.metrics import FairnessMetrics
from shipwheel.apiserver.flowcontrol.objects import LEVELS, SCHEMAS, FlowConfig
from shipwheel.apiserver.flowcontrol.places import FlowControl
from shipwheel.apiserver.flowcontrol.watches import Watches
from shipwheel.apiserver.flowcontrol.width import Stored
from shipwheel.apiserver.forward import Destination, Forwarder
from shipwheel.apiserver.health import Health
from shipwheel.apiserver.intake import WriteOptions
from shipwheel.apiserver.ipaddresses import IpAddresses
from shipwheel.apiserver.masterleases import MasterLeases
from shipwheel.apiserver.nodes import NODES, kubelet_context, kubelet_of
from shipwheel.apiserver.pipeline import Pipeline
from shipwheel.apiserver.reads import Reader
from shipwheel.apiserver.registry import Registry
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.apiserver.requestmetrics import RequestMetrics
from shipwheel.apiserver.served import served_resources
from shipwheel.apiserver.service_means import ServiceMeans
from shipwheel.apiserver.service_repair import ServiceRepair
from shipwheel.apiserver.statemetrics import StateMetrics
from shipwheel.apiserver.token_uses import TokenUses
from shipwheel.apiserver.watchcache import Change, ResourceCache, WatchCache
from shipwheel.apiserver.writes import Writer
from shipwheel.client.httpserver import Answer, HttpServer, Request, ServerContext, server_tls
from shipwheel.client.metrics import Metrics
from shipwheel.client.x509 import FrontProxyAuthenticator, X509Authenticator, load_authorities
from shipwheel.store.base import Store, StoreError

log = logging.getLogger(__name__)

SHUTDOWN_GRACE = 5.0


class ApiServer:
    """Everything one API server process holds."""

    def __init__(self, config: ApiServerConfig, store: Store, clock: Clock) -> None:
        self.config = config
        self.store = store
        self.clock = clock
        self.scheme = Scheme(
            served_resources(removed=config.serve_removed_api_versions, runtime_config=config.runtime_config)
        )
        self.cache = WatchCache(store)
        self.reader = Reader(self.cache, clock, min_watch_seconds=config.min_request_timeout)
        self.metrics = Metrics()
        self.forwarder = Forwarder()
        self.services = ServiceMeans(config, self.cache)
        self.rbac = RbacAuthorizer(self.cache)
        self.nodes = NodeAuthorizer(self.cache)
        self.authorizer = self._make_authorizer()
        self.issuer = self._make_issuer()
        self.token_uses = TokenUses(self)
        self.tokens = self._make_tokens()
        self.authenticator = self._make_authenticator()
        self.admission: Admission = make_admission(self, config)
        self.registry = Registry(store, self.cache, self.admission, clock, self, event_ttl=config.event_ttl)
        self.health = Health(self)
        self.watches = Watches(config.max_watches_inflight)
        self.fairness = self._make_fairness() if config.enable_priority_and_fairness else None
        self.flow: FlowControl = self.fairness or MaxInFlight(
            reading=config.max_requests_inflight, mutating=config.max_mutating_requests_inflight
        )
        counted = RequestMetrics(self.metrics, self.flow)
        for each in (
            StateMetrics(self, counted.tallies), self.admission.plugin_seconds, self.admission.phase_seconds,
            self.reader.waits,
        ):  # fmt: skip
            self.metrics.registry.register(each)
        self.pipeline = Pipeline(
            scheme=self.scheme,
            authenticator=self.authenticator,
            authorizer=self.authorizer,
            flow=self.flow,
            watches=self.watches,
            reader=self.reader,
            writer=Writer(self.registry, self.reader),
            server=self,
            metrics=counted,
            clock=clock,
            request_timeout=config.request_timeout,
        )
        self.custom_resources = CustomResources(self)
        self.api_services = ApiServices(self)
        self.flow_config = FlowConfig(self)
        self.ip_addresses = IpAddresses(self)
        self.master_leases = MasterLeases(self)
        self.service_repair = ServiceRepair(self)
        self._kubelet_tls: ssl.SSLContext | None = None
        self._address_tls: ssl.SSLContext | None = None
        Documents(self).install(self.pipeline)
        if self.fairness is not None:
            self.metrics.registry.register(FairnessMetrics(self.fairness))
            self.pipeline.paths.update(Dumps(self.fairness).paths)

    def count_handshakes(self, tls: ServerContext) -> None:
        """Tell in the metrics which handshakes came to nothing."""
        errors = self.metrics.counter(
            "apiserver_tls_handshake_errors_total",
            "[ALPHA] Number of requests dropped with 'TLS handshake error from' error",
        )
        tls.failed = errors.inc

    # Who is served when.

    def _make_fairness(self) -> PriorityAndFairness:
        def configuration() -> tuple[list[Obj], list[Obj]]:
            kinds = [self.scheme.resource(key) for key in (SCHEMAS, LEVELS)]
            schemas, levels = ([] if kind is None else self.peek_all(kind.group_resource) for kind in kinds)
            return schemas, levels

        def stored(info: RequestInfo) -> Stored | None:
            found = self.scheme.at(info.group, info.version, info.resource)
            known = self.cache.caches.get(found[0].prefix) if found is not None else None
            return Stored(len(known.entries), known.size) if known is not None else None

        fairness = PriorityAndFairness(
            seats=self.config.max_requests_inflight + self.config.max_mutating_requests_inflight,
            clock=self.clock,
            watches=self.watches,
            read=configuration,
            stored=stored,
        )

        def on_change(cache: ResourceCache, change: Change) -> None:
            if cache.resource.group == SCHEMAS.group:
                fairness.forget()

        self.cache.on_change(on_change)
        return fairness

    # Who and what is allowed.

    def _make_authorizer(self) -> Authorizer:
        known: dict[str, Callable[[Attributes], Decision]] = {
            "RBAC": self.rbac.authorize,
            "Node": self.nodes.authorize,
            "AlwaysAllow": lambda _: Decision(True),
            "AlwaysDeny": lambda _: Decision(False, "Everything is forbidden."),
        }
        modes = [known[mode] for mode in self.config.authorization_mode]
        return Authorizer(modes, always_allow_paths=ALWAYS_ALLOWED)

    def _make_issuer(self) -> TokenIssuer | None:
        file = self.config.service_account_signing_key_file
        if not file:
            return None
        return TokenIssuer(Path(file).read_bytes(), issuer=self.config.service_account_issuer[0], clock=self.clock)

    def _make_tokens(self) -> ServiceAccountAuthenticator | None:
        files = self.config.service_account_key_file or (
            (self.config.service_account_signing_key_file,) if self.config.service_account_signing_key_file else ()
        )
        if not files:
            return None
        return ServiceAccountAuthenticator(
            [Path(file).read_bytes() for file in files],
            issuers=self.config.service_account_issuer,
            api_audiences=self.config.api_audiences or self.config.service_account_issuer,
            lookup=self.peek,
            clock=self.clock,
            note_use=self.token_uses.note,
        )

    def _make_authenticator(self) -> Authenticator:
        config = self.config
        certificates = front_proxy = None
        if config.client_ca_file:
            certificates = X509Authenticator(load_authorities(Path(config.client_ca_file).read_bytes()))
        if config.requestheader_client_ca_file:
            front_proxy = FrontProxyAuthenticator(
                load_authorities(Path(config.requestheader_client_ca_file).read_bytes()),
                allowed_names=config.requestheader_allowed_names,
                user_headers=config.requestheader_username_headers,
                group_headers=config.requestheader_group_headers,
                extra_prefixes=config.requestheader_extra_headers_prefix,
            )
        tokens: list[TokenAuthenticator] = [self.tokens] if self.tokens is not None else []
        return Authenticator(
            certificates=certificates,
            front_proxy=front_proxy,
            tokens=tokens,
            api_audiences=config.api_audiences or config.service_account_issuer,
            anonymous=config.anonymous_auth,
        )

    # The `Server` of kinds' own code.

    def resource(self, group: str, plural: str) -> Resource:
        return self._known(GroupResource(group, plural))

    def _known(self, key: GroupResource) -> Resource:
        found = self.scheme.resource(key)
        if found is None:
            raise page_not_found()
        return found

    async def get(self, resource: GroupResource, namespace: str, name: str) -> Obj:
        known = self._known(resource)
        return (await self.reader.get(known, namespace, name)).decode()

    def peek(self, resource: GroupResource, namespace: str, name: str) -> Obj | None:
        cache = self.cache.caches.get(self._known(resource).prefix)
        entry = cache.get(namespace, name) if cache is not None else None
        return entry.peek() if entry is not None else None

    def peek_all(self, resource: GroupResource, namespace: str = "") -> list[Obj]:
        cache = self.cache.of(self._known(resource))
        if not cache.keys:
            return []
        low, high = cache.span(namespace)
        return [cache.entries[key].peek() for key in cache.keys[low:high]]

    async def create(self, resource: GroupResource, namespace: str, obj: Obj, *, user: UserInfo) -> Obj:
        known = self._known(resource)
        namespace = namespace or obj["metadata"].get("namespace", "") if known.namespaced else ""
        options = WriteOptions(user, field_manager=user.name.rpartition(":")[2], field_validation="Ignore")
        written = await self.registry.create(known, known.storage, namespace, obj, options)
        return written.entry.decode()

    async def change(
        self,
        resource: GroupResource,
        namespace: str,
        name: str,
        change: Callable[[Obj], Obj | None],
        *,
        user: UserInfo,
        dry_run: bool = False,
        subresource: str = "",
    ) -> str:
        known = self._known(resource)
        options = WriteOptions(
            user, dry_run=dry_run, field_manager=user.name.rpartition(":")[2], field_validation="Ignore"
        )
        sub = known.subresource(subresource) if subresource else None

        def produce(old: Obj | None) -> Obj:
            assert old is not None
            changed = change(old)
            return old if changed is None else changed

        written = await self.registry.update(
            known, known.storage, namespace, name, produce, options, subresource=sub, admit=False
        )
        return str(written.entry.revision)

    async def delete(
        self,
        resource: GroupResource,
        namespace: str,
        name: str,
        options: Obj,
        *,
        user: UserInfo,
        dry_run: bool = False,
    ) -> Obj:
        known = self._known(resource)
        writing = WriteOptions(user, dry_run=dry_run)
        written = await self.registry.delete(known, known.storage, namespace, name, options, writing)
        return written.entry.decode()

    async def authorize(self, attributes: Attributes) -> Decision:
        return await self.authorizer.authorize(attributes)

    async def authenticate_token(
        self, token: str, audiences: Sequence[str]
    ) -> tuple[UserInfo | None, Sequence[str], str]:
        reason = "invalid bearer token"
        for authenticator in self.authenticator.tokens:
            try:
                found = await authenticator.authenticate(token, audiences)
            except ValueError as error:
                reason = f"[invalid bearer token, {error}]"
                continue
            if found is not None:
                user, good_for = found
                groups = (*user.groups, "system:authenticated")
                return UserInfo(user.name, groups, user.uid, user.extra), good_for, ""
        return None, (), reason

    def issue_token(self, claims: Obj, *, audiences: Sequence[str], lifetime: int) -> tuple[str, datetime]:
        if self.issuer is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource", details={})
        return self.issuer.issue(claims, audiences=audiences, lifetime=lifetime)

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[Obj], list[Obj], bool]:
        resource_rules, other = self.rbac.rules_for(user, namespace)
        is_node = bool(node_of(user.name, user.groups)) and "Node" in self.config.authorization_mode
        return resource_rules, other, is_node

    def means(self, name: str) -> Any:
        if name == "audiences":
            return self.config.api_audiences or self.config.service_account_issuer
        if name == "component-checks":
            return self.health.components()
        return self.services.means(name)

    async def to_node(self, node: str, path: str, call: Call) -> Any:
        found = self.peek(NODES, "", node)
        if found is None:
            raise not_found(NODES, node)
        if self._kubelet_tls is None:
            self._kubelet_tls = kubelet_context(
                ca_file=self.config.kubelet_certificate_authority,
                certificate=self.config.kubelet_client_certificate,
                key=self.config.kubelet_client_key,
            )
        to = kubelet_of(found, self.config.kubelet_preferred_address_types, self._kubelet_tls)
        return await self.forwarder.forward_streams(call.request, to, path)

    async def to_address(self, scheme: str, host: str, port: int, path: str, call: Call) -> Any:
        tls = None
        if scheme == "https":
            if self._address_tls is None:
                self._address_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                self._address_tls.check_hostname = False
                self._address_tls.verify_mode = ssl.CERT_NONE
            tls = self._address_tls
        return await self.forwarder.forward(call.request, Destination(host, port, tls), path)

    # What the pipeline asks.

    async def serve_elsewhere(self, request: Request, info: RequestInfo, user: UserInfo) -> Answer | None:
        """A resource that is no kind of ours: nobody else serves it (yet)."""
        return None

    # Starting and stopping.

    async def start(self) -> None:
        """Read the store, and make sure that what must be there is."""
        await self.store.open()
        await self.cache.load(resource for resource in self.scheme if "get" in resource.verbs)
        await self.custom_resources.load()
        self.nodes.load()
        self.services.load()

    async def prepare_cluster(self) -> None:
        """The objects that every cluster has; run once requests can be served."""
        config = self.config
        await bootstrap.make_namespaces(self)
        await bootstrap.make_roles(self)
        await bootstrap.make_priority_classes(self)
        await self.flow_config.ensure()
        await self.api_services.ensure()
        await bootstrap.make_service_range(self, config.service_cluster_ip_range)
        await bootstrap.note_start_of_token_tracking(self)
        await bootstrap.make_kubernetes_service(self, self.services.first_address, config.secure_port)
        await self.master_leases.renew()
        client_ca = _text_of(config.client_ca_file)
        proxy_ca = _text_of(config.requestheader_client_ca_file)
        await bootstrap.publish_client_cas(self, client_ca, proxy_ca, config.requestheader_allowed_names)


async def run(
    config: ApiServerConfig,
    *,
    clock: Clock | None = None,
    store: Store | None = None,
    ready: Callable[[ApiServer], None] | None = None,
) -> None:
    """Serve until cancelled. OSError when the port cannot be had, StoreError when the store cannot be used."""
    clock = clock or SystemClock()
    if store is None:
        from shipwheel.apiserver.storage import open_store

        store = open_store(config, clock)
    server = ApiServer(config, store, clock)
    await server.start()
    http = HttpServer(server.pipeline)
    authorities = [_text_of(file) for file in (config.client_ca_file, config.requestheader_client_ca_file) if file]
    tls = server_tls(config.tls_cert_file, config.tls_private_key_file, client_ca=authorities)
    server.count_handshakes(tls)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(server.cache.run(), name="watch-cache")
        try:
            await http.listen(config.bind_address, config.secure_port, tls=tls)
            await server.prepare_cluster()
            gc.freeze()  # kinds and schemas stay for good: looking through them for garbage would hold requests up
            server.health.ready = True
            if ready is not None:
                ready(server)
            log.info("serving on %s:%d", config.bind_address, config.secure_port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.api_services.run(), name="api-services")
                tasks.create_task(_compact(server), name="compaction")
                tasks.create_task(server.custom_resources.run(), name="custom-resources")
                tasks.create_task(server.flow_config.run(), name="flow-config")
                if server.fairness is not None:
                    tasks.create_task(server.fairness.run(), name="priority-and-fairness")
                tasks.create_task(server.ip_addresses.run(), name="ip-addresses")
                tasks.create_task(server.master_leases.run(), name="master-leases")
                tasks.create_task(server.service_repair.run(), name="service-repair")
                tasks.create_task(server.token_uses.run(), name="token-uses")
        finally:
            server.health.ready = False
            server.reader.draining.set()
            await server.master_leases.leave()
            await http.close(grace=SHUTDOWN_GRACE)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await server.forwarder.close()
            await store.close()


def _text_of(file: str) -> str:
    return Path(file).read_text() if file else ""


async def _compact(server: ApiServer) -> None:
    """Forget, every `--etcd-compaction-interval`, what was before the last time."""
    interval = server.config.etcd_compaction_interval
    if interval <= 0:
        await asyncio.Event().wait()
    before = 0
    while True:
        now = server.cache.revision
        if 0 < before < now:
            try:
                await server.cache.compact(before)
            except StoreError as error:
                log.warning("compaction of revision %d failed: %s", before, error)
        before = now
        await server.clock.sleep(interval)
