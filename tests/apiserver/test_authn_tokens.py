"""Service account tokens: whose they are, for whom, and until when."""

from __future__ import annotations

import base64
from collections.abc import Callable

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import GroupResource, Obj
from shipwheel.apiserver.authn.serviceaccount import ServiceAccountAuthenticator, TokenIssuer

ISSUER = "https://kubernetes.default.svc"
API = [ISSUER]


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


P256 = pem(ec.generate_private_key(ec.SECP256R1()))
OTHER = pem(ec.generate_private_key(ec.SECP256R1()))


class Scene:
    """An issuer, an authenticator, and the objects there are."""

    def __init__(self, key: bytes = P256, *, trusted: bytes = b"") -> None:
        self.clock = ManualClock()
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.put("serviceaccounts", "ns", "sa", uid="u1")
        self.issuer = TokenIssuer(key, issuer=ISSUER, clock=self.clock)
        self.used: list[str] = []
        self.authenticator = ServiceAccountAuthenticator(
            [trusted or key],
            issuers=[ISSUER],
            api_audiences=API,
            lookup=self.lookup,
            clock=self.clock,
            note_use=lambda secret: self.used.append(secret["metadata"]["name"]),
        )

    def put(self, resource: str, namespace: str, name: str, *, uid: str, **rest: object) -> Obj:
        obj = {"metadata": {"name": name, "namespace": namespace, "uid": uid}, **rest}
        self.objects[resource, namespace, name] = obj
        return obj

    def lookup(self, resource: GroupResource, namespace: str, name: str) -> Obj | None:
        return self.objects.get((resource.resource, namespace, name))

    def token(self, *, audiences: list[str] = API, lifetime: int = 3600, **bound: Obj) -> str:
        private = {"namespace": "ns", "serviceaccount": {"name": "sa", "uid": "u1"}, **bound}
        return self.issuer.issue({"kubernetes.io": private}, audiences=audiences, lifetime=lifetime)[0]

    def legacy(self, **claims: str) -> str:
        """A token of old, kept in the secret `s`."""
        known = {
            "namespace": "ns", "secret.name": "s", "service-account.name": "sa", "service-account.uid": "u1",
        }  # fmt: skip
        private = {f"kubernetes.io/serviceaccount/{key}": value for key, value in (known | claims).items()}
        token, _ = self.issuer.issue({"iss": "kubernetes/serviceaccount", **private}, audiences=[], lifetime=0)
        self.put("secrets", "ns", "s", uid="u2", data={"token": base64.b64encode(token.encode()).decode()})
        return token

    async def who(self, token: str, audiences: list[str] = API) -> str:
        found = await self.authenticator.authenticate(token, audiences)
        assert found is not None
        return found[0].name

    async def refused(self, token: str, why: str, audiences: list[str] = API) -> None:
        with pytest.raises(ValueError, match=why):
            await self.authenticator.authenticate(token, audiences)


KEYS: list[Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = [
    lambda: ec.generate_private_key(ec.SECP256R1()),
    lambda: ec.generate_private_key(ec.SECP384R1()),
    lambda: ec.generate_private_key(ec.SECP521R1()),
    lambda: rsa.generate_private_key(65537, 2048),
]


@pytest.mark.parametrize("make", KEYS)
async def test_a_good_one(make: Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]) -> None:
    scene = Scene(pem(make()))
    scene.put("pods", "ns", "p", uid="u3")
    found = await scene.authenticator.authenticate(scene.token(pod={"name": "p", "uid": "u3"}), API)
    assert found is not None
    user, audiences = found
    assert (user.name, user.uid, audiences) == ("system:serviceaccount:ns:sa", "u1", API)
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns")
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


async def test_time() -> None:
    scene = Scene()
    token = scene.token(lifetime=600)
    await scene.clock.advance(609)
    await scene.who(token)
    await scene.clock.advance(2)
    await scene.refused(token, "expired")
    early = Scene()
    early.issuer._clock = scene.clock
    await early.refused(early.token(), "not valid yet")


async def test_audiences() -> None:
    scene = Scene()
    token = scene.token(audiences=["vault", "other"])
    await scene.refused(token, r"token audiences \['vault', 'other'\] is invalid for the target audiences")
    found = await scene.authenticator.authenticate(token, ["vault", "third"])
    assert found is not None and found[1] == ["vault"]


