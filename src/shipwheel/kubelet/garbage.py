"""Garbage: images that nobody has used for a while, and containers that ended long ago. What goes is decided purely.

Images go when the disk that holds them is fuller than a high mark, until it is below a low mark, the longest unused
first. Of each container the newest ended instance stays, for its logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shipwheel.kubelet.observed import PodObservation
from shipwheel.kubelet.runtime.base import Image


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """When an image was first seen here, and last seen in use: seconds."""

    first_seen: float
    last_used: float


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    high_percent: int = 85
    """100 means never."""
    low_percent: int = 80
    minimum_age: float = 120.0
    maximum_age: float = 0.0
    """Seconds without use after which an image goes whatever room there is; 0 for never."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Images to remove, by id, and what that should free: bytes."""

    remove: Sequence[str] = ()
    aged: Sequence[str] = ()
    """Those of them that go because nobody has used them for too long."""
    wanted: int = 0
    freed: int = 0


def note_images(
    records: Mapping[str, ImageRecord], images: Iterable[Image], in_use: set[str], now: float
) -> dict[str, ImageRecord]:
    """The records after another look at the images."""
    noted = {}
    for image in images:
        record = records.get(image.id, ImageRecord(now, 0.0))
        noted[image.id] = replace(record, last_used=now) if is_used(image, in_use) else record
    return noted


def is_used(image: Image, in_use: set[str]) -> bool:
    names = (image.id, *image.repo_tags, *image.repo_digests)
    return any(name in in_use for name in names)


def images_to_remove(
    images: Sequence[Image],
    records: Mapping[str, ImageRecord],
    in_use: set[str],
    policy: ImagePolicy,
    *,
    available: int,
    capacity: int,
    now: float,
    everything: bool = False,
) -> Sweep:
    """`everything`: the disk is under pressure, so whatever is not used goes, unless it is too young."""
    free = [
        image
        for image in images
        if not is_used(image, in_use) and not image.pinned and records[image.id].last_used < now
    ]
    oldest_first = sorted(free, key=lambda each: (records[each.id].last_used, records[each.id].first_seen))
    if everything:
        grown = [each for each in oldest_first if now - records[each.id].first_seen >= policy.minimum_age]
        return Sweep([each.id for each in grown], (), sum(each.size for each in grown))
    chosen: list[Image] = []
    if policy.maximum_age:
        chosen = [
            each
            for each in oldest_first
            if now - max(records[each.id].last_used, records[each.id].first_seen) > policy.maximum_age
        ]
    aged = [each.id for each in chosen]
    used_percent = 100 - available * 100 // capacity if capacity else 0
    wanted = 0
    if policy.high_percent < 100 and used_percent >= policy.high_percent:
        wanted = capacity * (100 - policy.low_percent) // 100 - available
        freed = sum(each.size for each in chosen)
        for image in oldest_first:
            if freed >= wanted:
                break
            if image in chosen or now - records[image.id].first_seen < policy.minimum_age:
                continue
            chosen.append(image)
            freed += image.size
    return Sweep([each.id for each in chosen], aged, wanted, sum(each.size for each in chosen))


@dataclass(frozen=True, slots=True)
class Remains:
    """What of a pod may be removed, by id."""

    containers: Sequence[str] = field(default_factory=tuple)
    sandboxes: Sequence[str] = field(default_factory=tuple)


def remains(observed: PodObservation, *, keep: int = 1) -> Remains:
    """Ended containers but the newest `keep` of each name, and sandboxes that are neither ready, nor the newest,
    nor hold anything."""
    counts: dict[str, int] = {}
    gone = []
    for seen in observed.containers:
        if seen.state in ("RUNNING", "CREATED"):
            continue
        counts[seen.name] = counts.get(seen.name, 0) + 1
        # A container that runs now is the newest; beside it the last that ended tells why it runs again.
        if counts[seen.name] > keep:
            gone.append(seen.id)
    holding = {seen.sandbox_id for seen in observed.containers if seen.id not in gone}
    boxes = [each.id for each in observed.sandboxes[1:] if not each.ready and each.id not in holding]
    return Remains(tuple(gone), tuple(boxes))
