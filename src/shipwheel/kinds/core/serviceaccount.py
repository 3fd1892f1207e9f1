"""Service accounts: who pods are to the API; and the tokens that say so (KEP-1205)."""

from __future__ import annotations

from datetime import timedelta

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError, FieldError, bad_request, conflict, invalid, invalid_object
from shipwheel.api.meta import GroupResource, GroupVersion, GroupVersionKind, Obj, annotations_of
from shipwheel.api.resource import Call, Resource, Server, Strategy, Subresource, WriteContext
from shipwheel.kinds import catalog
from shipwheel.kinds.columns import AGE, NAME
from shipwheel.kinds.declare import served

TOKEN_REQUEST = GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest")
_ACCOUNTS = GroupResource("", "serviceaccounts")
_PODS = GroupResource("", "pods")
_NODES = GroupResource("", "nodes")
_SECRETS = GroupResource("", "secrets")

DEFAULT_LIFETIME = 3600
_MIN_LIFETIME = 600
_MAX_LIFETIME = 1 << 32
_MOUNTABLE_SECRETS = "kubernetes.io/enforce-mountable-secrets"
_WARN_AFTER = 3607
"""Seconds that kubelets ask for when clients may not reload tokens yet: such a token lives a year, and says
after this long that it should have been renewed."""
_EXTENDED_LIFETIME = 365 * 24 * 3600


class ServiceAccountStrategy(Strategy):
    returns_deleted = True
    tracks_generation = False

    def prepare_for_create(self, account: Obj, ctx: WriteContext) -> None:
        _keep_names_only(account)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: WriteContext) -> None:
        _keep_names_only(new)

    def warnings(self, new: Obj, old: Obj | None) -> list[str]:
        if _MOUNTABLE_SECRETS not in annotations_of(new) or (old and _MOUNTABLE_SECRETS in annotations_of(old)):
            return []
        return [
            f"metadata.annotations[{_MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to "
            "isolate access to mounted secrets"
        ]


def _keep_names_only(account: Obj) -> None:
    if account.get("secrets"):
        account["secrets"] = [{"name": secret["name"]} if secret.get("name") else {} for secret in account["secrets"]]


# Tokens


async def _token(server: Server, call: Call) -> Obj:
    request = call.body or {}
    metadata = dict(request.get("metadata") or {})
    spec = dict(request.get("spec") or {})
    _must_match(metadata, "name", call.name, call.name)
    _must_match(metadata, "namespace", call.namespace, call.name)
    account = await server.get(_ACCOUNTS, call.namespace, call.name)
    uid = account["metadata"]["uid"]
    if metadata.get("uid") not in (None, "", uid):
        raise conflict(
            GroupResource(TOKEN_REQUEST.group, TOKEN_REQUEST.kind),
            call.name,
            f"the UID in the token request ({metadata['uid']}) does not match the UID of the service account ({uid})",
        )
    own_audiences = list(server.means("audiences"))
    audiences = spec.get("audiences") or own_audiences
    lifetime = spec.get("expirationSeconds") or DEFAULT_LIFETIME
    if not _MIN_LIFETIME <= lifetime <= _MAX_LIFETIME:
        limit = "less than 10 minutes" if lifetime < _MIN_LIFETIME else "larger than 2^32 seconds"
        detail = f"may not specify a duration {limit}"
        raise _invalid("", invalid("spec.expirationSeconds", lifetime, detail))
    claims: Obj = {
        "namespace": call.namespace,
        "serviceaccount": {"name": call.name, "uid": uid},
    }
    reference = spec.get("boundObjectRef")
    bound = await _bound_object(server, call, reference) if reference is not None else {}
    claims |= bound
    signed_for = lifetime
    if "pod" in bound and lifetime == _WARN_AFTER and set(audiences) <= set(own_audiences):
        signed_for = _EXTENDED_LIFETIME
        claims["warnafter"] = int(server.clock.now().timestamp()) + lifetime
    now = server.clock.now()
    private = {"kubernetes.io": claims, "sub": f"system:serviceaccount:{call.namespace}:{call.name}"}
    token, _ = server.issue_token(private, audiences=audiences, lifetime=signed_for)
    return {
        "kind": TOKEN_REQUEST.kind,
        "apiVersion": str(TOKEN_REQUEST.group_version),
        "metadata": {
            **metadata,
            "name": call.name,
            "namespace": call.namespace,
            "uid": uid,
            "creationTimestamp": rfc3339(now),
        },
        "spec": {**spec, "audiences": audiences, "expirationSeconds": lifetime},
        "status": {"token": token, "expirationTimestamp": rfc3339(now + timedelta(seconds=lifetime))},
    }


def _must_match(metadata: Obj, field: str, wanted: str, name: str) -> None:
    if metadata.get(field) not in (None, "", wanted):
        detail = f"must match the service account {field} if specified"
        raise _invalid(name, invalid(f"metadata.{field}", metadata[field], detail))


def _invalid(name: str, error: FieldError) -> ApiError:
    return invalid_object(TOKEN_REQUEST.group, TOKEN_REQUEST.kind, name, [error])


async def _bound_object(server: Server, call: Call, reference: Obj) -> Obj:
    """The claims about the object that the token shall not outlive: a pod (and its node), a node or a secret."""
    gv = GroupVersion.parse(reference.get("apiVersion", ""))
    group, kind, name = gv.group, reference.get("kind", ""), reference.get("name", "")
    if group == "" and kind in ("Pod", "Node", "Secret") and not name:
        raise bad_request("Name parameter required.")
    if group == "" and kind == "Pod":
        obj = await server.get(_PODS, call.namespace, name)
        if obj["spec"].get("serviceAccountName") != call.name:
            raise bad_request(
                f'cannot bind token for serviceaccount "{call.name}" to pod running with different serviceaccount name.'
            )
    elif group == "" and kind == "Node":
        obj = await server.get(_NODES, "", name)
    elif group == "" and kind == "Secret":
        obj = await server.get(_SECRETS, call.namespace, name)
    else:
        raise bad_request(f"cannot bind token to object of type {gv.group}/{gv.version}, Kind={kind}")
    uid = obj["metadata"]["uid"]
    if reference.get("uid") not in (None, "", uid):
        raise conflict(
            GroupResource("", kind),
            name,
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated",
        )
    claims: Obj = {kind.lower(): {"name": name, "uid": uid}}
    node = obj["spec"].get("nodeName") if kind == "Pod" else None
    if node:
        known = server.peek(_NODES, "", node)
        claims["node"] = {"name": node} | ({"uid": known["metadata"]["uid"]} if known else {})
    return claims


RESOURCES = (
    Resource(
        kind="ServiceAccount",
        plural="serviceaccounts",
        singular="serviceaccount",
        short_names=("sa",),
        versions=(served("", "v1", "ServiceAccount"),),
        strategy=ServiceAccountStrategy(),
        columns=(NAME, AGE),
        subresources=(
            Subresource(
                "token",
                ("create",),
                kind=TOKEN_REQUEST,
                schema=catalog.schema_for(TOKEN_REQUEST),
                call=_token,
            ),
        ),
    ),
)
