"""The ConfigMaps and Secrets that this node's pods refer to, followed by watches.

A node may read only what its pods refer to (the node authorizer), one object at a time; so each object that a pod
refers to is followed by a watch of its own, from the first pod that needs it to the last. Immutable objects are not
watched any longer once they are known. When one changes, `changed(uid)` is called for each pod that uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersionResource, Obj
from shipwheel.client.client import Client
from shipwheel.client.informer import Informer, drop_managed_fields
from shipwheel.client.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from shipwheel.kubelet import podspec
from shipwheel.kubelet.tokens import Tokens, trust_anchors

SYNC_SECONDS = 1.0
"""How long a reader waits for the first answer."""
_SINGULAR = {CONFIG_MAPS: "configmap", SECRETS: "secret"}

Key = tuple[GroupVersionResource, str, str]
"""(resource, namespace, name)"""


@dataclass(slots=True)
class _Followed:
    informer: Informer
    task: asyncio.Task[None] | None = None
    pods: set[str] = field(default_factory=set)


def references(pod: Obj) -> Iterator[Key]:
    """Every ConfigMap and Secret that a pod refers to."""
    namespace = pod["metadata"].get("namespace", "")
    for name in _names(pod["spec"].get("imagePullSecrets"), "name"):
        yield SECRETS, namespace, name
    for container in podspec.all_containers(pod):
        for source in container.get("envFrom") or ():
            yield from _environment_references(source, ("configMapRef", "secretRef"), namespace)
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            yield from _environment_references(source, ("configMapKeyRef", "secretKeyRef"), namespace)
    for volume in pod["spec"].get("volumes") or ():
        yield from _volume_references(volume, namespace)


def _names(listed: list[Obj] | None, key: str) -> list[str]:
    return [each[key] for each in listed or () if each.get(key)]


def _environment_references(source: Obj, fields: tuple[str, str], namespace: str) -> Iterator[Key]:
    for field_name, resource in zip(fields, (CONFIG_MAPS, SECRETS), strict=True):
        name = (source.get(field_name) or {}).get("name")
        if name:
            yield resource, namespace, name


def _volume_references(volume: Obj, namespace: str) -> Iterator[Key]:
    if name := (volume.get("configMap") or {}).get("name"):
        yield CONFIG_MAPS, namespace, name
    if name := (volume.get("secret") or {}).get("secretName"):
        yield SECRETS, namespace, name
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _environment_references(source, ("configMap", "secret"), namespace)
    for kind in volume.values():
        if not isinstance(kind, dict):
            continue
        for field_name in ("secretRef", "nodePublishSecretRef"):
            if name := (kind.get(field_name) or {}).get("name"):
                yield SECRETS, namespace, name


class ObjectCache:
    """`run()` owns the watches. Tokens and trust bundles are not followed but asked for (`tokens`)."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[str], None]) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._followed: dict[Key, _Followed] = {}
        self._of_pod: dict[str, set[Key]] = {}
        self._tokens = Tokens(client, clock)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for followed in self._followed.values():
                    self._begin(followed)
                await asyncio.Event().wait()
            finally:
                self._group = None

    async def ensure(self, pod: Obj) -> None:
        """Follow whatever the pod refers to, and wait a moment until it is here."""
        uid = pod["metadata"]["uid"]
        wanted = set(references(pod))
        for key in self._of_pod.get(uid, set()) - wanted:
            self._release(uid, key)
        for key in wanted:
            followed = self._followed.get(key)
            if followed is None:
                followed = self._followed[key] = self._follow(key)
            followed.pods.add(uid)
        self._of_pod[uid] = wanted
        waiting = [self._followed[key].informer for key in wanted if not self._followed[key].informer.synced]
        if waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    for informer in waiting:
                        await informer.wait_synced()

    def forget(self, uid: str) -> None:
        """The pod is gone, or needs nothing any more."""
        for key in self._of_pod.pop(uid, set()):
            self._release(uid, key)
        self._tokens.forget(uid)

    def peek_config_map(self, namespace: str, name: str) -> Obj | None:
        return self._peek((CONFIG_MAPS, namespace, name))

    def peek_secret(self, namespace: str, name: str) -> Obj | None:
        return self._peek((SECRETS, namespace, name))

    async def config_map(self, namespace: str, name: str) -> Obj:
        """ApiError when it is not there, or not known yet."""
        return await self._get((CONFIG_MAPS, namespace, name))

    async def secret(self, namespace: str, name: str) -> Obj:
        return await self._get((SECRETS, namespace, name))

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        return await self._tokens.token(pod, audience=audience, expiration_seconds=expiration_seconds)

    async def service_account(self, namespace: str, name: str) -> Obj:
        return await self._client.get(SERVICE_ACCOUNTS, name, namespace)

    async def trust_anchors(self, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
        return await trust_anchors(self._client, name=name, signer=signer, selector=selector, optional=optional)

    def _peek(self, key: Key) -> Obj | None:
        followed = self._followed.get(key)
        return followed.informer.get(key[1], key[2]) if followed else None

    async def _get(self, key: Key) -> Obj:
        followed = self._followed.get(key)
        kind = _SINGULAR[key[0]]
        if followed is None:
            raise ApiError(404, "NotFound", f'object "{key[1]}"/"{key[2]}" not registered')
        found = followed.informer.get(key[1], key[2])
        if found is None and not followed.informer.synced:
            try:
                async with asyncio.timeout(SYNC_SECONDS):
                    await followed.informer.wait_synced()
            except TimeoutError:
                text = f"failed to sync {kind} cache: timed out waiting for the condition"
                raise ApiError(504, "Timeout", text) from None
            found = followed.informer.get(key[1], key[2])
        if found is None:
            raise ApiError(404, "NotFound", f'{kind} "{key[2]}" not found')
        return found

    def _follow(self, key: Key) -> _Followed:
        resource, namespace, name = key
        informer = Informer(
            self._client,
            resource,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            transform=drop_managed_fields,
            clock=self._clock,
        )
        followed = _Followed(informer)

        def on_event(kind: str, new: Obj | None, old: Obj | None) -> None:
            if new is not None and new.get("immutable") and followed.task is not None:
                followed.task.cancel()
            for uid in list(followed.pods):
                self._changed(uid)

        informer.add_handler(on_event)
        self._begin(followed)
        return followed

    def _begin(self, followed: _Followed) -> None:
        if self._group is not None and followed.task is None:
            followed.task = self._group.create_task(followed.informer.run())

    def _release(self, uid: str, key: Key) -> None:
        followed = self._followed.get(key)
        if followed is None:
            return
        followed.pods.discard(uid)
        if not followed.pods:
            del self._followed[key]
            if followed.task is not None:
                followed.task.cancel()


class NoObjects:
    """Without an API server there are none."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def ensure(self, pod: Obj) -> None:
        return

    def forget(self, uid: str) -> None:
        return

    def peek_config_map(self, namespace: str, name: str) -> Obj | None:
        return None

    def peek_secret(self, namespace: str, name: str) -> Obj | None:
        return None

    async def config_map(self, namespace: str, name: str) -> Obj:
        raise ApiError(404, "NotFound", f"couldn't get configMap {namespace}/{name}, no kubeClient defined")

    async def secret(self, namespace: str, name: str) -> Obj:
        raise ApiError(404, "NotFound", f"couldn't get secret {namespace}/{name}, no kubeClient defined")

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        raise ApiError(404, "NotFound", "cannot use TokenManager when kubelet is in standalone mode")

    async def service_account(self, namespace: str, name: str) -> Obj:
        raise ApiError(404, "NotFound", f'serviceaccount "{name}" not found')

    async def trust_anchors(self, *, name: str, signer: str, selector: Obj | None, optional: bool) -> str:
        raise ApiError(404, "NotFound", "ClusterTrustBundle projection is not supported in static kubelet mode")
