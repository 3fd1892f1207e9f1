"""Who we say we are with each request: static and rotating tokens, passwords, credential plugins.

A token file is read again every minute, and at once when the server answers 401, because projected
service-account tokens are replaced long before they expire (KEP-1205).
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from datetime import datetime, timedelta

import orjson

from shipwheel.api.clock import Clock, parse_time
from shipwheel.client.kubeconfig import ClientConfig, ConfigError, ExecPlugin

_RELOAD_SECONDS = 60.0


class Credentials:
    """The headers that authenticate requests, kept fresh."""

    def __init__(self, config: ClientConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._fresh_until = float("inf")
        self._expires: datetime | None = None
        self._refreshing = asyncio.Lock()
        self.certificate = (config.client_cert_data, config.client_key_data)
        """PEM of the client certificate and its key; a plugin may replace them."""

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to send; ConfigError when a token cannot be had."""
        if self._headers is None or self._is_stale():
            async with self._refreshing:
                if self._headers is None or self._is_stale():
                    self._headers = await self._load()
        return self._headers

    def refused(self) -> bool:
        """The server said 401. True when trying again with newly loaded credentials may help."""
        if not (self._config.token_file or self._config.exec_plugin):
            return False
        self._headers = None
        return True

    def _is_stale(self) -> bool:
        if self._clock.monotonic() >= self._fresh_until:
            return True
        return self._expires is not None and self._clock.now() >= self._expires - timedelta(seconds=10)

    async def _load(self) -> tuple[tuple[str, str], ...]:
        config = self._config
        token = config.token
        if config.token_file:
            try:
                with open(config.token_file) as file:  # noqa: ASYNC230 - a small local file
                    token = file.read().strip()
            except OSError as error:
                raise ConfigError(f"failed to read token file {config.token_file}: {error.strerror}") from error
            if not token:
                raise ConfigError(f"read empty token from file {config.token_file}")
            self._fresh_until = self._clock.monotonic() + _RELOAD_SECONDS
        elif config.exec_plugin and not token and not config.client_cert_data:
            token = await self._run_plugin(config.exec_plugin)
        authorization: tuple[tuple[str, str], ...] = ()
        if token:
            authorization = (("Authorization", f"Bearer {token}"),)
        elif config.username:
            pair = base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
            authorization = (("Authorization", f"Basic {pair}"),)
        return authorization + config.impersonate

    async def _run_plugin(self, plugin: ExecPlugin) -> str:
        """Run the plugin; returns its token and keeps its certificate, either of which may be absent."""
        spec: dict[str, object] = {"interactive": False}
        if plugin.provide_cluster_info:
            cluster: dict[str, object] = {"server": self._config.server}
            if self._config.ca_data:
                cluster["certificate-authority-data"] = base64.b64encode(self._config.ca_data).decode()
            spec["cluster"] = cluster
        info = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}
        environment = {**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}
        try:
            process = await asyncio.create_subprocess_exec(
                plugin.command,
                *plugin.args,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = f"\n\n{plugin.install_hint}" if plugin.install_hint else ""
            raise ConfigError(
                f"getting credentials: exec: executable {plugin.command} failed: {error.strerror}{hint}"
            ) from error
        output, _ = await process.communicate()
        if process.returncode:
            raise ConfigError(
                f"getting credentials: exec: executable {plugin.command} failed with exit code {process.returncode}"
            )
        try:
            status = orjson.loads(output)["status"]
            if status.get("expirationTimestamp"):
                self._expires = parse_time(status["expirationTimestamp"])
            if status.get("clientCertificateData"):
                self.certificate = (
                    status["clientCertificateData"].encode(),
                    status["clientKeyData"].encode(),
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"getting credentials: decoding stdout: {error}") from error
        return status.get("token", "")


def tls_context(config: ClientConfig, certificate: tuple[bytes, bytes]) -> ssl.SSLContext:
    """What to trust and what to show; ConfigError when a certificate or key is no PEM or they do not match."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 also wants key usage extensions that clusters' CAs often lack; the chain is verified all the same.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    try:
        if config.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif config.ca_data:
            context.load_verify_locations(cadata=config.ca_data.decode("ascii", "replace"))
        else:
            context.load_default_certs()
    except ssl.SSLError as error:
        raise ConfigError("unable to load root certificates: no PEM certificate in certificate-authority") from error
    pem, key = certificate
    if pem:
        # The library reads chains from files only, so there is one for a moment, for our eyes only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(pem + b"\n" + key)
            file.flush()
            try:
                context.load_cert_chain(file.name)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"tls: client certificate and key cannot be used: {error}") from error
    return context
