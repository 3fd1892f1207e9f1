"""DNS messages on the wire (RFC 1035, EDNS by RFC 6891), by means of dnslib."""

from __future__ import annotations

import random

from dnslib import (
    AAAA,
    CLASS,
    CNAME,
    NS,
    OPCODE,
    PTR,
    QTYPE,
    RCODE,
    RR,
    SOA,
    SRV,
    TXT,
    A,
    DNSHeader,
    DNSRecord,
)

from shipwheel.network.dns.answer import Answer, Question, Record, Soa, Srv

MAX_PLAIN = 512
"""What a client takes by UDP unless it says otherwise."""
MAX_UDP = 1232
"""What travels unfragmented practically everywhere; larger answers go by TCP."""


class BadMessage(Exception):
    """Bytes that are no query; `reply` is what to send, empty for nothing at all."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("not a DNS query")
        self.reply = reply


def parse(data: bytes) -> DNSRecord:
    """Read a query of one question in the Internet class. Raises `BadMessage`."""
    try:
        message = DNSRecord.parse(data)
    except Exception as error:  # dnslib raises whatever its reading runs into
        raise BadMessage(_error(data, RCODE.FORMERR)) from error
    if message.header.qr:
        raise BadMessage
    if message.header.opcode != OPCODE.QUERY:
        raise BadMessage(_error(data, RCODE.NOTIMP))
    if len(message.questions) != 1:
        raise BadMessage(_error(data, RCODE.FORMERR))
    if message.q.qclass not in (CLASS.IN, 255):
        raise BadMessage(_error(data, RCODE.REFUSED))
    return message


def question_of(query: DNSRecord) -> Question:
    name = str(query.q.qname).rstrip(".").lower()
    kind = QTYPE.forward.get(query.q.qtype)
    return Question(name, kind or str(query.q.qtype))


def reply(query: DNSRecord, answer: Answer, *, shuffle: bool = True) -> DNSRecord:
    """The answer as a message. Addresses come in changing order, so that clients that take the first one
    spread."""
    message = _reply(query, getattr(RCODE, answer.rcode), authoritative=True)
    asked = question_of(query).name
    records = [_rr(each, query, asked) for each in answer.answers]
    if shuffle and len(records) > 1:
        random.shuffle(records)
    message.add_answer(*records)
    message.add_auth(*(_rr(each, query, asked) for each in answer.authority))
    message.add_ar(*(_rr(each, query, asked) for each in answer.additional))
    return message


def failure(query: DNSRecord, rcode: str) -> DNSRecord:
    return _reply(query, getattr(RCODE, rcode), authoritative=False)


def pack(query: DNSRecord, message: DNSRecord, *, udp: bool) -> bytes:
    """The bytes to send; what does not fit in a datagram that the client takes is cut off, and marked so."""
    data = bytes(message.pack())
    if not udp or len(data) <= _limit(query):
        return data
    return bytes(message.truncate().pack())


def _reply(query: DNSRecord, rcode: int, *, authoritative: bool) -> DNSRecord:
    header = DNSHeader(
        id=query.header.id, qr=1, aa=int(authoritative), rd=query.header.rd, ra=1, rcode=rcode
    )  # fmt: skip
    message = DNSRecord(header, q=query.q)
    if _edns(query) is not None:
        from dnslib import EDNS0

        message.add_ar(EDNS0(udp_len=MAX_UDP))
    return message


def _edns(query: DNSRecord) -> RR | None:
    return next((each for each in query.ar if each.rtype == QTYPE.OPT), None)


def _limit(query: DNSRecord) -> int:
    edns = _edns(query)
    return max(MAX_PLAIN, min(edns.edns_len, MAX_UDP)) if edns is not None else MAX_PLAIN


def _rr(record: Record, query: DNSRecord, asked: str) -> RR:
    # The owner is written as the client wrote it: some compare it with what they asked, case and all.
    owner = query.q.qname if record.name == asked else record.name
    return RR(owner, getattr(QTYPE, record.type), CLASS.IN, record.ttl, _rdata(record))


def _rdata(record: Record) -> object:
    match record.data:
        case Srv(priority, weight, port, target):
            return SRV(priority, weight, port, target)
        case Soa() as soa:
            times = (soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum)
            return SOA(soa.primary, soa.mailbox, times)
        case str() as text:
            return {"A": A, "AAAA": AAAA, "CNAME": CNAME, "PTR": PTR, "NS": NS, "TXT": TXT}[record.type](text)
    raise TypeError(record)


def _error(data: bytes, rcode: int) -> bytes:
    """A reply to a message that could not be read, if it is long enough to have an id."""
    if len(data) < 12 or data[2] & 0x80:
        return b""
    identity = int.from_bytes(data[:2], "big")
    return bytes(DNSRecord(DNSHeader(id=identity, qr=1, ra=1, rcode=rcode)).pack())
