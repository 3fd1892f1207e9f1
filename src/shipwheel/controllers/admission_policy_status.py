"""The status of ValidatingAdmissionPolicies (KEP-3488): which generation has been looked at, so that whoever writes one
can wait for it.

Upstream also checks the types of CEL expressions here and warns of what cannot be right. There is no evaluator of CEL
in this room, so no warnings are given: `typeChecking` is there and empty.
"""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.resources import VALIDATING_ADMISSION_POLICIES
from shipwheel.controllers.framework import Context, is_not_found

_MANAGER = "validatingadmissionpolicy-status"


def wanted_status(policy: Obj) -> Obj | None:
    """The status that says that this generation has been looked at; None: it says so already."""
    generation = policy["metadata"].get("generation") or 0
    if generation <= ((policy.get("status") or {}).get("observedGeneration") or 0):
        return None
    return {"observedGeneration": generation, "typeChecking": {}}


class AdmissionPolicyStatusController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._policies = ctx.informer(VALIDATING_ADMISSION_POLICIES)
        self._loop = ctx.loop(
            _MANAGER,
            self.reconcile,
            workers=ctx.config.concurrent_validating_admission_policy_status_syncs,
            informers=(self._policies,),
        )
        self._policies.add_handler(self._loop.on_event)

    async def run(self) -> None:
        await self._loop.run()

    async def reconcile(self, key: str) -> float | None:
        policy = self._policies.get("", key)
        status = wanted_status(policy) if policy is not None else None
        if status is None:
            return None
        applied = {
            "apiVersion": str(VALIDATING_ADMISSION_POLICIES.group_version),
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": key},
            "status": status,
        }
        try:
            await self._ctx.client.patch(
                VALIDATING_ADMISSION_POLICIES,
                key,
                "",
                applied,
                kind="apply",
                subresource="status",
                field_manager=_MANAGER,
                force=True,
            )
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None
