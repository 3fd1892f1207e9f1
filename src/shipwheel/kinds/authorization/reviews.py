"""May they? Questions to the authorizers, about anybody (SubjectAccessReview) or about oneself."""

from __future__ import annotations

from typing import Any

from shipwheel.api.errors import FieldError, bad_request, invalid, invalid_object
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Attributes, Call, Resource, Server, UserInfo, Version
from shipwheel.kinds.authorization.selectors import FIELDS, LABELS, check_selectors, readable
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.declare import older, served

_GROUP = "authorization.k8s.io"


def _attributes(user: UserInfo, spec: Obj) -> Attributes:
    """What the review asks, as the authorizers take it."""
    resource = spec.get("resourceAttributes")
    if resource is None:
        path = spec.get("nonResourceAttributes") or {}
        return Attributes(user, path.get("verb", ""), path=path.get("path", ""), is_resource=False)
    return Attributes(
        user,
        resource.get("verb", ""),
        group=resource.get("group", ""),
        version=resource.get("version") or "*",
        resource=resource.get("resource", ""),
        subresource=resource.get("subresource", ""),
        namespace=resource.get("namespace", ""),
        name=resource.get("name", ""),
        label_selector=readable(resource, LABELS)[0],
        field_selector=readable(resource, FIELDS)[0],
    )


def _subject(spec: Obj) -> UserInfo:
    return UserInfo(
        spec.get("user", ""),
        tuple(spec.get("groups") or ()),
        spec.get("uid", ""),
        {key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
    )


async def _answer(server: Server, review: Obj, attributes: Attributes) -> Obj:
    decision = await server.authorize(attributes)
    status: Obj = {"allowed": decision.allowed}
    if decision.denied:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    resource = review["spec"].get("resourceAttributes") or {}
    complaints = [complaint for field in (FIELDS, LABELS) if (complaint := readable(resource, field)[1])]
    if complaints:
        status["evaluationError"] = "; ".join(complaints)
    return {**review, "status": status}


def _validate(review: Obj, *, names_subject: bool) -> list[FieldError]:
    spec = review.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    errors: Errors = []
    if resource is not None and path is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        errors.append(invalid("spec.nonResourceAttributes", path, detail))
    if resource is None and path is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(invalid("spec.resourceAttributes", None, detail))
    if names_subject and not spec.get("user") and not spec.get("groups"):
        errors.append(invalid("spec.user", "", "at least one of user or group must be specified"))
    check_selectors(resource or {}, "spec.resourceAttributes", errors)
    return errors


def _refuse(kind: str, errors: list[FieldError]) -> None:
    if errors:
        raise invalid_object(_GROUP, kind, "", errors)


async def _subject_access(server: Server, call: Call) -> Obj:
    review = call.body or {}
    _refuse("SubjectAccessReview", _validate(review, names_subject=True) + _no_metadata(review))
    return await _answer(server, review, _attributes(_subject(review["spec"]), review["spec"]))


async def _local_subject_access(server: Server, call: Call) -> Obj:
    review = call.body or {}
    errors = _validate(review, names_subject=True) + _no_metadata(review, but="namespace")
    spec = review.get("spec") or {}
    namespace = (review.get("metadata") or {}).get("namespace", "")
    resource = spec.get("resourceAttributes")
    if resource is not None and resource.get("namespace", "") != namespace:
        asked = resource.get("namespace", "")
        errors.append(invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace"))
    if spec.get("nonResourceAttributes") is not None:
        detail = "disallowed on this kind of request"
        errors.append(invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], detail))
    _refuse("LocalSubjectAccessReview", errors)
    if namespace != call.namespace:
        raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {call.namespace}")
    return await _answer(server, review, _attributes(_subject(spec), spec))


async def _self_subject_access(server: Server, call: Call) -> Obj:
    review = call.body or {}
    _refuse("SelfSubjectAccessReview", _validate(review, names_subject=False) + _no_metadata(review))
    return await _answer(server, review, _attributes(call.user, review["spec"]))


async def _self_subject_rules(server: Server, call: Call) -> Obj:
    namespace = ((call.body or {}).get("spec") or {}).get("namespace")
    if not namespace:
        raise bad_request("no namespace on request")
    resources, paths, incomplete = server.rules_for(call.user, namespace)
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": str(call.version.group_version),
        "metadata": {},
        "spec": {},
        "status": {"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete},
    }


def _no_metadata(review: Obj, but: str = "") -> list[FieldError]:
    """Reviews have no name or labels: they are not kept."""
    given = {
        key: value
        for key, value in (review.get("metadata") or {}).items()
        if value and key not in ("managedFields", but)
    }
    detail = f"must be empty except for {but}" if but else "must be empty"
    return [invalid("metadata", review["metadata"], detail)] if given else []


def _versions(kind: str, **facts: Any) -> tuple[Version, ...]:
    """v1, and v1beta1 with its conversions."""
    past = older(_GROUP, "v1beta1", kind, since="1.19", until="1.22", replacement=f"{_GROUP}/v1", **facts)
    return served(_GROUP, "v1", kind), past


def _of_v1beta1(review: Obj) -> Obj:
    return {**review, "spec": _renamed(review.get("spec") or {}, "group", "groups")}


def _to_v1beta1(review: Obj) -> Obj:
    return {**review, "spec": _renamed(review.get("spec") or {}, "groups", "group")}


def _renamed(spec: Obj, old: str, new: str) -> Obj:
    return {new if key == old else key: value for key, value in spec.items()}


RESOURCES = (
    Resource(
        kind="SubjectAccessReview",
        plural="subjectaccessreviews",
        singular="subjectaccessreview",
        namespaced=False,
        versions=_versions("SubjectAccessReview", to_storage=_of_v1beta1, from_storage=_to_v1beta1),
        verbs=("create",),
        call=_subject_access,
    ),
    Resource(
        kind="LocalSubjectAccessReview",
        plural="localsubjectaccessreviews",
        singular="localsubjectaccessreview",
        versions=_versions("LocalSubjectAccessReview", to_storage=_of_v1beta1, from_storage=_to_v1beta1),
        verbs=("create",),
        call=_local_subject_access,
    ),
    Resource(
        kind="SelfSubjectAccessReview",
        plural="selfsubjectaccessreviews",
        singular="selfsubjectaccessreview",
        namespaced=False,
        versions=_versions("SelfSubjectAccessReview"),
        verbs=("create",),
        call=_self_subject_access,
    ),
    Resource(
        kind="SelfSubjectRulesReview",
        plural="selfsubjectrulesreviews",
        singular="selfsubjectrulesreview",
        namespaced=False,
        versions=_versions("SelfSubjectRulesReview"),
        verbs=("create",),
        call=_self_subject_rules,
    ),
)
