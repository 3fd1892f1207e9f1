"""Nobody gives away rights that they do not have: writing a role takes its rules or the verb `escalate`, binding one
takes its rules or the verb `bind`.

Upstream has this in the storage of the RBAC kinds; here it is a plugin that cannot be turned off.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from shipwheel.api.errors import forbidden_error
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Attributes, UserInfo
from shipwheel.apiserver.admission.chain import Attempt, Plugin
from shipwheel.apiserver.authz.chain import SUPERUSERS, Authorizer
from shipwheel.apiserver.authz.rbac import GROUP, RBAC_KINDS, RbacAuthorizer


class RbacEscalation(Plugin):
    name = "RBACEscalation"
    kinds = frozenset(RBAC_KINDS)

    def __init__(self, rbac: RbacAuthorizer, authorizer: Authorizer) -> None:
        self._rbac = rbac
        self._authorizer = authorizer

    async def validate(self, attempt: Attempt) -> None:
        obj, old = attempt.obj, attempt.old
        if obj is None or SUPERUSERS in attempt.user.groups:
            return
        if "roleRef" in obj:
            if old is not None and old.get("subjects") == obj.get("subjects"):
                return
            await self._binding(attempt, obj)
        elif (
            old is None
            or old.get("rules") != obj.get("rules")
            or old.get("aggregationRule") != obj.get("aggregationRule")
        ):
            await self._role(attempt, obj)

    async def _role(self, attempt: Attempt, role: Obj) -> None:
        if await self._may(attempt, "escalate", attempt.resource.plural, attempt.name):
            return
        rules = list(role.get("rules") or ())
        if role.get("aggregationRule"):
            rules += [
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]
        self._confirm(attempt, rules)

    async def _binding(self, attempt: Attempt, binding: Obj) -> None:
        ref = binding["roleRef"]
        plural = "roles" if ref.get("kind") == "Role" else "clusterroles"
        if await self._may(attempt, "bind", plural, ref.get("name", "")):
            return
        role = self._rbac.role(ref.get("kind", ""), attempt.namespace, ref.get("name", ""))
        if role is None:
            shown = f"{plural}.{GROUP}"
            raise forbidden_error(attempt.target, attempt.name, f'{shown} "{ref.get("name", "")}" not found')
        self._confirm(attempt, list(role.get("rules") or ()))

    async def _may(self, attempt: Attempt, verb: str, plural: str, name: str) -> bool:
        ask = Attributes(attempt.user, verb, GROUP, "*", plural, "", attempt.namespace, name)
        return (await self._authorizer.authorize(ask)).allowed

    def _confirm(self, attempt: Attempt, rules: list[Obj]) -> None:
        missing = [rule for rule in rules if not self._covers(attempt.user, attempt.namespace, rule)]
        if missing:
            user = attempt.user
            groups = " ".join(f'"{group}"' for group in user.groups)
            shown = "\n".join(_shown(rule) for rule in missing)
            raise forbidden_error(
                attempt.target,
                attempt.name,
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
                f"{shown}",
            )

    def _covers(self, user: UserInfo, namespace: str, rule: Obj) -> bool:
        held = [grant.rule for grant in self._rbac.grants(user) if not grant.namespace or grant.namespace == namespace]
        return all(any(_includes(each, part) for each in held) for part in parts(rule))


def parts(rule: Obj) -> Iterator[Obj]:
    """A rule taken apart into rules of one verb, group, resource and name each."""
    for verb in rule.get("verbs") or ():
        for url in rule.get("nonResourceURLs") or ():
            yield {"verbs": [verb], "nonResourceURLs": [url]}
        for group, resource in product(rule.get("apiGroups") or (), rule.get("resources") or ()):
            base = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
            names = rule.get("resourceNames")
            if names:
                for name in names:
                    yield {**base, "resourceNames": [name]}
            else:
                yield base


def _includes(held: Obj, part: Obj) -> bool:
    """Whether a rule that is held allows all that a part does."""
    if not _has(held.get("verbs"), part["verbs"][0]):
        return False
    if "nonResourceURLs" in part:
        url = part["nonResourceURLs"][0]
        return any(
            each in {url, "*"} or (each.endswith("*") and url.startswith(each[:-1]))
            for each in held.get("nonResourceURLs") or ()
        )
    if not _has(held.get("apiGroups"), part["apiGroups"][0]):
        return False
    resource = part["resources"][0]
    _, slash, subresource = resource.partition("/")
    resources = held.get("resources") or ()
    if not ({"*", resource} & set(resources) or (slash and f"*/{subresource}" in resources)):
        return False
    names = held.get("resourceNames")
    return not names or bool(part.get("resourceNames") and part["resourceNames"][0] in names)


def _has(values: list[str] | None, wanted: str) -> bool:
    return bool(values) and (wanted in values or "*" in values)  # type: ignore[operator]


def _shown(rule: Obj) -> str:
    """A rule as upstream's message writes it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`."""
    fields = []
    for key, label in (
        ("nonResourceURLs", "NonResourceURLs"),
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ):
        if rule.get(key):
            values = " ".join(f'"{value}"' for value in rule[key])
            fields.append(f"{label}:[{values}]")
    return "{" + ", ".join(fields) + "}"
