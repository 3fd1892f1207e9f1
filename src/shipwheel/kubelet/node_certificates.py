"""The certificates that a running kubelet shows: as a client to the API server, and as a server on its own port.

Both may come from the cluster and are then renewed in time (`rotateCertificates`, `serverTLSBootstrap`). A serving
certificate may also be an administrator's, whose files are read again when they change, or one that nobody signed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.client.client import Client
from shipwheel.client.httpserver import server_tls
from shipwheel.client.serving import self_signed
from shipwheel.kubelet.certificate_requests import Rotation, Wanted
from shipwheel.kubelet.certificates import (
    CLIENT_SIGNER,
    CLIENT_USAGES,
    SERVING_SIGNER,
    SERVING_USAGES,
    CertificateStore,
    Pair,
    split,
)
from shipwheel.kubelet.joining import CLIENT_PURPOSE
from shipwheel.kubelet.settings import KubeletConfig

log = logging.getLogger(__name__)

SERVING_PURPOSE = "kubelet-server"
FILE_SECONDS = 10.0


class NodeCertificates:
    def __init__(
        self, config: KubeletConfig, client: Client | None, clock: Clock, node: str, addresses: Sequence[str]
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._node = node
        self._addresses = addresses
        self._directory = Path(config.cert_dir)
        self._tls: ssl.SSLContext | None = None
        self._issued = asyncio.Event()
        self._serving = CertificateStore(self._directory, SERVING_PURPOSE)

    async def run(self) -> None:
        """Keep them fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._client is not None and self._config.rotate_certificates:
                group.create_task(self._rotate_client(self._client), name="client certificate")
            if self._client is not None and self._is_issued:
                group.create_task(self._serving_rotation(self._client).run(), name="serving certificate")
            elif self._config.tls_cert_file:
                group.create_task(self._follow_files(), name="serving certificate files")

    async def serving_tls(self) -> ssl.SSLContext:
        """How to serve; returns when there is a certificate. OSError, ssl.SSLError when its files are of no use."""
        if self._is_issued:
            await self._issued.wait()
        authorities = _texts(self._config.client_ca_file)
        self._tls = server_tls(
            *self._files(),
            client_ca=authorities,
            minimum=self._config.tls_min_version,
            ciphers=self._config.tls_cipher_suites,
        )
        return self._tls

    @property
    def _is_issued(self) -> bool:
        """Whether the serving certificate is the cluster's to give."""
        return self._config.server_tls_bootstrap and not self._config.tls_cert_file

    def _files(self) -> tuple[str, str]:
        """The files with the serving certificate and its key; made on the spot and kept where nothing else is said."""
        if self._is_issued:
            return str(self._serving.current_path), str(self._serving.current_path)
        if self._config.tls_cert_file:
            return self._config.tls_cert_file, self._config.tls_private_key_file
        certificate, key = self._directory / "kubelet.crt", self._directory / "kubelet.key"
        if not (certificate.exists() and key.exists()):
            pair = split(self_signed(self._node))
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            key.touch(mode=0o600)
            key.write_bytes(pair.key)
            certificate.write_bytes(pair.certificate)
        return str(certificate), str(key)

    async def _rotate_client(self, client: Client) -> None:
        config = client.config
        present = Pair(config.client_cert_data, config.client_key_data) if config.client_cert_data else None

        async def changed(pair: Pair) -> None:
            await client.use_certificate(pair.certificate, pair.key)

        store = CertificateStore(self._directory, CLIENT_PURPOSE)
        wanted = Wanted(self._node, CLIENT_SIGNER, CLIENT_USAGES)
        rotation = Rotation(client, self._clock, store, wanted, changed, present=present)
        if rotation.pair is not None and rotation.pair != present:
            await changed(rotation.pair)
        await rotation.run()

    def _serving_rotation(self, client: Client) -> Rotation:
        async def changed(pair: Pair) -> None:
            self._reload()
            self._issued.set()

        hosts = (self._node, *self._addresses)
        wanted = Wanted(self._node, SERVING_SIGNER, SERVING_USAGES, hosts)
        rotation = Rotation(client, self._clock, self._serving, wanted, changed)
        if rotation.pair is not None:
            self._issued.set()
        return rotation

    async def _follow_files(self) -> None:
        seen = self._stamps()
        while True:
            await self._clock.sleep(FILE_SECONDS)
            now = self._stamps()
            if now != seen and None not in now:
                seen = now
                self._reload()

    def _stamps(self) -> list[int | None]:
        return [_modified(each) for each in self._files()]

    def _reload(self) -> None:
        """Show what the files hold now to whoever connects from now on."""
        if self._tls is None:
            return
        try:
            self._tls.load_cert_chain(*self._files())
        except (OSError, ssl.SSLError) as error:
            log.error("failed to reload server TLS configuration: %s", error)


def _texts(path: str) -> list[str] | None:
    return [Path(path).read_text()] if path else None


def _modified(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
