"""The StatefulSet loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
    controller_of,
    is_being_deleted,
    labels_of,
    name_of,
    namespace_of,
    split_key,
    uid_of,
)
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from shipwheel.controllers import history
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import (
    OWNER_INDEXERS,
    Context,
    Retry,
    each,
    in_batches,
    is_already_exists,
    is_not_found,
    selector_of,
)
from shipwheel.controllers.ownership import claim
from shipwheel.controllers.statefulset import claims as claiming
from shipwheel.controllers.statefulset.plan import (
    REVISION,
    Action,
    Revisions,
    in_range,
    is_member,
    is_ordered,
    is_unavailable,
    most_unavailable,
    ordinal_of,
    plan,
    replicas_of,
    same_status,
    status_of,
    with_identity,
)


class StatefulSetController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._sets = ctx.informer(STATEFUL_SETS)
        self._pods = ctx.pods()
        self._claims = ctx.informer(PERSISTENT_VOLUME_CLAIMS)
        self._revisions = ctx.informer(CONTROLLER_REVISIONS, OWNER_INDEXERS)
        self._writes = ctx.writes("statefulset_controller", "StatefulSet")
        self._loop = ctx.loop(
            "statefulset",
            self.reconcile,
            workers=ctx.config.concurrent_statefulset_syncs,
            informers=(self._sets, self._pods, self._claims, self._revisions),
            writes=self._writes,
        )
        labels = ("statefulset_namespace", "statefulset_name", "pod_management_policy")
        self._most_unavailable = ctx.metrics.gauge(
            "statefulset_controller_statefulset_max_unavailable",
            "[ALPHA] Maximum number of unavailable pods allowed during StatefulSet rolling updates",
            labels,
        )
        self._unavailable = ctx.metrics.gauge(
            "statefulset_controller_statefulset_unavailable_replicas",
            "[ALPHA] Current number of unavailable pods in StatefulSet",
            labels,
        )
        self._sets.add_handler(self._on_set)
        self._pods.add_handler(self._on_pod)

    async def run(self) -> None:
        await self._loop.run()

    def _on_set(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        self._loop.on_event(kind, new, old)
        if new is None and old is not None:
            for gauge in (self._most_unavailable, self._unavailable):
                with suppress(KeyError):
                    gauge.remove(*_gauge_labels(old))

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        references = [controller_of(pod) for pod in (new, old) if pod is not None]
        pod = new if new is not None else old
        assert pod is not None
        for reference in references:
            if reference is not None and reference["kind"] == "StatefulSet":
                stateful = self._sets.get(namespace_of(pod), reference["name"])
                if stateful is not None and uid_of(stateful) == reference["uid"]:
                    self._loop.add(stateful)
        if new is not None and controller_of(new) is None and not is_being_deleted(new):
            for stateful in self._sets.list(namespace_of(new)):
                if selector_of(stateful).matches(labels_of(new)):
                    self._loop.add(stateful)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        stateful = self._sets.get(namespace, name)
        if stateful is None:
            self._writes.forget(key)
            return None
        matches = selector_of(stateful).matches
        candidates = [
            *self._pods.by_index("owner", uid_of(stateful)),
            *(pod for pod in self._pods.by_index("orphan", namespace) if is_member(stateful, pod)),
        ]
        pods = await claim(self._ctx.client, stateful, STATEFUL_SETS, PODS, candidates, matches)
        pods = sorted((pod for pod in pods if is_member(stateful, pod)), key=ordinal_of)
        known = history.in_order(
            await claim(
                self._ctx.client,
                stateful,
                STATEFUL_SETS,
                CONTROLLER_REVISIONS,
                [*self._revisions.by_index("owner", uid_of(stateful)), *self._revisions.by_index("orphan", namespace)],
                matches,
            )
        )
        current, update, collisions = await self._current_revisions(key, stateful, known)
        revisions = Revisions(
            history.applied(stateful, current), history.applied(stateful, update), name_of(current), name_of(update)
        )
        now = self._ctx.clock.now()
        error: BaseException | None = None
        updating = 0
        if not is_being_deleted(stateful):
            decided = plan(stateful, revisions, pods, now, lambda pod: self._claims_settled(revisions.update, pod))
            error = await self._act(key, stateful, revisions.update, decided.actions)
            updating = decided.updating if error is None else 0
        status = status_of(stateful, revisions, pods, collisions, updating, now)
        self._most_unavailable.labels(*_gauge_labels(stateful)).set(most_unavailable(stateful))
        standing = sum(in_range(stateful, pod) and not is_unavailable(stateful, pod, now) for pod in pods)
        self._unavailable.labels(*_gauge_labels(stateful)).set(replicas_of(stateful) - standing)
        if not same_status(stateful.get("status") or {}, status):
            call = self._ctx.client.update(STATEFUL_SETS, {**stateful, "status": status}, subresource="status")
            await self._writes.do(key, self._sets, call)
        if error is not None:
            raise error
        live = {name_of(current), name_of(update), *(labels_of(pod).get(REVISION, "") for pod in pods)}
        limit = stateful["spec"].get("revisionHistoryLimit")
        await history.truncate(self._ctx.client, known, live, 10 if limit is None else limit)
        if status["readyReplicas"] != status["availableReplicas"]:
            return podutil.next_availability(pods, stateful["spec"].get("minReadySeconds") or 0, now)
        return None

    async def _current_revisions(self, key: str, stateful: Obj, known: Sequence[Obj]) -> tuple[Obj, Obj, int]:
        """(the revision that is complete, the one to get to, collisions)."""
        client = self._ctx.client
        status = stateful.get("status") or {}
        collisions = status.get("collisionCount") or 0
        wanted = history.new_revision(stateful, history.next_number(known), collisions)
        equal = [each for each in known if history.is_same(each, wanted)]
        if equal and equal[-1] is known[-1]:
            update = known[-1]
        elif equal:
            update = await history.renumber(client, equal[-1], history.next_number(known))
            self._writes.wrote(key, self._revisions, update)
        else:
            update, collisions = await history.create(client, stateful, history.next_number(known), collisions)
            self._writes.wrote(key, self._revisions, update)
        current = next((each for each in known if name_of(each) == status.get("currentRevision")), update)
        return current, update, collisions

    # Acting

    async def _act(self, key: str, stateful: Obj, update: Obj, actions: Sequence[Action]) -> BaseException | None:
        """Carry actions out: one by one for an ordered set, else ever more at once; returns the first error."""
        if is_ordered(stateful):
            for action in actions:
                errors = await each([self._do(key, stateful, update, action)])
                if errors:
                    return errors[0]
            return None
        _, errors = await in_batches([partial(self._do, key, stateful, update, action) for action in actions])
        return errors[0] if errors else None

    async def _do(self, key: str, stateful: Obj, update: Obj, action: Action) -> None:
        pod = action.pod
        match action.verb:
            case "create":
                await self._create(key, stateful, pod)
            case "delete":
                await self._delete(key, stateful, pod)
            case "provide":
                await self._create_claims(stateful, pod)
                await self._settle_claims(stateful, pod)
            case "settle":
                await self._settle_claims(update, pod)
            case "fix":
                await self._fix(key, stateful, update, pod)

    async def _create(self, key: str, stateful: Obj, pod: Obj) -> None:
        if any(claiming.is_stale(each_, pod) for each_ in self._present_claims(stateful, pod)):
            return  # the claims of the last pod of this name are still on their way out
        try:
            await self._create_claims(stateful, pod)
            created = await self._writes.do(key, self._pods, self._ctx.client.create(PODS, pod))
        except (ApiError, ConnectionFailed) as error:
            if not is_already_exists(error):
                self._event(stateful, "create", pod, error)
            raise
        await self._settle_claims(stateful, created)
        self._event(stateful, "create", pod)

    async def _delete(self, key: str, stateful: Obj, pod: Obj) -> None:
        try:
            call = self._ctx.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if not is_not_found(error):
                self._event(stateful, "delete", pod, error)
                raise
        self._event(stateful, "delete", pod)

    async def _fix(self, key: str, stateful: Obj, update: Obj, pod: Obj) -> None:
        try:
            await self._create_claims(stateful, pod)
            await self._settle_claims(update, pod)
            fixed = with_identity(update, pod)
            if fixed != pod:
                await self._writes.do(key, self._pods, self._ctx.client.update(PODS, fixed))
        except (ApiError, ConnectionFailed) as error:
            self._event(stateful, "update", pod, error)
            raise
        self._event(stateful, "update", pod)

    # Claims

    def _present_claims(self, stateful: Obj, pod: Obj) -> list[Obj]:
        names = [claiming.claim_name(stateful, each_, ordinal_of(pod)) for each_ in claiming.templates_of(stateful)]
        found = (self._claims.get(namespace_of(stateful), name) for name in names)
        return [each_ for each_ in found if each_ is not None]

    def _claims_settled(self, stateful: Obj, pod: Obj) -> bool:
        condemned = not in_range(stateful, pod)
        return all(
            claiming.settled(stateful, each_, _typed(pod), condemned=condemned)
            for each_ in self._present_claims(stateful, pod)
        )

    async def _create_claims(self, stateful: Obj, pod: Obj) -> None:
        for wanted in claiming.claims_for(stateful, ordinal_of(pod)):
            there = self._claims.get(namespace_of(stateful), name_of(wanted))
            if there is not None:
                if is_being_deleted(there):
                    raise Retry(f"pvc {name_of(wanted)} is being deleted")
                continue
            try:
                await self._ctx.client.create(PERSISTENT_VOLUME_CLAIMS, wanted)
            except (ApiError, ConnectionFailed) as error:
                if is_already_exists(error):
                    continue
                message = (
                    f"Create Claim {name_of(wanted)} for Pod {name_of(pod)} in StatefulSet {name_of(stateful)} "
                    f"failed error: {error}"
                )
                self._ctx.recorder.event(stateful, "Warning", "FailedCreate", message)
                raise
            done = f"Create Claim {name_of(wanted)} Pod {name_of(pod)} in StatefulSet {name_of(stateful)} success"
            self._ctx.recorder.event(stateful, "Normal", "SuccessfulCreate", done)

    async def _settle_claims(self, stateful: Obj, pod: Obj) -> None:
        condemned = not in_range(stateful, pod)
        for present in self._present_claims(stateful, pod):
            if claiming.has_other_controller(stateful, present, _typed(pod)):
                message = (
                    f"PersistentVolumeClaim {name_of(present)} has a conflicting OwnerReference that acts as a "
                    "manging controller, the retention policy is ignored for this claim"
                )
                self._ctx.recorder.event(stateful, "Warning", "ConflictingController", message)
            references = claiming.wanted_references(stateful, present, _typed(pod), condemned=condemned)
            if references != (present["metadata"].get("ownerReferences") or []):
                metadata = {**present["metadata"], "ownerReferences": references}
                await self._ctx.client.update(PERSISTENT_VOLUME_CLAIMS, {**present, "metadata": metadata})

    def _event(self, stateful: Obj, verb: str, pod: Obj, error: BaseException | None = None) -> None:
        what = f"{verb.title()} Pod {name_of(pod)} in StatefulSet {name_of(stateful)}"
        if error is None:
            self._ctx.recorder.event(stateful, "Normal", f"Successful{verb.title()}", f"{what} successful")
        else:
            self._ctx.recorder.event(stateful, "Warning", f"Failed{verb.title()}", f"{what} failed error: {error}")


def _gauge_labels(stateful: Obj) -> tuple[str, str, str]:
    policy = stateful["spec"].get("podManagementPolicy", "OrderedReady")
    return namespace_of(stateful), name_of(stateful), policy


def _typed(pod: Obj) -> Obj:
    return {"apiVersion": "v1", "kind": "Pod", **pod}
