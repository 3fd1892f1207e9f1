"""The cluster's CA certificate in every namespace, where pods' projected volumes take it from."""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, namespace_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CONFIG_MAPS, NAMESPACES
from shipwheel.controllers.framework import Context, is_already_exists, is_not_found, namespace_is_terminating

CONFIG_MAP = "kube-root-ca.crt"
_DESCRIPTION = "kubernetes.io/description"
_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as "
    "the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class RootCaPublisher:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._data = {"ca.crt": ctx.config.root_ca}
        self._namespaces = ctx.informer(NAMESPACES)
        self._maps = ctx.informers.informer(CONFIG_MAPS, field_selector=f"metadata.name={CONFIG_MAP}")
        self._loop = ctx.loop(
            "root_ca_cert_publisher", self.reconcile, workers=1, informers=(self._namespaces, self._maps)
        )
        self._namespaces.add_handler(self._on_namespace)
        self._maps.add_handler(self._on_map)

    async def run(self) -> None:
        await self._loop.run()

    def _on_namespace(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None:
            self._loop.add(new)

    def _on_map(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if old is not None:
            self._loop.queue.add(namespace_of(old))

    async def reconcile(self, key: str) -> float | None:
        namespace = self._namespaces.get("", key)
        if namespace is None or (namespace.get("status") or {}).get("phase") != "Active":
            return None
        current = self._maps.get(key, CONFIG_MAP)
        if current is None:
            await self._create(key)
        elif current.get("data") != self._data or annotations_of(current).get(_DESCRIPTION) != _TEXT:
            annotations = {**annotations_of(current), _DESCRIPTION: _TEXT}
            metadata = {**current["metadata"], "annotations": annotations}
            try:
                await self._ctx.client.update(CONFIG_MAPS, {**current, "metadata": metadata, "data": self._data})
            except ApiError as error:
                if not is_not_found(error):
                    raise
        return None

    async def _create(self, namespace: str) -> None:
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": namespace, "annotations": {_DESCRIPTION: _TEXT}},
            "data": self._data,
        }
        try:
            await self._ctx.client.create(CONFIG_MAPS, config_map)
        except ApiError as error:
            if not (is_already_exists(error) or namespace_is_terminating(error)):
                raise
