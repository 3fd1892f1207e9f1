"""How CSI drivers make themselves known: a socket in the kubelet's `plugins_registry` directory.

The kubelet asks at the socket who is there, tells the API server about the driver (CSINode, the node's labels
and annotation), and answers whether it took it. When the socket goes, so does the driver.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.client import Client, ConnectionFailed
from shipwheel.client.grpc.channel import Channel, GrpcError
from shipwheel.client.resources import CSI_DRIVERS, CSI_NODES, NODES
from shipwheel.kubelet.volumes.base import VolumeError
from shipwheel.kubelet.volumes.csi.driver import CsiDriver, CsiDrivers, NodeInfo
from shipwheel.kubelet.volumes.csi.tables import messages

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 10.0
LIMITS_SECONDS = 10.0
_TIMEOUT = 10.0
_NODE_ID = "csi.volume.kubernetes.io/nodeid"
_MAX_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PluginInfo:
    kind: str
    """`CSIPlugin`, `DevicePlugin`, `DRAPlugin`."""
    name: str
    endpoint: str
    versions: tuple[str, ...]


class PluginHandler:
    """What takes plugins of one kind. `add` raises an exception whose text is told to the plugin."""

    async def add(self, info: PluginInfo) -> None: ...

    async def remove(self, info: PluginInfo) -> None: ...


class PluginWatcher:
    """Follows the sockets in a directory. `handlers` by kind of plugin."""

    def __init__(self, directory: Path, clock: Clock, handlers: Mapping[str, PluginHandler]) -> None:
        self._directory = directory
        self._clock = clock
        self._handlers = handlers
        self._known: dict[Path, tuple[float, PluginInfo]] = {}
        self._failed: dict[Path, float] = {}

    async def run(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        while True:
            await self.look()
            await self._clock.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Take what has come, let go what has gone. A socket that was made anew is another plugin."""
        there = dict(_sockets(self._directory))
        for path, (made, info) in list(self._known.items()):
            if there.get(path) != made:
                del self._known[path]
                log.info("plugin %s at %s has gone", info.name, path)
                await self._handlers[info.kind].remove(info)
        for path in self._failed.keys() - there.keys():
            del self._failed[path]
        now = self._clock.monotonic()
        for path, made in there.items():
            if path not in self._known and self._failed.get(path, 0.0) <= now:
                greeted = await self._greet(path)
                if greeted is None:
                    self._failed[path] = now + RETRY_SECONDS
                else:
                    self._known[path] = (made, greeted)

    async def _greet(self, path: Path) -> PluginInfo | None:
        """Ask who it is, take it, and say so; None when it was not taken."""
        channel = Channel(str(path))
        try:
            answer = await _call(channel, "GetInfo", "InfoRequest", "PluginInfo", {})
            info = PluginInfo(
                answer.get("type", ""),
                answer.get("name", ""),
                answer.get("endpoint", "") or str(path),
                tuple(answer.get("supported_versions", ())),
            )
            problem = await self._take(info)
            status = {"plugin_registered": not problem, "error": problem}
            await _call(channel, "NotifyRegistrationStatus", "RegistrationStatus", "RegistrationStatusResponse", status)
        except GrpcError as error:
            log.warning("the plugin at %s could not be registered: %s", path, error)
            return None
        finally:
            await channel.close()
        if problem:
            log.warning("the plugin %s at %s was not taken: %s", info.name, path, problem)
            return None
        log.info("plugin %s registered", info.name)
        return info

    async def _take(self, info: PluginInfo) -> str:
        """What is wrong with it; empty when it was taken."""
        handler = self._handlers.get(info.kind)
        if handler is None:
            return (
                f"RegisterPlugin error -- no handler registered for plugin type: {info.kind} at socket {info.endpoint}"
            )
        try:
            await handler.add(info)
        except (VolumeError, GrpcError, ApiError, ConnectionFailed) as error:
            return f"RegisterPlugin error -- plugin registration failed with err: {error}"
        return ""


