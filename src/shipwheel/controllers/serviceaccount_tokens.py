"""Service account tokens of the old kind: Secrets of type `kubernetes.io/service-account-token`.

Nothing makes such Secrets by itself any more, but whoever makes one gets a token put into it that never expires.
One that belongs to no account goes; one that nobody has used for a year is first declared invalid, then deleted
(KEP-2799).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from shipwheel.api.clock import parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    is_being_deleted,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from shipwheel.controllers.framework import Context, is_not_found

log = logging.getLogger(__name__)

TOKEN_TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"

_ISSUER = "kubernetes/serviceaccount"
_CLAIM = "kubernetes.io/serviceaccount"
_TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
_CLEAN_PERIOD = 24 * 3600.0


class TokenSigner:
    """Signs tokens with the cluster's service account key (PEM, RSA or ECDSA)."""

    def __init__(self, key: str) -> None:
        self._pem = key

    @cached_property
    def _key(self) -> tuple[Any, str]:
        """(the key, the algorithm that goes with it). Its id is the hash of the public key, as upstream's."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_private_key,
        )
        from joserfc.jwk import ECKey, RSAKey

        loaded = load_pem_private_key(self._pem.encode(), None)
        public = loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        kid = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
        if isinstance(loaded, ec.EllipticCurvePrivateKey):
            algorithm = {256: "ES256", 384: "ES384", 521: "ES512"}[loaded.curve.key_size]
            return ECKey.import_key(self._pem, {"kid": kid}), algorithm
        return RSAKey.import_key(self._pem, {"kid": kid}), "RS256"

    def sign(self, claims: dict[str, Any]) -> str:
        from joserfc import jwt

        key, algorithm = self._key
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])


def claims_of(account: Obj, secret: Obj) -> dict[str, Any]:
    """The claims of a token that is good as long as its Secret is there."""
    namespace, name = namespace_of(account), name_of(account)
    return {
        "iss": _ISSUER,
        f"{_CLAIM}/namespace": namespace,
        f"{_CLAIM}/secret.name": name_of(secret),
        f"{_CLAIM}/service-account.name": name,
        f"{_CLAIM}/service-account.uid": uid_of(account),
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class ServiceAccountTokenController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._signer = TokenSigner(ctx.config.service_account_private_key)
        self._root_ca = _encoded(ctx.config.root_ca) if ctx.config.root_ca else ""
        self._accounts = ctx.informer(SERVICE_ACCOUNTS)
        self._secrets = ctx.informers.informer(SECRETS, field_selector=f"type={TOKEN_TYPE}")
        self._loop = ctx.loop(
            "serviceaccount_tokens_secret",
            self.reconcile,
            workers=ctx.config.concurrent_serviceaccount_token_syncs,
            informers=(self._accounts, self._secrets),
        )
        self._account_loop = ctx.loop(
            "serviceaccount_tokens_service",
            self._forget_secrets,
            workers=ctx.config.concurrent_serviceaccount_token_syncs,
            informers=(self._accounts, self._secrets),
        )
        self._gone: dict[str, set[str]] = {}
        self._secrets.add_handler(self._on_secret)
        self._accounts.add_handler(self._on_account)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._account_loop.run())

    def _on_secret(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None:
            self._loop.add(new)
        elif old is not None and (account := annotations_of(old).get(ACCOUNT_NAME)):
            key = f"{namespace_of(old)}/{account}"
            self._gone.setdefault(key, set()).add(name_of(old))
            self._account_loop.queue.add(key)

    def _on_account(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        account = new if new is not None else old
        if account is not None and (new is None or old is None):
            for secret in self._secrets.list(namespace_of(account)):
                if annotations_of(secret).get(ACCOUNT_NAME) == name_of(account):
                    self._loop.add(secret)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        secret = self._secrets.get(namespace, name)
        if secret is None or is_being_deleted(secret):
            return None
        account = await self._account_of(secret)
        client = self._ctx.client
        if account is None:
            try:
                await client.delete(SECRETS, name, namespace, uid=uid_of(secret))
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
            return None
        data = dict(secret.get("data") or {})
        if self._root_ca:
            data["ca.crt"] = self._root_ca
        data.setdefault("namespace", _encoded(namespace))
        if not data.get("token"):
            data["token"] = _encoded(self._signer.sign(claims_of(account, secret)))
        if data == (secret.get("data") or {}):
            return None
        annotations = {
            **annotations_of(secret),
            ACCOUNT_NAME: name_of(account),
            ACCOUNT_UID: uid_of(account),
        }
        metadata = {**secret["metadata"], "annotations": annotations}
        try:
            await client.update(SECRETS, {**secret, "metadata": metadata, "data": data})
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        return None

    async def _forget_secrets(self, key: str) -> float | None:
        """Take Secrets that have gone out of the account's list of them."""
        namespace, name = split_key(key)
        client = self._ctx.client
        told = frozenset(self._gone.get(key, ()))
        if not told:
            return None
        gone = {each for each in told if self._secrets.get(namespace, each) is None}
        try:
            account = await client.get(SERVICE_ACCOUNTS, name, namespace)
            kept = [each for each in account.get("secrets") or () if each.get("name") not in gone]
            if len(kept) != len(account.get("secrets") or ()):
                await client.update(SERVICE_ACCOUNTS, {**account, "secrets": kept})
        except ApiError as error:
            if not is_not_found(error):
                raise
        self._gone[key] -= told
        if not self._gone[key]:
            del self._gone[key]
        return None

    async def _account_of(self, secret: Obj) -> Obj | None:
        """The account that a Secret is for; before it is said to be missing the server is asked."""
        name = annotations_of(secret).get(ACCOUNT_NAME, "")
        uid = annotations_of(secret).get(ACCOUNT_UID)
        account = self._accounts.get(namespace_of(secret), name)
        if account is None or (uid and uid != uid_of(account)):
            try:
                account = await self._ctx.client.get(SERVICE_ACCOUNTS, name, namespace_of(secret))
            except ApiError as error:
                if not is_not_found(error):
                    raise
                return None
        return None if uid and uid != uid_of(account) else account


