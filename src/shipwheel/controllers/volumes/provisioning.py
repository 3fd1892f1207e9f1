"""Has volumes made for claims: by external provisioners, which are told by annotations, or by the built-in one."""

from __future__ import annotations

from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, annotations_of, name_of
from shipwheel.client.informer import Informer
from shipwheel.client.resources import NODES, PERSISTENT_VOLUMES
from shipwheel.controllers.framework import Context, is_already_exists, is_not_found
from shipwheel.controllers.volumes import local_path
from shipwheel.controllers.volumes.errands import run_errand
from shipwheel.controllers.volumes.plan import Event
from shipwheel.controllers.volumes.plugins import LOCAL_PATH, NoPlugin, external_name
from shipwheel.controllers.volumes.records import Records
from shipwheel.kinds.claims import (
    BETA_STORAGE_PROVISIONER,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    class_of,
    with_annotations,
    without_annotations,
)


class Provisioner:
    def __init__(self, ctx: Context, records: Records, pods: Informer) -> None:
        self._ctx = ctx
        self._records = records
        self._pods = pods
        self._nodes = ctx.informer(NODES)

    async def provision(self, claim: Obj, storage_class: Obj | None) -> None:
        """Take the next step towards a volume for a claim."""
        if not self._ctx.config.enable_dynamic_provisioning:
            return
        if storage_class is None:
            self._failed(claim, f'storageclass.storage.k8s.io "{class_of(claim)}" not found')
            return
        provisioner = storage_class["provisioner"]
        if provisioner == LOCAL_PATH and self._ctx.config.local_path_provisioner:
            await self._make_local_path(claim, storage_class)
            return
        try:
            name = external_name(provisioner)
        except NoPlugin as error:
            self._failed(claim, str(error))
            return
        claim = await self._assign(claim, name)
        message = (
            f"Waiting for a volume to be created either by the external provisioner '{name}' "
            "or manually by the system administrator. If volume creation is delayed, please verify that "
            "the provisioner is running and correctly registered."
        )
        self._records.event(claim, Event("Normal", "ExternalProvisioning", message))

    def _failed(self, claim: Obj, message: str) -> None:
        self._records.event(claim, Event("Warning", "ProvisioningFailed", message))

    async def _assign(self, claim: Obj, provisioner: str) -> Obj:
        if annotations_of(claim).get(STORAGE_PROVISIONER) == provisioner:
            return claim
        names = {BETA_STORAGE_PROVISIONER: provisioner, STORAGE_PROVISIONER: provisioner}
        return await self._records.update_claim(with_annotations(claim, names))

    async def _make_local_path(self, claim: Obj, storage_class: Obj) -> None:
        if claim["spec"].get("dataSource"):
            only_csi = "Only CSI plugin can provision a claim with a datasource"
            self._failed(claim, f'plugin "{LOCAL_PATH}" is not a CSI plugin. {only_csi}')
            return
        claim = await self._assign(claim, LOCAL_PATH)
        config = self._ctx.config
        directory = config.local_path_provisioner
        node = self._nodes.get("", annotations_of(claim).get(SELECTED_NODE, ""))
        why_not = local_path.cannot_provision(claim, storage_class, node)
        if node is None or why_not:
            await self._give_up(claim, storage_class, why_not)
            return
        pod = local_path.creation_pod(claim, name_of(node), directory, local_path.helper_of(config))
        outcome = await run_errand(
            self._ctx.client, self._pods, pod, is_needed=lambda: self._is_missing(local_path.volume_name(claim))
        )
        if not outcome.ended:
            return
        if outcome.error:
            await self._give_up(claim, storage_class, outcome.error)
            return
        volume = local_path.make_volume(claim, storage_class, node, directory)
        try:
            await self._ctx.client.create(PERSISTENT_VOLUMES, volume)
        except ApiError as error:
            if not is_already_exists(error):
                raise
            return
        message = f"Successfully provisioned volume {name_of(volume)} using {LOCAL_PATH}"
        self._records.event(claim, Event("Normal", "ProvisioningSucceeded", message))

    async def _is_missing(self, volume: str) -> bool:
        try:
            await self._ctx.client.get(PERSISTENT_VOLUMES, volume)
        except ApiError as error:
            if not is_not_found(error):
                raise
            return True
        return False

    async def _give_up(self, claim: Obj, storage_class: Obj, why: str) -> None:
        self._failed(claim, f'Failed to provision volume with StorageClass "{name_of(storage_class)}": {why}')
        if SELECTED_NODE in annotations_of(claim):
            # The scheduler may know a better node.
            await self._records.update_claim(without_annotations(claim, SELECTED_NODE))
