"""Generic ephemeral volumes (KEP-1698): a pod's volume with a claim template gets a claim of its own, which the pod
owns and which therefore goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, is_being_deleted, key_of, name_of, namespace_of, owner_reference, split_key
from shipwheel.client.informer import EventType
from shipwheel.client.resources import PERSISTENT_VOLUME_CLAIMS
from shipwheel.controllers.framework import Context, Retry
from shipwheel.controllers.volumes import caches
from shipwheel.kinds.claims import claim_name, not_made_for


def ephemeral_volumes(pod: Obj) -> Iterable[Obj]:
    return [volume for volume in pod["spec"].get("volumes") or () if volume.get("ephemeral")]


def make_claim(pod: Obj, volume: Obj) -> Obj:
    template = volume["ephemeral"]["volumeClaimTemplate"]
    meta = template.get("metadata") or {}
    owner = owner_reference({**pod, "apiVersion": "v1", "kind": "Pod"})
    metadata: Obj = {"name": claim_name(pod, volume), "ownerReferences": [owner]}
    metadata |= {key: meta[key] for key in ("labels", "annotations") if meta.get(key)}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}


class EphemeralVolumeController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pods = caches.pods_of_claims(ctx)
        self._claims = caches.claims(ctx)
        self._loop = ctx.loop(
            "ephemeral_volume",
            self.reconcile,
            workers=ctx.config.concurrent_ephemeralvolume_syncs,
            informers=(self._pods, self._claims),
        )
        self._pods.add_handler(self._on_pod)
        self._claims.add_handler(self._on_claim)
        self._attempts = ctx.metrics.counter(
            "ephemeral_volume_controller_create_total",
            "[ALPHA] Number of PersistenVolumeClaims creation requests",
        )
        self._failures = ctx.metrics.counter(
            "ephemeral_volume_controller_create_failures_total",
            "[ALPHA] Number of PersistenVolumeClaims creation requests",
        )

    async def run(self) -> None:
        await self._loop.run()

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and kind == "ADDED":
            self._queue(new)

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None and old is not None:
            for pod in self._pods.by_index("claim", key_of(old)):
                self._queue(pod)

    def _queue(self, pod: Obj) -> None:
        if not is_being_deleted(pod) and ephemeral_volumes(pod):
            self._loop.add(pod)

    async def reconcile(self, key: str) -> float | None:
        pod = self._pods.get(*split_key(key))
        if pod is None or is_being_deleted(pod):
            return None
        for volume in ephemeral_volumes(pod):
            try:
                await self._ensure(pod, volume)
            except Retry as error:
                message = f"ephemeral volume {volume['name']}: {error}"
                self._ctx.recorder.event(pod, "Warning", "FailedBinding", message)
                raise
        return None

    async def _ensure(self, pod: Obj, volume: Obj) -> None:
        claim = self._claims.get(namespace_of(pod), claim_name(pod, volume))
        if claim is not None:
            if why := not_made_for(claim, pod):
                raise Retry(why)
            return
        self._attempts.inc()
        wanted = make_claim(pod, volume)
        try:
            await self._ctx.client.create(PERSISTENT_VOLUME_CLAIMS, wanted, namespace_of(pod))
        except ApiError as error:
            self._failures.inc()
            raise Retry(f"create PVC {name_of(wanted)}: {error}") from error
