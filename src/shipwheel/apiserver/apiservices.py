"""The APIService of each group and version that this server serves itself: what the aggregator shows, and the order
that clients see groups in.

Those of built-in groups are made when a server starts and left to the administrator after that; those of custom
resources are kept in step with their definitions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import GroupResource, GroupVersion, Obj, labels_of, name_of
from shipwheel.apiserver.bootstrap import LOOPBACK, ensure
from shipwheel.apiserver.watchcache import Change, ResourceCache

if TYPE_CHECKING:
    from shipwheel.apiserver.server import ApiServer

log = logging.getLogger(__name__)

API_SERVICES = GroupResource("apiregistration.k8s.io", "apiservices")
DEFINITIONS = GroupResource("apiextensions.k8s.io", "customresourcedefinitions")
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"
_RETRY_SECONDS = 1.0
_CUSTOM_PRIORITIES = 1000, 100
PRIORITIES: dict[str, tuple[int, dict[str, int]]] = {
    "": (18000, {"v1": 1}),
    "apps": (17800, {"v1": 15, "v1beta2": 9, "v1beta1": 1}),
    "events.k8s.io": (17750, {"v1": 15, "v1beta1": 5}),
    "authentication.k8s.io": (17700, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "authorization.k8s.io": (17600, {"v1": 15, "v1beta1": 9}),
    "autoscaling": (17500, {"v2": 30, "v1": 15, "v2beta1": 9, "v2beta2": 1}),
    "batch": (17400, {"v1": 15, "v1beta1": 9, "v2alpha1": 9}),
    "certificates.k8s.io": (17300, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "networking.k8s.io": (17200, {"v1": 15, "v1beta1": 9}),
    "policy": (17100, {"v1": 15, "v1beta1": 9}),
    "rbac.authorization.k8s.io": (17000, {"v1": 15, "v1beta1": 12, "v1alpha1": 9}),
    "settings.k8s.io": (16900, {"v1alpha1": 9}),
    "storage.k8s.io": (16800, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "admissionregistration.k8s.io": (16700, {"v1": 15, "v1beta1": 12, "v1alpha1": 9}),
    "apiextensions.k8s.io": (16700, {"v1": 15, "v1beta1": 9}),
    "scheduling.k8s.io": (16600, {"v1": 15, "v1beta1": 12, "v1alpha1": 9, "v1alpha2": 2}),
    "coordination.k8s.io": (16500, {"v1": 15, "v1beta1": 13, "v1alpha2": 12}),
    "node.k8s.io": (16300, {"v1": 15, "v1beta1": 9, "v1alpha1": 1}),
    "discovery.k8s.io": (16200, {"v1": 15, "v1beta1": 12}),
    "resource.k8s.io": (16200, {"v1": 21, "v1beta2": 15, "v1beta1": 9, "v1alpha3": 1}),
    "flowcontrol.apiserver.k8s.io": (
        16100, {"v1": 21, "v1beta3": 18, "v1beta2": 15, "v1beta1": 12, "v1alpha1": 9},
    ),
    "extensions": (16000, {"v1beta1": 1}),
}  # fmt: skip
"""The built-in groups in the order they are listed: the priority of each, and of its versions within it. The
aggregator's own group has no APIService. `extensions`, once the second, is the last: what clients mean by a Deployment
or an Ingress is today's."""


def _local(gv: GroupVersion, managed: str, group_priority: int, version_priority: int) -> Obj:
    return {
        "metadata": {"name": f"{gv.version}.{gv.group}", "labels": {MANAGED: managed}},
        "spec": {
            **({"group": gv.group} if gv.group else {}),
            "version": gv.version,
            "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority,
        },
    }


def of_built_in(group_versions: Iterable[GroupVersion]) -> dict[str, Obj]:
    """The APIServices of the built-in groups among these, by name."""
    found: dict[str, Obj] = {}
    for gv in group_versions:
        group_priority, versions = PRIORITIES.get(gv.group, (0, {}))
        if gv.version in versions:
            obj = _local(gv, ON_START, group_priority, versions[gv.version])
            found[name_of(obj)] = obj
    return found


def of_definitions(definitions: Iterable[Obj]) -> dict[str, Obj]:
    """The APIServices of the versions that these CustomResourceDefinitions serve, by name."""
    group_versions = {
        GroupVersion(crd["spec"]["group"], version["name"])
        for crd in definitions
        for version in crd["spec"]["versions"]
        if version.get("served")
    }
    objs = [_local(gv, ALWAYS, *_CUSTOM_PRIORITIES) for gv in sorted(group_versions)]
    return {name_of(obj): obj for obj in objs}


class ApiServices:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._changed = asyncio.Event()
        server.cache.on_change(self._on_change)

    def _on_change(self, cache: ResourceCache, change: Change) -> None:
        if cache.resource.group_resource in (API_SERVICES, DEFINITIONS):
            self._changed.set()

    async def ensure(self) -> None:
        """What a start does: the built-in groups' are made and put right, and those that are served no more go."""
        if self._server.scheme.resource(API_SERVICES) is None:
            return
        await self._sync(of_built_in(self._server.scheme.group_versions()), ON_START)

    async def run(self) -> None:
        """Follow the custom resources' definitions until cancelled."""
        if self._server.scheme.resource(API_SERVICES) is None or self._server.scheme.resource(DEFINITIONS) is None:
            return
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._sync(of_definitions(self._server.peek_all(DEFINITIONS)), ALWAYS)
            except* ApiError as errors:
                log.warning("API services of custom resources: %s", errors.exceptions[0])
                await self._server.clock.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def _sync(self, wanted: dict[str, Obj], managed: str) -> None:
        """Make those that are missing, put right those that are managed, and delete those managed in this way that
        nothing wants."""
        present = {name_of(each): each for each in self._server.peek_all(API_SERVICES)}
        async with asyncio.TaskGroup() as group:
            for name, obj in wanted.items():
                known = present.get(name)
                if known is None:
                    group.create_task(ensure(self._server, API_SERVICES, obj))
                elif MANAGED in labels_of(known) and known["spec"] != obj["spec"]:
                    group.create_task(self._put_right(name, obj["spec"]))
            for name, known in present.items():
                if labels_of(known).get(MANAGED) == managed and name not in wanted:
                    group.create_task(self._delete(known))

    async def _put_right(self, name: str, spec: Obj) -> None:
        await self._server.change(API_SERVICES, "", name, lambda current: {**current, "spec": spec}, user=LOOPBACK)

    async def _delete(self, known: Obj) -> None:
        options = {"preconditions": {"uid": known["metadata"]["uid"]}}
        try:
            await self._server.delete(API_SERVICES, "", name_of(known), options, user=LOOPBACK)
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise
