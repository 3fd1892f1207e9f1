"""Client certificates: the common name is the user, the organizations are the groups.

TLS has verified already that one of the CAs it knows signed the certificate. Since the front proxy's CA is among
these, and vouches for nobody's name but its own, the signature is checked here once more against the clients' CAs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID, ObjectIdentifier

from shipwheel.api.resource import UserInfo
from shipwheel.client.httpserver import Request

_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_UID = ObjectIdentifier("1.3.6.1.4.1.57683.2")
"""Where Kubernetes puts a user's UID in a certificate's subject."""


def load_authorities(pem: bytes) -> list[x509.Certificate]:
    return list(x509.load_pem_x509_certificates(pem))


def is_signed_by(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


class X509Authenticator:
    def __init__(self, authorities: Sequence[x509.Certificate]) -> None:
        self._authorities = authorities

    def authenticate(self, certificate: bytes) -> UserInfo | None:
        parsed = x509.load_der_x509_certificate(certificate)
        if not is_signed_by(parsed, self._authorities) or not _is_valid_now(parsed):
            return None
        names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names:
            return None
        groups = tuple(str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
        uids = parsed.subject.get_attributes_for_oid(_UID)
        shown = {_CREDENTIAL_ID: (f"X509SHA256={sha256(certificate).hexdigest()}",)}
        return UserInfo(str(names[0].value), groups, str(uids[0].value) if uids else "", shown)


class FrontProxyAuthenticator:
    """A proxy in front that has authenticated the user itself, and says so in headers (`--requestheader-*`)."""

    def __init__(
        self,
        authorities: Sequence[x509.Certificate],
        *,
        allowed_names: Sequence[str] = (),
        user_headers: Sequence[str] = ("x-remote-user",),
        group_headers: Sequence[str] = ("x-remote-group",),
        uid_headers: Sequence[str] = ("x-remote-uid",),
        extra_prefixes: Sequence[str] = ("x-remote-extra-",),
    ) -> None:
        self._authorities = authorities
        self._allowed = frozenset(allowed_names)
        self._user_headers = [name.lower() for name in user_headers]
        self._group_headers = [name.lower() for name in group_headers]
        self._uid_headers = [name.lower() for name in uid_headers]
        self._extra_prefixes = [name.lower() for name in extra_prefixes]

    def authenticate(self, request: Request, certificate: bytes | None) -> UserInfo | None:
        user = next((request.header(name) for name in self._user_headers if request.header(name)), "")
        if not user or certificate is None:
            return None
        parsed = x509.load_der_x509_certificate(certificate)
        if not is_signed_by(parsed, self._authorities):
            return None
        names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if self._allowed and not (names and str(names[0].value) in self._allowed):
            return None
        groups = [value for name in self._group_headers for value in request.header_values(name)]
        uid = next((request.header(name) for name in self._uid_headers if request.header(name)), "")
        extra: dict[str, tuple[str, ...]] = {}
        for key, value in request.headers:
            for prefix in self._extra_prefixes:
                if key.startswith(prefix):
                    from urllib.parse import unquote

                    name = unquote(key[len(prefix) :])
                    extra[name] = (*extra.get(name, ()), value)
        return UserInfo(user, tuple(groups), uid, extra)


def _is_valid_now(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc
