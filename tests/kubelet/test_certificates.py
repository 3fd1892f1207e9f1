"""A node's certificates: asked for, kept, renewed in time, and shown."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client import resources as r
from shipwheel.client.kubeconfig import load_config
from shipwheel.kubelet import joining
from shipwheel.kubelet.certificate_requests import NotIssued, Rotation, Wanted, issue
from shipwheel.kubelet.certificates import (
    CLIENT_SIGNER,
    CLIENT_USAGES,
    SERVING_SIGNER,
    SERVING_USAGES,
    CertificateError,
    CertificateStore,
    Pair,
    new_key,
    request_for,
    split,
)
from shipwheel.kubelet.node_certificates import NodeCertificates
from shipwheel.kubelet.settings import KubeletConfig
from tests.controllers.fakeapi import FakeApi
from tests.controllers.fakekinds import KINDS, FakeKind

CSRS = r.CERTIFICATE_SIGNING_REQUESTS
WANTED = Wanted("n1", CLIENT_SIGNER, CLIENT_USAGES)
DAY = 86400.0


class Cluster:
    """Signs what is asked of it, if it is told to, for a day."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.api = FakeApi(self.clock, kinds={**KINDS, CSRS: FakeKind("CertificateSigningRequest", namespaced=False)})
        self.key = ec.generate_private_key(ec.SECP256R1())

    def requests(self) -> list[Obj]:
        return self.api.list(CSRS)

    def sign(self, request: bytes) -> bytes:
        asked = x509.load_pem_x509_csr(request)
        now = self.clock.now()
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.subject)
            .issuer_name(issuer)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
        )
        for each in asked.extensions:
            builder = builder.add_extension(each.value, each.critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def pair(self, *hosts: str) -> Pair:
        key = new_key()
        return Pair(self.sign(request_for(key, "n1", hosts)), key)

    def decide(self, kind: str = "Approved") -> None:
        """Approve (and sign) or refuse whatever was not decided yet."""

        def change(obj: Obj) -> None:
            signed = self.sign(base64.b64decode(obj["spec"]["request"]))
            obj["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]}
            if kind == "Approved":
                obj["status"]["certificate"] = base64.b64encode(signed).decode()

        for each in self.requests():
            if "conditions" not in (each.get("status") or {}):
                self.api.change(CSRS, each["metadata"]["name"], "", change)

    async def until(self, condition: Callable[[], object], step: float = 1.0) -> None:
        for _ in range(1000):
            if condition():
                return
            await self.clock.advance(step)
        raise AssertionError("it did not come to that")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_what_is_asked_for() -> None:
    asked = x509.load_pem_x509_csr(request_for(new_key(), "n1", ["n1", "10.0.0.1", "fd00::1"]))
    assert asked.is_signature_valid
    assert asked.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == ["n1", "10.0.0.1", "fd00::1"]


def test_renewal_is_due_in_the_last_third(cluster: Cluster) -> None:
    pair = cluster.pair()
    begin = cluster.clock.now().replace(microsecond=0)

    def share(at: datetime) -> float:
        return (at - begin) / timedelta(days=1)

    assert share(pair.renewal(0.0)) == pytest.approx(0.7, abs=1e-4)
    assert share(pair.renewal(1.0)) == pytest.approx(0.9, abs=1e-4)
    assert pair.valid(begin)
    assert not pair.valid(begin + timedelta(days=1))


def test_files(cluster: Cluster, tmp_path: Path) -> None:
    store = CertificateStore(tmp_path / "pki", "kubelet-client")
    assert store.current() is None
    first, second = cluster.pair(), cluster.pair()
    store.keep(first, datetime(2026, 1, 2, 3, 4, 5))
    assert store.current() == first
    store.keep(second, datetime(2026, 2, 2, 3, 4, 5))
    assert store.current() == second
    names = sorted(each.name for each in (tmp_path / "pki").iterdir())
    assert names == [
        "kubelet-client-2026-01-02-03-04-05.pem",
        "kubelet-client-2026-02-02-03-04-05.pem",
        "kubelet-client-current.pem",
    ]
    assert store.current_path.stat().st_mode & 0o777 == 0o600
    store.current_path.write_text("garbage")
    with pytest.raises(CertificateError):
        store.current()


async def test_an_approved_request_is_waited_for(cluster: Cluster) -> None:
    key = new_key()
    task = asyncio.ensure_future(issue(cluster.api.client(), WANTED, key, patience=60))
    await cluster.until(cluster.requests)
    (asked,) = cluster.requests()
    assert asked["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert asked["spec"]["usages"] == ["digital signature", "client auth"]
    cluster.decide()
    await cluster.until(task.done)
    assert task.result().key == key
    assert WANTED.said_by(task.result())


@pytest.mark.parametrize("kind", ["Denied", "Failed"])
async def test_a_refused_request(cluster: Cluster, kind: str) -> None:
    task = asyncio.ensure_future(issue(cluster.api.client(), WANTED, new_key(), patience=60))
    await cluster.until(cluster.requests)
    cluster.decide(kind)
    await cluster.until(task.done)
    with pytest.raises(NotIssued, match=f"is {kind.lower()}, reason: R, message: m"):
        task.result()


async def test_a_request_is_taken_up_again(cluster: Cluster) -> None:
    key, client = new_key(), cluster.api.client()
    first = asyncio.ensure_future(issue(client, WANTED, key, patience=60, again=True))
    await cluster.until(cluster.requests)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    cluster.decide()
    again = await issue(client, WANTED, key, patience=60, again=True)
    assert WANTED.said_by(again)
    (request,) = cluster.requests()
    assert request["metadata"]["name"].startswith("node-csr-")


async def test_a_certificate_is_renewed_before_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    shown: list[Pair] = []

    async def changed(pair: Pair) -> None:
        shown.append(pair)

    store = CertificateStore(tmp_path, "kubelet-client")
    client = cluster.api.client()
    present = cluster.pair()
    rotation = Rotation(client, cluster.clock, store, WANTED, changed, present=present)
    task = asyncio.ensure_future(rotation.run())
    try:
        await cluster.clock.advance(0.69 * DAY)
        assert not cluster.requests()
        assert rotation.pair == present
        await cluster.until(cluster.requests, step=600)
        assert cluster.clock.now() <= present.renewal(1.0) + timedelta(minutes=11)
        cluster.decide("Denied")
        await cluster.until(lambda: len(cluster.requests()) == 2)
        cluster.decide()
        await cluster.until(lambda: shown)
        assert rotation.pair == store.current() == shown[0]
        assert rotation.pair.valid(cluster.clock.now() + timedelta(hours=23))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_node_with_other_addresses_gets_another_certificate(cluster: Cluster, tmp_path: Path) -> None:
    async def changed(pair: Pair) -> None:
        pass

    store = CertificateStore(tmp_path, "kubelet-server")
    store.keep(cluster.pair("n1", "10.0.0.1"), cluster.clock.now())
    for hosts, renewed in ((["n1", "10.0.0.1"], False), (["n1", "10.0.0.2"], True)):
        wanted = Wanted("n1", SERVING_SIGNER, SERVING_USAGES, hosts)
        task = asyncio.ensure_future(Rotation(cluster.api.client(), cluster.clock, store, wanted, changed).run())
        await cluster.clock.advance(5)
        assert bool(cluster.requests()) is renewed
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def settings(directory: Path, **fields: object) -> KubeletConfig:
    return KubeletConfig(cert_dir=str(directory / "pki"), hostname_override="n1", **fields)  # type: ignore[arg-type]


async def test_joining(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "Client", lambda config, **_: cluster.api.client())
    bootstrap = tmp_path / "bootstrap"
    bootstrap.write_text(
        "clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443'}}]\n"
        "users: [{name: u, user: {token: secret}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
    )
    config = settings(tmp_path, kubeconfig=str(tmp_path / "kubeconfig"), bootstrap_kubeconfig=str(bootstrap))
    task = asyncio.ensure_future(joining.join(config, cluster.clock))
    await cluster.until(cluster.requests)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    task = asyncio.ensure_future(joining.join(config, cluster.clock))
    await cluster.clock.advance(1)
    cluster.decide()
    await cluster.until(task.done)
    task.result()
    assert len(cluster.requests()) == 1, "the request that was broken off is gone on with"
    made = load_config(config.kubeconfig)
    assert made.server == "https://10.0.0.1:6443"
    assert WANTED.said_by(Pair(made.client_cert_data, made.client_key_data))
    assert not made.token

    await joining.join(config, cluster.clock)
    assert len(cluster.requests()) == 1
    # A certificate that has ended is of no use.
    await cluster.clock.advance(2 * DAY)
    task = asyncio.ensure_future(joining.join(config, cluster.clock))
    await cluster.until(lambda: len(cluster.requests()) == 2)
    cluster.decide()
    await cluster.until(task.done)
    task.result()


async def test_a_serving_certificate_that_nobody_signed(tmp_path: Path) -> None:
    for _ in range(2):
        certificates = NodeCertificates(settings(tmp_path), None, ManualClock(), "n1", ["10.0.0.1"])
        await certificates.serving_tls()
    assert sorted(each.name for each in (tmp_path / "pki").iterdir()) == ["kubelet.crt", "kubelet.key"]
    assert (tmp_path / "pki/kubelet.key").stat().st_mode & 0o777 == 0o600


def shown_by(server: ssl.SSLContext) -> bytes:
    """The certificate (DER) that a server shows, found out in memory."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    own = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, own):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True) or b""


async def test_changed_files_are_shown(cluster: Cluster, tmp_path: Path) -> None:
    def write() -> Pair:
        pair = cluster.pair("n1")
        (tmp_path / "crt").write_bytes(pair.certificate)
        (tmp_path / "key").write_bytes(pair.key)
        return pair

    before = write()
    config = settings(tmp_path, tls_cert_file=str(tmp_path / "crt"), tls_private_key_file=str(tmp_path / "key"))
    certificates = NodeCertificates(config, None, cluster.clock, "n1", [])
    tls = await certificates.serving_tls()
    task = asyncio.ensure_future(certificates.run())
    await cluster.clock.advance(1)
    assert shown_by(tls) == ssl.PEM_cert_to_DER_cert(before.certificate.decode())
    after = write()
    await cluster.clock.advance(15)
    assert shown_by(tls) == ssl.PEM_cert_to_DER_cert(after.certificate.decode())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_serving_certificate_of_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    config = settings(tmp_path, server_tls_bootstrap=True)
    certificates = NodeCertificates(config, cluster.api.client(), cluster.clock, "n1", ["10.0.0.1"])
    running = asyncio.ensure_future(certificates.run())
    serving = asyncio.ensure_future(certificates.serving_tls())
    await cluster.until(cluster.requests)
    assert not serving.done()
    (asked,) = cluster.requests()
    assert asked["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
    cluster.decide()
    await cluster.until(serving.done)
    current = split((tmp_path / "pki/kubelet-server-current.pem").read_bytes())
    assert shown_by(serving.result()) == ssl.PEM_cert_to_DER_cert(current.certificate.decode())
    assert current.names() == ("system:node:n1", frozenset({"n1", "10.0.0.1"}))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
