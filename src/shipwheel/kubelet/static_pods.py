"""Static pods: from a directory or a file, and from a URL, without any API server.

Their uid is made of what was read, the node and the place, so an edited file is another pod, and an unchanged one is
recognized after a restart. A file of garbage is reported and keeps no other file's pod from running.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.settings import KubeletConfig

log = logging.getLogger(__name__)

QUICK_SECONDS = 1.0
"""How often the directory's times are looked at; files are read when one is different."""


class StaticPodFault(Exception):
    """What was read is no pod."""


class StaticPods:
    """`changed(pods)` is told of all static pods there are, by uid, whenever they change."""

    def __init__(
        self,
        config: KubeletConfig,
        node_name: str,
        clock: Clock,
        changed: Callable[[Mapping[str, Obj]], None],
    ) -> None:
        self._config = config
        self._node_name = node_name
        self._clock = clock
        self._changed = changed
        self._from_files: dict[str, Obj] = {}
        self._from_url: dict[str, Obj] = {}
        self._read = asyncio.Event()

    async def wait_read(self) -> None:
        """Return when every source was read once."""
        await self._read.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            path, url = self._config.static_pod_path, self._config.static_pod_url
            if path:
                await self._read_files(Path(path))
            if url:
                await self._read_url(url)
            self._read.set()
            if path:
                group.create_task(self._follow_files(Path(path)))
            if url:
                group.create_task(self._follow_url(url))

    async def _follow_files(self, path: Path) -> None:
        seen = await asyncio.to_thread(_stamp, path)
        waited = 0.0
        while True:
            await self._clock.sleep(QUICK_SECONDS)
            waited += QUICK_SECONDS
            stamp = await asyncio.to_thread(_stamp, path)
            if stamp != seen or waited >= self._config.file_check_frequency:
                seen, waited = stamp, 0.0
                await self._read_files(path)

    async def _read_files(self, path: Path) -> None:
        found = await asyncio.to_thread(read_files, path, self._node_name)
        if found.keys() != self._from_files.keys():
            self._from_files = found
            self._tell()

    async def _follow_url(self, url: str) -> None:
        while True:
            await self._clock.sleep(self._config.http_check_frequency)
            await self._read_url(url)

    async def _read_url(self, url: str) -> None:
        try:
            text = await asyncio.to_thread(_fetch, url, self._config.static_pod_url_header)
            found = pods_of(text, self._node_name, f"http:{url}", "http")
        except (StaticPodFault, OSError, ValueError) as fault:
            # Whatever was there before goes on: a server that is down ends no pod.
            log.warning("Unable to read config from URL %s: %s", url, fault)
            return
        if found.keys() != self._from_url.keys():
            self._from_url = found
            self._tell()

    def _tell(self) -> None:
        now = rfc3339(self._clock.now())
        pods = {**self._from_files, **self._from_url}
        for pod in pods.values():
            pod["metadata"]["annotations"].setdefault(podspec.CONFIG_SEEN, now)
        self._changed(pods)


def _stamp(path: Path) -> Any:
    """Changes when a file of the directory does."""
    try:
        entries = [path, *path.iterdir()] if path.is_dir() else [path]
        return [(str(each), each.stat().st_mtime_ns, each.stat().st_size) for each in sorted(entries)]
    except OSError as error:
        return str(error)


def read_files(path: Path, node_name: str) -> dict[str, Obj]:
    """The pods of a file, or of every file in a directory whose name does not begin with a dot."""
    if path.is_dir():
        files: Iterable[Path] = sorted(
            each for each in path.iterdir() if not each.name.startswith(".") and each.is_file()
        )
    else:
        files = [path] if path.exists() else []
    found: dict[str, Obj] = {}
    for file in files:
        try:
            found |= pods_of(file.read_text(), node_name, f"file:{file}", "file")
        except (StaticPodFault, OSError, ValueError) as fault:
            log.error("Could not process manifest file %s: %s", file, fault)
    return found


