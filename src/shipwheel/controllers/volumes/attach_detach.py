"""Attaches CSI volumes to the nodes whose pods use them, and detaches them when none does (see `attachments`).

We only write VolumeAttachments; the driver's external attacher does the work and reports in their status. One key
is one node: all that happens to a node happens in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, key_of, name_of, namespace_of, uid_of
from shipwheel.client.informer import EventType
from shipwheel.client.resources import CSI_DRIVERS, NODES, VOLUME_ATTACHMENTS
from shipwheel.controllers.framework import Context, Retry, Writes, is_already_exists, is_not_found
from shipwheel.controllers.pods import is_terminal
from shipwheel.controllers.volumes import caches
from shipwheel.controllers.volumes.attachments import (
    Detach,
    Plan,
    Wanted,
    attachment_name,
    in_use,
    is_attached,
    is_managed,
    is_shareable,
    make_attachment,
    make_plan,
    message_about,
    multi_attach_message,
    reported,
    unique_name,
)
from shipwheel.kinds.claims import claim_name, not_made_for


def _node_of(attachment: Obj) -> tuple[str, ...]:
    return (attachment["spec"].get("nodeName", ""),)


def _volume_of(attachment: Obj) -> tuple[str, ...]:
    return (attachment["spec"]["source"].get("persistentVolumeName") or "",)


class AttachDetachController:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._nodes = ctx.informer(NODES)
        self._pods = caches.pods_of_claims(ctx)
        self._claims = caches.claims(ctx)
        self._volumes = caches.volumes(ctx)
        self._drivers = ctx.informer(CSI_DRIVERS)
        self._attachments = ctx.informer(VOLUME_ATTACHMENTS, {"node": _node_of, "volume": _volume_of})
        self._writes = Writes()
        self._unneeded: dict[str, float] = {}
        self._last_used: dict[str, set[str]] = {}
        self._told: dict[str, str] = {}
        self._waiting: dict[str, set[str]] = {}
        informers = (self._nodes, self._pods, self._claims, self._volumes, self._drivers, self._attachments)
        self._loop = ctx.loop("attachdetach", self.reconcile, workers=10, informers=informers, writes=self._writes)
        self._nodes.add_handler(self._on_node)
        self._pods.add_handler(self._on_pod)
        self._claims.add_handler(self._on_claim)
        self._volumes.add_handler(self._on_volume)
        self._drivers.add_handler(self._on_driver)
        self._attachments.add_handler(self._on_attachment)
        self._forced = ctx.metrics.counter(
            "attach_detach_controller_attachdetach_controller_forced_detaches",
            "[ALPHA] Number of times the A/D Controller performed a forced detach",
            ("reason",),
        )

    async def run(self) -> None:
        await self._loop.run()

    # Events

    def _on_node(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        node = new if new is not None else old
        if node is None:
            return
        if new is None:
            self._last_used[name_of(node)] = in_use(node)
        else:
            self._last_used.pop(name_of(node), None)
        if new is None or old is None or in_use(new) != in_use(old) or reported(new) != reported(old) or (
            new["spec"].get("taints") != old["spec"].get("taints") or is_managed(new) != is_managed(old)
        ):  # fmt: skip
            self._loop.queue.add(name_of(node))

    def _on_pod(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        pod = new if new is not None else old
        if pod is None or not pod["spec"].get("nodeName") or not caches.claims_used(pod):
            return
        if new is None or old is None or not old["spec"].get("nodeName") or is_terminal(new) != is_terminal(old):
            self._loop.queue.add(pod["spec"]["nodeName"])

    def _on_claim(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        if new is not None and new["spec"].get("volumeName"):
            self._queue_users(key_of(new))

    def _on_volume(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for key in caches.reservations(new) if new is not None else ():
            self._queue_users(key)

    def _queue_users(self, claim: str) -> None:
        for pod in self._pods.by_index("claim", claim):
            if pod["spec"].get("nodeName"):
                self._loop.queue.add(pod["spec"]["nodeName"])

    def _on_driver(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        for node in self._nodes.list():
            self._loop.queue.add(name_of(node))

    def _on_attachment(self, kind: EventType, new: Obj | None, old: Obj | None) -> None:
        attachment = new if new is not None else old
        if attachment is None:
            return
        self._loop.queue.add(attachment["spec"].get("nodeName", ""))
        if new is None:
            self._unneeded.pop(uid_of(attachment), None)
            self._told.pop(uid_of(attachment), None)
            for node in self._waiting.pop(_volume_of(attachment)[0], ()):
                self._loop.queue.add(node)

    # Reconciling

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.get("", key)
        attached = self._attached(key, node)
        wanted = self._wanted(key) if node is not None and is_managed(node) else {}
        plan = make_plan(
            node,
            used=in_use(node) if node is not None else self._last_used.get(key, set(attached)),
            wanted=wanted,
            attached=attached,
            unneeded_for=self._unneeded_for,
            force_on_timeout=not self._ctx.config.disable_force_detach_on_timeout,
        )
        for name, each in wanted.items():
            if name in attached:
                self._tell(each, attached[name], is_new=node is not None and name not in reported(node))
                self._unneeded.pop(uid_of(attached[name]), None)
        await self._report(node, plan)
        for detach in plan.detach:
            await self._detach(detach, key)
        for each in plan.attach:
            await self._attach(each, key)
        if not attached and node is None:
            self._last_used.pop(key, None)
        return self._next_look(plan, bool(attached))

    def _next_look(self, plan: Plan, has_attachments: bool) -> float | None:
        config = self._ctx.config
        periods = [] if plan.wait is None else [plan.wait]
        if has_attachments and not config.disable_attach_detach_reconcile_sync:
            periods.append(config.attach_detach_reconcile_sync_period)
        return min(periods, default=None)

    def _wanted(self, node: str) -> dict[str, Wanted]:
        """The volumes that pods on a node need, by unique name."""
        users: dict[str, list[Obj]] = {}
        volumes: dict[str, Obj] = {}
        for pod in self._pods.by_index("node", node):
            if is_terminal(pod):
                continue
            for volume in self._attachable(pod):
                name = unique_name(volume)
                volumes[name] = volume
                users.setdefault(name, []).append(pod)
        return {name: Wanted(volume, tuple(users[name])) for name, volume in volumes.items()}

    def _attachable(self, pod: Obj) -> Iterable[Obj]:
        """The volumes of a pod's bound claims that must be attached."""
        for use in pod["spec"].get("volumes") or ():
            name = claim_name(pod, use)
            claim = self._claims.get(namespace_of(pod), name) if name else None
            if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
                continue
            if use.get("ephemeral") and not_made_for(claim, pod):
                continue
            volume = self._volumes.get("", claim["spec"].get("volumeName", ""))
            if volume is None or (volume["spec"].get("claimRef") or {}).get("uid") != uid_of(claim):
                continue
            if volume["spec"].get("csi") and self._needs_attaching(volume):
                yield volume

    def _needs_attaching(self, volume: Obj) -> bool:
        driver = self._drivers.get("", volume["spec"]["csi"]["driver"])
        return driver is None or driver["spec"].get("attachRequired") is not False

    def _attached(self, node: str, status: Obj | None) -> dict[str, Obj]:
        """Our attachments of a node, by unique name."""
        names = {attachment_name(name, node): name for name in reported(status)} if status is not None else {}
        attached: dict[str, Obj] = {}
        for attachment in self._attachments.by_index("node", node):
            volume = self._volumes.get("", _volume_of(attachment)[0])
            if volume is not None and volume["spec"].get("csi"):
                name = unique_name(volume)
            else:
                name = names.get(name_of(attachment), "")
            if name and attachment_name(name, node) == name_of(attachment):
                attached[name] = attachment
        return attached

    def _unneeded_for(self, attachment: Obj) -> float:
        now = self._ctx.clock.monotonic()
        return now - self._unneeded.setdefault(uid_of(attachment), now)

    def _tell(self, wanted: Wanted, attachment: Obj, *, is_new: bool) -> None:
        """Tell the pods how attaching has gone, once each time."""
        error = (attachment.get("status") or {}).get("attachError")
        if is_attached(attachment):
            self._told.pop(uid_of(attachment), None)
            if is_new:
                message = message_about("AttachVolume.Attach succeeded", wanted.volume)
                for pod in wanted.pods:
                    self._ctx.recorder.event(pod, "Normal", "SuccessfulAttachVolume", message)
        elif error and self._told.get(uid_of(attachment)) != error.get("time", ""):
            self._told[uid_of(attachment)] = error.get("time", "")
            details = f": {error.get('message', '')}"
            message = message_about("AttachVolume.Attach failed", wanted.volume, details)
            for pod in wanted.pods:
                self._ctx.recorder.event(pod, "Warning", "FailedAttachVolume", message)

    async def _report(self, node: Obj | None, plan: Plan) -> None:
        if node is None or sorted(reported(node)) == list(plan.report):
            return
        attached = [{"name": name, "devicePath": ""} for name in plan.report] or None
        patch = {"status": {"volumesAttached": attached}}
        try:
            written = await self._ctx.client.patch(NODES, name_of(node), "", patch, kind="merge", subresource="status")
        except ApiError as error:
            if not is_not_found(error):
                raise
            return
        self._writes.wrote(name_of(node), self._nodes, written)

    async def _detach(self, detach: Detach, node: str) -> None:
        attachment = detach.attachment
        if not detach.forced and await self._is_in_use(attachment, node):
            raise Retry(f"volume of {name_of(attachment)} is still in use by node, according to Node status")
        if detach.forced:
            self._forced.labels(detach.forced).inc()
        try:
            await self._ctx.client.delete(VOLUME_ATTACHMENTS, name_of(attachment), uid=uid_of(attachment))
        except ApiError as error:
            if not is_not_found(error):
                raise

    async def _is_in_use(self, attachment: Obj, node: str) -> bool:
        """Ask the server: the kubelet may have begun to use the volume before our cache shows it."""
        try:
            current = await self._ctx.client.get(NODES, node)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return False
        return name_of(attachment) in {attachment_name(name, node) for name in in_use(current)}

    async def _attach(self, wanted: Wanted, node: str) -> None:
        volume = wanted.volume
        others = [each for each in self._attachments.by_index("volume", name_of(volume)) if _node_of(each)[0] != node]
        if others and not is_shareable(volume):
            waiting = self._waiting.setdefault(name_of(volume), set())
            if node not in waiting:
                waiting.add(node)
                self._tell_blocked(wanted, others)
            return
        try:
            written = await self._ctx.client.create(VOLUME_ATTACHMENTS, make_attachment(volume, node))
        except ApiError as error:
            if not is_already_exists(error):
                raise
            return
        self._writes.wrote(node, self._attachments, written)

    def _tell_blocked(self, wanted: Wanted, others: Iterable[Obj]) -> None:
        nodes = {_node_of(each)[0] for each in others}
        users = [
            pod
            for key in caches.reservations(wanted.volume)
            for pod in self._pods.by_index("claim", key)
            if pod["spec"].get("nodeName") in nodes and not is_terminal(pod)
        ]
        for pod in wanted.pods:
            message = multi_attach_message(wanted.volume, pod, users)
            self._ctx.recorder.event(pod, "Warning", "FailedAttachVolume", message)
