"""Service-account tokens: JWTs that this API server signs and checks (KEP-1205, KEP-2799).

A token is good while the objects it is bound to exist: its service account with the UID in the token, and the pod,
secret or node it was made for. `iss` must be ours, `aud` must name an audience of ours, and the signing key must be
one of those configured.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from shipwheel.api.clock import Clock, parse_time
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import UserInfo

SERVICE_ACCOUNTS = GroupResource("", "serviceaccounts")
_INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
_BOUND = {"pod": GroupResource("", "pods"), "secret": GroupResource("", "secrets"), "node": GroupResource("", "nodes")}
_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEEWAY = 10

Lookup = Callable[[GroupResource, str, str], Obj | None]
"""(resource, namespace, name) -> the object as the cache has it."""


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_id(public: Any) -> str:
    """The `kid` upstream derives: a hash of the public key's DER."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _b64(hashlib.sha256(der).digest())


_CURVES = {
    "secp256r1": ("ES256", 32, "P-256"),
    "secp384r1": ("ES384", 48, "P-384"),
    "secp521r1": ("ES512", 66, "P-521"),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "ES256": hashes.SHA256(),
    "ES384": hashes.SHA384(),
    "ES512": hashes.SHA512(),
}


def algorithm(public: Any) -> str:
    """The JWS algorithm a key signs with."""
    return _CURVES[public.curve.name][0] if isinstance(public, ec.EllipticCurvePublicKey) else "RS256"


def jwk(public: Any) -> Obj:
    """A public key as `/openid/v1/jwks` shows it."""
    key: Obj = {"use": "sig", "kid": key_id(public), "alg": algorithm(public)}
    numbers = public.public_numbers()
    if isinstance(public, ec.EllipticCurvePublicKey):
        _, size, name = _CURVES[public.curve.name]
        key |= {"kty": "EC", "crv": name, "x": _b64(numbers.x.to_bytes(size)), "y": _b64(numbers.y.to_bytes(size))}
    else:
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)
        key |= {"kty": "RSA", "n": _b64(modulus), "e": _b64(numbers.e.to_bytes(3).lstrip(b"\0"))}
    return key


class TokenIssuer:
    """Signs tokens with the private key of the cluster."""

    def __init__(self, private_key_pem: bytes, *, issuer: str, clock: Clock) -> None:
        self._key: Any = serialization.load_pem_private_key(private_key_pem, None)
        self._public = self._key.public_key()
        self._header = {"alg": algorithm(self._public), "kid": key_id(self._public)}
        self.issuer = issuer
        self._clock = clock

    def issue(self, claims: Obj, *, audiences: Sequence[str], lifetime: int) -> tuple[str, datetime]:
        """A token with these private claims, and when it expires."""
        now = self._clock.now().replace(microsecond=0)
        expires = now + timedelta(seconds=lifetime)
        payload = {
            "aud": list(audiences),
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            **claims,
            "nbf": int(now.timestamp()),
        }
        signed = f"{_b64(orjson.dumps(self._header))}.{_b64(orjson.dumps(payload))}"
        return f"{signed}.{_b64(self._sign(signed.encode()))}", expires

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            name, size, _ = _CURVES[self._key.curve.name]
            r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(_HASHES[name])))
            return r.to_bytes(size) + s.to_bytes(size)
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())


