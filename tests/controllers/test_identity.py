"""Certificates, tokens, bootstrap tokens and aggregated roles."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from shipwheel.api.clock import rfc3339
from shipwheel.api.meta import Obj, condition
from shipwheel.client.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from shipwheel.controllers.bootstrap import BootstrapSigner, TokenCleaner, detached_signature, signed, signing_tokens
from shipwheel.controllers.certificates import CsrApprover, CsrCleaner, CsrSigner
from shipwheel.controllers.certificates.requests import Asked, complaint, is_spent
from shipwheel.controllers.certificates.signing import CannotSign, split_usages, validity
from shipwheel.controllers.clusterrole_aggregation import ClusterRoleAggregationController, aggregated_rules
from shipwheel.controllers.serviceaccount_tokens import (
    LegacyTokenCleaner,
    ServiceAccountTokenController,
    TokenSigner,
    secret_names,
)
from tests.controllers.fakeapi import Faults
from tests.controllers.objects import NOW, ago, meta
from tests.controllers.world import CONFIG, World

# Certificates

API_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"

NODE = Asked("system:node:n1", ("system:nodes",), (), (), (), ())
SERVING = replace(NODE, dns_names=("n1",))
STRANGER = replace(NODE, organizations=("x",))
NAMELESS = replace(NODE, common_name="x")
NODE_USAGES = "[client auth digital signature key encipherment]"
CLIENT_USAGES = ["key encipherment", "digital signature", "client auth"]
SERVER_USAGES = ["digital signature", "server auth"]


@pytest.mark.parametrize(
    ("signer", "asked", "usages", "expected"),
    [
        (KUBELET_CLIENT, NODE, CLIENT_USAGES, ""),
        (KUBELET_CLIENT, NODE, CLIENT_USAGES[1:], ""),
        (KUBELET_CLIENT, STRANGER, CLIENT_USAGES, "subject organization is not system:nodes"),
        (KUBELET_CLIENT, replace(NODE, dns_names=("x",)), CLIENT_USAGES, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, replace(NODE, addresses=("1.2.3.4",)), CLIENT_USAGES, "IP subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NAMELESS, CLIENT_USAGES, "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, NODE, [*CLIENT_USAGES, "x"], f"usages did not match {NODE_USAGES}"),
        (KUBELET_SERVING, SERVING, SERVER_USAGES, ""),
        (KUBELET_SERVING, NODE, SERVER_USAGES, "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, replace(SERVING, uris=("x",)), SERVER_USAGES, "URI subjectAltNames are not allowed"),
        (API_CLIENT, NODE, ["client auth"], ""),
        (API_CLIENT, NODE, ["server auth", "client auth"], "invalid usage for client certificate: server auth"),
        (API_CLIENT, NODE, ["digital signature"], "missing required usage for client certificate: client auth"),
        (LEGACY, NODE, ["anything"], ""),
    ],
)  # fmt: skip
def test_what_signers_refuse(signer, asked, usages, expected):
    assert complaint(signer, asked, usages) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, timedelta(days=365, minutes=-5)), (3600, timedelta(hours=1)), (60, timedelta(minutes=10)),
     (86400, timedelta(days=1, minutes=-5)), (10**9, timedelta(days=365, minutes=-5))],
)  # fmt: skip
def test_how_long_a_certificate_is_good(seconds, expected):
    begin, end = validity(seconds, timedelta(days=365), NOW + timedelta(days=3650), NOW)
    assert end - NOW == expected
    assert NOW - begin == timedelta(minutes=5)


def test_never_longer_than_its_ca():
    assert validity(None, timedelta(days=365), NOW + timedelta(days=7), NOW)[1] == NOW + timedelta(days=7)
    with pytest.raises(CannotSign, match="expired in the past"):
        validity(None, timedelta(days=365), NOW, NOW)


def test_usages():
    assert split_usages(["signing", "server auth"]) == ({"digital_signature"}, ["1.3.6.1.5.5.7.3.1"])
    with pytest.raises(CannotSign):
        split_usages(["time travel"])


def csr_with(*conditions: tuple[str, float], issued: bool = False, created: float = 60) -> Obj:
    status: Obj = {
        "conditions": [{"type": kind, "status": "True", "lastUpdateTime": ago(age)} for kind, age in conditions]
    }
    if issued:
        status["certificate"] = "x"
    return {"metadata": meta("c", creationTimestamp=ago(created)), "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("csr", "expires_in", "expected"),
    [
        (csr_with(), None, False),
        (csr_with(created=90000), None, True),
        (csr_with(("Denied", 3500)), None, False),
        (csr_with(("Denied", 3700)), None, True),
        (csr_with(("Approved", 3700), issued=True), 1000, True),
        (csr_with(("Approved", 3700)), None, False),
        (csr_with(("Approved", 90000)), None, True),
        (csr_with(("Approved", 60), issued=True), -1, True),
        (csr_with(("Approved", 60), issued=True), 1000, False),
    ],
)
def test_when_a_request_is_over(csr, expires_in, expected):
    expires = None if expires_in is None else NOW + timedelta(seconds=expires_in)
    assert is_spent(csr, NOW, expires) is expected


def make_ca() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(NOW + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem(key)


def pem(key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def make_request(common_name: str = "system:node:n1", organization: str = "system:nodes") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def add_csr(cluster: World, name: str = "c", signer: str = KUBELET_CLIENT, **spec: object) -> None:
    full = {"request": make_request(), "signerName": signer, "usages": CLIENT_USAGES, "username": "system:node:n1"}
    cluster.api.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": name}, "spec": full | spec})


def allow(*subresources: str):
    def answer(method: str, path: str, body: Obj | None) -> Obj | None:
        if not path.endswith("/subjectaccessreviews"):
            return None
        return {**body, "status": {"allowed": body["spec"]["resourceAttributes"]["subresource"] in subresources}}

    return answer


async def test_a_kubelet_gets_its_certificate():
    ca = make_ca()
    cluster = World((CsrApprover, CsrSigner), config=replace(CONFIG, cluster_signing_certificates={"": ca}))
    cluster.api.intercept = allow("selfnodeclient")
    async with cluster.running():
        add_csr(cluster)
        await cluster.until(lambda: "certificate" in cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "c")["status"])
        status = cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "c")["status"]
        (approved,) = status["conditions"]
        assert approved["message"] == "Auto approving self kubelet client certificate after SubjectAccessReview."
        certificate = x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca[0].encode()))
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:n1"
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [each.dotted_string for each in purposes] == ["1.3.6.1.5.5.7.3.2"]


async def test_who_may_not_is_not_approved():
    cluster = World((CsrApprover,))
    cluster.api.intercept = allow()
    async with cluster.running():
        add_csr(cluster)
        add_csr(cluster, "other", signer=API_CLIENT)
        await cluster.pass_time(30, step=5)
        for name in ("c", "other"):
            assert not cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, name)["status"].get("conditions")


async def test_a_request_that_its_signer_refuses_fails():
    cluster = World((CsrSigner,), config=replace(CONFIG, cluster_signing_certificates={"": make_ca()}))
    async with cluster.running():
        add_csr(cluster, request=make_request(organization="intruders"))
        approved = {"conditions": [{"type": "Approved", "status": "True"}]}
        cluster.api.change(CERTIFICATE_SIGNING_REQUESTS, "c", "", lambda obj: obj.update(status=approved))
        await cluster.settle(2)
        status = cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "c")["status"]
        assert "certificate" not in status
        failed = condition({"status": status}, "Failed")
        assert (failed["reason"], failed["message"]) == (
            "SignerValidationFailure",
            "subject organization is not system:nodes",
        )


async def test_signers_with_their_own_authorities():
    config = replace(CONFIG, cluster_signing_certificates={KUBELET_CLIENT: make_ca()})
    cluster = World((CsrSigner,), config=config)
    async with cluster.running():
        for name, signer in (("mine", KUBELET_CLIENT), ("legacy", LEGACY)):
            add_csr(cluster, name, signer)
            approved = {"conditions": [{"type": "Approved", "status": "True"}]}
            cluster.api.change(
                CERTIFICATE_SIGNING_REQUESTS, name, "", lambda obj, status=approved: obj.update(status=status)
            )
        await cluster.settle(2)
        assert "certificate" in cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "mine")["status"]
        assert "certificate" not in cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "legacy")["status"]


async def test_old_requests_are_deleted():
    cluster = World((CsrCleaner,))
    async with cluster.running():
        add_csr(cluster)
        await cluster.pass_time(23 * 3600, step=3600)
        assert cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "c")
        await cluster.pass_time(2 * 3600 + 10, step=3600)
        assert not cluster.api.get(CERTIFICATE_SIGNING_REQUESTS, "c")


# Tokens in Secrets

KEYS = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())]


@pytest.mark.parametrize(("key", "algorithm"), [(KEYS[0], "RS256"), (KEYS[1], "ES256")])
def test_tokens_are_signed_with_the_clusters_key(key, algorithm):
    token = TokenSigner(pem(key)).sign({"iss": "kubernetes/serviceaccount"})
    header, claims, _ = token.split(".")
    decoded = orjson.loads(base64.urlsafe_b64decode(header + "=="))
    assert decoded["alg"] == algorithm
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert decoded["kid"] == base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
    assert orjson.loads(base64.urlsafe_b64decode(claims + "==")) == {"iss": "kubernetes/serviceaccount"}


def add_token_secret(cluster: World, name: str = "t", account: str = "robot", **fields: object) -> None:
    annotations = {"kubernetes.io/service-account.name": account}
    body = {
        "metadata": {"name": name, "namespace": "default", "annotations": annotations, **fields},
        "type": "kubernetes.io/service-account-token",
    }
    cluster.api.create(SECRETS, body)


async def test_a_token_secret_is_filled_and_goes_with_its_account():
    config = replace(CONFIG, service_account_private_key=pem(KEYS[1]))
    cluster = World((ServiceAccountTokenController,), config=config)
    account = cluster.api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot", "namespace": "default"}})
    async with cluster.running():
        add_token_secret(cluster)
        await cluster.until(lambda: bool((cluster.api.get(SECRETS, "t", "default").get("data") or {}).get("token")))
        secret = cluster.api.get(SECRETS, "t", "default")
        assert base64.b64decode(secret["data"]["ca.crt"]) == b"CA"
        assert base64.b64decode(secret["data"]["namespace"]) == b"default"
        assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
        claims = orjson.loads(
            base64.urlsafe_b64decode(base64.b64decode(secret["data"]["token"]).split(b".")[1] + b"==")
        )
        assert claims["sub"] == "system:serviceaccount:default:robot"
        cluster.api.delete(SERVICE_ACCOUNTS, "robot", "default")
        await cluster.until(lambda: not cluster.api.get(SECRETS, "t", "default"))


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_an_account_forgets_the_tokens_that_have_gone(seed):
    faults = Faults() if seed is None else Faults(fail_before=0.2, conflict=0.3, break_watch=0.1, lag=0.2, seed=seed)
    config = replace(CONFIG, service_account_private_key=pem(KEYS[1]))
    cluster = World((ServiceAccountTokenController,), faults, config=config)

    def listed() -> list[str]:
        return [each["name"] for each in cluster.api.get(SERVICE_ACCOUNTS, "robot", "default").get("secrets") or ()]

    listing = [{"name": name} for name in ("t", "kept", "other")]
    cluster.api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot", "namespace": "default"}, "secrets": listing})
    async with cluster.running():
        for name in ("t", "kept"):
            add_token_secret(cluster, name)
        await cluster.pass_time(30, step=2)
        assert listed() == ["t", "kept", "other"]
        cluster.api.delete(SECRETS, "t", "default")
        await cluster.until(lambda: listed() == ["kept", "other"], within=2000, step=5)


async def test_a_secret_for_nobody_is_deleted():
    config = replace(CONFIG, service_account_private_key=pem(KEYS[1]))
    cluster = World((ServiceAccountTokenController,), config=config)
    async with cluster.running():
        add_token_secret(cluster)
        await cluster.until(lambda: not cluster.api.get(SECRETS, "t", "default"))


def test_the_secrets_that_a_pod_refers_to():
    spec = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [
            {"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"secretRef": {"name": "all"}}]}
        ],
        "volumes": [
            {"secret": {"secretName": "mounted"}},
            {"projected": {"sources": [{"secret": {"name": "projected"}}]}},
            {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
        ],
    }
    assert secret_names({"spec": spec}) == {"pull", "env", "all", "mounted", "projected", "csi"}


async def test_a_token_unused_for_a_year_is_marked_and_a_year_later_deleted():
    cluster = World((LegacyTokenCleaner,))
    since = cluster.clock.now() - timedelta(days=800)
    tracking = {
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}
    }
    cluster.api.create(CONFIG_MAPS, {**tracking, "data": {"since": since.strftime("%Y-%m-%d")}})
    cluster.api.create(
        SERVICE_ACCOUNTS,
        {"metadata": {"name": "robot", "namespace": "default"}, "secrets": [{"name": "unused"}, {"name": "used"}]},
    )
    created = rfc3339(since)
    today = cluster.clock.now().strftime("%Y-%m-%d")
    add_token_secret(cluster, "unused", creationTimestamp=created)
    add_token_secret(cluster, "used", creationTimestamp=created, labels={"kubernetes.io/legacy-token-last-used": today})
    add_token_secret(cluster, "by-hand", creationTimestamp=created)
    async with cluster.running():
        await cluster.settle(1)
        labels = {
            secret["metadata"]["name"]: secret["metadata"].get("labels") or {} for secret in cluster.api.list(SECRETS)
        }
        assert labels["unused"] == {"kubernetes.io/legacy-token-invalid-since": today}
        assert "kubernetes.io/legacy-token-invalid-since" not in labels["used"] | labels["by-hand"]
        await cluster.pass_time(364 * 86400, step=86400)
        assert cluster.api.get(SECRETS, "unused", "default")
        await cluster.pass_time(4 * 86400, step=86400)
        assert not cluster.api.get(SECRETS, "unused", "default")
        assert cluster.api.get(SECRETS, "by-hand", "default")


# Bootstrap tokens


def token_secret(token_id: str, **data: str) -> Obj:
    full = {"token-id": token_id, "token-secret": "s3cret", "usage-bootstrap-signing": "true", **data}
    return {
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in full.items()},
    }


def test_a_signature_can_be_verified_by_who_has_the_token():
    header, empty, signature = detached_signature("content", "abc", "s3cret").split(".")
    assert empty == ""
    assert orjson.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "kid": "abc"}
    text = f"{header}.{base64.urlsafe_b64encode(b'content').rstrip(b'=').decode()}".encode()
    expected = hmac.new(b"s3cret", text, hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "==") == expected


@pytest.mark.parametrize(
    ("secret", "signs"),
    [
        (token_secret("abc"), True),
        (token_secret("abc", **{"usage-bootstrap-signing": "false"}), False),
        (token_secret("abc", expiration=ago(1)), False),
        (token_secret("abc", expiration=ago(-60)), True),
        ({**token_secret("abc"), "type": "Opaque"}, False),
        ({**token_secret("abc"), "metadata": {"name": "bootstrap-token-other", "namespace": "kube-system"}}, False),
    ],
)
def test_which_tokens_sign(secret, signs):
    assert signing_tokens([secret], NOW) == ({"abc": "s3cret"} if signs else {})


def test_signatures_of_tokens_that_have_gone_are_taken_off():
    data = {"kubeconfig": "k", "jws-kubeconfig-old": "x", "other": "y"}
    assert signed(data, {"abc": "s"}).keys() == {"kubeconfig", "other", "jws-kubeconfig-abc"}
    assert signed({"other": "y"}, {"abc": "s"}) == {"other": "y"}


async def test_tokens_sign_until_they_expire_and_then_go():
    cluster = World((BootstrapSigner, TokenCleaner))
    cluster.api.create(
        CONFIG_MAPS, {"metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": "k"}}
    )
    async with cluster.running():
        in_an_hour = rfc3339(cluster.clock.now() + timedelta(hours=1))
        cluster.api.create(SECRETS, token_secret("abc", expiration=in_an_hour))

        def data() -> Obj:
            return cluster.api.get(CONFIG_MAPS, "cluster-info", "kube-public")["data"]

        await cluster.until(lambda: "jws-kubeconfig-abc" in data())
        await cluster.pass_time(3500, step=500)
        assert cluster.api.list(SECRETS)
        await cluster.pass_time(120, step=10)
        assert not cluster.api.list(SECRETS)
        await cluster.until(lambda: "jws-kubeconfig-abc" not in data())


# Roles

READ = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
WRITE = {"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}


def role(name: str, labels: dict[str, str] | None = None, rules: list[Obj] | None = None, **fields: object) -> Obj:
    return {"metadata": {"name": name, "labels": labels or {}}, "rules": rules or [], **fields}


def aggregate(*label_sets: dict[str, str]) -> Obj:
    return role("all", aggregationRule={"clusterRoleSelectors": [{"matchLabels": each} for each in label_sets]})


def test_rules_are_collected_once_and_in_order():
    roles = [role("b", {"to": "all"}, [WRITE, READ]), role("a", {"to": "all"}, [READ]), role("c", {}, [WRITE])]
    assert aggregated_rules(aggregate({"to": "all"}), roles) == [READ, WRITE]
    assert aggregated_rules(aggregate({"to": "all"}, {"to": "none"}), []) == []


async def test_an_aggregated_role_follows():
    cluster = World((ClusterRoleAggregationController,))
    async with cluster.running():
        cluster.api.create(CLUSTER_ROLES, aggregate({"to": "all"}))
        cluster.api.create(CLUSTER_ROLES, role("a", {"to": "all"}, [READ]))
        await cluster.until(lambda: cluster.api.get(CLUSTER_ROLES, "all")["rules"] == [READ])
        cluster.api.delete(CLUSTER_ROLES, "a")
        await cluster.until(lambda: cluster.api.get(CLUSTER_ROLES, "all")["rules"] == [])
