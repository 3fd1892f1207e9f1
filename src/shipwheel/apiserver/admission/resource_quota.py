"""ResourceQuota: what an object takes is charged to the quotas that cover it, or it is refused.

It comes last, when nothing else can refuse the object. The charge is written before the object is, so that two writers
cannot both take the last of something; should the object's own write fail, the quota controller counts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from shipwheel.api.meta import GroupResource, Obj
from shipwheel.api.quantity import Quantity, parse
from shipwheel.api.resource import UserInfo
from shipwheel.apiserver.admission.chain import Attempt, Plugin
from shipwheel.kinds.quota import CLAIMS, PODS, SERVICES, covers, usage

QUOTAS = GroupResource("", "resourcequotas")
_ON_UPDATE = frozenset({PODS, SERVICES, CLAIMS})
_COMPUTE = ("cpu", "memory")
"""What containers have to say when a quota is about it."""

Amounts = dict[str, Quantity]


class ResourceQuota(Plugin):
    name = "ResourceQuota"

    def __init__(self, server: Any, quotas: Callable[[str], Sequence[Obj]], user: UserInfo) -> None:
        self._server = server
        self._quotas = quotas
        self._user = user

    async def validate(self, attempt: Attempt) -> None:
        obj = attempt.obj
        if obj is None or not attempt.namespace or attempt.target == QUOTAS:
            return
        if attempt.subresource and not (attempt.subresource == "resize" and attempt.target == PODS):
            return
        if attempt.operation == "UPDATE" and attempt.target not in _ON_UPDATE:
            return
        quotas = self._quotas(attempt.namespace)
        if not quotas:
            return
        now = self._server.clock.now()
        delta = _delta(attempt, now)
        for quota in quotas:
            if covers(quota, attempt.target, obj):
                await self._charge(attempt, quota, obj, delta)

    async def _charge(self, attempt: Attempt, quota: Obj, obj: Obj, delta: Amounts) -> None:
        name = quota["metadata"]["name"]
        hard = (quota.get("status") or {}).get("hard") or {}
        if attempt.operation == "CREATE" and attempt.target == PODS:
            missing = unspecified(obj, hard)
            if missing:
                raise attempt.forbid(f"failed quota: {name}: must specify {missing}")
        wanted = {resource: amount for resource, amount in delta.items() if resource in hard and amount.sign()}
        if not wanted:
            return
        used = (quota.get("status") or {}).get("used") or {}
        unknown = sorted(resource for resource in wanted if resource not in used)
        if unknown:
            raise attempt.forbid(f"status unknown for quota: {name}, resources: {','.join(unknown)}")
        if attempt.dry_run:
            _add(attempt, quota, wanted)
            return

        def charge(current: Obj) -> Obj:
            return _add(attempt, current, wanted)

        await self._server.change(QUOTAS, attempt.namespace, name, charge, user=self._user, subresource="status")


def _add(attempt: Attempt, quota: Obj, wanted: Amounts) -> Obj:
    """The quota with more of it used; ApiError 403 when that is too much."""
    status = dict(quota.get("status") or {})
    hard, used = status.get("hard") or {}, dict(status.get("used") or {})
    after = {resource: parse(used.get(resource, "0")) + amount for resource, amount in wanted.items()}
    over = sorted(
        resource
        for resource, amount in after.items()
        if wanted[resource].sign() > 0 and resource in hard and amount > parse(hard[resource])
    )
    if over:
        requested = _shown({resource: wanted[resource] for resource in over})
        raise attempt.forbid(
            f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, "
            f"used: {_shown({resource: used.get(resource, '0') for resource in over})}, "
            f"limited: {_shown({resource: hard[resource] for resource in over})}"
        )
    used |= {resource: str(amount) for resource, amount in after.items()}
    return {**quota, "status": {**status, "used": used}}


def _delta(attempt: Attempt, now: datetime) -> Amounts:
    """What the write takes more than was taken before."""
    assert attempt.obj is not None
    after = usage(attempt.target, attempt.obj, now)
    if attempt.old is None:
        return after
    before = usage(attempt.target, attempt.old, now)
    zero = Quantity.of(0)
    return {
        resource: after.get(resource, zero) - before.get(resource, zero) for resource in after.keys() | before.keys()
    }


def unspecified(pod: Obj, hard: Iterable[str]) -> str:
    """Which of a quota's compute resources containers do not say: `limits.cpu for: a,b; requests.cpu for: a`."""
    names = set(hard)
    spec = pod["spec"]
    missing: dict[str, list[str]] = {}
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        for resource in _COMPUTE:
            for what in ("requests", "limits"):
                quota_names = {f"{what}.{resource}"} | ({resource} if what == "requests" else set())
                for each in quota_names & names:
                    overall = ((spec.get("resources") or {}).get(what)) or {}
                    if resource not in (resources.get(what) or {}) and resource not in overall:
                        missing.setdefault(each, []).append(container["name"])
    return "; ".join(f"{each} for: {','.join(sorted(missing[each]))}" for each in sorted(missing))


def _shown(amounts: dict[str, Any]) -> str:
    return ",".join(f"{resource}={amounts[resource]}" for resource in sorted(amounts))
