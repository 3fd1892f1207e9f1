"""The DaemonSet loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import (
    Obj,
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
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from shipwheel.controllers import history
from shipwheel.controllers import pods as podutil
from shipwheel.controllers.daemonset import plan as planning
from shipwheel.controllers.framework import (
    OWNER_INDEXERS,
    Context,
    each,
    in_batches,
    is_not_found,
    namespace_is_terminating,
    selector_of,
)
from shipwheel.controllers.ownership import claim

_BURST = 250
_BACKOFF_START = 1.0
_BACKOFF_MAX = 15 * 60.0


class DaemonSetController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._sets = ctx.informer(DAEMON_SETS)
        self._pods = ctx.pods()
        self._nodes = ctx.informer(NODES)
        self._revisions = ctx.informer(CONTROLLER_REVISIONS, OWNER_INDEXERS)
        self._writes = ctx.writes("daemonset_controller", "DaemonSet")
        self._backoff = _FailureBackoff()
        self._loop = ctx.loop(
            "daemonset",
            self.reconcile,
            workers=ctx.config.concurrent_daemonset_syncs,
            informers=(self._sets, self._pods, self._nodes, self._revisions),
            writes=self._writes,
        )
        self._sets.add_handler(self._loop.on_event)
        self._pods.add_handler(self._on_pod)
        self._nodes.add_handler(self._on_node)

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        assert pod is not None
        for reference in [controller_of(each_) for each_ in (new, old) if each_ is not None]:
            if reference is not None and reference["kind"] == "DaemonSet":
                ds = self._sets.get(namespace_of(pod), reference["name"])
                if ds is not None and uid_of(ds) == reference["uid"]:
                    self._loop.add(ds)
        if new is not None and controller_of(new) is None and not is_being_deleted(new):
            for ds in self._sets.list(namespace_of(new)):
                if selector_of(ds).matches(labels_of(new)):
                    self._loop.add(ds)

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        """Only labels and taints (and whether it is there) decide about a node."""
        for ds in self._sets.list():
            if new is not None and old is not None:
                if _node_facts(new) == _node_facts(old):
                    return
                if planning.should_run(ds, new) == planning.should_run(ds, old):
                    continue
            self._loop.add(ds)

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        namespace, name = split_key(key)
        ds = self._sets.get(namespace, name)
        if ds is None:
            self._writes.forget(key)
            self._backoff.forget(key)
            return None
        if not ds["spec"].get("selector"):
            self._ctx.recorder.event(
                ds,
                "Warning",
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            )
            return None
        if is_being_deleted(ds):
            return None
        matches = selector_of(ds).matches
        pods = await self._claimed(ds, PODS, self._pods, matches)
        revisions = history.in_order(await self._claimed(ds, CONTROLLER_REVISIONS, self._revisions, matches))
        current = await self._current_revision(key, ds, revisions, pods)
        hashed = labels_of(current).get(planning.HASH, "")
        now = self._ctx.clock.now()
        nodes = self._nodes.list()
        placed = planning.by_node(pods)
        decided = planning.placement(
            ds, nodes, placed, hashed, now, lambda node: self._backoff.left(key, node, self._ctx.clock.monotonic())
        )
        if not decided.create and not decided.delete and planning.is_rolling(ds):
            decided = planning.roll(ds, nodes, placed, hashed, now)
        self._tell(key, ds, decided)
        error = await self._act(key, ds, decided, hashed)
        status = planning.status_of(ds, nodes, placed, hashed, now)
        if not planning.same_status(ds.get("status") or {}, status):
            call = self._ctx.client.update(DAEMON_SETS, {**ds, "status": status}, subresource="status")
            await self._writes.do(key, self._sets, call)
        if error is not None:
            raise error
        await self._clean_up(ds, revisions, current, pods)
        waits = [decided.look_after, podutil.next_availability(pods, ds["spec"].get("minReadySeconds") or 0, now)]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _claimed(self, ds: Obj, resource: Any, informer: Any, matches: Any) -> list[Obj]:
        candidates = [*informer.by_index("owner", uid_of(ds)), *informer.by_index("orphan", namespace_of(ds))]
        return await claim(self._ctx.client, ds, DAEMON_SETS, resource, candidates, matches)

    def _tell(self, key: str, ds: Obj, decided: planning.Plan) -> None:
        for pod in decided.failed:
            node = planning.node_of(pod)
            self._backoff.failed(key, node, self._ctx.clock.monotonic())
            message = f"Found failed daemon pod {key_of(pod)} on node {node}, will try to kill it"
            self._ctx.recorder.event(ds, "Warning", "FailedDaemonPod", message)
        for pod in decided.succeeded:
            message = f"Found succeeded daemon pod {key_of(pod)} on node {planning.node_of(pod)}, will try to delete it"
            self._ctx.recorder.event(ds, "Normal", "SucceededDaemonPod", message)

    # Revisions

    async def _current_revision(self, key: str, ds: Obj, revisions: Sequence[Obj], pods: Iterable[Obj]) -> Obj:
        """The revision of the present template, with the highest number. Its hash label is that of its pods."""
        wanted = history.new_revision(ds, 0, 0)
        same = [each_ for each_ in revisions if history.is_same(each_, wanted)]
        others = [each_ for each_ in revisions if each_ not in same]
        number = history.next_number(others)
        if same:
            current = same[-1]
            if current["revision"] < number:
                current = await history.renumber(self._ctx.client, current, number)
        else:
            collisions = (ds.get("status") or {}).get("collisionCount") or 0
            current, counted = await history.create(self._ctx.client, ds, number, collisions)
            if counted != collisions:
                status = {**(ds.get("status") or {}), "collisionCount": counted}
                await self._ctx.client.update(DAEMON_SETS, {**ds, "status": status}, subresource="status")
        if planning.HASH not in labels_of(current):
            labels = {**labels_of(current), planning.HASH: history.hash_of(current) or name_of(current)}
            metadata = {**current["metadata"], "labels": labels}
            current = await self._ctx.client.update(CONTROLLER_REVISIONS, {**current, "metadata": metadata})
        self._writes.wrote(key, self._revisions, current)
        await self._merge_duplicates(same[:-1], current, pods)
        return current

    async def _merge_duplicates(self, duplicates: Iterable[Obj], current: Obj, pods: Iterable[Obj]) -> None:
        """Several revisions of one template: keep one, and have its pods say so."""
        hashed = labels_of(current)[planning.HASH]
        for duplicate in duplicates:
            old = labels_of(duplicate).get(planning.HASH)
            for pod in pods:
                if labels_of(pod).get(planning.HASH) == old != hashed:
                    patch = {"metadata": {"labels": {planning.HASH: hashed}}}
                    await self._ctx.client.patch(PODS, name_of(pod), namespace_of(pod), patch)
            await self._ctx.client.delete(CONTROLLER_REVISIONS, name_of(duplicate), namespace_of(duplicate))

    async def _clean_up(self, ds: Obj, revisions: Sequence[Obj], current: Obj, pods: Iterable[Obj]) -> None:
        hashes = {labels_of(pod).get(planning.HASH) for pod in pods}
        live = {name_of(each_) for each_ in revisions if labels_of(each_).get(planning.HASH) in hashes}
        limit = ds["spec"].get("revisionHistoryLimit")
        await history.truncate(self._ctx.client, revisions, {*live, name_of(current)}, 10 if limit is None else limit)

    # Acting

    async def _act(self, key: str, ds: Obj, decided: planning.Plan, hashed: str) -> BaseException | None:
        _, errors = await in_batches([partial(self._create, key, ds, node, hashed) for node in decided.create[:_BURST]])
        errors += await each(self._delete(key, ds, pod) for pod in decided.delete[:_BURST])
        return errors[0] if errors else None

    async def _create(self, key: str, ds: Obj, node: str, hashed: str) -> None:
        pod = podutil.pod_from_template(planning.template_for(ds, node, hashed), owner_reference(ds), name_of(ds))
        try:
            call = self._ctx.client.create(PODS, pod, namespace_of(ds))
            created = await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if namespace_is_terminating(error):
                return
            self._ctx.recorder.event(ds, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._ctx.recorder.event(ds, "Normal", "SuccessfulCreate", f"Created pod: {name_of(created)}")

    async def _delete(self, key: str, ds: Obj, pod: Obj) -> None:
        try:
            call = self._ctx.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
            await self._writes.do(key, self._pods, call)
        except (ApiError, ConnectionFailed) as error:
            if is_not_found(error):
                return
            self._ctx.recorder.event(ds, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._ctx.recorder.event(ds, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")


class _FailureBackoff:
    """How long a node's failed pod is left as it is: a second, doubling to a quarter of an hour, and forgotten
    after twice that."""

    def __init__(self) -> None:
        self._failures: dict[str, dict[str, tuple[float, float]]] = {}

    def left(self, key: str, node: str, now: float) -> float:
        delay, since = self._failures.get(key, {}).get(node, (0.0, now))
        return since + delay - now

    def failed(self, key: str, node: str, now: float) -> None:
        nodes = self._failures.setdefault(key, {})
        delay, since = nodes.get(node, (0.0, now))
        stale = now - since > 2 * _BACKOFF_MAX
        nodes[node] = (_BACKOFF_START if stale or not delay else min(delay * 2, _BACKOFF_MAX), now)

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)


def _node_facts(node: Obj) -> tuple[Any, Any]:
    return labels_of(node), node["spec"].get("taints")
