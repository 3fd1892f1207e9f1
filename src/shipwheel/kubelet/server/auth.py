"""Who may ask the kubelet what.

The API server knows: a client certificate or a token (TokenReview) says who asks, a SubjectAccessReview on this
node's subresources whether they may. Its answers are kept for as long as upstream's kubelet keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.api.resource import UserInfo
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.httpserver import Request, Response
from shipwheel.client.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS
from shipwheel.client.serving import certificate_user

_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ANONYMOUS = UserInfo("system:anonymous", ("system:unauthenticated",))

_FINE_GRAINED = {"/pods": "pods", "/runningpods": "pods", "/healthz": "healthz", "/configz": "configz"}
"""Besides these subresources, `proxy` allows them too."""
_OWN = {
    "/stats": "stats",
    "/metrics": "metrics",
    "/logs": "log",
    "/checkpoint": "checkpoint",
    "/statusz": "statusz",
    "/flagz": "configz",
}
_TEXT = "text/plain; charset=utf-8"


def subresources(path: str) -> list[str]:
    """The subresources of `nodes` any of which lets its holder ask for a path of the kubelet."""
    fine = [name for prefix, name in _FINE_GRAINED.items() if _is_below(path, prefix)]
    own = [name for prefix, name in _OWN.items() if _is_below(path, prefix)]
    return fine + (own or ["proxy"])


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """`authentication` and `authorization` of the KubeletConfiguration. Seconds."""

    anonymous: bool = False
    webhook_authentication: bool = True
    webhook_cache: float = 120.0
    webhook_authorization: bool = True
    """False: `AlwaysAllow`."""
    allowed_cache: float = 300.0
    refused_cache: float = 30.0


class Gate:
    def __init__(self, client: Client, clock: Clock, node_name: str, config: AuthConfig) -> None:
        self._client = client
        self._clock = clock
        self._node = node_name
        self._config = config
        self._users = _Cache(clock)
        self._rights = _Cache(clock)

    async def refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not be answered; None when it may."""
        try:
            user = await self._who(request)
        except (ApiError, ConnectionFailed):
            user = None
        if user is None:
            return Response(401, b"Unauthorized", content_type=_TEXT)
        if not self._config.webhook_authorization:
            return None
        verb, path = _VERBS.get(request.method, ""), request.path
        wanted = subresources(path)
        try:
            for subresource in wanted:
                if await self._may(user, verb, subresource):
                    return None
        except (ApiError, ConnectionFailed):
            message = (
                f"Authorization error (user={user.name}, verb={verb}, resource=nodes, "
                f"subresource(s)=[{' '.join(wanted)}])"
            )
            return Response(500, message.encode(), content_type=_TEXT)
        message = f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(wanted)}])"
        return Response(403, message.encode(), content_type=_TEXT)

    async def _who(self, request: Request) -> UserInfo | None:
        certificate = request.connection.peer_certificate()
        if certificate:
            state = request.connection.state
            if "user" not in state:
                state["user"] = certificate_user(certificate)
            return state["user"]
        kind, _, token = request.header("authorization").partition(" ")
        if kind.lower() == "bearer" and token and self._config.webhook_authentication:
            return await self._review(token.strip())
        return _ANONYMOUS if self._config.anonymous else None

    async def _review(self, token: str) -> UserInfo | None:
        # Not the token itself: what is kept must be of no use to who finds it.
        key = hashlib.sha256(token.encode()).digest()
        known, user = self._users.get(key)
        if known:
            return user
        answer = await self._client.create(
            TOKEN_REVIEWS,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}},
        )
        status = answer.get("status") or {}
        user = _user(status.get("user") or {}) if status.get("authenticated") else None
        self._users.put(key, user, self._config.webhook_cache)
        return user

    async def _may(self, user: UserInfo, verb: str, subresource: str) -> bool:
        key = (user.name, user.groups, verb, subresource)
        known, allowed = self._rights.get(key)
        if known:
            return allowed
        spec: Obj = {
            "user": user.name,
            "groups": list(user.groups),
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            },
        }
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {name: list(values) for name, values in user.extra.items()}
        answer = await self._client.create(
            SUBJECT_ACCESS_REVIEWS,
            {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec},
        )
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._rights.put(key, allowed, self._config.allowed_cache if allowed else self._config.refused_cache)
        return allowed


def _user(found: Obj) -> UserInfo:
    return UserInfo(
        found.get("username", ""),
        tuple(found.get("groups") or ()),
        found.get("uid", ""),
        {name: tuple(values) for name, values in (found.get("extra") or {}).items()},
    )


class _Cache:
    """Answers that are good for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable) -> tuple[bool, Any]:
        """(known, answer)"""
        until, answer = self._kept.get(key, (0.0, None))
        return until > self._clock.monotonic(), answer

    def put(self, key: Hashable, answer: Any, seconds: float) -> None:
        now = self._clock.monotonic()
        for stale in [each for each, (until, _) in self._kept.items() if until <= now]:
            del self._kept[stale]
        self._kept[key] = (now + seconds, answer)
