"""Role-based access control: who is bound to which rules.

Roles and bindings are read from the watch cache. What a user may do is worked out once and remembered until any role
or binding changes, so that nearly every decision is one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.resource import Attributes, Decision, UserInfo
from shipwheel.apiserver.watchcache import Change, ResourceCache, WatchCache

GROUP = "rbac.authorization.k8s.io"
_ROLES = GroupResource(GROUP, "roles")
_CLUSTER_ROLES = GroupResource(GROUP, "clusterroles")
_ROLE_BINDINGS = GroupResource(GROUP, "rolebindings")
_CLUSTER_ROLE_BINDINGS = GroupResource(GROUP, "clusterrolebindings")
RBAC_KINDS = (_ROLES, _CLUSTER_ROLES, _ROLE_BINDINGS, _CLUSTER_ROLE_BINDINGS)
_NO_OPINION = Decision(False)
_REMEMBERED = 10_000
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that somebody has, where (empty: everywhere) and why."""

    namespace: str
    rule: Obj
    because: str


class RbacAuthorizer:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._answers: dict[tuple[object, ...], list[tuple[Sequence[str], Decision]]] = {}
        """Decisions by all of a question but the object's name; each with the names it is for (none: any)."""
        self._grants: dict[tuple[str, tuple[str, ...]], list[Grant]] = {}
        cache.on_change(self._changed)

    def _changed(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.group == GROUP:
            self._answers.clear()
            self._grants.clear()

    def authorize(self, ask: Attributes) -> Decision:
        key = (
            ask.user.name, ask.user.groups, ask.verb, ask.group, ask.resource, ask.subresource, ask.namespace,
            ask.path if not ask.is_resource else "",
        )  # fmt: skip
        answers = self._answers.get(key)
        if answers is None:
            if len(self._answers) > _REMEMBERED:
                self._answers.clear()
            answers = self._answers[key] = list(self._decide(ask))
        for names, decision in answers:
            if not names or ask.name in names:
                return decision
        return _NO_OPINION

    def _decide(self, ask: Attributes) -> Iterator[tuple[Sequence[str], Decision]]:
        """Up to the first that is for any name."""
        for grant in self.grants(ask.user):
            if grant.namespace and grant.namespace != ask.namespace:
                continue
            if covers(grant.rule, ask):
                names = (grant.rule.get("resourceNames") or ()) if ask.is_resource else ()
                yield names, Decision(True, f"RBAC: allowed by {grant.because}")
                if not names:
                    return

    def grants(self, user: UserInfo) -> list[Grant]:
        """Every rule the user has, through whatever binding."""
        key = (user.name, user.groups)
        found = self._grants.get(key)
        if found is None:
            found = self._grants[key] = list(self._find_grants(user))
        return found

    def _find_grants(self, user: UserInfo) -> Iterator[Grant]:
        for binding in self._all(_CLUSTER_ROLE_BINDINGS):
            subject = _subject_of(binding, user, "")
            if subject is not None:
                yield from self._rules(binding, subject, "")
        for binding in self._all(_ROLE_BINDINGS):
            namespace = binding["metadata"]["namespace"]
            subject = _subject_of(binding, user, namespace)
            if subject is not None:
                yield from self._rules(binding, subject, namespace)

    def _rules(self, binding: Obj, subject: Obj, namespace: str) -> Iterator[Grant]:
        ref = binding["roleRef"]
        role = self.role(ref["kind"], namespace, ref["name"])
        if role is None:
            return
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        name = binding["metadata"]["name"]
        shown = f"{name}/{namespace}" if namespace else name
        because = f'{kind} "{shown}" of {ref["kind"]} "{ref["name"]}" to {_show(subject)}'
        for rule in role.get("rules") or ():
            yield Grant(namespace, rule, because)

    def role(self, kind: str, namespace: str, name: str) -> Obj | None:
        resource = _ROLES if kind == "Role" else _CLUSTER_ROLES
        cache = self._cache_of(resource)
        entry = cache.get(namespace if kind == "Role" else "", name) if cache is not None else None
        return entry.peek() if entry is not None else None

    def _all(self, resource: GroupResource) -> Iterable[Obj]:
        cache = self._cache_of(resource)
        return [entry.peek() for entry in cache.entries.values()] if cache is not None else ()

    def _cache_of(self, resource: GroupResource) -> ResourceCache | None:
        return self._cache.caches.get(resource.resource)

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[Obj], list[Obj]]:
        """(resource rules, non-resource rules) of a user in a namespace, for SelfSubjectRulesReview."""
        resource_rules: list[Obj] = []
        other: list[Obj] = []
        for grant in self.grants(user):
            if grant.namespace and grant.namespace != namespace:
                continue
            rule = grant.rule
            if rule.get("resources"):
                keys = ("verbs", "apiGroups", "resources", "resourceNames")
                resource_rules.append({key: rule[key] for key in keys if rule.get(key)})
            if rule.get("nonResourceURLs"):
                other.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
        return resource_rules, other


def _subject_of(binding: Obj, user: UserInfo, namespace: str) -> Obj | None:
    """The subject of a binding that the user is."""
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User":
            if name == user.name:
                return subject
        elif kind == "Group":
            if name in user.groups:
                return subject
        elif kind == "ServiceAccount":
            scope = subject.get("namespace") or namespace
            if scope and user.name == f"{_SERVICE_ACCOUNT}{scope}:{name}":
                return subject
    return None


def _show(subject: Obj) -> str:
    name = subject["name"]
    if subject["kind"] == "ServiceAccount":
        name = f"{name}/{subject.get('namespace', '')}"
    return f'{subject["kind"]} "{name}"'


def allows(rule: Obj, ask: Attributes) -> bool:
    """Whether one rule covers what is asked."""
    names = rule.get("resourceNames") if ask.is_resource else None
    return covers(rule, ask) and (not names or ask.name in names)


def covers(rule: Obj, ask: Attributes) -> bool:
    """The same, whatever the object's name."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and ask.verb not in verbs:
        return False
    if not ask.is_resource:
        return any(_path_matches(pattern, ask.path) for pattern in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if "*" not in groups and ask.group not in groups:
        return False
    return _resource_matches(rule.get("resources") or (), ask.resource, ask.subresource)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in {"*", path} or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def _resource_matches(resources: Iterable[str], resource: str, subresource: str) -> bool:
    full = f"{resource}/{subresource}" if subresource else resource
    for each in resources:
        if each in ("*", full):
            return True
        if subresource and each == f"*/{subresource}":
            return True
    return False
