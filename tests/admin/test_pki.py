"""Keys and certificates: made once, kept, checked, and what they say."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from shipwheel.admin import pki

NOW = datetime(2026, 1, 1, tzinfo=UTC)
API_HOSTS = pki.api_server_hosts(node_name="node-1", addresses=["192.0.2.2"], service_ip="10.96.0.1")
ETCD_HOSTS = ("localhost", "127.0.0.1")


def ensure(directory: Path, now: datetime = NOW, api_hosts: tuple[str, ...] = API_HOSTS) -> list[Path]:
    return pki.ensure(directory, api_hosts=api_hosts, etcd_hosts=ETCD_HOSTS, now=now)


def content(directory: Path) -> dict[str, bytes]:
    return {str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*.*")}


@pytest.mark.parametrize(
    ("file", "common_name", "issuer", "server", "client"),
    [
        ("etcd/server", "kube-etcd", "etcd-ca", True, True),
        ("etcd/peer", "kube-etcd-peer", "etcd-ca", True, True),
        ("etcd/healthcheck-client", "kube-etcd-healthcheck-client", "etcd-ca", False, True),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", "etcd-ca", False, True),
        ("apiserver", "kube-apiserver", "kubernetes-ca", True, False),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "kubernetes-ca", False, True),
        ("front-proxy-client", "front-proxy-client", "kubernetes-front-proxy-ca", False, True),
    ],
)
def test_each_certificate_says_what_the_documentation_lists(
    tmp_path: Path, file: str, common_name: str, issuer: str, server: bool, client: bool
) -> None:
    ensure(tmp_path)
    certificate = pki.load(tmp_path / file).certificate
    assert certificate.subject.rfc4514_string() == f"CN={common_name}"
    assert certificate.issuer.rfc4514_string() == f"CN={issuer}"
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (pki.SERVER in usages, pki.CLIENT in usages) == (server, client)


def test_the_api_server_is_reached_by_all_its_names(tmp_path: Path) -> None:
    ensure(tmp_path)
    certificate = pki.load(tmp_path / "apiserver").certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "node-1", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local", "localhost",
    ]  # fmt: skip
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "10.96.0.1", "192.0.2.2"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    assert len(ensure(tmp_path)) == 22
    before = content(tmp_path)
    assert ensure(tmp_path, NOW + timedelta(days=300)) == []
    assert content(tmp_path) == before


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    ensure(tmp_path)
    for key in tmp_path.rglob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def test_a_leaf_about_to_expire_is_renewed_and_authorities_stay(tmp_path: Path) -> None:
    ensure(tmp_path)
    before = content(tmp_path)
    written = {str(each.relative_to(tmp_path)) for each in ensure(tmp_path, NOW + timedelta(days=340))}
    after = content(tmp_path)
    assert {name for name in before if before[name] != after[name]} == written
    assert "apiserver.crt" in written
    assert not written & {"ca.crt", "etcd/ca.crt", "front-proxy-ca.crt", "sa.key", "sa.pub"}


def test_a_new_address_renews_the_serving_certificate_alone(tmp_path: Path) -> None:
    ensure(tmp_path)
    written = ensure(tmp_path, api_hosts=(*API_HOSTS, "198.51.100.7"))
    assert [each.name for each in written] == ["apiserver.crt", "apiserver.key"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "ca.crt").write_text("garbage"), "ca.crt: it holds no usable PEM block"),
        (lambda d: (d / "ca.key").unlink(), "ca.key: no such file or directory"),
        (lambda d: (d / "ca.crt").unlink(), "ca.crt: no such file or directory"),
        (lambda d: (d / "apiserver.key").write_text(""), "apiserver.key: it holds no usable PEM block"),
        (lambda d: (d / "etcd/ca.key").write_bytes((d / "ca.key").read_bytes()), "does not belong"),
        (lambda d: (d / "sa.key").unlink(), "sa.key is missing"),
        (lambda d: (d / "sa.key").write_text("x"), "sa.key: it holds no usable PEM block"),
        (lambda d: (d / "sa.pub").write_text("x"), "sa.pub: it holds no usable PEM block"),
    ],
)
def test_damage_is_named_and_left_as_it_is(tmp_path: Path, damage, message: str) -> None:
    ensure(tmp_path)
    damage(tmp_path)
    before = content(tmp_path)
    with pytest.raises(pki.PkiError, match=message):
        ensure(tmp_path)
    assert content(tmp_path) == before


def test_an_expired_authority_is_refused(tmp_path: Path) -> None:
    ensure(tmp_path)
    with pytest.raises(pki.PkiError, match=r"ca\.crt: the certificate has expired: NotBefore"):
        ensure(tmp_path, NOW + timedelta(days=3651))
    with pytest.raises(pki.PkiError, match=r"ca\.crt: the certificate is not valid yet"):
        ensure(tmp_path, NOW - timedelta(days=1))


def test_users_and_groups(tmp_path: Path) -> None:
    ensure(tmp_path)
    authority = pki.load(tmp_path / "ca")
    subject = pki.issue(authority, pki.node_user("node-1"), NOW).certificate.subject
    assert {each.oid._name: each.value for each in subject} == {
        "organizationName": "system:nodes",
        "commonName": "system:node:node-1",
    }


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    pki.ensure(tmp_path, api_hosts=API_HOSTS, etcd_hosts=ETCD_HOSTS, now=datetime.now(UTC))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    server.load_cert_chain(tmp_path / "apiserver.crt", tmp_path / "apiserver.key")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    identity = tmp_path / "apiserver-kubelet-client"
    client.load_cert_chain(f"{identity}.crt", f"{identity}.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname="kubernetes.default.svc")
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert server_side.getpeercert()["subject"] == ((("commonName", "kube-apiserver-kubelet-client"),),)
