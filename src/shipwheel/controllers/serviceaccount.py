"""Every namespace has a service account called `default`."""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, namespace_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import NAMESPACES, SERVICE_ACCOUNTS
from shipwheel.controllers.framework import Context, is_already_exists, namespace_is_terminating

_WANTED = ("default",)


class ServiceAccountController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._namespaces = ctx.informer(NAMESPACES)
        self._accounts = ctx.informer(SERVICE_ACCOUNTS)
        self._loop = ctx.loop("serviceaccount", self.reconcile, workers=1, informers=(self._namespaces, self._accounts))
        self._namespaces.add_handler(self._loop.on_event)
        self._accounts.add_handler(self._on_account)

    async def run(self) -> None:
        await self._loop.run()

    def _on_account(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is None and old is not None and name_of(old) in _WANTED:
            self._loop.queue.add(namespace_of(old))

    async def reconcile(self, key: str) -> float | None:
        namespace = self._namespaces.get("", key)
        if namespace is None or (namespace.get("status") or {}).get("phase") != "Active":
            return None
        for name in _WANTED:
            if self._accounts.get(key, name) is not None:
                continue
            account = {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": key},
            }  # fmt: skip
            try:
                await self._ctx.client.create(SERVICE_ACCOUNTS, account)
            except ApiError as error:
                if not (is_already_exists(error) or namespace_is_terminating(error)):
                    raise
        return None
