"""A whole API server on loopback, with the embedded store, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from shipwheel.admin import pki
from shipwheel.api.clock import Clock, SystemClock
from shipwheel.api.meta import Obj
from shipwheel.apiserver.config import ApiServerConfig
from shipwheel.apiserver.server import ApiServer
from shipwheel.client.client import Client, connect
from shipwheel.client.httpclient import Response
from shipwheel.client.httpserver import HttpServer, server_tls
from shipwheel.client.kubeconfig import ClientConfig
from shipwheel.store.base import Store
from shipwheel.store.sqlite import SqliteStore


@dataclass
class World:
    server: ApiServer
    port: int
    directory: Path

    def config(self, user: str = "", *groups: str, token: str = "") -> ClientConfig:
        """How somebody connects: with a certificate, a token, or nothing."""
        ca = (self.directory / "pki/ca.crt").read_bytes()
        base = ClientConfig(server=f"https://127.0.0.1:{self.port}", ca_data=ca, token=token)
        if not user:
            return base
        pair = pki.issue(pki.load(self.directory / "pki/ca"), pki.user(user, *groups), datetime.now(UTC))
        return replace(base, client_cert_data=pair.certificate_pem, client_key_data=pair.key_pem)

    def client(self, user: str = "admin", *groups: str, token: str = "") -> Client:
        if user == "admin" and not token:
            groups = ("system:masters",)
        return Client(self.config(user if not token else "", *groups, token=token), user_agent="test/1.0")


class Asker:
    """Sends requests as they are, and gives back answers as they are: refusals too."""

    def __init__(self, config: ClientConfig) -> None:
        self._transport = connect(config, (config.client_cert_data, config.client_key_data))

    async def close(self) -> None:
        await self._transport.close()

    async def __call__(
        self, method: str, path: str, body: bytes | Obj | list[Obj] = b"", *, accept: str = "application/json",
        content_type: str = "application/json", headers: Sequence[tuple[str, str]] = (),
    ) -> Response:  # fmt: skip
        payload = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = [("Accept", accept), *headers, *([("Content-Type", content_type)] if payload else [])]
        return await self._transport.request(method, path, sent, payload, timeout=30)


def config_for(directory: Path, data_file: Path) -> ApiServerConfig:
    keys = directory / "pki"
    return ApiServerConfig(
        bind_address="127.0.0.1",
        advertise_address="192.0.2.1",
        secure_port=6443,
        tls_cert_file=f"{keys}/apiserver.crt",
        tls_private_key_file=f"{keys}/apiserver.key",
        client_ca_file=f"{keys}/ca.crt",
        requestheader_client_ca_file=f"{keys}/front-proxy-ca.crt",
        requestheader_allowed_names=("front-proxy-client",),
        service_account_key_file=(f"{keys}/sa.pub",),
        service_account_signing_key_file=f"{keys}/sa.key",
        enable_admission_plugins=("NodeRestriction",),
        data_file=str(data_file),
    )


def make_keys(directory: Path) -> None:
    pki.ensure(directory / "pki", api_hosts=["127.0.0.1", "localhost"], etcd_hosts=["127.0.0.1"], now=datetime.now(UTC))


def read_authorities(directory: Path) -> list[str]:
    return [(directory / f"pki/{name}.crt").read_text() for name in ("ca", "front-proxy-ca")]


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    data_file: Path,
    clock: Clock | None = None,
    *,
    config: ApiServerConfig | None = None,
    store: Store | None = None,
) -> AsyncIterator[World]:
    """A server that has bootstrapped, until the block ends."""
    clock = clock or SystemClock()
    config = config or config_for(directory, data_file)
    store = store or SqliteStore(str(data_file), clock=clock)
    server = ApiServer(config, store, clock)
    await server.start()
    http = HttpServer(server.pipeline)
    authorities = read_authorities(directory)
    tls = server_tls(config.tls_cert_file, config.tls_private_key_file, client_ca=authorities)
    server.count_handshakes(tls)
    tasks = [asyncio.create_task(server.cache.run()), asyncio.create_task(server.custom_resources.run())]
    tasks.append(asyncio.create_task(server.ip_addresses.run()))
    tasks.append(asyncio.create_task(server.token_uses.run()))
    tasks.append(asyncio.create_task(server.api_services.run()))
    tasks.append(asyncio.create_task(server.flow_config.run()))
    if server.fairness is not None:
        tasks.append(asyncio.create_task(server.fairness.run()))
    try:
        port = await http.listen("127.0.0.1", 0, tls=tls)
        await server.prepare_cluster()
        server.health.ready = True
        yield World(server, port, directory)
    finally:
        server.reader.draining.set()
        await server.master_leases.leave()
        await http.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.forwarder.close()
        await store.close()
