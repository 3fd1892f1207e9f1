"""The API objects that a node's pods refer to: ConfigMaps, Secrets, service-account tokens, trust bundles.

Many pods of a node share the same few objects, and each pod asks again every minute; so an answer is kept for a
moment, and those who ask at the same time share one request. A pod that starts gets what is true now.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.errors import ApiError, not_found
from shipwheel.api.meta import GroupResource, GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from shipwheel.kubelet.volumes.base import VolumeError

FRESH = 1.0
"""Seconds that an answer stays good: long enough for a burst of equal pods."""
_DAY = 24 * 3600.0
TRUST_BUNDLES = GroupVersionResource("certificates.k8s.io", "v1beta1", "clustertrustbundles")


@dataclass(slots=True)
class _Token:
    text: str
    issued: datetime
    expires: datetime
    jitter: float

    def is_good(self, now: datetime) -> bool:
        """Replaced after four fifths of its life, or a day, whichever is sooner; not by all at once."""
        lifetime = (self.expires - self.issued).total_seconds()
        return (now - self.issued).total_seconds() + self.jitter < min(lifetime * 0.8, _DAY)


class ApiObjects:
    """`Objects` as an API server has them, for one node."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[tuple[str, str, str], tuple[float, Obj | ApiError]] = {}
        self._asking: dict[tuple[str, str, str], asyncio.Future[Obj]] = {}
        self._tokens: dict[tuple[str, ...], _Token] = {}

    async def config_map(self, namespace: str, name: str) -> Obj:
        return await self._get(CONFIG_MAPS, "configmap", namespace, name)

    async def secret(self, namespace: str, name: str) -> Obj:
        return await self._get(SECRETS, "secret", namespace, name)

    async def _get(self, resource: GroupVersionResource, kind: str, namespace: str, name: str) -> Obj:
        key = (kind, namespace, name)
        now = self._clock.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < FRESH:
            return _given(kept[1])
        try:
            found: Obj | ApiError = await self._shared(
                key, lambda: self._client.get(resource, name, namespace)
            )
        except ApiError as error:
            if error.code != 404:
                raise
            # Upstream's kubelet names the kind in the singular here.
            found = not_found(GroupResource("", kind), name)
        self._forget_stale(now)
        self._kept[key] = (now, found)
        return _given(found)

    async def _shared(self, key: tuple[str, str, str], ask: Callable[[], Awaitable[Obj]]) -> Obj:
        """Ask, or wait for the answer of who is asking already."""
        under_way = self._asking.get(key)
        if under_way is not None:
            return await asyncio.shield(under_way)
        answer = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(await ask())
        except BaseException as error:
            answer.set_exception(error if isinstance(error, Exception) else ConnectionError("gave up"))
        finally:
            del self._asking[key]
        return await answer

    def _forget_stale(self, now: float) -> None:
        for key in [key for key, (since, _) in self._kept.items() if now - since >= FRESH]:
            del self._kept[key]

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        key = (meta["namespace"], account, meta["uid"], audience, str(expiration_seconds))
        now = self._clock.now()
        kept = self._tokens.get(key)
        if kept is not None and kept.is_good(now):
            return kept.text
        try:
            kept = self._tokens[key] = await self._request_token(pod, account, audience, expiration_seconds)
        except (ApiError, OSError):
            if kept is None or kept.expires <= now:
                raise
        return kept.text

    async def _request_token(self, pod: Obj, account: str, audience: str, seconds: int) -> _Token:
        meta = pod["metadata"]
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS,
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {
                        "audiences": [audience] if audience else [],
                        "expirationSeconds": seconds,
                        "boundObjectRef": {
                            "apiVersion": "v1",
                            "kind": "Pod",
                            "name": meta["name"],
                            "uid": meta["uid"],
                        },
                    },
                },
                meta["namespace"],
                name=account,
                subresource="token",
            )
        except ApiError as error:
            raise ApiError(
                error.code, error.reason, f"failed to fetch token: {error.message}", details=error.details
            ) from error
        status = answer["status"]
        return _Token(
            text=status["token"],
            issued=self._clock.now(),
            expires=parse_time(status["expirationTimestamp"]),
            jitter=random.uniform(0, 10),
        )

    def forget_tokens(self, uid: str) -> None:
        """Of a pod that is gone."""
        for key in [key for key in self._tokens if key[2] == uid]:
            del self._tokens[key]

    async def trust_anchors(self, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
        if name:
            try:
                bundles = [await self._client.get(TRUST_BUNDLES, name)]
            except ApiError as error:
                if error.code == 404 and optional:
                    return ""
                raise
        else:
            found = await self._client.list(
                TRUST_BUNDLES,
                field_selector=f"spec.signerName={signer}",
                label_selector=label_selector_text(selector or {}),
            )
            # No selector at all chooses nothing; an empty one chooses everything (label selector semantics).
            bundles = found["items"] if selector is not None else []
            if not bundles and not optional:
                raise VolumeError(
                    "combination of signerName and labelSelector matched zero ClusterTrustBundles"
                )
        return joined_anchors([bundle["spec"]["trustBundle"] for bundle in bundles])


def _given(found: Obj | ApiError) -> Obj:
    if isinstance(found, ApiError):
        raise found
    return found


def label_selector_text(selector: Obj) -> str:
    """A LabelSelector as a request's `labelSelector`."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        key, values = each["key"], ",".join(each.get("values") or ())
        match each["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
    return ",".join(terms)


def joined_anchors(bundles: list[str]) -> str:
    """The certificates of several PEM texts, each once, in an order that does not depend on theirs."""
    end = "-----END CERTIFICATE-----"
    certificates = {
        "-----BEGIN CERTIFICATE-----" + part.partition("-----BEGIN CERTIFICATE-----")[2] + end + "\n"
        for bundle in bundles
        for part in bundle.split(end)
        if "-----BEGIN CERTIFICATE-----" in part
    }
    return "".join(sorted(certificates))
