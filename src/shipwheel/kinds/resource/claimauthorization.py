"""Who may write which part of a ResourceClaim's status (KEP-4817, granular authorization).

Beside the right to write the status itself it takes, for what is allocated and reserved, the right to write
`resourceclaims/binding` in the whole cluster; and for what a driver reports of its devices, one to write
`resourceclaims/driver` of the driver's name. The verb of the latter says whether the writer is a service account on the
node that the claim is allocated to (`associated-node:`) or anybody (`arbitrary-node:`), so that a driver's agent can be
given its own node only.
"""

from __future__ import annotations

from shipwheel.api.errors import forbidden
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Attributes, Server, UserInfo, WriteContext
from shipwheel.kinds.checks import Errors
from shipwheel.kinds.columns import dig
from shipwheel.kinds.resource.claimstatus import device_key

_GROUP, _RESOURCE = "resource.k8s.io", "resourceclaims"
_NODE_NAME = "authentication.kubernetes.io/node-name"
"""Where a bound token says which node its pod is on."""
_ASSOCIATED, _ARBITRARY = "associated-node:", "arbitrary-node:"


async def check_status_writer(new: Obj, old: Obj, server: Server, ctx: WriteContext, errors: Errors) -> None:
    after, before = new.get("status") or {}, old.get("status") or {}
    if any(after.get(field) != before.get(field) for field in ("allocation", "reservedFor")):
        ask = _question(ctx, ctx.verb, "binding")
        if refusal := await _refusal(server, ask):
            detail = (
                f'changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", '
                f'verb="{ctx.verb}" permission: {refusal}'
            )
            errors.append(forbidden("status.allocation", detail))
    if not after.get("allocation"):
        return
    verbs = [_ARBITRARY + ctx.verb]
    if _is_on(ctx.user, allocated_node(after["allocation"])):
        verbs.insert(0, _ASSOCIATED + ctx.verb)
    namespace = new["metadata"].get("namespace", "")
    for driver in sorted(changed_drivers(after, before)):
        asks = [_question(ctx, verb, "driver", namespace, driver) for verb in verbs]
        if refusal := await _first_refusal(server, asks):
            shown = " ".join(verbs)
            detail = (
                f'changing status.devices requires resource="resourceclaims/driver", verb="[{shown}]" permission: '
                f"{refusal}"
            )
            errors.append(forbidden("status.devices", detail))


def changed_drivers(after: Obj, before: Obj) -> set[str]:
    """The drivers whose reports were added, changed or removed."""
    now, then = ({device_key(each): each for each in status.get("devices") or ()} for status in (after, before))
    changed = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    return {(now.get(key) or then[key]).get("driver", "") for key in changed}


def allocated_node(allocation: Obj) -> str:
    """The one node that a claim is allocated to; empty when it is none or may be several."""
    terms: list[Obj] = dig(allocation, "nodeSelector", "nodeSelectorTerms") or []
    if len(terms) != 1 or terms[0].get("matchExpressions") or len(terms[0].get("matchFields") or []) != 1:
        return ""
    field: Obj = terms[0]["matchFields"][0]
    values: list[str] = field.get("values") or []
    named = field.get("key") == "metadata.name" and field.get("operator") == "In" and len(values) == 1
    return values[0] if named else ""


def _is_on(user: UserInfo, node: str) -> bool:
    return bool(node) and user.name.startswith("system:serviceaccount:") and user.extra.get(_NODE_NAME) == (node,)


def _question(ctx: WriteContext, verb: str, subresource: str, namespace: str = "", name: str = "") -> Attributes:
    return Attributes(
        ctx.user,
        verb,
        group=_GROUP,
        version=ctx.resource.storage.version,
        resource=_RESOURCE,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


async def _first_refusal(server: Server, asks: list[Attributes]) -> str:
    """Why none of them is allowed; empty when one is."""
    refusals = []
    for ask in asks:
        if not (refusal := await _refusal(server, ask)):
            return ""
        refusals.append(refusal)
    return refusals[0]


async def _refusal(server: Server, ask: Attributes) -> str:
    decision = await server.authorize(ask)
    if decision.allowed:
        return ""
    named = f' "{ask.name}"' if ask.name else ""
    where = f'in the namespace "{ask.namespace}"' if ask.namespace else "at the cluster scope"
    reason = f": {decision.reason}" if decision.reason else ""
    return (
        f'{_RESOURCE}.{_GROUP}{named} is forbidden: User "{ask.user.name}" cannot {ask.verb} resource '
        f'"{_RESOURCE}/{ask.subresource}" in API group "{_GROUP}" {where}{reason}'
    )
