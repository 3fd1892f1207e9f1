"""Which flow schema a request belongs to: the first, in the order of their precedence, with a rule that fits.

Schemas are the objects' own specs; what is found is remembered by who asks (see `fairness`), so nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shipwheel.api.meta import Obj, name_of
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.requestinfo import RequestInfo

_ACCOUNT = "system:serviceaccount:"


def in_order(schemas: Iterable[Obj]) -> list[Obj]:
    """Flow schemas in the order in which they are tried."""
    return sorted(schemas, key=lambda schema: (schema["spec"]["matchingPrecedence"], name_of(schema)))


def first_match(schemas: Sequence[Obj], info: RequestInfo, user: UserInfo) -> Obj | None:
    return next((schema for schema in schemas if matches(schema["spec"], info, user)), None)


def matches(spec: Obj, info: RequestInfo, user: UserInfo) -> bool:
    """Whether a flow schema's spec has a rule for this request of this user."""
    for rule in spec.get("rules") or ():
        if any(_is_subject(subject, user) for subject in rule["subjects"]):
            if info.is_resource:
                found = any(_fits(each, info) for each in rule.get("resourceRules") or ())
            else:
                found = any(_fits_path(each, info) for each in rule.get("nonResourceRules") or ())
            if found:
                return True
    return False


def distinguisher(spec: Obj, info: RequestInfo, user: UserInfo) -> str:
    """What tells the flows of one schema apart."""
    method = (spec.get("distinguisherMethod") or {}).get("type")
    if method == "ByUser":
        return user.name
    return info.namespace if method == "ByNamespace" else ""


def _is_subject(subject: Obj, user: UserInfo) -> bool:
    if subject["kind"] == "User":
        return subject["user"]["name"] in ("*", user.name)
    if subject["kind"] == "Group":
        return subject["group"]["name"] == "*" or subject["group"]["name"] in user.groups
    account = subject["serviceAccount"]
    of_namespace = f"{_ACCOUNT}{account['namespace']}:"
    if account["name"] == "*":
        return user.name.startswith(of_namespace)
    return user.name == of_namespace + account["name"]


def _among(value: str, values: Sequence[str]) -> bool:
    return value in values or list(values) == ["*"]


def _fits(rule: Obj, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (_among(info.verb, rule["verbs"]) and _among(resource, rule["resources"])):
        return False
    if not _among(info.group, rule["apiGroups"]):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _among(info.namespace, rule.get("namespaces") or ())


def _fits_path(rule: Obj, info: RequestInfo) -> bool:
    return _among(info.verb, rule["verbs"]) and any(_is_path(url, info.path) for url in rule["nonResourceURLs"])


def _is_path(url: str, path: str) -> bool:
    return url in ("*", path) or path.startswith(f"{url.removesuffix('*').removesuffix('/')}/")
