"""What only the distributed engine meets: members that go away, TLS, leases, quotas, large answers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from storehelpers import EtcdServer, events, fill, free_ports, opened, watching

from shipwheel.store.base import OutcomeUnknown, Store, StoreError
from shipwheel.store.etcd import EtcdStore
from shipwheel.store.etcdwatch import tells_progress_truly

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(90)]


@pytest.fixture
async def store(empty_etcd: EtcdServer) -> AsyncIterator[Store]:
    async with opened(EtcdStore([empty_etcd.url])) as store:
        yield store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipwheel.store.etcdclient._PATIENCE", 2.5)


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """One to stop and start."""
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.stop()


class TestLosingEtcd:
    @pytest.mark.usefixtures("impatient")
    async def test_and_getting_it_back(self, own_etcd: EtcdServer) -> None:
        async with opened(EtcdStore([own_etcd.url])) as store, watching(store, "/", 1) as progress:
            before = await fill(store, "/before/", 5)
            assert [event.current for event in await events(progress, 5)] == before
            waiting = asyncio.ensure_future(events(progress, 5))
            await asyncio.sleep(0.05)
            own_etcd.stop()
            outcomes = await asyncio.gather(
                store.get("/before/0001"), store.put("/during", b""), return_exceptions=True
            )
            assert all(isinstance(outcome, StoreError) for outcome in outcomes)
            assert not waiting.done()
            own_etcd.start()
            after = await fill(store, "/after/", 5)
            assert [event.current for event in await waiting] == after
            assert (await store.range("/")).items == after + before

    async def test_for_a_moment_goes_unnoticed(self, own_etcd: EtcdServer) -> None:
        async with opened(EtcdStore([own_etcd.url])) as store:
            written = await store.put("/a", b"")
            own_etcd.stop()
            reading = asyncio.ensure_future(store.get("/a"))
            writing = asyncio.ensure_future(store.put("/b", b""))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_etcd.start)
            assert await reading == written
            with contextlib.suppress(OutcomeUnknown):  # the connection broke under it
                assert await writing

    async def test_in_the_middle_of_a_write_leaves_it_unknown(self, own_etcd: EtcdServer) -> None:
        async with opened(EtcdStore([own_etcd.url])) as store:
            await store.put("/a", b"1")
            own_etcd.signal(signal.SIGSTOP)
            write = asyncio.ensure_future(store.put("/a", b"2"))
            await asyncio.sleep(0.2)
            assert not write.done()
            own_etcd.stop()
            with pytest.raises(OutcomeUnknown):
                await write

    @pytest.mark.usefixtures("impatient")
    async def test_that_was_never_there(self) -> None:
        (port,) = free_ports(1)
        store = EtcdStore([f"http://127.0.0.1:{port}"])
        with pytest.raises(StoreError, match=f"etcd cannot be reached at http://127.0.0.1:{port}: .*refused"):
            await store.open()


class TestSeveralMembers:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[list[EtcdServer]]:
        members = [EtcdServer(tmp_path / name, name=name) for name in ("one", "two", "three")]
        for member in members:
            member.join(members)
        with contextlib.ExitStack() as stack:
            for member in members:
                stack.callback(member.stop)
                member.launch()
            for member in members:
                member.wait()
            yield members

    async def test_any_can_go_away(self, cluster: list[EtcdServer]) -> None:
        async with (
            opened(EtcdStore([member.url for member in cluster])) as store,
            watching(store, "/", 1) as progress,
        ):
            expected = 0
            for member in cluster[:2]:
                for n in range(20):
                    await self._put(store, f"/{expected}-{n}")
                member.stop()
                for n in range(20):
                    await self._put(store, f"/{expected}+{n}")
                expected += 40
                found = await events(progress, 40)
                assert len({event.key for event in found}) == 40
                await asyncio.to_thread(member.start)

    async def _put(self, store: Store, key: str) -> None:
        """Until it is there."""
        while True:
            try:
                await store.put(key, b"", expected=0)
            except OutcomeUnknown:
                if await store.get(key):
                    return
            except StoreError:
                await asyncio.sleep(0.1)
            else:
                return

    async def test_that_do_not_answer_are_passed_over(self, empty_etcd: EtcdServer) -> None:
        dead = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
        async with opened(EtcdStore([dead[0], empty_etcd.url, dead[1]])) as store:
            assert await store.put("/a", b"")


class TestWatch:
    async def test_of_more_than_a_message_holds(self, store: Store) -> None:
        after = await store.revision()
        for n in range(12):
            await store.put(f"/{n:02}", bytes([n]) * 1_000_000)
        async with watching(store, "/", after) as progress:
            found = await events(progress, 12)
        assert [event.current.value[0] for event in found if event.current] == list(range(12))

    async def test_two_servers_see_each_other(self, store: Store, etcd: EtcdServer) -> None:
        async with (
            opened(EtcdStore([etcd.url])) as other,
            watching(other, "/", await store.revision()) as progress,
        ):
            written = await fill(store, "/a/", 10)
            assert [event.current for event in await events(progress, 10)] == written
            assert (await other.range("/a/")).items == written


def test_which_versions_tell_progress_truly() -> None:
    true = ["3.4.31", "3.4.33", "3.5.13", "3.5.21", "3.6.0", "3.6.0-rc.1", "3.7.0", "4.0.0"]
    false = ["3.4.23", "3.5.12", "3.3.99", "", "x"]
    assert [version for version in true + false if tells_progress_truly(version)] == true


class TestLeases:
    async def test_are_shared(self, store: Store, etcd: EtcdServer) -> None:
        before = etcd.leases()
        for n in range(30):
            await store.put(f"/{n}", b"", ttl=3600)
        assert len(etcd.leases() - before) == 1
        await store.put("/long", b"", ttl=7200)
        assert len(etcd.leases() - before) == 2

    async def test_that_are_gone_are_replaced(self, store: Store, etcd: EtcdServer) -> None:
        before = etcd.leases()
        await store.put("/a", b"", ttl=3600)
        (lease,) = etcd.leases() - before
        etcd.ctl("lease", "revoke", lease)
        assert await store.get("/a") is None
        assert await store.put("/a", b"", ttl=3600)


class TestRefusals:
    async def test_of_a_value_too_large(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"too large|larger than max") as error:
            await store.put("/a", bytes(3_000_000))
        assert not isinstance(error.value, OutcomeUnknown)

    async def test_when_there_is_no_space(self, tmp_path: Path) -> None:
        server = EtcdServer(tmp_path, "--quota-backend-bytes=3000000")
        server.start()
        try:
            async with opened(EtcdStore([server.url])) as store:
                with pytest.raises(StoreError, match="database space exceeded") as error:
                    for n in range(20):
                        await store.put(f"/{n}", os.urandom(1_000_000))
                assert not isinstance(error.value, OutcomeUnknown)
                assert await store.get("/0")
        finally:
            server.stop()


class TestTls:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, str]:
        return make_certificates(tmp_path)

    @pytest.fixture
    def secure_etcd(self, tmp_path: Path, files: dict[str, str]) -> Iterator[EtcdServer]:
        server = EtcdServer(
            tmp_path,
            f"--cert-file={files['cert_file']}",
            f"--key-file={files['key_file']}",
            f"--trusted-ca-file={files['ca_file']}",
            "--client-cert-auth",
            scheme="https",
        )
        server.start()
        yield server
        server.stop()

    async def test_with_a_client_certificate(self, secure_etcd: EtcdServer, files: dict[str, str]) -> None:
        async with opened(EtcdStore([secure_etcd.url], **files)) as store:
            assert await store.put("/a", b"1") == await store.get("/a")

    @pytest.mark.usefixtures("impatient")
    async def test_without_one(self, secure_etcd: EtcdServer, files: dict[str, str]) -> None:
        with pytest.raises(StoreError, match=r"cannot be reached at https.*failed to connect"):
            await EtcdStore([secure_etcd.url], ca_file=files["ca_file"]).open()

    async def test_with_a_file_that_is_missing(self, secure_etcd: EtcdServer) -> None:
        with pytest.raises(StoreError, match=r"/none/ca.pem: No such file"):
            await EtcdStore([secure_etcd.url], ca_file="/none/ca.pem").open()


def make_certificates(directory: Path) -> dict[str, str]:
    """One authority, and one certificate for server and client alike."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd-ca")])

    def certificate(name: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca_name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    ca = certificate("etcd-ca").public_key(ca_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    leaf = certificate("etcd").public_key(key.public_key())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    leaf = leaf.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    contents = {
        "ca_file": ca.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        "cert_file": leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        "key_file": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return {name: str(directory / name) for name in contents}


async def test_keys_are_those_of_kubernetes(store: Store, etcd: EtcdServer) -> None:
    await store.put("/registry/pods/default/web", b"{}")
    assert json.loads(etcd.ctl("get", "/registry", "--prefix", "--keys-only", "-w=json"))["count"] == 1
    assert etcd.ctl("get", "/registry", "--prefix", "--keys-only").split() == ["/registry/pods/default/web"]
