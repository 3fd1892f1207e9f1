"""A watch on etcd that outlives its connections.

How far a watch has come is known in one of two ways. From 3.4.31, 3.5.13 and 3.6 on, a progress notification
that was asked for says so truly. Before, it could overtake events (etcd issue 15220), so there we watch all
keys and drop the foreign ones: then every revision shows itself by an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from shipwheel.store.base import Compacted, Event, KeyValue, Progress, StoreError
from shipwheel.store.etcdapi import EVENT_DELETE, STATUS, WATCH
from shipwheel.store.etcdclient import EtcdClient, Stream, Unreachable

_log = logging.getLogger(__name__)

_PAUSE = 0.2
ALL_KEYS = b"\0"
"""As key and as range end: from the first key on, without end."""


class EtcdWatch:
    """Every event on keys with `prefix` after a revision; `progress` can be asked for meanwhile."""

    def __init__(self, client: EtcdClient, prefix: str, key: bytes, range_end: bytes, after: int) -> None:
        self._client = client
        self._prefix = prefix.encode()
        self._key = key
        self._range_end = range_end
        self._position = after
        self._stream: Stream | None = None

    async def follow(self) -> AsyncGenerator[Progress, None]:
        """For ever, over any number of streams. Raises `Compacted`, and StoreError when etcd refuses."""
        while True:
            try:
                async with aclosing(self._follow_stream()) as following:
                    async for progress in following:
                        yield progress
            except Unreachable as error:
                _log.warning("the watch on etcd broke off at revision %d: %s", self._position, error)
            await asyncio.sleep(_PAUSE)

    async def request_progress(self) -> None:
        if self._stream is not None:
            try:
                await self._stream.send({"progress": {}})
            except Unreachable as error:
                _log.debug("no progress from a broken stream: %s", error)  # `follow` sees it too, and reconnects

    async def _follow_stream(self) -> AsyncGenerator[Progress, None]:
        truthful = tells_progress_truly((await self._client.call(STATUS, {})).get("version", ""))
        async with self._client.stream(WATCH) as stream:
            create = {
                "key": self._key if truthful else ALL_KEYS,
                "range_end": self._range_end if truthful else ALL_KEYS,
                "start_revision": self._position + 1,
                "progress_notify": True,
                "prev_kv": True,
                "fragment": True,
            }
            await stream.send({"create": create})
            try:
                fragments: list[dict[str, Any]] = []
                while True:
                    response = await stream.receive()
                    if response.get("canceled"):
                        raise self._cancelled(response)
                    if response.get("created"):
                        self._stream = stream
                        continue
                    fragments += response.get("events", ())
                    if response.get("fragment"):
                        continue
                    if not fragments and truthful:
                        self._position = max(self._position, response["header"]["revision"])
                    events = self._events(fragments)
                    fragments = []
                    yield Progress(self._position, events)
            finally:
                self._stream = None

    def _events(self, raw: list[dict[str, Any]]) -> list[Event]:
        events = []
        for each in raw:
            kv = each["kv"]
            self._position = kv["mod_revision"]
            if kv["key"].startswith(self._prefix):
                events.append(self._event(each, kv))
        return events

    def _event(self, raw: dict[str, Any], kv: dict[str, Any]) -> Event:
        revision = kv["mod_revision"]
        deleted = raw.get("type") == EVENT_DELETE
        created = not deleted and kv["create_revision"] == revision
        if not created and "prev_kv" not in raw:
            # etcd can only read what was before while that is not compacted.
            raise Compacted(revision - 1, revision)
        before = None if created else key_value(raw["prev_kv"])
        return Event(revision, kv["key"].decode(), None if deleted else key_value(kv), before)

    def _cancelled(self, response: dict[str, Any]) -> StoreError:
        if response.get("compact_revision"):
            return Compacted(self._position, response["compact_revision"])
        reason = response.get("cancel_reason", "the watch was cancelled")
        return Unreachable(reason) if "no leader" in reason else StoreError(reason)


def key_value(kv: dict[str, Any]) -> KeyValue:
    return KeyValue(kv["key"].decode(), kv.get("value", b""), kv["mod_revision"], kv["create_revision"])


def tells_progress_truly(version: str) -> bool:
    """Whether a progress notification of this etcd never overtakes events."""
    try:
        major, minor, patch = (int(part) for part in version.split("-", maxsplit=1)[0].split("."))
    except ValueError:
        return False
    fixed_in = {(3, 4): 31, (3, 5): 13}
    return patch >= fixed_in[major, minor] if (major, minor) in fixed_in else (major, minor) >= (3, 6)
