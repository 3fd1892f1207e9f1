"""Acting as somebody else: the `Impersonate-*` headers, allowed by the verb `impersonate`."""

from __future__ import annotations

from urllib.parse import unquote

from shipwheel.api.errors import bad_request, forbidden_error
from shipwheel.api.meta import GroupResource
from shipwheel.api.resource import Attributes, UserInfo
from shipwheel.apiserver.authn.requests import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS
from shipwheel.apiserver.authz.chain import Authorizer
from shipwheel.client.httpserver import Request

_EXTRA = "impersonate-extra-"
_NAMES = frozenset({b"impersonate-user", b"impersonate-group", b"impersonate-uid"})
_SERVICE_ACCOUNT = "system:serviceaccount:"


def wants_impersonation(request: Request) -> bool:
    """Any of the headers will do: those that come without a user are an error, not nothing."""
    for name in request.header_names:
        if name.startswith(b"impersonate-") and (name in _NAMES or name.startswith(_EXTRA.encode())):
            return True
    return False


async def impersonate(request: Request, requester: UserInfo, authorizer: Authorizer) -> UserInfo:
    """The user to act as. ApiError 403 when the sender may not, 400 when the headers make no sense."""
    user = request.header("impersonate-user")
    groups = request.header_values("impersonate-group")
    uid = request.header("impersonate-uid")
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in request.headers:
        if key.startswith(_EXTRA):
            name = unquote(key[len(_EXTRA) :]).lower()
            extra[name] = (*extra.get(name, ()), value)
    if not user:
        raise bad_request("requested [{groups extra uid}] without impersonating a user")
    if user.startswith(_SERVICE_ACCOUNT) and user.count(":") == 3:
        _, _, namespace, name = user.split(":")
        await _require(authorizer, requester, "", "serviceaccounts", name, namespace=namespace)
        if not groups:
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        else:
            for group in groups:
                await _require(authorizer, requester, "", "groups", group)
    else:
        await _require(authorizer, requester, "", "users", user)
        for group in groups:
            await _require(authorizer, requester, "", "groups", group)
    if uid:
        await _require(authorizer, requester, "authentication.k8s.io", "uids", uid)
    for name, values in extra.items():
        for value in values:
            await _require(authorizer, requester, "authentication.k8s.io", "userextras", value, subresource=name)
    if user == ANONYMOUS.name:
        if ALL_UNAUTHENTICATED not in groups:
            groups = [*groups, ALL_UNAUTHENTICATED]
    elif ALL_AUTHENTICATED not in groups and ALL_UNAUTHENTICATED not in groups:
        groups = [*groups, ALL_AUTHENTICATED]
    return UserInfo(user, tuple(groups), uid, extra)


async def _require(
    authorizer: Authorizer,
    requester: UserInfo,
    group: str,
    resource: str,
    name: str,
    *,
    namespace: str = "",
    subresource: str = "",
) -> None:
    ask = Attributes(requester, "impersonate", group, "v1", resource, subresource, namespace, name, is_resource=True)
    decision = await authorizer.authorize(ask)
    if not decision.allowed:
        what = resource + (f"/{subresource}" if subresource else "")
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{requester.name}" cannot impersonate resource "{what}" in API group "{group}" {where}'
        raise forbidden_error(
            GroupResource(group, resource), name, why + (f": {decision.reason}" if decision.reason else "")
        )
