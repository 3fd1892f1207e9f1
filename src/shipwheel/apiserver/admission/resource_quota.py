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
from shipwheel.kinds.podresources import supports_pod_level
from shipwheel.kinds.quota import CLAIMS, PODS, RESOURCE_CLAIMS, SERVICES, counts_alike, covers, resource_of, usage

QUOTAS = GroupResource("", "resourcequotas")
_ON_UPDATE = frozenset({SERVICES, CLAIMS, RESOURCE_CLAIMS})
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
        obj, old = attempt.obj, attempt.old
        if obj is None or not attempt.namespace or attempt.target == QUOTAS:
            return
        quotas, now = self._quotas(attempt.namespace), self._server.clock.now()
        if not quotas or not _may_take_more(attempt, now):
            return
        for quota in quotas:
            if covers(quota, attempt.target, obj):
                was_covered = old is not None and covers(quota, attempt.target, old)
                await self._charge(attempt, quota, obj, _delta(attempt.target, obj, old if was_covered else None, now))

    async def _charge(self, attempt: Attempt, quota: Obj, obj: Obj, delta: Amounts) -> None:
        name = quota["metadata"]["name"]
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        if attempt.target == PODS:
            missing = unspecified(obj, hard)
            if missing:
                raise attempt.forbid(f"failed quota: {name}: must specify {missing}")
        counted = sorted(resource for resource in hard if resource_of(resource) == attempt.target)
        if not used.keys() >= set(counted):
            raise attempt.forbid(f"status unknown for quota: {name}, resources: {','.join(counted)}")
        wanted = {resource: amount for resource, amount in delta.items() if resource in hard and amount.sign()}
        if not wanted:
            return
        if attempt.dry_run:
            _add(attempt, quota, wanted)
            return

        def charge(current: Obj) -> Obj:
            return _add(attempt, current, wanted)

        await self._server.change(QUOTAS, attempt.namespace, name, charge, user=self._user, subresource="status")


def _may_take_more(attempt: Attempt, now: datetime) -> bool:
    """Whether a write can make an object count for more, or count where it did not."""
    if attempt.operation == "CREATE":
        return not attempt.subresource
    if attempt.obj is None or attempt.old is None:
        return False
    match attempt.target, attempt.subresource:
        case (target, "resize") if target == PODS:
            return True
        case (target, "") if target == PODS:
            return not counts_alike(PODS, attempt.old, attempt.obj, now)
        case (target, "status") if target == CLAIMS:
            return not counts_alike(CLAIMS, attempt.old, attempt.obj, now)
        case (target, ""):
            return target in _ON_UPDATE
    return False


def _add(attempt: Attempt, quota: Obj, wanted: Amounts) -> Obj:
    """The quota with more of it used; ApiError 403 when that is too much."""
    status = dict(quota.get("status") or {})
    hard, used = status.get("hard") or {}, dict(status.get("used") or {})
    after = {resource: parse(used.get(resource, "0")) + amount for resource, amount in wanted.items()}
    over = sorted(resource for resource, amount in after.items() if resource in hard and amount > parse(hard[resource]))
    # A status tells what is so already, whatever the quota says.
    if over and attempt.subresource != "status":
        requested = _shown({resource: wanted[resource] for resource in over})
        raise attempt.forbid(
            f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, "
            f"used: {_shown({resource: used.get(resource, '0') for resource in over})}, "
            f"limited: {_shown({resource: hard[resource] for resource in over})}"
        )
    used |= {resource: str(amount) for resource, amount in after.items()}
    return {**quota, "status": {**status, "used": used}}


def _delta(resource: GroupResource, obj: Obj, old: Obj | None, now: datetime) -> Amounts:
    """What an object takes more than it took before. What it takes less is given back by the controller, once the
    write has really been done."""
    after = usage(resource, obj, now)
    if old is None:
        return after
    before, zero = usage(resource, old, now), Quantity.of(0)
    return {name: max(amount - before.get(name, zero), zero) for name, amount in after.items()}


def unspecified(pod: Obj, hard: Iterable[str]) -> str:
    """Which of a quota's compute resources containers do not say: `limits.cpu for: a,b; requests.cpu for: a`. Those of
    a pod that says it for all of them together need not."""
    names = set(hard)
    spec = pod["spec"]
    overall = spec.get("resources") or {}
    if any(supports_pod_level(each) for what in ("requests", "limits") for each in overall.get(what) or ()):
        return ""
    missing: dict[str, list[str]] = {}
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        for resource in _COMPUTE:
            for what in ("requests", "limits"):
                quota_names = {f"{what}.{resource}"} | ({resource} if what == "requests" else set())
                for each in quota_names & names:
                    if resource not in (resources.get(what) or {}):
                        missing.setdefault(each, []).append(container["name"])
    return "; ".join(f"{each} for: {','.join(sorted(missing[each]))}" for each in sorted(missing))


def _shown(amounts: dict[str, Any]) -> str:
    return ",".join(f"{resource}={amounts[resource]}" for resource in sorted(amounts))
