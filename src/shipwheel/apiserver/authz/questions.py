"""A request as the question it puts to the authorizers, and how it is told that the answer is no."""

from __future__ import annotations

from shipwheel.api.errors import ApiError, forbidden_error
from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Attributes, UserInfo
from shipwheel.apiserver.requestinfo import RequestInfo
from shipwheel.client.httpserver import Request


def attributes_of(request: Request, info: RequestInfo, user: UserInfo, *, verb: str = "") -> Attributes:
    """The question a request puts to the authorizers."""
    if not info.is_resource:
        return Attributes(user, verb or info.verb, path=info.path, is_resource=False)
    selectors = ("", "")
    if info.verb in ("list", "watch", "deletecollection") and request.raw_query:
        selectors = (request.parameter("labelSelector"), request.parameter("fieldSelector"))
    name = info.name
    if not name and selectors[1].startswith("metadata.name=") and "," not in selectors[1]:
        name = selectors[1][len("metadata.name=") :]
    return Attributes(
        user,
        verb or info.verb,
        info.group,
        info.version,
        info.resource,
        info.subresource,
        info.namespace,
        name,
        info.path,
        True,
        *selectors,
    )


def forbidden_to(info: RequestInfo, user: UserInfo, reason: str, *, verb: str = "") -> ApiError:
    """403 in upstream's words."""
    verb = verb or info.verb
    if not info.is_resource:
        why = f'User "{user.name}" cannot {verb} path "{info.path}"'
        message = f"forbidden: {why}" + (f": {reason}" if reason else "")
        return ApiError(403, "Forbidden", message, details={})
    what = info.resource + (f"/{info.subresource}" if info.subresource else "")
    why = f'User "{user.name}" cannot {verb} resource "{what}" in API group "{info.group}"'
    if info.namespace:
        why += f' in the namespace "{info.namespace}"'
    else:
        why += " at the cluster scope"
    if reason:
        why += f": {reason}"
    return forbidden_error(GroupResource(info.group, info.resource), info.name, why)
