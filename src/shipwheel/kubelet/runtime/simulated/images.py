"""Image references and the images that simulated pulls bring: any that could exist."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from shipwheel.kubelet.runtime.base import Image, RuntimeFault


@dataclass(frozen=True, slots=True)
class Reference:
    """`registry/repository[:tag][@digest]`, with what short forms leave out filled in."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        rest, _, digest = text.partition("@")
        head, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            head, tag = rest, ""
        first, slash, repository = head.partition("/")
        if not (slash and ("." in first or ":" in first or first == "localhost")):
            first, repository = "docker.io", head if "/" in head else f"library/{head}"
        return cls(first, repository, tag or ("" if digest else "latest"), digest)

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")


def pull(text: str) -> Image:
    """The image of a reference. Raises RuntimeFault for registries under `.invalid`, a domain that never exists
    (RFC 2606)."""
    reference = Reference.parse(text)
    if reference.registry.split(":")[0].endswith(".invalid"):
        url = f"https://{reference.registry}/v2/{reference.repository}/manifests/{reference.tag or reference.digest}"
        raise RuntimeFault(
            "UNKNOWN",
            f'failed to pull and unpack image "{reference}": failed to resolve reference "{reference}": failed to do '
            f'request: Head "{url}": dial tcp: lookup {reference.registry}: no such host',
        )
    hashed = hashlib.sha256(str(reference).encode())
    digest = reference.digest or f"sha256:{hashlib.sha256(hashed.digest()).hexdigest()}"
    return Image(
        id=f"sha256:{hashed.hexdigest()}",
        repo_tags=[f"{reference.name}:{reference.tag}"] if reference.tag else [],
        repo_digests=[f"{reference.name}@{digest}"],
        size=(1 + hashed.digest()[0]) << 20,
    )


class ImageStore:
    """The images that were pulled."""

    def __init__(self) -> None:
        self._by_id: dict[str, Image] = {}

    def add(self, image: Image) -> None:
        self._by_id[image.id] = image

    def all(self) -> list[Image]:
        return list(self._by_id.values())

    def find(self, text: str) -> Image | None:
        """By id, with or without `sha256:`, or by a reference in any form."""
        for key in (text, f"sha256:{text}"):
            if key in self._by_id:
                return self._by_id[key]
        name = str(Reference.parse(text))
        return next(
            (image for image in self._by_id.values() if name in image.repo_tags or name in image.repo_digests),
            None,
        )

    def remove(self, text: str) -> None:
        image = self.find(text)
        if image is not None:
            del self._by_id[image.id]
