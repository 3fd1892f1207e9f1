"""Static pods: from a directory or a file, and from a URL, without any API server.

A file of garbage is reported and keeps no other file's pod from running. A server that is down ends no pod; one that
answers with nothing at all has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock, rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet import podspec
from shipwheel.kubelet.settings import KubeletConfig

log = logging.getLogger(__name__)

_FETCH_SECONDS = 10.0
_LARGEST = 10 << 20
QUICK_SECONDS = 1.0
"""How often the directory's times are looked at; files are read when one is different."""


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
        from shipwheel.kubelet.manifests import StaticPodFault, pods_of

        try:
            text = await asyncio.to_thread(_fetch, url, self._config.static_pod_url_header)
            found = await asyncio.to_thread(pods_of, text, self._node_name, url, "http") if text else {}
        except (StaticPodFault, OSError, ValueError) as fault:
            log.warning("Unable to read config from URL %s: %s", url, fault)
            return
        if not text:
            log.warning("Unable to read config from URL %s: zero-length data received from %s", url, url)
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
    from shipwheel.kubelet.manifests import StaticPodFault, pods_of

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
    with contextlib.closing(urlopen(Request(url, headers=flat), timeout=_FETCH_SECONDS)) as answer:
        text = answer.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError(f"the answer is larger than {_LARGEST} bytes")
    return text.decode()
