"""Who may use an image that is there already (KEP-2535).

An image that one pod's secret opened is not everybody's: for each image that the kubelet pulled it is written down what
opened it, and another pod has to show the same, or pull for itself. What was on the node before, the kubelet never
pulled, is open to all unless the policy says otherwise.

The records are files in upstream's form and place (`image_manager/pulling` and `image_manager/pulled`), so that they
outlive the kubelet, and one of the other kind finds them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock, parse_time, rfc3339
from shipwheel.api.meta import Obj
from shipwheel.kubelet.runtime.base import ImageCredentials

log = logging.getLogger(__name__)

POLICIES = ("NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify")
_VERSION = "kubelet.config.k8s.io/v1beta1"
_MOST_SECRETS = 100
"""A record does not grow by matching beyond this."""


@dataclass(frozen=True, slots=True)
class Opener:
    """Something that may open an image: of a Secret, of a service account, or of the node itself."""

    credentials: ImageCredentials
    secret: Obj | None = None
    """`uid`, `namespace` and `name`."""
    account: Obj | None = None
    """The same, of a service account."""

    @property
    def shown(self) -> Obj | None:
        """How a record names it."""
        if self.secret is None:
            return None
        text = json.dumps(dataclasses.astuple(self.credentials))
        return {**self.secret, "credentialHash": hashlib.sha256(text.encode()).hexdigest()}


def bare(image: str) -> str:
    """An image's name without tag and digest, as it is written."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def must_verify(policy: str, allowed: Sequence[str], image: str, *, pulled: bool) -> bool:
    """Whether a pod has to show that it may use an image. `pulled`: the kubelet pulled it."""
    match policy:
        case "NeverVerify":
            return False
        case "AlwaysVerify":
            return True
        case "NeverVerifyAllowlistedImages":
            name = bare(image)
            return not any(name.startswith(each[:-1]) if each.endswith("/*") else name == each for each in allowed)
        case _:
            return pulled


def opens(kept: Mapping[str, Any], opener: Opener) -> bool:
    """Whether what a record keeps of an image is open to somebody who has this."""
    if opener.account is not None:
        return opener.account in (kept.get("kubernetesServiceAccounts") or ())
    shown = opener.shown
    if shown is None:
        return False
    return any(
        each.get("credentialHash") == shown["credentialHash"] or _same_secret(each, shown)
        for each in kept.get("kubernetesSecrets") or ()
    )


def _same_secret(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(part) == other.get(part) for part in ("uid", "namespace", "name"))


def merged(kept: Mapping[str, Any], opener: Opener | None) -> Obj:
    """What is to be kept, now that this opened the image; None stands for nobody's credentials."""
    if kept.get("nodePodsAccessible"):
        return {"nodePodsAccessible": True}
    if opener is not None and opener.account is not None:
        accounts = [each for each in kept.get("kubernetesServiceAccounts") or () if each != opener.account]
        return {**kept, "kubernetesServiceAccounts": [*accounts, opener.account]}
    shown = opener.shown if opener is not None else None
    if shown is None:
        return {"nodePodsAccessible": True}
    if shown in (kept.get("kubernetesSecrets") or ()):
        return dict(kept)
    others = [each for each in kept.get("kubernetesSecrets") or () if not _same_secret(each, shown)]
    return {**kept, "kubernetesSecrets": [*others, shown]}


