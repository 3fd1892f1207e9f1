"""The cluster's DNS server: sockets on one side, informers on the other, and the answering core in between.

Pods ask it under the address of the Service kube-system/kube-dns; behind that stands, on every node, the gateway
address of the node's pod network, where nothing but pods of this machine can reach it and no resolver of the
machine's own is in the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from dnslib import DNSRecord

from shipwheel.api.clock import Clock
from shipwheel.client.client import Client
from shipwheel.client.informer import EventType, Informer, drop_managed_fields
from shipwheel.client.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from shipwheel.network.dns import message
from shipwheel.network.dns.answer import Answer, Question, answer
from shipwheel.network.dns.upstream import Upstream, read_resolvers
from shipwheel.network.dns.view import View

log = logging.getLogger(__name__)

IP_FREEBIND = 15
MAX_ALIASES = 8
TCP_IDLE = 10.0


@dataclass(frozen=True, slots=True)
class Config:
    """`port` 0 takes any free one."""

    addresses: tuple[str, ...]
    port: int = 53
    domain: str = "cluster.local"
    resolv_conf: Path = field(default=Path("/etc/resolv.conf"))


class Responder:
    """From the bytes of a query to the bytes of the answer."""

    def __init__(self, view: View, upstream: Upstream, *, zone: str) -> None:
        self._view = view
        self._upstream = upstream
        self._zone = zone

    async def respond(self, data: bytes, *, udp: bool) -> bytes:
        """What to send back; nothing at all for what is no query."""
        try:
            query = message.parse(data)
        except message.BadMessage as bad:
            return bad.reply
        try:
            return await self._reply(query, udp=udp)
        except Exception:
            log.exception("no answer to %s", query.q)
            return message.pack(query, message.failure(query, "SERVFAIL"), udp=udp)

    async def _reply(self, query: DNSRecord, *, udp: bool) -> bytes:
        found = answer(message.question_of(query), self._view, zone=self._zone)
        if found is None:
            reply = await self._upstream.resolve(query, udp=udp) or message.failure(query, "SERVFAIL")
        else:
            reply = message.reply(query, found)
            if found.alias:
                await self._follow(query, found, reply, udp=udp)
        return message.pack(query, reply, udp=udp)

    async def _follow(self, query: DNSRecord, found: Answer, reply: DNSRecord, *, udp: bool) -> None:
        """Add the records that an alias leads to: in the cluster as long as it stays there, then outside."""
        kind = message.question_of(query).type
        alias = found.alias
        for _ in range(MAX_ALIASES):
            step = answer(Question(alias, kind), self._view, zone=self._zone)
            if step is None:
                asked = DNSRecord.question(alias, kind)
                outside = await self._upstream.resolve(asked, udp=udp)
                reply.add_answer(*(outside.rr if outside is not None else ()))
                return
            reply.add_answer(*message.reply(DNSRecord.question(alias, kind), step).rr)
            if not step.alias:
                return
            alias = step.alias


async def run(config: Config, *, client: Client, clock: Clock, ready: asyncio.Future[int] | None = None) -> None:
    """Serve until cancelled. `ready` gets the port when the sockets are open and the view is complete."""
    view = View()
    resolvers = read_resolvers(config.resolv_conf, exclude=config.addresses)
    responder = Responder(view, Upstream(resolvers, clock), zone=config.domain)
    informers = _informers(view, client)
    async with asyncio.TaskGroup() as tasks:
        for each in informers:
            tasks.create_task(each.run(), name=f"dns informer {each.gvr.resource}")
        for each in informers:
            await each.wait_synced()
        async with listening(config.addresses, config.port, responder) as port:
            log.info("DNS on %s, port %d", ", ".join(config.addresses), port)
            if ready is not None and not ready.done():
                ready.set_result(port)
            await asyncio.Event().wait()


class CannotListen(Exception):
    """On an address that the server needs; the message says which, and why."""

    def __init__(self, address: str, port: int, reason: str) -> None:
        super().__init__(f"the DNS server cannot listen on {address}, port {port}: {reason}")
        self.address = address
        self.port = port


@contextlib.asynccontextmanager
async def listening(addresses: tuple[str, ...], port: int, responder: Responder) -> AsyncIterator[int]:
    """Answer by UDP and TCP on the same port of all addresses, inside the block; gives the port. Raises
    `CannotListen`."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:
        for address in addresses:
            stream, datagram = _sockets(address, port)
            port = stream.getsockname()[1]
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(responder, tasks), sock=datagram)
            stack.callback(transport.close)
            server = await asyncio.start_server(
                lambda reader, writer: tasks.create_task(_serve_stream(responder, reader, writer)), sock=stream
            )
            stack.callback(server.close)
        yield port


def _sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket on the same port. The address need not exist yet: the pods'
    gateway comes with the first pod. Raises `CannotListen`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = socket.socket(family, socket.SOCK_STREAM)
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (stream, datagram):
            each.setblocking(False)
            with contextlib.suppress(OSError):  # Linux has it, others do without
                each.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        stream.bind((address, port))
        datagram.bind((address, stream.getsockname()[1]))
        stream.listen(128)
    except OSError as error:
        stream.close()
        datagram.close()
        raise CannotListen(address, port, error.strerror or str(error)) from error
    return stream, datagram


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder, tasks: asyncio.TaskGroup) -> None:
        self._responder = responder
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._tasks.create_task(self._answer(data, addr))

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._responder.respond(data, udp=True)
        if reply and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


async def _serve_stream(responder: Responder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Queries one after the other, each with its length in front (RFC 7766), until the client leaves."""
    try:
        while True:
            async with asyncio.timeout(TCP_IDLE):
                length = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(length)
            reply = await responder.respond(data, udp=False)
            if not reply:
                return
            writer.write(len(reply).to_bytes(2, "big") + reply)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return
    finally:
        writer.close()


def _informers(view: View, client: Client) -> list[Informer]:
    feeds = (
        (NAMESPACES, view.put_namespace, view.remove_namespace),
        (SERVICES, view.put_service, view.remove_service),
        (ENDPOINT_SLICES, view.put_slice, view.remove_slice),
    )
    informers = []
    for gvr, put, remove in feeds:

        def handle(event: EventType, new: dict | None, old: dict | None, put=put, remove=remove) -> None:
            if old is not None:
                remove(old)
            if new is not None:
                put(new)

        informer = Informer(client, gvr, transform=drop_managed_fields)
        informer.add_handler(handle)
        informers.append(informer)
    return informers