# Clean-up


def is_unused(secret: Obj, accounts: Iterable[Obj], mounted: Iterable[str], oldest: datetime) -> bool:
    """A token that was made for its account automatically, long ago, and that nobody has used since `oldest`."""
    if is_being_deleted(secret) or parse_time(secret["metadata"]["creationTimestamp"]) >= oldest:
        return False
    last_used = labels_of(secret).get(LAST_USED)
    if last_used is not None and (_is_no_date(last_used) or last_used >= _date(oldest)):
        return False
    name, uid = (annotations_of(secret).get(key, "") for key in (ACCOUNT_NAME, ACCOUNT_UID))
    made_for = next((each for each in accounts if name_of(each) == name and uid in ("", uid_of(each))), None)
    if made_for is None or not any(each.get("name") == name_of(secret) for each in made_for.get("secrets") or ()):
        return False
    return name_of(secret) not in set(mounted)


def secret_names(pod: Obj) -> set[str]:
    """All Secrets that a pod refers to."""
    found: set[str] = set()
    _collect(pod["spec"], found)
    return found


def _collect(value: Any, found: set[str]) -> None:
    """Names under any key that refers to a Secret, wherever it is."""
    if isinstance(value, list):
        for each in value:
            _collect(each, found)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "secretName" and isinstance(each, str):
                found.add(each)
            elif key in ("secretRef", "secretKeyRef", "secret") and isinstance(each, dict) and each.get("name"):
                found.add(each["name"])
            elif key == "imagePullSecrets":
                found |= {entry["name"] for entry in each or () if entry.get("name")}
            elif isinstance(each, dict) and key.endswith("SecretRef") and each.get("name"):
                found.add(each["name"])
            _collect(each, found)


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def _is_no_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        return True
    return False


class LegacyTokenCleaner:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._accounts = ctx.informer(SERVICE_ACCOUNTS)
        self._secrets = ctx.informers.informer(SECRETS, field_selector=f"type={TOKEN_TYPE}")
        self._pods = ctx.pods()
        self._period = timedelta(seconds=ctx.config.legacy_service_account_token_clean_up_period)

    async def run(self) -> None:
        for informer in (self._accounts, self._secrets, self._pods):
            await informer.wait_synced()
        while True:
            try:
                await self.clean()
            except (ApiError, ConnectionFailed) as error:
                log.error("cleaning legacy service account tokens failed: %s", error)
            await self._ctx.clock.sleep(_CLEAN_PERIOD)

    async def clean(self) -> None:
        """Look at all tokens once. Nothing is known about use before the API server began to note it."""
        now = self._ctx.clock.now()
        tracking = await self._ctx.client.get(CONFIG_MAPS, _TRACKING, "kube-system")
        since = parse_time(f"{tracking['data']['since']}T00:00:00Z") + timedelta(days=1)
        oldest = now - self._period
        if since > oldest:
            return
        for secret in self._secrets.list():
            namespace = namespace_of(secret)
            mounted = {name for pod in self._pods.list(namespace) for name in secret_names(pod)}
            if is_unused(secret, self._accounts.list(namespace), mounted, oldest):
                await self._retire(secret, now, oldest)

    async def _retire(self, secret: Obj, now: datetime, oldest: datetime) -> None:
        """First declare it invalid; delete it when that was a whole period ago."""
        client = self._ctx.client
        name, namespace = name_of(secret), namespace_of(secret)
        invalid_since = labels_of(secret).get(INVALID_SINCE, "")
        try:
            if _is_no_date(invalid_since):
                patch = {"metadata": {"uid": uid_of(secret), "labels": {INVALID_SINCE: _date(now)}}}
                await client.patch(SECRETS, name, namespace, patch)
            elif invalid_since < _date(oldest):
                await client.delete(SECRETS, name, namespace, resource_version=secret["metadata"]["resourceVersion"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            log.info("token %s changed meanwhile: %s", key_of(secret), error)
