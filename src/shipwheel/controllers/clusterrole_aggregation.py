"""ClusterRoles with an aggregation rule get the rules of all roles that their selectors choose."""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.meta import Obj, labels_of, name_of
from shipwheel.api.selectors import from_label_selector
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CLUSTER_ROLES
from shipwheel.controllers.framework import Context


def aggregated_rules(role: Obj, roles: Iterable[Obj]) -> list[Obj]:
    """The rules of the chosen roles, by selector and name, each once."""
    others = sorted((each for each in roles if name_of(each) != name_of(role)), key=name_of)
    rules: list[Obj] = []
    for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
        matches = from_label_selector(selector).matches
        for other in others:
            if matches(labels_of(other)):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


class ClusterRoleAggregationController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._roles = ctx.informer(CLUSTER_ROLES)
        self._loop = ctx.loop("ClusterRoleAggregator", self.reconcile, workers=5, informers=(self._roles,))
        self._roles.add_handler(self._on_role)

    async def run(self) -> None:
        await self._loop.run()

    def _on_role(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for role in self._roles.list():
            if role.get("aggregationRule"):
                self._loop.add(role)

    async def reconcile(self, key: str) -> float | None:
        role = self._roles.get("", key)
        if role is None or not role.get("aggregationRule"):
            return None
        rules = aggregated_rules(role, self._roles.list())
        if rules == (role.get("rules") or []):
            return None
        # Applied rather than updated: the manager need not have the rights that it hands on (it may `escalate`).
        patch = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": key},
            "rules": rules,
        }
        await self._ctx.client.patch(
            CLUSTER_ROLES,
            key,
            "",
            patch,
            kind="apply",
            field_manager="clusterrole-aggregation-controller",
            force=True,
        )
        return None
