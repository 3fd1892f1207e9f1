"""Makes ResourceClaims from templates for pods, and takes claims back from pods that are done with them.

Keys are `pod:NAMESPACE/NAME` and `claim:NAMESPACE/NAME`.
"""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    is_being_deleted,
    key_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from shipwheel.controllers.devices.consumers import (
    FINALIZER,
    POD_CLAIM,
    Unknown,
    claim_keys,
    claim_name,
    is_allocated,
    is_done,
    is_reserved_for,
    make_claim,
    might_run,
    not_made_for,
    owning_pod,
    reference_to,
    template_keys,
)
from shipwheel.controllers.framework import Context, Retry, Writes, is_not_found

_FIELD_MANAGER = "ResourceClaimController"


def _owner(claim: Obj) -> tuple[str, ...]:
    owner = owning_pod(claim)
    return (owner[1],) if owner else ()


class ResourceClaimController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pods = ctx.pods()
        self._pods.add_indexers({"resource-claim": claim_keys, "resource-claim-template": template_keys})
        self._claims = ctx.informer(RESOURCE_CLAIMS, {"owning-pod": _owner})
        self._templates = ctx.informer(RESOURCE_CLAIM_TEMPLATES)
        self._writes = Writes()
        self._loop = ctx.loop(
            "resource_claim",
            self.reconcile,
            workers=ctx.config.concurrent_resourceclaim_syncs,
            informers=(self._pods, self._claims, self._templates),
        )
        self._pods.add_handler(self._on_pod)
        self._claims.add_handler(self._on_claim)
        self._templates.add_handler(self._on_template)
        self._created = ctx.metrics.counter(
            "resourceclaim_controller_creates_total",
            "[ALPHA] Number of ResourceClaims creation requests, categorized by creation status and admin access",
            ("status", "admin_access"),
        )

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        if pod is None or not (pod["spec"].get("resourceClaims") or claim_keys(pod)):
            return
        if new is None or is_done(new):
            for key in claim_keys(pod):
                self._loop.queue.add(f"claim:{key}")
        if new is not None and not is_being_deleted(new):
            self._loop.queue.add(f"pod:{key_of(new)}")

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        claim = new if new is not None else old
        if claim is None:
            return
        if new is not None:
            self._loop.queue.add(f"claim:{key_of(new)}")
        for pod in self._pods.by_index("resource-claim", key_of(claim)):
            self._on_pod("MODIFIED", pod, pod)

    def _on_template(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for pod in self._pods.by_index("resource-claim-template", key_of(new)) if new is not None else ():
            self._on_pod("MODIFIED", pod, pod)

    async def reconcile(self, key: str) -> float | None:
        kind, _, rest = key.partition(":")
        if (wait := await self._writes.behind(rest)) is not None:
            return wait
        if kind == "pod":
            await self._reconcile_pod(*split_key(rest))
        else:
            await self._reconcile_claim(*split_key(rest))
        return None

    # Pods

    async def _reconcile_pod(self, namespace: str, name: str) -> None:
        pod = self._pods.get(namespace, name)
        if pod is None or is_being_deleted(pod) or not might_run(pod):
            return
        names: dict[str, str] = {}
        for use in pod["spec"].get("resourceClaims") or ():
            try:
                made = await self._ensure(pod, use)
            except (ApiError, Retry) as error:
                message = f"PodResourceClaim {use['name']}: {error}"
                self._ctx.recorder.event(pod, "Warning", "FailedResourceClaimCreation", message)
                raise
            if made:
                names[use["name"]] = made
        if names:
            await self._tell(pod, names)
        if pod["spec"].get("nodeName"):
            await self._reserve_all(pod)

    async def _ensure(self, pod: Obj, use: Obj) -> str:
        """See to it that a claim made from a template exists; returns its name where the pod's status lacks it."""
        template_name = use.get("resourceClaimTemplateName")
        if not template_name:
            return ""
        try:
            name = claim_name(pod, use)
        except Unknown:
            name = ""
        if name is None:
            return ""
        claim = self._claims.get(namespace_of(pod), name) if name else None
        if claim is not None and not not_made_for(claim, pod):
            return ""
        for claim in self._claims.by_index("owning-pod", uid_of(pod)):
            if annotations_of(claim).get(POD_CLAIM) == use["name"]:
                return name_of(claim)
        template = self._templates.get(namespace_of(pod), template_name)
        if template is None:
            missing = f'resourceclaimtemplate.resource.k8s.io "{template_name}" not found'
            raise Retry(f'resource claim template "{template_name}": {missing}')
        wanted = make_claim(pod, use, template)
        admin = str(_has_admin_access(wanted)).lower()
        try:
            written = await self._ctx.client.create(RESOURCE_CLAIMS, wanted, namespace_of(pod))
        except ApiError as error:
            self._created.labels("failure", admin).inc()
            raise Retry(f"create ResourceClaim : {error}") from error
        self._created.labels("success", admin).inc()
        self._writes.wrote(key_of(pod), self._claims, written)
        return name_of(written)

    async def _tell(self, pod: Obj, names: dict[str, str]) -> None:
        """Write the names of claims into the pod's status, beside those that are there."""
        known = {
            each["name"]: each.get("resourceClaimName")
            for each in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
        }
        statuses = [
            {"name": name, **({"resourceClaimName": claim} if claim else {})}
            for name, claim in {**known, **names}.items()
        ]
        applied = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name_of(pod), "namespace": namespace_of(pod)},
            "status": {"resourceClaimStatuses": statuses},
        }
        await self._ctx.client.patch(
            PODS,
            name_of(pod),
            namespace_of(pod),
            applied,
            kind="apply",
            subresource="status",
            field_manager=_FIELD_MANAGER,
            force=True,
        )

    async def _reserve_all(self, pod: Obj) -> None:
        """A pod that was given a node without the scheduler's help may use claims that are allocated already."""
        for key in claim_keys(pod):
            claim = self._claims.get(*split_key(key))
            if claim is None or not is_allocated(claim) or is_reserved_for(claim, pod):
                continue
            owner = owning_pod(claim)
            if owner is not None and owner[1] != uid_of(pod):
                raise Retry(not_made_for(claim, pod))
            reserved = [*(claim["status"].get("reservedFor") or ()), reference_to(pod)]
            await self._update_status(claim, {**claim["status"], "reservedFor": reserved})

    # Claims

    async def _reconcile_claim(self, namespace: str, name: str) -> None:
        claim = self._claims.get(namespace, name)
        if claim is None:
            return
        status = claim.get("status") or {}
        reserved = status.get("reservedFor") or []
        remaining = [each for each in reserved if await self._keeps(namespace, each)]
        ours = FINALIZER in (claim["metadata"].get("finalizers") or ())
        if len(remaining) < len(reserved):
            changed = {**status, "reservedFor": remaining}
            if not remaining and ours:
                changed.pop("allocation", None)
            claim = await self._update_status(claim, changed)
            if ours and not is_allocated(claim):
                await self._release(claim)
        elif ours and is_being_deleted(claim) and not remaining:
            if is_allocated(claim):
                left = {key: value for key, value in status.items() if key != "allocation"}
                claim = await self._update_status(claim, left)
            await self._release(claim)
        if not remaining:
            await self._delete_unused(claim)

    async def _keeps(self, namespace: str, consumer: Obj) -> bool:
        """A consumer still needs the claim. Only pods are known to us."""
        if consumer.get("apiGroup") or consumer.get("resource") != "pods":
            return True
        pod = self._pods.get(namespace, consumer["name"])
        if pod is not None:
            return uid_of(pod) == consumer["uid"] and not is_done(pod)
        try:
            pod = await self._ctx.client.get(PODS, consumer["name"], namespace)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        return uid_of(pod) == consumer["uid"]

    async def _update_status(self, claim: Obj, status: Obj) -> Obj:
        changed = {**claim, "status": status}
        written = await self._ctx.client.update(RESOURCE_CLAIMS, changed, subresource="status")
        self._writes.wrote(key_of(claim), self._claims, written)
        return written

    async def _release(self, claim: Obj) -> None:
        finalizers = [each for each in claim["metadata"].get("finalizers") or () if each != FINALIZER]
        changed = {**claim, "metadata": {**claim["metadata"], "finalizers": finalizers}}
        written = await self._ctx.client.update(RESOURCE_CLAIMS, changed)
        self._writes.wrote(key_of(claim), self._claims, written)

    async def _delete_unused(self, claim: Obj) -> None:
        """Delete a claim made for a pod that is done; the devices are wanted sooner than the pod is deleted."""
        owner = owning_pod(claim)
        pod = self._pods.get(namespace_of(claim), owner[0]) if owner else None
        if owner is None or pod is None or is_being_deleted(claim):
            return
        if uid_of(pod) != owner[1] or is_done(pod):
            try:
                await self._ctx.client.delete(RESOURCE_CLAIMS, name_of(claim), namespace_of(claim), uid=uid_of(claim))
            except ApiError as error:
                if not is_not_found(error):
                    raise


def _has_admin_access(claim: Obj) -> bool:
    requests = (claim["spec"].get("devices") or {}).get("requests") or ()
    return any((request.get("exactly") or {}).get("adminAccess") for request in requests)