def _fetch(url: str, headers: Mapping[str, Any]) -> str:
    from urllib.request import Request, urlopen

    flat = {name: ", ".join(value) if isinstance(value, list) else value for name, value in headers.items()}
    with contextlib.closing(urlopen(Request(url, headers=flat), timeout=10)) as answer:
        return answer.read().decode()


def pods_of(text: str, node_name: str, place: str, source: str) -> dict[str, Obj]:
    """The pods in a manifest (a Pod, or a PodList), by uid; StaticPodFault when it is something else."""
    import yaml

    try:
        obj = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StaticPodFault(f"couldn't parse as pod: {error}") from error
    if not isinstance(obj, dict):
        raise StaticPodFault("couldn't parse as pod: it is no object")
    if obj.get("kind") in ("PodList", "List"):
        listed = obj.get("items") or []
    elif obj.get("kind") == "Pod" and obj.get("apiVersion") == "v1":
        listed = [obj]
    else:
        raise StaticPodFault(f"couldn't parse as pod(Object 'Kind' is {obj.get('kind')!r}), please check config file")
    pods = [static_pod(each, node_name, place, source) for each in listed]
    return {each["metadata"]["uid"]: each for each in pods}


def static_pod(obj: Obj, node_name: str, place: str, source: str) -> Obj:
    """A pod with everything filled in that the API server would fill in."""
    pod = copy.deepcopy(obj)
    if not isinstance(pod.get("metadata"), dict) or not isinstance(pod.get("spec"), dict):
        raise StaticPodFault("invalid pod: metadata and spec are required")
    meta, spec = pod["metadata"], pod["spec"]
    if not meta.get("name"):
        raise StaticPodFault("invalid pod: metadata.name: Required value")
    _refuse_references(spec)
    if not meta.get("uid"):
        digest = hashlib.md5(usedforsecurity=False)
        digest.update(f"host:{node_name}{place}".encode())
        digest.update(json.dumps(obj, sort_keys=True, default=str).encode())
        meta["uid"] = digest.hexdigest()
    meta["name"] = f"{meta['name']}-{node_name.lower()}"
    meta.setdefault("namespace", "default")
    annotations = meta.setdefault("annotations", {})
    annotations[podspec.CONFIG_HASH] = meta["uid"]
    annotations[podspec.CONFIG_SOURCE] = source
    spec["nodeName"] = node_name
    tolerations = spec.setdefault("tolerations", [])
    if not any(each.get("operator") == "Exists" and not each.get("key") for each in tolerations):
        tolerations.append({"operator": "Exists", "effect": "NoExecute"})
    _default(spec)
    pod["status"] = {"phase": "Pending"}
    return pod


def _refuse_references(spec: Obj) -> None:
    """A static pod may not refer to what only an API server has."""
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        raise StaticPodFault("static pods may not reference serviceaccounts")
    for volume in spec.get("volumes") or ():
        for kind in ("configMap", "secret", "persistentVolumeClaim", "projected"):
            if kind in volume:
                raise StaticPodFault(f"static pods may not reference {kind.lower()}s")
    if spec.get("ephemeralContainers"):
        raise StaticPodFault("static pods may not have ephemeral containers")
    if not spec.get("containers"):
        raise StaticPodFault("invalid pod: spec.containers: Required value")
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if not isinstance(container, dict) or not container.get("name") or not container.get("image"):
            raise StaticPodFault("invalid pod: spec.containers: name and image are required")


def _default(spec: Obj) -> None:
    """The defaults that the kubelet relies on."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        tag = container["image"].rpartition("/")[2].partition("@")[0].partition(":")[2]
        latest = tag in ("", "latest") and "@" not in container["image"]
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("resources", {})
        requests = container["resources"].setdefault("requests", {})
        for name, amount in (container["resources"].get("limits") or {}).items():
            requests.setdefault(name, amount)
        if not requests:
            del container["resources"]["requests"]
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            probe = container.get(name)
            if probe:
                for field_name, value in _PROBE_DEFAULTS.items():
                    probe.setdefault(field_name, value)


_PROBE_DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
