"""Who sends a request: the authenticators in upstream's order, and impersonation.

A verified client certificate is looked at once for a connection and remembered there. Bearer tokens are asked of each
token authenticator in turn. Who shows nothing is `system:anonymous`; who shows something wrong is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shipwheel.api.errors import unauthorized
from shipwheel.api.resource import UserInfo
from shipwheel.client.httpserver import Request

ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = UserInfo("system:anonymous", (ALL_UNAUTHENTICATED,))


class TokenAuthenticator(Protocol):
    async def authenticate(self, token: str, audiences: Sequence[str]) -> tuple[UserInfo, Sequence[str]] | None:
        """(user, audiences the token is good for), None when the token is not this authenticator's; ApiError 401 or
        ValueError when it is, but does not hold."""


class CertificateAuthenticator(Protocol):
    def authenticate(self, certificate: bytes) -> UserInfo | None:
        """The user of a client certificate (DER), None when none of our CAs signed it."""


class HeaderAuthenticator(Protocol):
    def authenticate(self, request: Request, certificate: bytes | None) -> UserInfo | None:
        """The user that a trusted front proxy vouches for."""


class Authenticator:
    def __init__(
        self,
        *,
        certificates: CertificateAuthenticator | None = None,
        front_proxy: HeaderAuthenticator | None = None,
        tokens: Sequence[TokenAuthenticator] = (),
        api_audiences: Sequence[str] = (),
        anonymous: bool = True,
    ) -> None:
        self.certificates = certificates
        self.front_proxy = front_proxy
        self.tokens = tuple(tokens)
        self.api_audiences = tuple(api_audiences)
        self.anonymous = anonymous

    async def authenticate(self, request: Request) -> UserInfo:
        """The sender. ApiError 401 when what it shows does not hold."""
        state = request.connection.state
        if "certificate" not in state:
            state["certificate"] = request.connection.peer_certificate()
        certificate: bytes | None = state["certificate"]
        if self.front_proxy is not None and certificate is not None:
            user = self.front_proxy.authenticate(request, certificate)
            if user is not None:
                return _authenticated(user)
        if certificate is not None and self.certificates is not None:
            if "user" not in state:
                found = self.certificates.authenticate(certificate)
                state["user"] = _authenticated(found) if found is not None else None
            if state["user"] is not None:
                return state["user"]
        token = bearer_token(request)
        if token:
            user = await self.authenticate_token(token)
            if user is None:
                raise unauthorized()
            return user
        if certificate is not None or not self.anonymous:
            raise unauthorized()
        return ANONYMOUS

    async def authenticate_token(self, token: str) -> UserInfo | None:
        for authenticator in self.tokens:
            try:
                found = await authenticator.authenticate(token, self.api_audiences)
            except ValueError:
                return None
            if found is not None:
                return _authenticated(found[0])
        return None


def bearer_token(request: Request) -> str:
    """From the Authorization header, or from a WebSocket's subprotocols (browsers can set no header)."""
    header = request.header("authorization")
    if header[:7].lower() == "bearer ":
        return header[7:].strip()
    if request.header("upgrade").lower() == "websocket":
        import base64
        import binascii

        prefix = "base64url.bearer.authorization.k8s.io."
        for offered in request.header("sec-websocket-protocol").split(","):
            if offered.strip().startswith(prefix):
                encoded = offered.strip()[len(prefix) :]
                try:
                    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
                except (binascii.Error, UnicodeDecodeError):
                    raise unauthorized() from None
    return ""


def _authenticated(user: UserInfo) -> UserInfo:
    if ALL_AUTHENTICATED in user.groups or user.name == ANONYMOUS.name:
        return user
    return UserInfo(user.name, (*user.groups, ALL_AUTHENTICATED), user.uid, user.extra)