class PullRecords:
    """`directory` is the kubelet's own. What cannot be read or written is logged; nobody may use an image by it."""

    def __init__(self, directory: Path, clock: Clock, *, policy: str, allowed: Sequence[str] = ()) -> None:
        self._pulling = directory / "image_manager" / "pulling"
        self._pulled = directory / "image_manager" / "pulled"
        self._clock = clock
        self._policy = policy
        self._allowed = allowed
        self._under_way: Counter[str] = Counter()

    def is_open(self, image: str, reference: str) -> bool:
        """Whether everybody may use an image that is there."""
        record = self._read(self._pulled, reference)
        pulled = record is not None or bool(self._under_way[image]) or _file(self._pulling, image).exists()
        if not must_verify(self._policy, self._allowed, image, pulled=pulled):
            return True
        return bool(_kept(record, image).get("nodePodsAccessible"))

    def may_use(self, image: str, reference: str, openers: Sequence[Opener]) -> bool:
        """Whether somebody who has these may use an image that is there, and not open to everybody."""
        kept = _kept(self._read(self._pulled, reference), image)
        opener = next((each for each in openers if opens(kept, each)), None)
        if opener is None:
            return False
        if len(kept.get("kubernetesSecrets") or ()) < _MOST_SECRETS:
            # A secret that changed, or another with the same content, is good from now on.
            self._keep(image, reference, opener)
        return True

    def begin(self, image: str) -> None:
        """An image is about to be pulled: if nobody lives to tell the outcome, it was the kubelet's all the same."""
        self._under_way[image] += 1
        self._write(self._pulling, image, {"kind": "ImagePullIntent", "apiVersion": _VERSION, "image": image})

    def failed(self, image: str) -> None:
        self._over(image)

    def succeeded(self, image: str, reference: str, opener: Opener | None) -> None:
        """It was pulled with this; None for without credentials."""
        self._keep(image, reference, opener)
        self._over(image)

    def take_over(self, images: Mapping[str, str]) -> None:
        """What a kubelet before us was about to pull, and is there now (references by name), was pulled by nobody
        knows whom."""
        for file in self._pulling.glob("sha256-*"):
            intent = _parsed(file) or {}
            name = intent.get("image", "")
            if name in images and self._read(self._pulled, images[name]) is None:
                self._write(self._pulled, images[name], self._record(images[name], {}))
            file.unlink(missing_ok=True)

    def prune(self, references: Iterable[str], listed: datetime) -> None:
        """Forget images other than these, but for what was pulled since they were listed."""
        present = {_file(self._pulled, each).name for each in references}
        for file in self._pulled.glob("sha256-*"):
            record = _parsed(file) if file.name not in present else None
            updated = (record or {}).get("lastUpdatedTime", "1970-01-01T00:00:00Z")
            if record is not None and parse_time(updated) < listed:
                file.unlink(missing_ok=True)

    def _keep(self, image: str, reference: str, opener: Opener | None) -> None:
        record = self._read(self._pulled, reference) or {}
        kept = merged(_kept(record, image), opener)
        if _kept(record, image) != kept:
            mapping = {**(record.get("credentialMapping") or {}), bare(image): kept}
            self._write(self._pulled, reference, self._record(reference, mapping))

    def _record(self, reference: str, mapping: Obj) -> Obj:
        return {
            "kind": "ImagePulledRecord",
            "apiVersion": _VERSION,
            "lastUpdatedTime": rfc3339(self._clock.now()),
            "imageRef": reference,
            "credentialMapping": mapping,
        }

    def _over(self, image: str) -> None:
        self._under_way[image] -= 1
        if self._under_way[image] <= 0:
            del self._under_way[image]
            _file(self._pulling, image).unlink(missing_ok=True)

    def _read(self, directory: Path, name: str) -> Obj | None:
        return _parsed(_file(directory, name))

    def _write(self, directory: Path, name: str, record: Obj) -> None:
        file = _file(directory, name)
        scratch = file.with_name(f".tmp-{file.name}")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.write_text(json.dumps(record))
            scratch.rename(file)
        except OSError as error:
            log.error("failed to write the record of an image pull %s: %s", file, error)


def _kept(record: Obj | None, image: str) -> Obj:
    return ((record or {}).get("credentialMapping") or {}).get(bare(image)) or {}


def _file(directory: Path, name: str) -> Path:
    return directory / f"sha256-{hashlib.sha256(name.encode()).hexdigest()}"


def _parsed(file: Path) -> Obj | None:
    """None when there is no such file; one of garbage says nothing, but that there was a pull."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("failed to read the record of an image pull %s: %s", file, error)
        return {}
    return found if isinstance(found, dict) else {}