class ServiceAccountAuthenticator:
    """Checks tokens. What a signature check has found is kept for the token's life; what a token is bound to is
    looked up every time, since it can go away."""

    def __init__(
        self,
        public_key_pems: Sequence[bytes],
        *,
        issuers: Sequence[str],
        api_audiences: Sequence[str],
        lookup: Lookup,
        clock: Clock,
        note_use: Callable[[Obj], None] = lambda secret: None,
    ) -> None:
        self._note_use = note_use
        self._keys = [key for pem in public_key_pems for key in _load_public(pem)]
        self._issuers = frozenset(issuers)
        self._api_audiences = api_audiences
        self._lookup = lookup
        self._clock = clock
        self._verified: dict[str, Obj] = {}

    @property
    def keys(self) -> list[Obj]:
        return [jwk(key) for key in self._keys]

    async def authenticate(self, token: str, audiences: Sequence[str]) -> tuple[UserInfo, Sequence[str]] | None:
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if claims is None:
                return None
            if len(self._verified) > 10_000:
                self._verified.clear()
            self._verified[token] = claims
        return self._check(token, claims, audiences)

    def _verify(self, token: str) -> Obj | None:
        """The claims of a token of ours (None: somebody else's). ValueError when the signature is wrong."""
        parts = token.split(".")
        if len(parts) != 3:
            return None
        try:
            header, claims = orjson.loads(_unb64(parts[0])), orjson.loads(_unb64(parts[1]))
            signature = _unb64(parts[2])
        except ValueError:
            return None
        if not isinstance(claims, dict) or not isinstance(header, dict):
            return None
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers | {_LEGACY_ISSUER}:
            return None
        signed = f"{parts[0]}.{parts[1]}".encode()
        for key in self._keys:
            if header.get("alg") == algorithm(key) and _signature_holds(key, signed, signature):
                return claims
        raise ValueError("invalid signature")

    def _check(self, token: str, claims: Obj, audiences: Sequence[str]) -> tuple[UserInfo, Sequence[str]]:
        if claims["iss"] == _LEGACY_ISSUER:
            shared = _shared(self._api_audiences, audiences)
            return self._check_legacy(token, claims), shared
        now = self._clock.now().timestamp()
        if now > claims.get("exp", 0) + _LEEWAY:
            raise ValueError("service account token has expired")
        if now < claims.get("nbf", 0) - _LEEWAY:
            raise ValueError("service account token is not valid yet")
        intended = claims.get("aud") or []
        intended = [intended] if isinstance(intended, str) else intended
        shared = _shared(intended, audiences)
        private = claims.get("kubernetes.io") or {}
        namespace = private.get("namespace", "")
        account = private.get("serviceaccount") or {}
        self._require(SERVICE_ACCOUNTS, namespace, account.get("name", ""), account.get("uid"))
        extra: dict[str, tuple[str, ...]] = {}
        if jti := claims.get("jti"):
            extra[_CREDENTIAL_ID] = (f"JTI={jti}",)
        for kind, resource in _BOUND.items():
            bound = private.get(kind)
            if not bound:
                continue
            is_node_of_pod = kind == "node" and "pod" in private
            if not is_node_of_pod:
                scope = "" if kind == "node" else namespace
                self._require(resource, scope, bound.get("name", ""), bound.get("uid"))
            if kind in ("pod", "node"):
                extra[f"authentication.kubernetes.io/{kind}-name"] = (bound.get("name", ""),)
                if bound.get("uid"):
                    extra[f"authentication.kubernetes.io/{kind}-uid"] = (bound["uid"],)
        return _user(namespace, account.get("name", ""), account.get("uid", ""), extra), shared

    def _check_legacy(self, token: str, claims: Obj) -> UserInfo:
        """A token from a Secret: it never expires, is for the API alone, and lives as long as the Secret has it."""
        prefix = "kubernetes.io/serviceaccount/"
        namespace = claims.get(f"{prefix}namespace", "")
        name = claims.get(f"{prefix}service-account.name", "")
        uid = claims.get(f"{prefix}service-account.uid", "")
        secret = claims.get(f"{prefix}secret.name", "")
        held = self._lookup(_BOUND["secret"], namespace, secret)
        if held is None or held["metadata"].get("deletionTimestamp"):
            raise ValueError("Token has been invalidated")
        copy = base64.b64decode((held.get("data") or {}).get("token", ""))
        if not hmac.compare_digest(copy, token.encode()):
            raise ValueError("Token does not match server's copy")
        self._require(SERVICE_ACCOUNTS, namespace, name, uid)
        self._note_use(held)
        if (held["metadata"].get("labels") or {}).get(_INVALID_SINCE):
            raise ValueError(
                f"the token in secret {namespace}/{secret} for service account {namespace}/{name} has been marked "
                "invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the "
                f"'{_INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )
        return _user(namespace, name, uid, {})

    def _require(self, resource: GroupResource, namespace: str, name: str, uid: str | None) -> None:
        obj = self._lookup(resource, namespace, name)
        if obj is None:
            raise ValueError(f"{resource.resource} {namespace}/{name} not found")
        metadata = obj["metadata"]
        if uid and metadata.get("uid") != uid:
            raise ValueError(f"the UID of {resource.resource} {namespace}/{name} does not match the token's")
        gone = metadata.get("deletionTimestamp")
        if gone and parse_time(gone) + timedelta(seconds=60) < self._clock.now():
            raise ValueError(f"{resource.resource} {namespace}/{name} has been deleted")


def _shared(intended: Sequence[str], audiences: Sequence[str]) -> Sequence[str]:
    """The audiences asked for that a token is for. ValueError when there are none."""
    shared = [each for each in audiences if each in intended]
    if audiences and not shared:
        raise ValueError(f"token audiences {list(intended)} is invalid for the target audiences {list(audiences)}")
    return shared


def _user(namespace: str, name: str, uid: str, extra: dict[str, tuple[str, ...]]) -> UserInfo:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return UserInfo(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)


def _load_public(pem: bytes) -> list[Any]:
    if b"PRIVATE KEY" in pem:
        private: Any = serialization.load_pem_private_key(pem, None)
        return [private.public_key()]
    if b"BEGIN CERTIFICATE" in pem:
        from cryptography import x509

        return [certificate.public_key() for certificate in x509.load_pem_x509_certificates(pem)]
    return [serialization.load_pem_public_key(pem)]


def _signature_holds(key: Any, data: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            name, size, _ = _CURVES[key.curve.name]
            if len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_HASHES[name]))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True
