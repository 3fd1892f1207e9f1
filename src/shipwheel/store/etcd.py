"""The distributed engine: a real etcd, version 3.4 or newer, over gRPC.

Keys are etcd's keys, revisions are etcd's revisions, and expiry is etcd's leases, so any number of API servers, ours or
upstream's, can share one cluster.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from shipwheel.api.clock import Clock, SystemClock
from shipwheel.store.base import (
    Compacted,
    FutureRevision,
    KeyValue,
    Mismatch,
    Page,
    Progress,
    StoreError,
    group_end,
)
from shipwheel.store.etcdapi import COMPACT, COMPARE_EQUAL, COMPARE_MOD_REVISION, RANGE, TXN, WATCH
from shipwheel.store.etcdclient import EtcdClient, Refused
from shipwheel.store.etcdwatch import ALL_KEYS, EtcdWatch, key_value
from shipwheel.store.leases import Leases

_PAGE = 500
"""So many keys are asked for at once, so that a large range neither fills memory nor holds up the event loop."""
_COMPACTED = "required revision has been compacted"
_FUTURE = "required revision is a future revision"
_NO_LEASE = "requested lease not found"


class EtcdStore:
    """`Store` in an etcd cluster."""

    shared = True

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        clock: Clock | None = None,
    ) -> None:
        """`endpoints` are URLs or host:port; files are PEM."""
        self._endpoints = endpoints
        self._files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        self._clock = clock or SystemClock()
        self._opened: EtcdClient | None = None
        self._leases: Leases
        self._watches: set[EtcdWatch] = set()

    async def open(self) -> None:
        self._opened = EtcdClient(self._endpoints, **self._files)
        self._leases = Leases(self._opened, self._clock)
        try:
            await self.revision()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    @property
    def _client(self) -> EtcdClient:
        if self._opened is None:
            raise StoreError(f"etcd at {', '.join(self._endpoints)}: not open")
        return self._opened

    async def get(self, key: str) -> KeyValue | None:
        found = await self._client.call(RANGE, {"key": key.encode()})
        return key_value(found["kvs"][0]) if "kvs" in found else None

    async def range(self, prefix: str, *, start: str | None = None, limit: int = 0, revision: int = 0) -> Page:
        key, end = _group(prefix)
        if start is not None:
            key = max(key, start.encode())
        items: list[KeyValue] = []
        while True:
            wanted = min(_PAGE, limit - len(items)) if limit else _PAGE
            request = {"key": key, "range_end": end, "limit": wanted, "revision": revision}
            found = await self._at(revision, request)
            revision = revision or found["header"]["revision"]
            items += map(key_value, found.get("kvs", ()))
            remaining = found.get("count", 0) - len(found.get("kvs", ()))
            if not remaining or len(items) == limit:
                return Page(items, revision, remaining)
            key = items[-1].key.encode() + b"\0"

    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: int = 0) -> KeyValue:
        name = key.encode()
        put: dict[str, Any] = {"key": name, "value": value}
        if ttl:
            put["lease"] = await self._leases.lease(ttl)
        # Who creates a key knows its create revision; otherwise the same transaction reads it first.
        reading = [] if expected == 0 else [{"range": {"key": name, "keys_only": True}}]
        try:
            answer = await self._transact(key, expected, [*reading, {"put": put}])
        except Refused as refusal:
            if not ttl or _NO_LEASE not in str(refusal):
                raise
            self._leases.forget(put["lease"])
            return await self.put(key, value, expected=expected, ttl=ttl)
        revision = answer["header"]["revision"]
        before = answer["responses"][0].get("range", {}).get("kvs")
        return KeyValue(key, value, revision, before[0]["create_revision"] if before else revision)

    async def delete(self, key: str, *, expected: int | None = None) -> KeyValue | None:
        request = {"delete_range": {"key": key.encode(), "prev_kv": True}}
        answer = await self._transact(key, expected, [request])
        before = answer["responses"][0]["delete_range"].get("prev_kvs")
        if not before:
            return None
        held = key_value(before[0])
        return KeyValue(key, held.value, answer["header"]["revision"], held.create_revision)

    async def _transact(self, key: str, expected: int | None, success: list[dict[str, Any]]) -> dict[str, Any]:
        """Do it if the key's revision is `expected`. Raises `Mismatch`."""
        request: dict[str, Any] = {"success": success}
        if expected is not None:
            compare = {
                "result": COMPARE_EQUAL,
                "target": COMPARE_MOD_REVISION,
                "key": key.encode(),
                "mod_revision": expected,
            }
            request |= {"compare": [compare], "failure": [{"range": {"key": key.encode()}}]}
        answer = await self._client.call(TXN, request, writes=True)
        if answer.get("succeeded"):
            return answer
        current = answer["responses"][0]["range"].get("kvs")
        raise Mismatch(key, key_value(current[0]) if current else None)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Progress]:
        watch = EtcdWatch(self._client, prefix, *_group(prefix), after)
        self._watches.add(watch)
        try:
            async with aclosing(watch.follow()) as following:
                async for progress in following:
                    yield progress
        finally:
            self._watches.discard(watch)

    async def request_progress(self) -> None:
        for watch in tuple(self._watches):
            await watch.request_progress()

    async def revision(self) -> int:
        answer = await self._client.call(RANGE, {"key": ALL_KEYS, "count_only": True})
        return answer["header"]["revision"]

    async def compact(self, revision: int) -> None:
        try:
            await self._client.call(COMPACT, {"revision": revision}, writes=True)
        except Refused as refusal:
            if _FUTURE in str(refusal):
                raise FutureRevision(revision, await self.revision()) from refusal
            if _COMPACTED not in str(refusal):  # else: it is done already
                raise

    async def _at(self, revision: int, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.call(RANGE, request)
        except Refused as refusal:
            if _FUTURE in str(refusal):
                raise FutureRevision(revision, await self.revision()) from refusal
            if _COMPACTED in str(refusal):
                raise Compacted(revision, await self._oldest()) from refusal
            raise

    async def _oldest(self) -> int:
        """The revision of the last compaction. etcd tells it only to who watches from before it."""
        async with self._client.stream(WATCH) as stream:
            await stream.send({"create": {"key": ALL_KEYS, "start_revision": 1}})
            while True:
                response = await stream.receive()
                if response.get("canceled") or response.get("events"):
                    return response.get("compact_revision", 0)


def _group(prefix: str) -> tuple[bytes, bytes]:
    """The range of keys that begin with `prefix`, in etcd's terms."""
    end = group_end(prefix)
    return prefix.encode() or ALL_KEYS, ALL_KEYS if end is None else end.encode()
