"""Service-account tokens of pods, and the trust anchors that go with them: what projected volumes show.

A token is bound to its pod (TokenRequest API) and renewed before it ends; one that could not be renewed is good
until it does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.resources import SERVICE_ACCOUNTS

_DAY = 24 * 3600.0
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"
TRUST_BUNDLES = GroupVersionResource("certificates.k8s.io", "v1beta1", "clustertrustbundles")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    issued: datetime
    expires: datetime
    jitter: float

    def is_good(self, now: datetime) -> bool:
        """Replaced after four fifths of its life, or a day, whichever is sooner; not by all pods at once."""
        lifetime = (self.expires - self.issued).total_seconds()
        return (now - self.issued).total_seconds() + self.jitter < min(lifetime * 0.8, _DAY)


class Tokens:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[tuple[str, str, int], _Token] = {}

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        """A token with enough of its lifetime left; ApiError when there is none to be had."""
        key = (pod["metadata"]["uid"], audience, expiration_seconds)
        now = self._clock.now()
        kept = self._kept.get(key)
        if kept is not None and kept.is_good(now):
            return kept.text
        try:
            kept = self._kept[key] = await self._request(pod, audience, expiration_seconds)
        except (ApiError, OSError):
            if kept is None or kept.expires <= now:
                raise
        return kept.text

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        for key in [key for key in self._kept if key[0] == uid]:
            del self._kept[key]

    async def _request(self, pod: Obj, audience: str, seconds: int) -> _Token:
        meta = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {
            "audiences": [audience] if audience else [],
            "expirationSeconds": seconds,
            "boundObjectRef": bound,
        }
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod["spec"].get("serviceAccountName") or "default"
        try:
            answer = await self._client.create(
                SERVICE_ACCOUNTS, request, meta["namespace"], name=account, subresource="token"
            )
        except ApiError as error:
            text = f"failed to fetch token: {error.message}"
            raise ApiError(error.code, error.reason, text, details=error.details) from error
        status = answer["status"]
        expires = parse_time(status["expirationTimestamp"])
        return _Token(status["token"], self._clock.now(), expires, random.uniform(0, 10))


async def trust_anchors(client: Client, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
    """PEM of one ClusterTrustBundle, or of all that a signer and a label selector choose (KEP-3257)."""
    if name:
        try:
            bundles = [await client.get(TRUST_BUNDLES, name)]
        except ApiError as error:
            if error.code == 404 and optional:
                return ""
            raise
    else:
        found = await client.list(
            TRUST_BUNDLES,
            field_selector=f"spec.signerName={signer}",
            label_selector=selector_text(selector or {}),
        )
        # No selector at all chooses nothing; an empty one chooses everything (label selector semantics).
        bundles = found["items"] if selector is not None else []
        if not bundles and not optional:
            text = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
            raise ApiError(404, "NotFound", text)
    return joined_anchors([bundle["spec"]["trustBundle"] for bundle in bundles])


def selector_text(selector: Obj) -> str:
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
    certificates = {
        _CERTIFICATE + part.partition(_CERTIFICATE)[2] + _END + "\n"
        for bundle in bundles
        for part in bundle.split(_END)
        if _CERTIFICATE in part
    }
    return "".join(sorted(certificates))