async def test_signatures() -> None:
    scene = Scene(OTHER, trusted=P256)
    await scene.refused(scene.token(), "invalid signature")
    good = Scene()
    head, body, signature = good.token().split(".")
    claims = orjson.loads(base64.urlsafe_b64decode(body + "=="))
    claims["kubernetes.io"]["serviceaccount"]["name"] = "admin"
    forged = base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=")
    await good.refused(f"{head}.{forged}.{signature}", "invalid signature")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    await good.refused(f"{none}.{body}.", "invalid signature")


@pytest.mark.parametrize("claims", [b"{}", b"[]", b"1", b"x", b'{"iss": "https://somebody.else"}', b'{"iss": []}'])
async def test_what_is_not_ours_is_left_to_others(claims: bytes) -> None:
    scene = Scene()
    header, body = (base64.urlsafe_b64encode(part).decode() for part in (b'{"alg":"ES256"}', claims))
    assert await scene.authenticator.authenticate(f"{header}.{body}.AAAA", API) is None
    for garbage in ("", "a", "a.b", "a.b.c", "é.é.é", "...."):
        assert await scene.authenticator.authenticate(garbage, API) is None


async def test_the_account_must_be_there() -> None:
    scene = Scene()
    token = scene.token()
    await scene.who(token)
    account = scene.objects.pop(("serviceaccounts", "ns", "sa"))
    await scene.refused(token, "serviceaccounts ns/sa not found")
    scene.put("serviceaccounts", "ns", "sa", uid="another")
    await scene.refused(token, "does not match the token's")
    account["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene.objects["serviceaccounts", "ns", "sa"] = account
    await scene.who(token)
    await scene.clock.advance(61)
    await scene.refused(token, "has been deleted")


@pytest.mark.parametrize(
    ("kind", "resource", "scope"), [("pod", "pods", "ns"), ("secret", "secrets", "ns"), ("node", "nodes", "")]
)
async def test_what_it_is_bound_to_must_be_there(kind: str, resource: str, scope: str) -> None:
    scene = Scene()
    scene.put(resource, scope, "x", uid="u9")
    token = scene.token(**{kind: {"name": "x", "uid": "u9"}})
    await scene.who(token)
    scene.put(resource, scope, "x", uid="u10")
    await scene.refused(token, "does not match the token's")
    del scene.objects[resource, scope, "x"]
    await scene.refused(token, f"{resource} {scope}/x not found")


async def test_the_node_of_a_pod_may_go() -> None:
    scene = Scene()
    scene.put("pods", "ns", "p", uid="u3")
    token = scene.token(pod={"name": "p", "uid": "u3"}, node={"name": "n", "uid": "u4"})
    found = await scene.authenticator.authenticate(token, API)
    assert found is not None and found[0].extra["authentication.kubernetes.io/node-name"] == ("n",)


class TestLegacy:
    async def test_lives_as_long_as_its_secret_holds_it(self) -> None:
        scene = Scene()
        token = scene.legacy()
        await scene.clock.advance(10 * 365 * 86400)
        assert await scene.who(token) == "system:serviceaccount:ns:sa"
        secret = scene.objects["secrets", "ns", "s"]
        scene.put("secrets", "ns", "s", uid="u2", data={"token": base64.b64encode(b"another").decode()})
        await scene.refused(token, "Token does not match server's copy")
        secret["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        scene.objects["secrets", "ns", "s"] = secret
        await scene.refused(token, "Token has been invalidated")
        del scene.objects["secrets", "ns", "s"]
        await scene.refused(token, "Token has been invalidated")

    async def test_says_when_it_is_used(self) -> None:
        scene = Scene()
        await scene.who(scene.legacy())
        assert scene.used == ["s"]
        await scene.who(scene.token())
        assert scene.used == ["s"]

    async def test_that_was_declared_invalid(self) -> None:
        scene = Scene()
        token = scene.legacy()
        label = {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}
        scene.objects["secrets", "ns", "s"]["metadata"]["labels"] = label
        await scene.refused(token, "the token in secret ns/s for service account ns/sa has been marked invalid")
        assert scene.used == ["s"], "that somebody still wants it is worth knowing"

    async def test_is_for_the_api_alone(self) -> None:
        scene = Scene()
        await scene.refused(scene.legacy(), "is invalid for the target audiences", ["vault"])

    async def test_is_its_accounts(self) -> None:
        scene = Scene()
        await scene.refused(scene.legacy(**{"service-account.uid": "other"}), "does not match the token's")


def test_keys_are_published() -> None:
    (key,) = Scene().authenticator.keys
    assert key["kty"] == "EC" and key["crv"] == "P-256" and key["alg"] == "ES256"
