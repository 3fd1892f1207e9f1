"""The Deployment loop: find or make the ReplicaSet of the template, scale, report.

A sync does as much as one look at the caches allows and then reports; the ReplicaSets' own progress brings the
next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    annotations_of,
    condition,
    controller_of,
    is_being_deleted,
    labels_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.informer import EventType
from shipwheel.client.resources import DEPLOYMENTS, REPLICA_SETS
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.deployment import revisions, sizing
from shipwheel.controllers.deployment import status as reporting
from shipwheel.controllers.framework import (
    OWNER_INDEXERS,
    Context,
    Writes,
    is_already_exists,
    is_not_found,
    namespace_is_terminating,
    selector_of,
)
from shipwheel.controllers.ownership import claim
from shipwheel.kinds.conditions import renew_condition


class DeploymentController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._deployments = ctx.informer(DEPLOYMENTS)
        self._sets = ctx.informer(REPLICA_SETS, OWNER_INDEXERS)
        self._pods = ctx.pods()
        self._writes = Writes()
        self._loop = ctx.loop(
            "deployment",
            self.reconcile,
            workers=ctx.config.concurrent_deployment_syncs,
            informers=(self._deployments, self._sets, self._pods),
            writes=self._writes,
        )
        self._deployments.add_handler(self._loop.on_event)
        self._sets.add_handler(self._on_set)
        self._pods.add_handler(self._on_pod)

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_set(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        rs = new if new is not None else old
        assert rs is not None
        before = controller_of(old) if old is not None else None
        after = controller_of(new) if new is not None else None
        for reference in (before, after):
            if reference is not None:
                self._enqueue(namespace_of(rs), reference)
        if after is None and new is not None and not is_being_deleted(new):
            for deployment in self._deployments.list(namespace_of(new)):
                if selector_of(deployment).matches(labels_of(new)):
                    self._loop.add(deployment)

    def _enqueue(self, namespace: str, reference: Obj) -> None:
        if reference["kind"] == "Deployment":
            deployment = self._deployments.get(namespace, reference["name"])
            if deployment is not None and uid_of(deployment) == reference["uid"]:
                self._loop.add(deployment)

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """A Recreate roll-out goes on when the last old pod has gone."""
        if kind != "DELETED" or old is None:
            return
        owner = controller_of(old)
        rs = self._sets.get(namespace_of(old), owner["name"]) if owner else None
        reference = controller_of(rs) if rs else None
        if reference is None:
            return
        deployment = self._deployments.get(namespace_of(old), reference["name"])
        if deployment is None or sizing.is_rolling(deployment):
            return
        if not any(True for each in self._owned(deployment) for _ in self._pods.by_index("owner", uid_of(each))):
            self._loop.add(deployment)

    def _owned(self, deployment: Obj) -> list[Obj]:
        return list(self._sets.by_index("owner", uid_of(deployment)))

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        deployment = self._deployments.get(namespace, name)
        if deployment is None:
            self._writes.forget(key)
            return None
        return await _Sync(self._ctx, self, key, deployment).run()

    async def write_status(self, key: str, deployment: Obj) -> Obj:
        call = self._ctx.client.update(DEPLOYMENTS, deployment, subresource="status")
        return await self._writes.do(key, self._deployments, call)

    async def write_set(self, key: str, rs: Obj) -> Obj:
        return await self._writes.do(key, self._sets, self._ctx.client.update(REPLICA_SETS, rs))

    async def create_set(self, key: str, rs: Obj) -> Obj:
        return await self._writes.do(key, self._sets, self._ctx.client.create(REPLICA_SETS, rs))

    async def claimed_sets(self, deployment: Obj) -> list[Obj]:
        matches = selector_of(deployment).matches
        candidates = [*self._owned(deployment), *self._sets.by_index("orphan", namespace_of(deployment))]
        return await claim(self._ctx.client, deployment, DEPLOYMENTS, REPLICA_SETS, candidates, matches)

    def cached_set(self, namespace: str, name: str) -> Obj | None:
        return self._sets.get(namespace, name)

    def has_old_pods(self, sets: Sequence[Obj], new: Obj | None) -> bool:
        """Whether pods of other templates may still run."""
        old = revisions.old_sets(sets, new)
        return sizing.reported(old, "replicas") > 0 or any(
            not podutil.is_terminal(pod) for rs in old for pod in self._pods.by_index("owner", uid_of(rs))
        )


class _Sync:
    """One reconciliation of one Deployment, which changes as it goes."""

    def __init__(self, ctx: Context, controller: DeploymentController, key: str, deployment: Obj) -> None:
        self._ctx = ctx
        self._controller = controller
        self._key = key
        self._now = ctx.clock.now()
        self.deployment = deployment

    async def run(self) -> float | None:
        if not self.deployment["spec"].get("selector"):
            await self._refuse_empty_selector()
            return None
        sets = await self._controller.claimed_sets(self.deployment)
        if is_being_deleted(self.deployment):
            new = await self._synced_new_set(sets)
            return await self._report(self._with(sets, new), new, rollout=False)
        await self._note_pause()
        if self.deployment["spec"].get("paused"):
            return await self._scale_and_report(sets)
        revision = revisions.rollback_revision(self.deployment)
        if revision is not None:
            await self._roll_back(sets, revision)
            return None
        if self._was_scaled(sets):
            return await self._scale_and_report(sets)
        if sizing.is_rolling(self.deployment):
            return await self._roll(sets)
        return await self._recreate(sets)

    async def _refuse_empty_selector(self) -> None:
        self._event(
            "Warning", "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        )  # fmt: skip
        generation = self.deployment["metadata"].get("generation") or 0
        status = self.deployment.get("status") or {}
        if (status.get("observedGeneration") or 0) < generation:
            await self._write({**status, "observedGeneration": generation})

    # The ways of a roll-out

    async def _roll(self, sets: Sequence[Obj]) -> float | None:
        new = await self._new_set(sets)
        old = revisions.old_sets(sets, new)
        size = sizing.replicas_of(new)
        wanted = sizing.replicas_of(self.deployment)
        target = wanted if size > wanted else sizing.new_set_size(self.deployment, [*old, new], size)
        if target != size:
            new = await self._scale(new, target)
            return await self._report([*old, new], new)
        active = [rs for rs in old if sizing.replicas_of(rs) > 0]
        smaller = sizing.old_set_sizes(self.deployment, new, active)
        if smaller:
            scaled = {name_of(rs): await self._scale(rs, size) for rs, size in smaller}
            return await self._report([*(scaled.get(name_of(rs), rs) for rs in old), new], new)
        await self._clean_up(old)
        return await self._report([*old, new], new)

    async def _recreate(self, sets: Sequence[Obj]) -> float | None:
        new = await self._synced_new_set(sets)
        old = revisions.old_sets(sets, new)
        active = [rs for rs in old if sizing.replicas_of(rs) > 0]
        if active:
            scaled = {name_of(rs): await self._scale(rs, 0) for rs in active}
            old = [scaled.get(name_of(rs), rs) for rs in old]
            return await self._report(self._with(old, new), new)
        if self._controller.has_old_pods(sets, new):
            return await self._report(self._with(old, new), new)
        if new is None:
            new = await self._new_set(sets)
        if sizing.replicas_of(new) != sizing.replicas_of(self.deployment):
            new = await self._scale(new, sizing.replicas_of(self.deployment))
        await self._clean_up(old)
        return await self._report([*old, new], new)

    def _was_scaled(self, sets: Sequence[Obj]) -> bool:
        """The Deployment's size differs from the one its active sets were made for."""
        wanted = sizing.replicas_of(self.deployment)
        active = (rs for rs in sets if sizing.replicas_of(rs) > 0)
        known = (sizing.annotated_number(rs, sizing.DESIRED_REPLICAS) for rs in active)
        return any(desired is not None and desired != wanted for desired in known)

    async def _scale_and_report(self, sets: Sequence[Obj]) -> float | None:
        new = await self._synced_new_set(sets)
        old = revisions.old_sets(sets, new)
        scaled = {name_of(rs): rs for rs in self._with(old, new)}
        for rs, size in self._scaling(new, old):
            scaled[name_of(rs)] = await self._scale(rs, size)
        if self.deployment["spec"].get("paused"):
            await self._clean_up(old, even_if_incomplete=True)
        new = scaled[name_of(new)] if new else None
        return await self._report(list(scaled.values()), new, rollout=False)

    def _scaling(self, new: Obj | None, old: Sequence[Obj]) -> list[tuple[Obj, int]]:
        single = sizing.only_active_or_newest(new, old)
        if single is not None:
            return [(single, sizing.replicas_of(self.deployment))]
        if sizing.is_saturated(self.deployment, new):
            return [(rs, 0) for rs in old if sizing.replicas_of(rs) > 0]
        if sizing.is_rolling(self.deployment):
            active = [rs for rs in self._with(old, new) if sizing.replicas_of(rs) > 0]
            return sizing.proportional_sizes(self.deployment, active)
        return []

    # Writing

    async def _scale(self, rs: Obj, size: int) -> Obj:
        """Give a set its size and the annotations that go with it."""
        before = sizing.replicas_of(rs)
        annotations = {**annotations_of(rs), **revisions.size_annotations(self.deployment)}
        if before == size and annotations == annotations_of(rs):
            return rs
        changed = {
            **rs,
            "metadata": {**rs["metadata"], "annotations": annotations},
            "spec": {**rs["spec"], "replicas": size},
        }
        written = await self._controller.write_set(self._key, changed)
        if before != size:
            way = "up" if before < size else "down"
            self._event(
                "Normal", "ScalingReplicaSet",
                f"Scaled {way} replica set {name_of(rs)} from {before} to {size}",
            )  # fmt: skip
        return written

    async def _synced_new_set(self, sets: Sequence[Obj]) -> Obj | None:
        """The set of the present template, its annotations and the Deployment's revision brought up to date;
        None when there is none yet."""
        new = revisions.new_set(self.deployment, sets)
        if new is None:
            return None
        old = revisions.old_sets(sets, new)
        annotations = revisions.annotations_for(self.deployment, new, revisions.max_revision(old) + 1)
        min_ready = self.deployment["spec"].get("minReadySeconds") or 0
        if annotations != annotations_of(new) or (new["spec"].get("minReadySeconds") or 0) != min_ready:
            changed = {
                **new,
                "metadata": {**new["metadata"], "annotations": annotations},
                "spec": {**new["spec"], "minReadySeconds": min_ready},
            }
            new = await self._controller.write_set(self._key, changed)
        status = dict(self.deployment.get("status") or {})
        changed_status = False
        if reporting.has_deadline(self.deployment) and condition(self.deployment, "Progressing") is None:
            found = f'Found new replica set "{name_of(new)}"'
            changed_status = renew_condition(
                status, self._condition("Progressing", "True", "FoundNewReplicaSet", found)
            )
        await self._set_revision(annotations.get(revisions.REVISION, ""), status, changed_status)
        return new

    async def _new_set(self, sets: Sequence[Obj]) -> Obj:
        """The set of the present template, made if there is none."""
        existing = await self._synced_new_set(sets)
        if existing is not None:
            return existing
        wanted = revisions.make_set(self.deployment, list(sets))
        created, is_new = await self._create(wanted)
        status = dict(self.deployment.get("status") or {})
        if is_new:
            if sizing.replicas_of(created) > 0:
                self._event(
                    "Normal", "ScalingReplicaSet",
                    f"Scaled up replica set {name_of(created)} from 0 to {sizing.replicas_of(created)}",
                )  # fmt: skip
            if reporting.has_deadline(self.deployment):
                made = f'Created new replica set "{name_of(created)}"'
                renew_condition(status, self._condition("Progressing", "True", "NewReplicaSetCreated", made))
        await self._set_revision(annotations_of(wanted)[revisions.REVISION], status, is_new)
        return created

    async def _create(self, wanted: Obj) -> tuple[Obj, bool]:
        """Create a set; (set, whether it is new). When its name is taken by a set of another template, count the
        collision: the next sync will find another name."""
        try:
            return await self._controller.create_set(self._key, wanted), True
        except ApiError as error:
            if is_already_exists(error):
                there = self._controller.cached_set(namespace_of(wanted), name_of(wanted))
                if there is None:
                    raise
                owner = controller_of(there)
                ours = owner is not None and owner["uid"] == uid_of(self.deployment)
                template = self.deployment["spec"]["template"]
                if ours and revisions.same_template(template, there["spec"]["template"]):
                    return there, False
                status = dict(self.deployment.get("status") or {})
                await self._write({**status, "collisionCount": (status.get("collisionCount") or 0) + 1})
            elif not namespace_is_terminating(error):
                failed = f'Failed to create new replica set "{name_of(wanted)}": {error}'
                if reporting.has_deadline(self.deployment):
                    status = dict(self.deployment.get("status") or {})
                    entry = self._condition("Progressing", "False", "ReplicaSetCreateError", failed)
                    if renew_condition(status, entry):
                        await self._write(status)
                self._event("Warning", "ReplicaSetCreateError", failed)
            raise

    async def _set_revision(self, revision: str, status: Obj, changed: bool) -> None:
        """Write the Deployment's revision and a changed status, if either differs."""
        if annotations_of(self.deployment).get(revisions.REVISION) != revision and revision:
            annotations = {**annotations_of(self.deployment), revisions.REVISION: revision}
            metadata = {**self.deployment["metadata"], "annotations": annotations}
            self.deployment = {**self.deployment, "metadata": metadata}
            changed = True
        if changed:
            await self._write(status)

    async def _note_pause(self) -> None:
        entry = reporting.paused_condition(self.deployment, self._now)
        if entry is not None:
            status = dict(self.deployment.get("status") or {})
            renew_condition(status, entry)
            await self._write(status)

    async def _clean_up(self, old: Sequence[Obj], *, even_if_incomplete: bool = False) -> None:
        if not even_if_incomplete and not reporting.is_complete(self.deployment, self.deployment.get("status") or {}):
            return
        for rs in revisions.to_clean_up(self.deployment, old):
            try:
                await self._ctx.client.delete(REPLICA_SETS, name_of(rs), namespace_of(rs), uid=uid_of(rs))
            except ApiError as error:
                if not is_not_found(error):
                    raise

    async def _roll_back(self, sets: Sequence[Obj], revision: int) -> None:
        """Take the template of an earlier revision; the next sync rolls it out."""
        new = await self._new_set(sets)
        everything = [*revisions.old_sets(sets, new), new]
        target: Obj | None = None
        if revision == 0:
            revision = revisions.last_revision(everything)
        if revision == 0:
            self._event("Warning", "DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
        else:
            target = next((rs for rs in everything if revisions.revision_of(rs) == revision), None)
            if target is None:
                self._event(
                    "Warning", "DeploymentRollbackRevisionNotFound",
                    "Unable to find the revision to rollback to.",
                )  # fmt: skip
            elif revisions.same_template(self.deployment["spec"]["template"], target["spec"]["template"]):
                self._event(
                    "Warning", "DeploymentRollbackTemplateUnchanged",
                    "The rollback revision contains the same template as current deployment "
                    f'"{name_of(self.deployment)}"',
                )  # fmt: skip
                target = None
        await self._ctx.client.update(DEPLOYMENTS, revisions.rolled_back(self.deployment, target))
        if target is not None:
            self._event(
                "Normal", "DeploymentRollback",
                f'Rolled back deployment "{name_of(self.deployment)}" to revision {revision}',
            )  # fmt: skip

    async def _report(self, sets: Sequence[Obj], new: Obj | None, *, rollout: bool = True) -> float | None:
        """Write the status if it changed; seconds until progress should be judged again."""
        make = reporting.rollout_status if rollout else reporting.base_status
        status = make(self.deployment, sets, new, self._now)
        if not reporting.same_status(self.deployment.get("status") or {}, status):
            await self._write(status)
            return None
        return reporting.next_progress_check(self.deployment, status, self._now) if rollout else None

    async def _write(self, status: Obj) -> None:
        self.deployment = await self._controller.write_status(self._key, {**self.deployment, "status": status})

    @staticmethod
    def _with(old: Sequence[Obj], new: Obj | None) -> list[Obj]:
        return [*revisions.old_sets(old, new), *([new] if new else [])]

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Obj:
        return reporting.make_condition(kind, status, reason, message, self._now)

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._ctx.recorder.event(self.deployment, "Warning" if kind == "Warning" else "Normal", reason, message)
