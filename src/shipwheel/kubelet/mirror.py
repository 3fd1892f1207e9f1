"""Mirror pods: the images of static pods at the API server, so that others see what runs here.

A mirror is made when its static pod runs, made again when somebody deletes it, and deleted with its static pod. The
kubelet never runs a mirror.
"""

from __future__ import annotations

import asyncio
import logging

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, is_being_deleted
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.resources import NODES, PODS
from shipwheel.kubelet import podspec

log = logging.getLogger(__name__)

RETRY_SECONDS = 3.0


class Mirrors:
    """`run()` owns the writing; without a client nothing is written."""

    def __init__(self, client: Client | None, clock: Clock, node_name: str) -> None:
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._mirrors: dict[tuple[str, str], Obj] = {}
        self._wanted: dict[tuple[str, str], Obj] = {}
        """The static pods that run here."""
        self._dirty: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._node_uid = ""

    def ensure(self, pod: Obj) -> None:
        """See to it that a static pod has its mirror. Other pods have none."""
        if not podspec.is_static(pod):
            return
        key = _key(pod)
        self._wanted[key] = pod
        if not self._fits(key):
            self._dirty.put_nowait(key)

    def forget(self, pod: Obj) -> None:
        """The static pod is gone."""
        key = _key(pod)
        wanted = self._wanted.get(key)
        if wanted is not None and wanted["metadata"]["uid"] == pod["metadata"]["uid"]:
            del self._wanted[key]
            self._dirty.put_nowait(key)

    def seen(self, mirror: Obj, *, gone: bool) -> str | None:
        """A mirror as the watch has it; returns the uid of its static pod, if that runs here."""
        key = _key(mirror)
        if gone:
            self._mirrors.pop(key, None)
        else:
            self._mirrors[key] = mirror
        static = self._wanted.get(key)
        if not self._fits(key):
            self._dirty.put_nowait(key)
        return static["metadata"]["uid"] if static is not None and not gone else None

    def of(self, pod: Obj) -> Obj | None:
        """The mirror of a static pod."""
        mirror = self._mirrors.get(_key(pod))
        return mirror if mirror is not None and _hash(mirror) == _hash(pod) else None

    def _fits(self, key: tuple[str, str]) -> bool:
        static, mirror = self._wanted.get(key), self._mirrors.get(key)
        if static is None or mirror is None:
            return static is mirror
        return _hash(static) == _hash(mirror) and not is_being_deleted(mirror)

    async def run(self) -> None:
        while True:
            key = await self._dirty.get()
            if self._client is None or self._fits(key):
                continue
            try:
                await self._write(self._client, key)
            except (ApiError, ConnectionFailed) as error:
                log.warning("Failed creating or deleting a mirror pod for %s/%s: %s", *key, error)
                await self._clock.sleep(RETRY_SECONDS)
                self._dirty.put_nowait(key)

    async def _write(self, client: Client, key: tuple[str, str]) -> None:
        namespace, name = key
        static, mirror = self._wanted.get(key), self._mirrors.get(key)
        if mirror is not None:
            try:
                await client.delete(PODS, name, namespace, grace_period=0, uid=mirror["metadata"]["uid"])
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
            self._mirrors.pop(key, None)
        if static is None:
            return
        if not self._node_uid:
            self._node_uid = (await client.get(NODES, self._node_name))["metadata"]["uid"]
        try:
            self._mirrors[key] = await client.create(PODS, self._mirror_of(static), namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            await self._clock.sleep(RETRY_SECONDS)
            if not self._fits(key):
                self._dirty.put_nowait(key)

    def _mirror_of(self, static: Obj) -> Obj:
        meta = static["metadata"]
        annotations = {**annotations_of(static), podspec.CONFIG_MIRROR: _hash(static)}
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": self._node_name,
            "uid": self._node_uid,
            "controller": True,
        }
        made: Obj = {"name": meta["name"], "namespace": meta["namespace"], "annotations": annotations}
        if meta.get("labels"):
            made["labels"] = meta["labels"]
        made["ownerReferences"] = [owner]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": static["spec"]}


def _key(pod: Obj) -> tuple[str, str]:
    return pod["metadata"].get("namespace", ""), pod["metadata"]["name"]


def _hash(pod: Obj) -> str:
    return annotations_of(pod).get(podspec.CONFIG_HASH, "")
