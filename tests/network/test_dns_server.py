"""The DNS server on real sockets: datagrams, streams, truncation, and names passed on to another resolver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from dnslib import CLASS, EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSRecord

from shipwheel.api.clock import ManualClock
from shipwheel.network.dns.server import CannotListen, Responder, listening
from shipwheel.network.dns.upstream import Resolver, Upstream, lifetime_of, read_resolvers
from shipwheel.network.dns.view import View

LOCALHOST = ("127.0.0.1",)


def headless(view: View, name: str, count: int) -> None:
    view.put_namespace({"metadata": {"name": "default"}})
    view.put_service({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": "None"}})
    view.put_slice(
        {
            "metadata": {
                "name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [f"10.244.{i // 250}.{i % 250 + 1}"]} for i in range(count)],
        }
    )  # fmt: skip


@dataclass
class OtherResolver:
    """A resolver outside the cluster, that counts what it is asked."""

    port: int = 0
    ttl: int = 300
    asked: list[str] = field(default_factory=list)

    async def respond(self, data: bytes, *, udp: bool) -> bytes:
        query = DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        answer = DNSRecord(DNSHeader(id=query.header.id, qr=1, ra=1), q=query.q)
        if query.q.qname == "example.com":
            answer.add_answer(RR("example.com", QTYPE.A, CLASS.IN, self.ttl, A("192.0.2.80")))
        else:
            answer.header.rcode = RCODE.NXDOMAIN
        return bytes(answer.pack())


@pytest.fixture
async def other() -> AsyncIterator[OtherResolver]:
    resolver = OtherResolver()
    async with running(resolver) as port:  # type: ignore[arg-type]
        resolver.port = port
        yield resolver


def running(responder: Responder):
    """`listening`, whose last act is to wait for nothing."""
    return _Running(responder)


class _Running:
    def __init__(self, responder: Responder) -> None:
        self._started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(responder))

    async def _run(self, responder: Responder) -> None:
        async with listening(LOCALHOST, 0, responder) as port:
            self._started.set_result(port)
            await asyncio.Event().wait()

    async def __aenter__(self) -> int:
        return await self._started

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def by_udp(port: int, query: DNSRecord) -> DNSRecord:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answer.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=("127.0.0.1", port))
    try:
        transport.sendto(query.pack())
        return DNSRecord.parse(await answer)
    finally:
        transport.close()


async def by_tcp(port: int, *queries: DNSRecord) -> list[DNSRecord]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for query in queries:
        data = query.pack()
        writer.write(len(data).to_bytes(2, "big") + data)
        length = int.from_bytes(await reader.readexactly(2), "big")
        answers.append(DNSRecord.parse(await reader.readexactly(length)))
    writer.close()
    return answers


def addresses(message: DNSRecord) -> list[str]:
    return [str(each.rdata) for each in message.rr if each.rtype == QTYPE.A]


def a_responder(view: View, *resolvers: Resolver, clock: ManualClock | None = None) -> Responder:
    return Responder(view, Upstream(resolvers, clock or ManualClock()), zone="cluster.local")


async def test_by_datagram_and_by_stream() -> None:
    view = View()
    headless(view, "db", 3)
    query = DNSRecord.question("DB.default.svc.Cluster.Local", "A")
    async with running(a_responder(view)) as port:
        answer = await by_udp(port, query)
        assert answer.header.id == query.header.id
        assert (answer.header.aa, answer.header.ra, answer.header.qr) == (1, 1, 1)
        assert sorted(addresses(answer)) == ["10.244.0.1", "10.244.0.2", "10.244.0.3"]
        assert str(answer.rr[0].rname) == "DB.default.svc.Cluster.Local."
        assert answer.rr[0].ttl == 30
        first, second = await by_tcp(port, query, DNSRecord.question("x.default.svc.cluster.local", "A"))
        assert len(first.rr) == 3
        assert second.header.rcode == RCODE.NXDOMAIN
        assert [each.rtype for each in second.auth] == [QTYPE.SOA]


async def test_what_does_not_fit_is_marked_and_comes_by_stream() -> None:
    view = View()
    headless(view, "db", 60)
    query = DNSRecord.question("db.default.svc.cluster.local", "A")
    large = DNSRecord.question("db.default.svc.cluster.local", "A")
    large.add_ar(EDNS0(udp_len=4096))
    async with running(a_responder(view)) as port:
        assert (await by_udp(port, query)).header.tc == 1
        answer = await by_udp(port, large)
        assert answer.header.tc == 0
        assert len(answer.rr) == 60
        assert [each.rtype for each in answer.ar] == [QTYPE.OPT]
        assert len((await by_tcp(port, query))[0].rr) == 60


async def test_other_names_are_passed_on_and_remembered(other: OtherResolver) -> None:
    clock = ManualClock()
    responder = a_responder(View(), Resolver("127.0.0.1", other.port), clock=clock)
    async with running(responder) as port:
        for name in ("example.com", "EXAMPLE.com"):
            query = DNSRecord.question(name, "A")
            answer = await by_udp(port, query)
            assert answer.header.id == query.header.id
            assert addresses(answer) == ["192.0.2.80"]
            assert str(answer.q.qname) == name + "."
        assert other.asked == ["example.com."]
        await clock.advance(10)
        assert (await by_udp(port, DNSRecord.question("example.com", "A"))).rr[0].ttl == 290
        await clock.advance(21)
        await by_udp(port, DNSRecord.question("example.com", "A"))
        assert other.asked == ["example.com."] * 2
        assert (await by_udp(port, DNSRecord.question("no.example", "A"))).header.rcode == RCODE.NXDOMAIN


async def test_an_external_name_brings_its_addresses(other: OtherResolver) -> None:
    view = View()
    headless(view, "db", 1)
    for name, target in (("out", "example.com"), ("again", "db.default.svc.cluster.local"), ("me", "me")):
        view.put_service(
            {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": "ExternalName", "externalName": target},
            }
        )
    async with running(a_responder(view, Resolver("127.0.0.1", other.port))) as port:

        async def ask(name: str) -> list[str]:
            answer = await by_udp(port, DNSRecord.question(f"{name}.default.svc.cluster.local", "A"))
            return [str(each.rdata) for each in answer.rr]

        assert await ask("out") == ["example.com.", "192.0.2.80"]
        assert await ask("again") == ["db.default.svc.cluster.local.", "10.244.0.1"]


DEAD = Resolver("127.0.0.1", 1)
"""Nobody listens there, nor is it a port that the kernel may give to the server under test or to its questions."""


async def test_no_resolver_that_answers() -> None:
    async with running(a_responder(View(), DEAD)) as port:
        answer = await by_udp(port, DNSRecord.question("example.com", "A"))
        assert answer.header.rcode == RCODE.SERVFAIL


async def test_the_next_resolver_is_asked(other: OtherResolver) -> None:
    async with running(a_responder(View(), DEAD, Resolver("127.0.0.1", other.port))) as port:
        assert addresses(await by_udp(port, DNSRecord.question("example.com", "A"))) == ["192.0.2.80"]


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"", None),
        (b"\0\1\2", None),
        (bytes(DNSRecord(DNSHeader(id=7, qr=1)).pack()), None),
        (bytes(DNSRecord(DNSHeader(id=7)).pack()), RCODE.FORMERR),
        (bytes(DNSRecord(DNSHeader(id=7, opcode=4)).pack()), RCODE.NOTIMP),
        (bytes(DNSRecord.question("example.com", qclass="CH").pack()), RCODE.REFUSED),
        (b"\0\7\1\0\0\1\0\0\0\0\0\0\xff\xff", RCODE.FORMERR),
    ],
)
async def test_garbage(data: bytes, rcode: int | None) -> None:
    reply = await a_responder(View()).respond(data, udp=True)
    if rcode is None:
        assert reply == b""
    else:
        assert DNSRecord.parse(reply).header.rcode == rcode


def test_resolv_conf(tmp_path) -> None:
    file = tmp_path / "resolv.conf"
    assert read_resolvers(file) == ()
    file.write_text("# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver junk\nnameserver 10.244.0.1\n")
    assert read_resolvers(file, exclude=["10.244.0.1"]) == (Resolver("192.0.2.1"), Resolver("fe80::1"))


def test_failures_are_not_remembered() -> None:
    assert lifetime_of(DNSRecord(DNSHeader(rcode=RCODE.SERVFAIL))) == 0
    assert lifetime_of(DNSRecord(DNSHeader(rcode=RCODE.NXDOMAIN))) == 0


async def test_an_address_that_somebody_else_has() -> None:
    responder = Responder(View(), Upstream((), ManualClock()), zone="cluster.local")
    with socket.create_server((LOCALHOST[0], 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            async with listening(LOCALHOST, port, responder):
                raise AssertionError("nobody can listen there")
    (error,) = caught.value.exceptions
    assert isinstance(error, CannotListen)
    assert str(error) == f"the DNS server cannot listen on {LOCALHOST[0]}, port {port}: Address already in use"
