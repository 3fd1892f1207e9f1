"""Getting certificates from the cluster: a CertificateSigningRequest, and the wait until somebody has approved it.

`Rotation` keeps one certificate fresh: it asks for another one when the present one nears its end, or does not say what
it is to say (the node got other addresses).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, condition
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import CERTIFICATE_SIGNING_REQUESTS
from shipwheel.kubelet.certificates import (
    CertificateError,
    CertificateStore,
    Pair,
    new_key,
    public_part,
    request_for,
    user_of,
)

log = logging.getLogger(__name__)

ROTATION_PATIENCE = 15 * 60.0
FIRST_RETRY, LAST_RETRY = 2.0, 32.0
LOOK_AGAIN_SECONDS = 3600.0
"""So often at least, since the machine may have slept meanwhile."""
_WATCH_SECONDS = 60.0


class NotIssued(Exception):
    """The request was refused, or nobody has approved it in time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate is to say. `hosts` are DNS names and addresses."""

    node: str
    signer: str
    usages: Sequence[str]
    hosts: Sequence[str] = ()

    def said_by(self, pair: Pair) -> bool:
        name, hosts = pair.names()
        return name == user_of(self.node) and hosts >= frozenset(self.hosts)


async def issue(client: Client, wanted: Wanted, key: bytes, *, patience: float, again: bool = False) -> Pair:
    """Ask for a certificate and wait for it, at most `patience` seconds. NotIssued, ApiError, ConnectionFailed.

    With `again` the request is named after what it asks for, so that one that was broken off is taken up again.
    """
    request = base64.b64encode(request_for(key, wanted.node, wanted.hosts)).decode()
    spec = {"request": request, "signerName": wanted.signer, "usages": list(wanted.usages)}
    name = _name(key, wanted) if again else ""
    meta = {"name": name} if name else {"generateName": "csr-"}
    try:
        made = await client.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": meta, "spec": spec})
    except ApiError as error:
        if error.reason != "AlreadyExists" or not name:
            raise
        made = await client.get(CERTIFICATE_SIGNING_REQUESTS, name)
    try:
        async with asyncio.timeout(patience):
            certificate = await _issued(client, made)
    except TimeoutError:
        raise NotIssued(f"certificate request {made['metadata']['name']} was not signed") from None
    return Pair(certificate, key)


def _name(key: bytes, wanted: Wanted) -> str:
    told = "\n".join([public_part(key).decode(), wanted.signer, wanted.node, *wanted.usages])
    return f"node-csr-{hashlib.sha256(told.encode()).hexdigest()[:43]}"


async def _issued(client: Client, request: Obj) -> bytes:
    name = request["metadata"]["name"]
    while True:
        certificate = _certificate_of(request)
        if certificate:
            return certificate
        try:
            async for event in client.watch(
                CERTIFICATE_SIGNING_REQUESTS,
                resource_version=request["metadata"]["resourceVersion"],
                field_selector=f"metadata.name={name}",
                timeout=_WATCH_SECONDS,
            ):
                if event.type == "DELETED":
                    raise NotIssued(f"certificate request {name} was deleted")
                certificate = _certificate_of(event.object) if event.type != "BOOKMARK" else b""
                if certificate:
                    return certificate
            request = await client.get(CERTIFICATE_SIGNING_REQUESTS, name)
        except (ApiError, ConnectionFailed) as error:
            if isinstance(error, ApiError) and error.reason == "NotFound":
                raise NotIssued(f"certificate request {name} was deleted") from error
            log.info("waiting for certificate request %s: %s", name, error)
            await client.clock.sleep(FIRST_RETRY)


def _certificate_of(request: Obj) -> bytes:
    """What was issued; empty while nothing was. NotIssued when nothing will be."""
    name = request["metadata"]["name"]
    for kind, what in (("Denied", "denied"), ("Failed", "failed")):
        found = condition(request, kind)
        if found is not None:
            why = f"reason: {found.get('reason', '')}, message: {found.get('message', '')}"
            raise NotIssued(f"certificate signing request {name} is {what}, {why}")
    if condition(request, "Approved") is None:
        return b""
    return base64.b64decode((request.get("status") or {}).get("certificate") or "")


class Rotation:
    """Keeps the certificate in `store` fresh; `changed` is told of each new one."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        store: CertificateStore,
        wanted: Wanted,
        changed: Callable[[Pair], Awaitable[None]],
        *,
        present: Pair | None = None,
    ) -> None:
        """`present` is used until there is one of our own."""
        self._client = client
        self._clock = clock
        self._store = store
        self._wanted = wanted
        self._changed = changed
        self._pair = store.current() or present
        self._share = random.random()

    @property
    def pair(self) -> Pair | None:
        return self._pair

    async def run(self) -> None:
        delay = FIRST_RETRY
        while True:
            wait = self._due_in()
            if wait > 0:
                await self._clock.sleep(min(wait, LOOK_AGAIN_SECONDS))
                continue
            try:
                await self._renew()
                delay = FIRST_RETRY
            except (NotIssued, ApiError, ConnectionFailed, CertificateError, OSError) as error:
                log.warning("renewing the certificate of signer %s: %s", self._wanted.signer, error)
                await self._clock.sleep(delay)
                delay = min(2 * delay, LAST_RETRY)

    def _due_in(self) -> float:
        if self._pair is None or not self._wanted.said_by(self._pair):
            return 0.0
        return (self._pair.renewal(self._share) - self._clock.now()).total_seconds()

    async def _renew(self) -> None:
        pair = await issue(self._client, self._wanted, new_key(), patience=ROTATION_PATIENCE)
        self._store.keep(pair, self._clock.now())
        self._pair = pair
        self._share = random.random()
        log.info("there is a new certificate of signer %s", self._wanted.signer)
        await self._changed(pair)
