"""The kubelet's ports: the HTTPS API (10250), and the plain health check for the node itself (10248)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shipwheel.api.meta import Obj
from shipwheel.client.httpserver import Answer, HttpServer, Request
from shipwheel.client.serving import health_answer
from shipwheel.kubelet import config as configuration
from shipwheel.kubelet.measures import ServerMetrics
from shipwheel.kubelet.server.auth import AuthConfig, Gate
from shipwheel.kubelet.server.node import ServedNode
from shipwheel.kubelet.server.server import KubeletServer
from shipwheel.kubelet.settings import KubeletConfig

if TYPE_CHECKING:
    from shipwheel.kubelet.kubelet import Kubelet


@dataclasses.dataclass(frozen=True, slots=True)
class NodePods:
    """The kubelet's pods, as its server asks for them."""

    everything: Callable[[], Sequence[Obj]]

    def all(self) -> Sequence[Obj]:
        return self.everything()

    def find(self, namespace: str, name: str) -> Obj | None:
        for pod in self.everything():
            meta = pod["metadata"]
            if meta["name"] == name and meta.get("namespace") == namespace:
                return pod
        return None


async def serve(kubelet: Kubelet) -> None:
    """Serve until cancelled; OSError when a port cannot be had."""
    config = kubelet.config
    async with contextlib.AsyncExitStack() as stack:
        if config.healthz_port:
            health = HttpServer(lambda request: _health(kubelet, request))
            stack.push_async_callback(health.close)
            await health.listen(config.healthz_bind_address, config.healthz_port)
        if config.enable_server and kubelet.client is not None:
            gate = Gate(kubelet.client, kubelet.clock, kubelet.node_name, _auth(config))
            server = HttpServer(KubeletServer(_served(kubelet), gate).handle)
            stack.push_async_callback(server.close)
            await server.listen(config.address, config.port, tls=await kubelet.certificates.serving_tls())
        await asyncio.Event().wait()


async def _health(kubelet: Kubelet, request: Request) -> Answer:
    return health_answer("healthz", {"syncloop": kubelet.unwell}, excluded=set(), verbose=False)


def _auth(config: KubeletConfig) -> AuthConfig:
    return AuthConfig(
        anonymous=config.anonymous_auth,
        webhook_authentication=config.webhook_auth,
        webhook_cache=config.webhook_auth_cache_ttl,
        webhook_authorization=config.authorization_mode == "Webhook",
        allowed_cache=config.authorized_cache_ttl,
        refused_cache=config.unauthorized_cache_ttl,
    )


def _served(kubelet: Kubelet) -> ServedNode:
    return ServedNode(
        name=kubelet.node_name,
        pods=NodePods(kubelet.table.pods),
        runtime=kubelet.runtime,
        clock=kubelet.clock,
        healthz=kubelet.unwell,
        configz=lambda: {"kubeletconfig": configuration.to_object(kubelet.config)},
        metrics=(kubelet.exposition,),
        probe_metrics=kubelet.probe_metrics.exposition,
        measures=ServerMetrics(kubelet.metrics),
        sampler=kubelet.sampler,
        cpus=kubelet.machine.cpus,
        debugging=kubelet.config.enable_debugging_handlers,
        system_logs=kubelet.config.enable_system_log_handler,
        root_directory=kubelet.config.root_dir,
    )
