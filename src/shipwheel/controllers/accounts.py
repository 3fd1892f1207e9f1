"""Clients for controllers that act as service accounts of their own.

The account is made when it is missing, a token is asked for (TokenRequest, as upstream's client builder does),
and a new one well before it ends. All of them share one pool of connections, since they differ only in a header.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, connect
from shipwheel.client.httpclient import Headers, Response, Stream, Transport
from shipwheel.client.kubeconfig import ClientConfig
from shipwheel.client.metrics import Metrics
from shipwheel.client.resources import SERVICE_ACCOUNTS
from shipwheel.controllers.config import ControllerManagerConfig
from shipwheel.controllers.framework import is_already_exists, is_not_found

_NAMESPACE = "kube-system"
_SECONDS = 3600


class AccountClients:
    """An async context manager that gives clients by account, and closes them."""

    def __init__(self, client: Client, config: ControllerManagerConfig, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._anonymous = ClientConfig(
            server=client.config.server,
            ca_data=client.config.ca_data,
            insecure=client.config.insecure,
            tls_server_name=client.config.tls_server_name,
        )
        self._pool: Transport | None = None

    async def __aenter__(self) -> AccountClients:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.close()

    def of(self, account: str) -> Client:
        """The client of an account; the manager's own for no account, or when accounts are not used."""
        config = self._config
        if not account or not config.use_service_account_credentials:
            return self._client
        if self._pool is None:
            self._pool = connect(self._anonymous)
        return Client(
            self._anonymous,
            user_agent=f"kube-controller-manager/{account}",
            qps=max(config.kube_api_qps, 0),
            burst=config.kube_api_burst,
            clock=self._clock,
            metrics=self._metrics.client,
            transport=_AsAccount(self._pool, self._client, account, self._clock),
        )


class _AsAccount:
    """A transport that adds an account's token to every request."""

    def __init__(self, pool: Transport, issuer: Client, account: str, clock: Clock) -> None:
        self._pool = pool
        self._issuer = issuer
        self._account = account
        self._clock = clock
        self._token = ""
        self._renew_at = 0.0
        self._asking = asyncio.Lock()

    async def request(
        self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None
    ) -> Response:
        response = await self._pool.request(method, target, await self._signed(headers), body, timeout=timeout)
        if response.status == 401:  # the account was deleted and made again, or the keys changed
            self._renew_at = 0.0
            response = await self._pool.request(method, target, await self._signed(headers), body, timeout=timeout)
        return response

    async def stream(self, method: str, target: str, headers: Headers, body: bytes, *, timeout: float | None) -> Stream:
        stream = await self._pool.stream(method, target, await self._signed(headers), body, timeout=timeout)
        if stream.status == 401:
            stream.close()
            self._renew_at = 0.0
            stream = await self._pool.stream(method, target, await self._signed(headers), body, timeout=timeout)
        return stream

    async def close(self) -> None:
        """The pool is shared, and closed by who made it."""

    async def _signed(self, headers: Headers) -> Headers:
        if self._clock.monotonic() >= self._renew_at:
            async with self._asking:
                if self._clock.monotonic() >= self._renew_at:
                    await self._ask()
        return [*headers, ("Authorization", f"Bearer {self._token}")]

    async def _ask(self) -> None:
        request: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _SECONDS, "audiences": []},
        }
        try:
            answer = await self._create_token(request)
        except ApiError as error:
            if not is_not_found(error):
                raise
            await self._create_account()
            answer = await self._create_token(request)
        status = answer["status"]
        self._token = status["token"]
        lifetime = (parse_time(status["expirationTimestamp"]) - self._clock.now()).total_seconds()
        self._renew_at = self._clock.monotonic() + max(lifetime * 0.8, 1.0)

    async def _create_token(self, request: Obj) -> Obj:
        return await self._issuer.create(SERVICE_ACCOUNTS, request, _NAMESPACE, subresource="token", name=self._account)

    async def _create_account(self) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": self._account, "namespace": _NAMESPACE},
        }
        try:
            await self._issuer.create(SERVICE_ACCOUNTS, account)
        except ApiError as error:
            if not is_already_exists(error):
                raise
