"""Telling the API server of pods' statuses, and that they are gone.

The workers hand over statuses and go on; here they are written, one request at a time for a pod and pods beside
one another, again and again until they arrive. A status is only ever replaced by a newer one. When everything of a
deleted pod is stopped and cleaned up, its object is deleted for good, with a grace period of zero.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import PODS
from shipwheel.kubelet import podspec, status
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.status_patch import same, status_patch

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
MAXIMUM_RETRY_SECONDS = 10.0


class Directory(Protocol):
    """Which pods there are, as the API server has them."""

    def api_pod(self, uid: str) -> Obj | None:
        """The pod's object at the API server: for a static pod its mirror. None when there is none."""

    def could_be_running(self, uid: str) -> bool:
        """Whether something of the pod may still run here."""


@dataclass(slots=True)
class _Entry:
    pod: Obj
    status: Obj
    version: int
    finished: bool = False
    """Everything of the pod is stopped and cleaned up."""
    written: int = 0
    """The version that the server has."""
    newest: Obj | None = None
    """The object as the server answered the last time."""
    changed_at: float = 0.0
    """Monotonic time of the first change that is not written yet."""


class StatusManager:
    def __init__(self, client: Client | None, clock: Clock, directory: Directory, measures: KubeletMetrics) -> None:
        self._client = client
        self._clock = clock
        self._directory = directory
        self._measures = measures
        self._entries: dict[str, _Entry] = {}
        self._writing: set[str] = set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the writers until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for uid in self._entries:
                    self._write_soon(uid)
                await asyncio.Event().wait()
            finally:
                self._group = None

    def get(self, uid: str) -> Obj | None:
        """The last status handed over."""
        entry = self._entries.get(uid)
        return entry.status if entry else None

    def set(self, pod: Obj, new: Obj, *, finished: bool = False) -> None:
        """Hand over a status. `finished`: it is the last, everything of the pod is cleaned up."""
        uid = pod["metadata"]["uid"]
        entry = self._entries.get(uid)
        if entry is None:
            self._entries[uid] = _Entry(pod, new, 1, finished, changed_at=self._clock.monotonic())
        else:
            entry.pod = pod
            finished = entry.finished or finished
            if same(entry.status, new) and entry.finished == finished:
                return
            entry.status = new
            if entry.written == entry.version:
                entry.changed_at = self._clock.monotonic()
            entry.version += 1
            entry.finished = finished
        self._write_soon(uid)

    def reconcile(self, uid: str) -> None:
        """The server's object changed: see whether it still says what it should."""
        if uid in self._entries:
            self._entries[uid].version += 1
            self._write_soon(uid)

    def forget(self, uid: str) -> None:
        """The pod's object is gone."""
        self._entries.pop(uid, None)

    def _write_soon(self, uid: str) -> None:
        if self._group is not None and self._client is not None and uid not in self._writing:
            self._writing.add(uid)
            self._group.create_task(self._write(uid), name=f"status of pod {uid}")

    async def _write(self, uid: str) -> None:
        """Write until the server has the newest version, or the pod is gone."""
        delay = RETRY_SECONDS
        try:
            while (entry := self._entries.get(uid)) is not None and entry.written < entry.version:
                version = entry.version
                try:
                    await self._write_once(uid, entry)
                    entry.written = version
                    delay = RETRY_SECONDS
                except (ApiError, ConnectionFailed) as error:
                    if isinstance(error, ApiError) and error.code in (404, 409):
                        # Gone, or replaced by another pod of that name: the watch will tell.
                        entry.written = version
                        continue
                    log.warning("updating the status of pod %s: %s", podspec.describe(entry.pod), error)
                    await self._clock.sleep(delay)
                    delay = min(delay * 2, MAXIMUM_RETRY_SECONDS)
        finally:
            self._writing.discard(uid)

    async def _write_once(self, uid: str, entry: _Entry) -> None:
        assert self._client is not None
        current = self._current(uid, entry)
        if current is None:
            return
        meta = current["metadata"]
        merged = status.merge(
            current.get("status") or {},
            entry.status,
            could_be_running=not entry.finished and self._directory.could_be_running(uid),
            now=self._clock.now(),
        )
        patch = status_patch(meta["uid"], current.get("status") or {}, merged)
        if patch is not None:
            current = entry.newest = await self._client.patch(
                PODS, meta["name"], meta["namespace"], patch, kind="strategic", subresource="status"
            )
            self._measures.status_duration.observe(self._clock.monotonic() - entry.changed_at)
        if entry.finished and is_being_deleted(current) and not podspec.is_mirror(current):
            await self._client.delete(PODS, meta["name"], meta["namespace"], grace_period=0, uid=meta["uid"])

    def _current(self, uid: str, entry: _Entry) -> Obj | None:
        """The newest object that was seen: the watch may lag behind what the server answered us."""
        watched = self._directory.api_pod(uid)
        if watched is None:
            return None
        newest = entry.newest
        same_pod = newest is not None and newest["metadata"]["uid"] == watched["metadata"]["uid"]
        if newest is not None and same_pod and _revision(newest) > _revision(watched):
            return newest
        entry.newest = None
        return watched


def _revision(obj: Obj) -> int:
    text = obj["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0
