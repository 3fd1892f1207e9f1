"""Collecting garbage, and rotating logs, as time goes by: `garbage` and `log_rotation` say what and how."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.kubelet import garbage, podspec
from shipwheel.kubelet.container_config import pod_log_directory
from shipwheel.kubelet.eviction import Observation
from shipwheel.kubelet.garbage import ImagePolicy, ImageRecord, Sweep
from shipwheel.kubelet.log_rotation import is_larger, rotate
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.runtime.base import Image, Runtime, RuntimeFault

log = logging.getLogger(__name__)

IMAGES_SECONDS = 300.0
CONTAINERS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LogPolicy:
    maximum: int = 10 << 20
    """Bytes; negative for no rotation."""
    files: int = 5
    interval: float = 10.0
    workers: int = 1
    """How many logs may be rotated at once."""


@dataclass(slots=True)
class Collector:
    """`pods` gives each pod with what was last seen of it; `image_disk` how full the images' disk is."""

    runtime: Runtime
    clock: Clock
    pods: Callable[[], Iterable[tuple[Obj, PodObservation]]]
    image_disk: Callable[[], Observation | None]
    record_node: Callable[[str, str, str], None]
    measures: KubeletMetrics
    pod_logs: str
    kept_images: Callable[[Iterable[str], datetime], None] = lambda references, listed: None
    """Told of the images that were there at a time, after others were removed."""
    image_policy: ImagePolicy = field(default_factory=ImagePolicy)
    log_policy: LogPolicy = field(default_factory=LogPolicy)
    images: Sequence[Image] = ()
    """As they were last listed."""
    _records: dict[str, ImageRecord] = field(default_factory=dict)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(IMAGES_SECONDS, self.collect_images))
            group.create_task(self._every(CONTAINERS_SECONDS, self.collect_containers))
            if self.log_policy.maximum > 0:
                group.create_task(self._every(self.log_policy.interval, self.rotate_logs))

    async def _every(self, seconds: float, work: Callable[[], object]) -> None:
        while True:
            await self.clock.sleep(seconds)
            try:
                await work()  # type: ignore[misc]
            except (RuntimeFault, OSError) as fault:
                log.warning("collecting garbage: %s", fault)

    # Images

    async def list_images(self) -> None:
        """Look at the images, and note which are used. RuntimeFault when that fails."""
        self.images = await self.runtime.images()
        now = self.clock.monotonic()
        self._records = garbage.note_images(self._records, self.images, self._in_use(), now)

    def _in_use(self) -> set[str]:
        used: set[str] = set()
        for pod, observed in self.pods():
            if not podspec.is_terminal(podspec.phase_of(pod)):
                used |= {each["image"] for each in podspec.all_containers(pod)}
                used |= {
                    volume["image"]["reference"]
                    for volume in pod["spec"].get("volumes") or ()
                    if (volume.get("image") or {}).get("reference")
                }
            used |= {name for seen in observed.containers for name in (seen.image, seen.image_ref)}
        return used

    async def collect_images(self, *, everything: bool = False) -> int:
        """Remove images that are not needed, as far as the disk demands; the bytes that freed."""
        began = self.clock.now()
        await self.list_images()
        self.kept_images([each.id for each in self.images], began)
        disk = self.image_disk() or Observation(0, 0)
        sweep = garbage.images_to_remove(
            self.images,
            self._records,
            self._in_use(),
            self.image_policy,
            available=disk.available,
            capacity=disk.capacity,
            now=self.clock.monotonic(),
            everything=everything,
        )
        if not sweep.remove and not sweep.wanted:
            return 0
        return await self._remove_images(sweep, disk)

    async def _remove_images(self, sweep: Sweep, disk: Observation) -> int:
        sizes = {image.id: image.size for image in self.images}
        freed = 0
        for image_id in sweep.remove:
            log.info("removing image %s to free %d bytes", image_id, sizes[image_id])
            try:
                await self.runtime.remove_image(image_id)
                freed += sizes[image_id]
                self.measures.collected_images.labels("age" if image_id in sweep.aged else "space").inc()
            except RuntimeFault as fault:
                log.warning("removing image %s: %s", image_id, fault.message)
        if freed < sweep.wanted:
            used, size = 100 - disk.available * 100 // disk.capacity, _size(disk.capacity)
            text = (
                f"Insufficient free disk space on the node's image filesystem ({used}% of {size} used). "
                f"Failed to free sufficient space by deleting unused images (freed {freed} bytes). "
                "Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
            )
            self.record_node("Warning", "FreeDiskSpaceFailed", text)
        await self.list_images()
        return freed

    # Containers

    async def collect_containers(self, *, everything: bool = False) -> None:
        """Remove containers that ended long ago, with their logs, and sandboxes that nothing needs. `everything`: also
        the last ones of pods that have ended."""
        for pod, observed in self.pods():
            over = everything and podspec.is_terminal(podspec.phase_of(pod))
            left = garbage.remains(observed, keep=0 if over else 1)
            for container_id in left.containers:
                await self._remove_container(pod, observed, container_id)
            for sandbox_id in left.sandboxes:
                await self.runtime.remove_sandbox(sandbox_id)

    async def _remove_container(self, pod: Obj, observed: PodObservation, container_id: str) -> None:
        seen = next(each for each in observed.containers if each.id == container_id)
        await self.runtime.remove_container(container_id)
        directory = Path(pod_log_directory(self.pod_logs, pod)) / seen.name
        for file in directory.glob(f"{seen.restart_count}.log*"):
            file.unlink(missing_ok=True)

    async def reclaim_disk(self) -> int:
        """Free whatever can be freed without ending a pod; the bytes of it."""
        await self.collect_containers(everything=True)
        return await self.collect_images(everything=True)

    # Logs

    async def rotate_logs(self) -> None:
        places = asyncio.Semaphore(self.log_policy.workers)
        async with asyncio.TaskGroup() as group:
            for pod, observed in self.pods():
                directory = Path(pod_log_directory(self.pod_logs, pod))
                for seen in observed.running:
                    file = directory / seen.name / f"{seen.restart_count}.log"
                    if is_larger(file, self.log_policy.maximum):
                        group.create_task(self._rotate(file, seen.id, places))

    async def _rotate(self, file: Path, container_id: str, places: asyncio.Semaphore) -> None:
        try:
            async with places:
                rotated = await rotate(
                    file,
                    maximum=self.log_policy.maximum,
                    files=self.log_policy.files,
                    now=self.clock.now(),
                    reopen=lambda: self.runtime.reopen_log(container_id),
                )
        except (RuntimeFault, OSError) as fault:
            log.warning("rotating the log %s: %s", file, fault)
            return
        if rotated:
            log.info("rotated the log %s", file)


def _size(count: int) -> str:
    """Bytes as messages have them: `1.5 GiB`."""
    size, units = float(count), ("KiB", "MiB", "GiB", "TiB")
    if size < 1024:
        return f"{count} B"
    for unit in units:
        size /= 1024
        if size < 1024 or unit == units[-1]:
            return f"{size:.1f} {unit}"
    raise AssertionError
