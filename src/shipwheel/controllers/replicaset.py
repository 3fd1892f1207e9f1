"""ReplicaSets and ReplicationControllers: keep a number of pods of one template running.

Both kinds are the same loop. `plan` decides how many pods to make and which to delete, `status_of` what to
report; the controller does it, creating in batches that double as long as they succeed, so that what cannot
work is not tried five hundred times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from shipwheel.api.clock import parse_time, rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    GroupVersionResource,
    Obj,
    condition,
    controller_of,
    is_being_deleted,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    split_key,
    uid_of,
)
from shipwheel.api.selectors import LabelSelector, from_labels
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.metrics import exponential
from shipwheel.client.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from shipwheel.controllers import framework
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.framework import (
    OWNER_INDEXERS,
    Context,
    each,
    in_batches,
    is_conflict,
    is_not_found,
    namespace_is_terminating,
)
from shipwheel.controllers.ownership import claim
from shipwheel.kinds.conditions import remove_condition, renew_condition

_BURST = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """`create` pods to make, or `delete` pods to delete; never both."""

    create: int = 0
    delete: tuple[Obj, ...] = ()


def plan(rs: Obj, active: Sequence[Obj], related: Sequence[Obj], now: datetime) -> Plan:
    """How to get from the active pods to the number wanted, five hundred at a time. `related` are the pods of
    all sets of the same owner, to be spread over nodes."""
    surplus = len(active) - replicas_of(rs)
    if surplus < 0:
        return Plan(create=min(-surplus, _BURST))
    if surplus == 0:
        return Plan()
    surplus = min(surplus, _BURST)
    if surplus == len(active):
        return Plan(delete=tuple(active))
    return Plan(delete=tuple(podutil.by_deletion_preference(active, related, now)[:surplus]))


def age_ratios(active: Iterable[Obj], chosen: Iterable[Obj], now: datetime) -> list[float]:
    """How many times as old as the youngest ready pod the ready ones are that were chosen to be deleted. (Ages are
    compared on a logarithmic scale, so these should be below 2.)"""

    def age(pod: Obj) -> float:
        return (now - parse_time(pod["metadata"]["creationTimestamp"])).total_seconds()

    ready = [pod for pod in chosen if podutil.is_ready(pod)]
    if not ready:
        return []
    youngest = min((age(pod) for pod in active if podutil.is_ready(pod)), default=0.0)
    return [age(pod) // youngest for pod in ready] if youngest > 0 else []


def replicas_of(rs: Obj) -> int:
    replicas = rs["spec"].get("replicas")
    return 1 if replicas is None else replicas


def status_of(rs: Obj, active: Sequence[Obj], terminating: Sequence[Obj] | None, failure: str, now: datetime) -> Obj:
    """The status to report; `failure` is the message of creating or deleting pods gone wrong. `terminating` is
    None for kinds that do not report it."""
    old = rs.get("status") or {}
    template_labels = from_labels((rs["spec"]["template"].get("metadata") or {}).get("labels") or {})
    min_ready = rs["spec"].get("minReadySeconds") or 0
    ready = [pod for pod in active if podutil.is_ready(pod)]
    status: Obj = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(template_labels.matches(labels_of(pod)) for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(podutil.is_available(pod, min_ready, now) for pod in ready)
        if min_ready
        else len(ready),
        "observedGeneration": rs["metadata"].get("generation") or 0,
    }
    if terminating is not None:
        status["terminatingReplicas"] = len(terminating)
    if old.get("conditions"):
        status["conditions"] = old["conditions"]
    if failure:
        surplus = len(active) - replicas_of(rs)
        if condition(rs, "ReplicaFailure") is None:
            renew_condition(
                status,
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "lastTransitionTime": rfc3339(now),
                    "reason": "FailedCreate" if surplus < 0 else "FailedDelete",
                    "message": failure,
                },
            )
    else:
        remove_condition(status, "ReplicaFailure")
    return status


def same_status(old: Obj, new: Obj) -> bool:
    """Equal, where a number that is absent is zero (and `terminatingReplicas` tells absent from zero)."""
    numbers = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
    return (
        all((old.get(key) or 0) == (new.get(key) or 0) for key in numbers)
        and old.get("terminatingReplicas") == new.get("terminatingReplicas")
        and (old.get("conditions") or []) == (new.get("conditions") or [])
    )


def selector_of(rs: Obj) -> LabelSelector:
    """A replica set's selector; a replication controller's is a plain map."""
    if rs["kind"] == "ReplicationController":
        return from_labels(rs["spec"].get("selector") or {})
    return framework.selector_of(rs)


class ReplicaSetController:
    """The loop of one of the two kinds."""

    def __init__(
        self,
        ctx: Context,
        *,
        resource: GroupVersionResource = REPLICA_SETS,
        kind: str = "ReplicaSet",
        queue: str = "replicaset",
        workers: int = 0,
    ) -> None:
        self._ctx = ctx
        self._resource = resource
        self._kind = kind
        self._sets = ctx.informer(resource, OWNER_INDEXERS)
        self._pods = ctx.pods()
        self._writes = ctx.writes("replicaset_controller", "ReplicaSet")
        self._loop = ctx.loop(
            queue,
            self.reconcile,
            workers=workers or ctx.config.concurrent_replicaset_syncs,
            informers=(self._sets, self._pods),
            writes=self._writes,
        )
        self._age_ratio = ctx.metrics.histogram(
            "replicaset_controller_sorting_deletion_age_ratio",
            "[ALPHA] The ratio of chosen deleted pod's ages to the current youngest pod's age (at the time). Should "
            "be <2. The intent of this metric is to measure the rough efficacy of the LogarithmicScaleDown feature "
            "gate's effect on the sorting (and deletion) of pods when a replicaset scales down. This only considers "
            "Ready pods when calculating and reporting.",
            exponential(0.25, 2, 6),
        )
        self._sets.add_handler(self._loop.on_event)
        self._pods.add_handler(self._on_pod)

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        assert pod is not None
        before = controller_of(old) if old is not None else None
        after = controller_of(new) if new is not None else None
        if before is not None and (after is None or after["uid"] != before["uid"]):
            self._enqueue_owner(namespace_of(pod), before)
        if after is not None:
            self._enqueue_owner(namespace_of(pod), after)
            if kind == "MODIFIED" and new is not None and old is not None:
                self._look_when_available(new, old, after)
        elif new is not None and not is_being_deleted(new) and self._is_news(new, old):
            for rs in self._sets.list(namespace_of(new)):
                if selector_of(rs).matches(labels_of(new)):
                    self._loop.add(rs)

    @staticmethod
    def _is_news(orphan: Obj, old: Obj | None) -> bool:
        return old is None or labels_of(orphan) != labels_of(old) or controller_of(old) is not None

    def _enqueue_owner(self, namespace: str, reference: Obj) -> None:
        if reference["kind"] == self._kind:
            rs = self._sets.get(namespace, reference["name"])
            if rs is not None and uid_of(rs) == reference["uid"]:
                self._loop.add(rs)

    def _look_when_available(self, new: Obj, old: Obj, owner: Obj) -> None:
        """A pod that has become ready will be available some time later, without another event."""
        if podutil.is_ready(old) or not podutil.is_ready(new) or owner["kind"] != self._kind:
            return
        rs = self._sets.get(namespace_of(new), owner["name"])
        if rs is not None and (rs["spec"].get("minReadySeconds") or 0) > 0:
            self._loop.queue.add_after(key_of(rs), rs["spec"]["minReadySeconds"] + 1)

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        rs = self._sets.get(namespace, name)
        if rs is None:
            self._writes.forget(key)
            return None
        matches = selector_of(rs).matches
        candidates = [*self._pods.by_index("owner", uid_of(rs)), *self._pods.by_index("orphan", namespace)]
        active = await claim(self._ctx.client, rs, self._resource, PODS, filter(podutil.is_active, candidates), matches)
        terminating = [
            pod
            for pod in self._pods.by_index("owner", uid_of(rs))
            if podutil.is_terminating(pod) and matches(labels_of(pod))
        ]
        error: BaseException | None = None
        if not is_being_deleted(rs):
            error = await self._act(key, rs, active)
        now = self._ctx.clock.now()
        reported = terminating if self._kind == "ReplicaSet" else None
        status = status_of(rs, active, reported, str(error) if error else "", now)
        if not same_status(rs.get("status") or {}, status):
            await self._write_status(key, rs, status)
        if error:
            raise error
        if status["readyReplicas"] != status["availableReplicas"]:
            min_ready = rs["spec"].get("minReadySeconds") or 0
            wait = podutil.next_availability(active, min_ready, now)
            return min_ready if wait is None else wait
        return None

    async def _write_status(self, key: str, rs: Obj, status: Obj) -> None:
        """Once more with the newest object when it has changed meanwhile."""
        try:
            written = await self._ctx.client.update(self._resource, {**rs, "status": status}, subresource="status")
        except ApiError as error:
            if not is_conflict(error):
                raise
            fresh = await self._ctx.client.get(self._resource, name_of(rs), namespace_of(rs))
            written = await self._ctx.client.update(self._resource, {**fresh, "status": status}, subresource="status")
        self._writes.wrote(key, self._sets, written)

    async def _act(self, key: str, rs: Obj, active: Sequence[Obj]) -> BaseException | None:
        """Create or delete pods; returns the first error."""
        now = self._ctx.clock.now()
        decided = plan(rs, active, self._related_pods(rs), now)
        if decided.create:
            return await self._create(key, rs, decided.create)
        for ratio in age_ratios(active, decided.delete, now):
            self._age_ratio.observe(ratio)
        errors = await each(self._delete(key, rs, pod) for pod in decided.delete)
        return errors[0] if errors else None

    async def _create(self, key: str, rs: Obj, count: int) -> BaseException | None:
        pod = podutil.pod_from_template(rs["spec"]["template"], owner_reference(rs), name_of(rs))
        _, errors = await in_batches([partial(self._create_one, key, rs, pod)] * count)
        return errors[0] if errors else None

    async def _create_one(self, key: str, rs: Obj, pod: Obj) -> None:
        try:
            call = self._ctx.client.create(PODS, pod, namespace_of(rs))
            created = await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if namespace_is_terminating(error):
                return
            self._ctx.recorder.event(rs, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._ctx.recorder.event(rs, "Normal", "SuccessfulCreate", f"Created pod: {name_of(created)}")

    async def _delete(self, key: str, rs: Obj, pod: Obj) -> None:
        try:
            call = self._ctx.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if is_not_found(error):
                return
            self._ctx.recorder.event(rs, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._ctx.recorder.event(rs, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    def _related_pods(self, rs: Obj) -> list[Obj]:
        """The pods of all sets that have the same controller as this one, its own included."""
        owner = controller_of(rs)
        sets = self._sets.by_index("owner", owner["uid"]) if owner else (rs,)
        return [pod for each_set in sets for pod in self._pods.by_index("owner", uid_of(each_set))]


class ReplicationControllerController(ReplicaSetController):
    def __init__(self, ctx: Context) -> None:
        super().__init__(
            ctx,
            resource=REPLICATION_CONTROLLERS,
            kind="ReplicationController",
            queue="replicationmanager",
            workers=ctx.config.concurrent_rc_syncs,
        )
