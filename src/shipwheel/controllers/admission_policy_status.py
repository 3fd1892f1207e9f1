"""The status of ValidatingAdmissionPolicies (KEP-3488): which generation has been looked at, and what cannot be right
about its expressions.

The kinds that a policy is about are those its rules name without wildcards; their schemas are asked of the server, so
custom resources are checked as well. Whether there are warnings changes nothing about how a policy acts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from shipwheel.api.cel import checking
from shipwheel.api.cel.checking import Schemas
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupVersion, GroupVersionKind, GroupVersionResource, Obj
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.resources import VALIDATING_ADMISSION_POLICIES
from shipwheel.controllers.framework import Context, is_not_found

_MANAGER = "validatingadmissionpolicy-status"
_MOST_KINDS = 10


def is_new(policy: Obj) -> bool:
    """This generation has not been looked at."""
    return (policy["metadata"].get("generation") or 0) > ((policy.get("status") or {}).get("observedGeneration") or 0)


def resources_of(policy: Obj) -> list[GroupVersionResource]:
    """The resources that a policy's rules name; rules with wildcards name none."""
    found: dict[GroupVersionResource, None] = {}
    for rule in (policy["spec"].get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in each for each in (*groups, *versions)):
            continue
        plain = (each for each in rule.get("resources") or () if "*" not in each and "/" not in each)
        for group, version, resource in product(sorted(groups), sorted(versions), sorted(plain)):
            found[GroupVersionResource(group, version, resource)] = None
    return list(found)


def expressions_of(policy: Obj) -> Iterable[tuple[str, str]]:
    """(field, expression) of everything that is checked."""
    for index, validation in enumerate(policy["spec"].get("validations") or ()):
        for field in ("expression", "messageExpression"):
            if validation.get(field):
                yield f"spec.validations[{index}].{field}", validation[field]


def warnings(policy: Obj, kinds: Iterable[tuple[GroupVersionKind, Schemas]]) -> list[Obj]:
    """What to warn of, for each expression and all kinds it is about."""
    found: list[Obj] = []
    kinds = [(gvk, _with_variables(policy, schemas)) for gvk, schemas in kinds]
    for field, expression in expressions_of(policy):
        texts = [
            f"{_shown(gvk)}: compilation failed: {chr(10).join(complaints)}\n"
            for gvk, schemas in kinds
            if (complaints := checking.complaints(expression, schemas))
        ]
        if texts:
            found.append({"fieldRef": field, "warning": "\n".join(texts)})
    return found


def _with_variables(policy: Obj, schemas: Schemas) -> Schemas:
    """With the types of the policy's variables, each of which may use those before it."""
    for variable in policy["spec"].get("variables") or ():
        kind = checking.type_of(variable["expression"], schemas)
        schemas = Schemas(schemas.roots, schemas.resolve, {**schemas.variables, variable["name"]: kind})
    return schemas


def _shown(gvk: GroupVersionKind) -> str:
    group_version = f"{gvk.group}/{gvk.version}" if gvk.group else gvk.version
    return f"{group_version}, Kind={gvk.kind}"


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
        if policy is None or not is_new(policy):
            return None
        found = warnings(policy, [(gvk, await self._schemas(gvk, policy)) for gvk in await self._kinds(policy)])
        status = {
            "observedGeneration": policy["metadata"]["generation"],
            "typeChecking": {"expressionWarnings": found} if found else {},
        }
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

    async def _kinds(self, policy: Obj) -> list[GroupVersionKind]:
        wanted = resources_of(policy)
        if not wanted:
            return []
        served = (await self._ctx.client.resources()).by_gvr
        kinds = {served[gvr].kind for gvr in wanted if gvr in served}
        return sorted(kinds, key=lambda gvk: (gvk.group, gvk.version, gvk.kind))[:_MOST_KINDS]

    async def _schemas(self, gvk: GroupVersionKind, policy: Obj) -> Schemas:
        about, definitions = await self._schema(gvk)
        roots: dict[str, Obj | None] = {"object": about, "oldObject": about}
        param = policy["spec"].get("paramKind")
        if param:
            gv = GroupVersion.parse(param["apiVersion"])
            roots["params"], more = await self._schema(GroupVersionKind(gv.group, gv.version, param["kind"]))
            definitions = {**more, **definitions}
        return Schemas(roots, lambda reference: definitions.get(reference.rpartition("/")[2]) or {}, {})

    async def _schema(self, gvk: GroupVersionKind) -> tuple[Obj | None, Obj]:
        """(a kind's schema, all definitions it may refer to); None when the server does not tell."""
        group = f"apis/{gvk.group}" if gvk.group else "api"
        try:
            document = await self._ctx.client.call("GET", f"/openapi/v3/{group}/{gvk.version}")
        except (ApiError, ConnectionFailed):
            return None, {}
        definitions: Obj = (document.get("components") or {}).get("schemas") or {}
        wanted = {"group": gvk.group, "version": gvk.version, "kind": gvk.kind}
        schema = next(
            (each for each in definitions.values() if wanted in (each.get("x-kubernetes-group-version-kind") or ())),
            None,
        )
        return schema, definitions
