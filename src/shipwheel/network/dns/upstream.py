"""Names outside the cluster: asked of the machine's own resolvers, and remembered for a while."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from dnslib import QTYPE, RCODE, DNSRecord

from shipwheel.api.clock import Clock

MAX_TTL = 30
"""Seconds that an answer is remembered at most."""
MAX_ENTRIES = 10_000
ATTEMPT_TIMEOUT = 2.0
MAX_CONCURRENT = 1000


@dataclass(frozen=True, slots=True)
class Resolver:
    host: str
    port: int = 53


def read_resolvers(path: Path, *, exclude: Sequence[str] = ()) -> tuple[Resolver, ...]:
    """The `nameserver` lines of a resolv.conf. An address in `exclude` is our own: asking it would go round in
    circles."""
    if not path.exists():
        return ()
    found: list[Resolver] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            host = str(ip_address(words[1].partition("%")[0]))
        except ValueError:
            continue
        if host not in exclude:
            found.append(Resolver(host))
    return tuple(found)


class Upstream:
    """Asks resolvers in turn until one answers, and caches what they say."""

    def __init__(self, resolvers: Sequence[Resolver], clock: Clock) -> None:
        self._resolvers = tuple(resolvers)
        self._clock = clock
        self._cache: OrderedDict[tuple[str, int, bool], _Cached] = OrderedDict()
        self._places = asyncio.Semaphore(MAX_CONCURRENT)

    async def resolve(self, query: DNSRecord, *, udp: bool) -> DNSRecord | None:
        """The answer as a message with the query's id, or None when no resolver gave any."""
        key = _key(query)
        cached = self._recall(key)
        if cached is None:
            async with self._places:
                fetched = await self._ask(query, udp=udp)
            if fetched is None:
                return None
            self._remember(key, fetched)
            cached = fetched
        cached.header.id = query.header.id
        cached.questions = [query.q]
        return cached

    async def _ask(self, query: DNSRecord, *, udp: bool) -> DNSRecord | None:
        exchange = _by_udp if udp else _by_tcp
        outgoing = DNSRecord.parse(query.pack())
        for resolver in self._resolvers:
            outgoing.header.id = random.getrandbits(16)
            try:
                async with asyncio.timeout(ATTEMPT_TIMEOUT):
                    answer = await exchange(resolver, bytes(outgoing.pack()))
                return DNSRecord.parse(answer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
            except Exception as error:  # dnslib raises whatever its reading runs into
                if type(error).__module__.startswith("dnslib"):
                    continue
                raise
        return None

    def _recall(self, key: tuple[str, int, bool]) -> DNSRecord | None:
        cached = self._cache.get(key)
        if cached is None:
            return None
        age = int(self._clock.monotonic() - cached.stored)
        if age >= cached.lifetime:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        message = DNSRecord.parse(cached.message)
        for record in (*message.rr, *message.auth, *message.ar):
            if record.rtype != QTYPE.OPT:
                record.ttl = max(0, record.ttl - age)
        return message

    def _remember(self, key: tuple[str, int, bool], message: DNSRecord) -> None:
        lifetime = lifetime_of(message)
        if lifetime <= 0:
            return
        self._cache[key] = _Cached(bytes(message.pack()), self._clock.monotonic(), lifetime)
        if len(self._cache) > MAX_ENTRIES:
            self._cache.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Cached:
    message: bytes
    stored: float
    lifetime: int


def lifetime_of(message: DNSRecord) -> int:
    """How many seconds an answer may be remembered (RFC 2308 for one that says there is nothing)."""
    if message.header.tc or message.header.rcode not in (RCODE.NOERROR, RCODE.NXDOMAIN):
        return 0
    if message.rr:
        return min(MAX_TTL, *(each.ttl for each in message.rr))
    for record in message.auth:
        if record.rtype == QTYPE.SOA:
            return min(MAX_TTL, record.ttl, record.rdata.times[4])
    return 0


def _key(query: DNSRecord) -> tuple[str, int, bool]:
    """Name, type, and whether signatures are wanted."""
    secure = any(each.rtype == QTYPE.OPT and each.edns_do for each in query.ar)
    return str(query.q.qname).lower(), query.q.qtype, secure


class _Exchange(asyncio.DatagramProtocol):
    """One datagram out, the first that bears its id back."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.sendto(self._query)  # type: ignore[attr-defined]

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._query[:2] and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _by_udp(resolver: Resolver, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    # Connected, so that the kernel drops what others send; a new port each time, so that none can be guessed.
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Exchange(query), remote_addr=(resolver.host, resolver.port)
    )
    try:
        return await protocol.answer
    finally:
        transport.close()


async def _by_tcp(resolver: Resolver, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver.host, resolver.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
