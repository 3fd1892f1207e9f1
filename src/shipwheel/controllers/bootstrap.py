"""Bootstrap tokens: sign the cluster's public facts with them, and delete them when they expire.

`kubeadm join` knows only a token at first. It finds the cluster's address and CA in the config map `cluster-info`,
and believes it because that carries a signature made with the token (a detached JWS, RFC 7515 appendix F).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

import orjson

from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, namespace_of, split_key, uid_of
from shipwheel.client.informer import EventType, Informer
from shipwheel.client.resources import CONFIG_MAPS, SECRETS
from shipwheel.controllers.framework import Context

_TYPE = "bootstrap.kubernetes.io/token"
_PREFIX = "bootstrap-token-"
_SIGNATURE = "jws-kubeconfig-"
_NAMESPACE = "kube-public"
_CONFIG_MAP = "cluster-info"


def detached_signature(content: str, token_id: str, secret: str) -> str:
    """`header..signature` with HMAC-SHA256."""
    header = _base64(orjson.dumps({"alg": "HS256", "kid": token_id}))
    signed = f"{header}.{_base64(content.encode())}".encode()
    return f"{header}..{_base64(hmac.new(secret.encode(), signed, hashlib.sha256).digest())}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def datum(secret: Obj, key: str) -> str:
    """A value of a Secret as text; empty when it is absent or garbled."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()
    except ValueError:
        return ""


def seconds_left(secret: Obj, now: datetime) -> float | None:
    """Until a token expires; 0 or less: it has (or its time cannot be read); None: it never does."""
    text = datum(secret, "expiration")
    if not text:
        return None
    try:
        return (parse_time(text) - now).total_seconds()
    except ValueError:
        return 0.0


def signing_tokens(secrets: Iterable[Obj], now: datetime) -> dict[str, str]:
    """The tokens that sign, as secret by id."""
    tokens: dict[str, str] = {}
    for secret in secrets:
        token_id, value = datum(secret, "token-id"), datum(secret, "token-secret")
        left = seconds_left(secret, now)
        if (
            secret.get("type") == _TYPE
            and name_of(secret) == f"{_PREFIX}{token_id}"
            and value
            and (left is None or left > 0)
            and datum(secret, "usage-bootstrap-signing") == "true"
        ):
            tokens[token_id] = value
    return tokens


def signed(data: dict[str, str], tokens: dict[str, str]) -> dict[str, str]:
    """The config map's data with a signature for each token, and no others."""
    content = data.get("kubeconfig")
    if content is None:
        return data
    kept = {key: value for key, value in data.items() if not key.startswith(_SIGNATURE)}
    return kept | {
        f"{_SIGNATURE}{token_id}": detached_signature(content, token_id, value) for token_id, value in tokens.items()
    }


def _token_secrets(ctx: Context) -> Informer:
    return ctx.informers.informer(SECRETS, namespace="kube-system", field_selector=f"type={_TYPE}")


class BootstrapSigner:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._secrets = _token_secrets(ctx)
        self._maps = ctx.informers.informer(
            CONFIG_MAPS, namespace=_NAMESPACE, field_selector=f"metadata.name={_CONFIG_MAP}"
        )
        self._loop = ctx.loop(
            "bootstrap_signer_queue", self.reconcile, workers=1, informers=(self._secrets, self._maps)
        )
        self._secrets.add_handler(self._on_change)
        self._maps.add_handler(self._on_change)

    async def run(self) -> None:
        await self._loop.run()

    def _on_change(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        self._loop.queue.add(f"{_NAMESPACE}/{_CONFIG_MAP}")

    async def reconcile(self, key: str) -> float | None:
        config_map = self._maps.get(_NAMESPACE, _CONFIG_MAP)
        if config_map is None:
            return None
        now = self._ctx.clock.now()
        data = config_map.get("data") or {}
        wanted = signed(data, signing_tokens(self._secrets.list(), now))
        if wanted != data:
            try:
                await self._ctx.client.update(CONFIG_MAPS, {**config_map, "data": wanted})
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
        waits = [left for secret in self._secrets.list() if (left := seconds_left(secret, now)) and left > 0]
        return min(waits, default=None)


class TokenCleaner:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._secrets = _token_secrets(ctx)
        self._loop = ctx.loop("token_cleaner", self.reconcile, workers=1, informers=(self._secrets,))
        self._secrets.add_handler(self._loop.on_event)

    async def run(self) -> None:
        await self._loop.run()

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        secret = self._secrets.get(namespace, name)
        left = seconds_left(secret, self._ctx.clock.now()) if secret is not None else None
        if secret is None or left is None or left > 0:
            return left
        try:
            await self._ctx.client.delete(SECRETS, name_of(secret), namespace_of(secret), uid=uid_of(secret))
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        return None