def _sockets(directory: Path) -> list[tuple[Path, float]]:
    """Sockets at and below a directory, with when they were made; hidden ones are not looked at."""
    try:
        entries = sorted(os.scandir(directory), key=lambda each: each.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: list[tuple[Path, float]] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += _sockets(Path(entry.path))
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISSOCK(info.st_mode):
            found.append((Path(entry.path), info.st_mtime))
    return found


async def _call(channel: Channel, method: str, request: str, response: str, obj: Obj) -> dict[str, Any]:
    tables = messages()
    return await channel.call(
        f"/pluginregistration.Registration/{method}", tables[request], tables[response], obj, timeout=_TIMEOUT
    )


class CsiHandler(PluginHandler):
    """Takes CSI drivers, and tells the API server which this node has."""

    def __init__(self, drivers: CsiDrivers, client: Client, node_name: str) -> None:
        self._drivers = drivers
        self._client = client
        self._node = node_name
        self._lock = asyncio.Lock()

    async def add(self, info: PluginInfo) -> None:
        if not any(version.lstrip("v").split(".")[0] == "1" for version in info.versions):
            listed = " ".join(info.versions)
            raise VolumeError(
                f'RegisterPlugin for CSI driver "{info.name}" failed. None of the versions specified '
                f'["{listed}"] are supported'
            )
        driver = CsiDriver(info.name, info.endpoint)
        try:
            node = await driver.node_info()
            await self._announce(info.name, node)
        except BaseException:
            await driver.close()
            raise
        await self._drivers.add(driver)

    async def remove(self, info: PluginInfo) -> None:
        await self._drivers.remove(info.name)
        try:
            async with self._lock:
                await self._change_csi_node(lambda drivers: without(drivers, info.name))
                await self._change_node(lambda node: forget_driver(node, info.name))
        except (ApiError, ConnectionFailed) as error:
            log.warning("CSI driver %s could not be taken from node %s: %s", info.name, self._node, error)

    async def follow_limits(self, clock: Clock) -> None:
        """Ask drivers anew how many volumes the node can have, as often as their CSIDriver objects say (KEP-4876)."""
        asked: dict[str, float] = {}
        while True:
            await clock.sleep(LIMITS_SECONDS)
            for name in self._drivers.names():
                try:
                    await self._ask_limit(name, asked, clock.monotonic())
                except (ApiError, ConnectionFailed, GrpcError, VolumeError) as error:
                    log.warning("the limit of CSI driver %s could not be brought up to date: %s", name, error)

    async def _ask_limit(self, name: str, asked: dict[str, float], now: float) -> None:
        try:
            declared = await self._client.get(CSI_DRIVERS, name)
        except ApiError as error:
            if error.code == 404:
                return
            raise
        period = declared["spec"].get("nodeAllocatableUpdatePeriodSeconds")
        if not period or now < asked.get(name, float("-inf")) + period:
            return
        asked[name] = now
        info = await self._drivers.get(name).node_info()
        async with self._lock:
            await self._change_csi_node(lambda drivers: with_limit(drivers, name, info))

    async def _announce(self, name: str, info: NodeInfo) -> None:
        async with self._lock:
            await self._change_node(lambda node: announce_driver(node, name, info))
            await self._change_csi_node(lambda drivers: [*without(drivers, name), csi_node_driver(name, info)])

    async def _change_node(self, change: Callable[[Obj], Obj | None]) -> None:
        """Apply what `change` makes of the node: a merge patch, or nothing."""
        patch = change(await self._client.get(NODES, self._node))
        if patch is not None:
            await self._client.patch(NODES, self._node, "", patch)

    async def _change_csi_node(self, change: Callable[[list[Obj]], list[Obj]]) -> None:
        while True:
            try:
                return await self._write_csi_node(change)
            except ApiError as error:
                if error.reason not in ("Conflict", "AlreadyExists"):
                    raise

    async def ensure_csi_node(self, clock: Clock) -> None:
        """Make the node's CSINode if there is none, and try until it works: the scheduler looks at it even where no
        driver is."""
        while True:
            try:
                async with self._lock:
                    return await self._change_csi_node(lambda drivers: drivers)
            except (ApiError, ConnectionFailed) as error:
                log.warning("the CSINode %s could not be made: %s", self._node, error)
            await clock.sleep(RETRY_SECONDS)

    async def _write_csi_node(self, change: Callable[[list[Obj]], list[Obj]]) -> None:
        try:
            found = await self._client.get(CSI_NODES, self._node)
        except ApiError as error:
            if error.code != 404:
                raise
            node = await self._client.get(NODES, self._node)
            await self._client.create(CSI_NODES, new_csi_node(node, change([])))
            return
        before = found["spec"].get("drivers") or []
        after = change(list(before))
        if after != before:
            found["spec"]["drivers"] = after
            await self._client.update(CSI_NODES, found)


# --- What is told of a driver (pure)


def csi_node_driver(name: str, info: NodeInfo) -> Obj:
    driver: Obj = {"name": name, "nodeID": info.node_id, "topologyKeys": sorted(info.topology)}
    if info.max_volumes > 0:
        driver["allocatable"] = {"count": min(info.max_volumes, _MAX_LIMIT)}
    return driver


def with_limit(drivers: list[Obj], name: str, info: NodeInfo) -> list[Obj]:
    """The drivers, one of them with its present limit."""
    limit = csi_node_driver(name, info).get("allocatable")
    changed = []
    for each in drivers:
        kept = {key: value for key, value in each.items() if key != "allocatable"}
        changed.append(each if each["name"] != name else {**kept, **({"allocatable": limit} if limit else {})})
    return changed


def without(drivers: list[Obj], name: str) -> list[Obj]:
    return [each for each in drivers if each["name"] != name]


def new_csi_node(node: Obj, drivers: list[Obj]) -> Obj:
    meta = node["metadata"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": meta["name"], "ownerReferences": [owner]},
        "spec": {"drivers": drivers},
    }


def announce_driver(node: Obj, name: str, info: NodeInfo) -> Obj | None:
    """The merge patch that makes the node tell of a driver: its id there, and where the node is. Raises
    VolumeError when the driver says something else than the node's labels."""
    meta = node["metadata"]
    labels = meta.get("labels") or {}
    for key, value in info.topology.items():
        if labels.get(key, value) != value:
            raise VolumeError(
                f'detected topology value collision: driver reported "{key}":"{value}" but existing label is '
                f'"{key}":"{labels[key]}"'
            )
    ids = _node_ids(meta)
    if ids.get(name) == info.node_id and info.topology.items() <= labels.items():
        return None
    annotation = json.dumps({**ids, name: info.node_id}, separators=(",", ":"))
    return {"metadata": {"annotations": {_NODE_ID: annotation}, "labels": dict(info.topology)}}


def forget_driver(node: Obj, name: str) -> Obj | None:
    ids = _node_ids(node["metadata"])
    if name not in ids:
        return None
    del ids[name]
    return {"metadata": {"annotations": {_NODE_ID: json.dumps(ids, separators=(",", ":")) if ids else None}}}


def _node_ids(meta: Obj) -> dict[str, str]:
    try:
        found = json.loads((meta.get("annotations") or {}).get(_NODE_ID, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
