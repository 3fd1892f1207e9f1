"""Getting the image of a container: pull policies, one pull at a time, waiting longer after each failure.

An event tells of everything that happens, in upstream's words; what goes wrong becomes the container's waiting
reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipwheel.api.clock import Clock
from shipwheel.client.ratelimit import TokenBucket
from shipwheel.kubelet.backoff import BackOff
from shipwheel.kubelet.measures import KubeletMetrics, image_size_bucket
from shipwheel.kubelet.pull_records import Opener, PullRecords
from shipwheel.kubelet.runtime.base import Image, Runtime, RuntimeFault, SandboxConfig
from shipwheel.kubelet.words import go_duration, rpc_error

Openers = Callable[[], Awaitable[Sequence[Opener]]]
"""What may open an image, tried in turn; without any it is asked for anonymously. Called when it is to be pulled."""
Notify = Callable[[str, str, str], None]
"""Record an event about the container: (`Normal` or `Warning`, reason, message)."""

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_REGISTRY_UNAVAILABLE = "RegistryUnavailable"
_SIGNATURE_FAILED = "SignatureValidationFailed"


class ImageFault(Exception):
    """The image is not there. `reason` is the container's waiting reason."""

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds after which it makes sense to try again, if that is known."""


def with_default_tag(image: str) -> str:
    """The reference to ask the runtime for: `latest` where neither tag nor digest is given. ImageFault when the
    text is no reference."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        lower = _REFERENCE.fullmatch(image.lower())
        why = "repository name must be lowercase" if lower and image else "invalid reference format"
        text = f'couldn\'t parse image name "{image}": {why}'
        raise ImageFault("InvalidImageName", f'Failed to apply default image tag "{image}": {text}')
    return image if match["tag"] or match["digest"] else f"{image}:latest"


def repository(image: str) -> str:
    """The name without tag and digest, with the registry that a short name stands for."""
    match = _REFERENCE.fullmatch(image)
    name = match["name"] if match else image
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return f"docker.io/{name if slash else f'library/{name}'}"
    return f"{first}/{rest}"


async def _anonymous() -> Sequence[Opener]:
    return ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that a pod wants."""

    pod_uid: str
    image: str
    policy: str
    openers: Openers = _anonymous
    sandbox: SandboxConfig | None = None


class ImageManager:
    """`parallel` is how many pulls may be under way at once; None is any number. `limit` is how often one may begin."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        measures: KubeletMetrics,
        *,
        parallel: int | None = 1,
        limit: TokenBucket | None = None,
        records: PullRecords | None = None,
    ) -> None:
        """`records` tell who may use what is there; without them everybody may."""
        self._runtime = runtime
        self._clock = clock
        self._measures = measures
        self._limit = limit
        self._records = records
        self._slots = asyncio.Semaphore(parallel) if parallel else None
        self._backoff = BackOff()
        self._last_failure: dict[str, str] = {}

    async def ensure(self, wanted: Wanted, notify: Notify) -> tuple[str, Image | None]:
        """(the reference to run the image by, the image); ImageFault when it cannot be had now."""
        try:
            name = with_default_tag(wanted.image)
        except ImageFault as fault:
            notify("Warning", "InspectFailed", fault.message)
            raise
        if wanted.policy != "Always":
            present = await self._inspect(wanted, name, notify)
            if present is not None and await self._may_use(wanted, present):
                text = f'Container image "{wanted.image}" already present on machine and can be accessed by the pod'
                notify("Normal", "Pulled", text)
                return present.id, present
            if wanted.policy == "Never":
                text = f'Container image "{wanted.image}" is not present with pull policy of Never'
                notify("Warning", "ErrImageNeverPull", text)
                raise ImageFault("ErrImageNeverPull", text)
        reference = await self._pull(wanted, name, notify)
        try:
            return reference, await self._runtime.image_status(reference)
        except RuntimeFault as fault:
            raise ImageFault("ImageInspectError", rpc_error(fault)) from fault

    async def _may_use(self, wanted: Wanted, present: Image) -> bool:
        if self._records is None or self._records.is_open(wanted.image, present.id):
            return True
        return self._records.may_use(wanted.image, present.id, await wanted.openers())

    def forget(self, pod_uid: str) -> None:
        self._backoff.forget(f"{pod_uid}_")
        for key in [key for key in self._last_failure if key.startswith(f"{pod_uid}_")]:
            del self._last_failure[key]

    async def _inspect(self, wanted: Wanted, name: str, notify: Notify) -> Image | None:
        try:
            return await self._runtime.image_status(name)
        except RuntimeFault as fault:
            text = f'Failed to inspect image "": {rpc_error(fault)}'
            notify("Warning", "InspectFailed", text)
            raise ImageFault("ImageInspectError", text) from fault

    async def _pull(self, wanted: Wanted, name: str, notify: Notify) -> str:
        key = f"{wanted.pod_uid}_{wanted.image}"
        wait = self._backoff.wait_since_update(key, now=self._clock.monotonic())
        if wait > 0:
            text = f'Back-off pulling image "{wanted.image}"'
            notify("Normal", "BackOff", text)
            before = self._last_failure.get(key)
            raise ImageFault("ImagePullBackOff", f"{text}: {before}" if before else text, wait)
        self._last_failure.pop(key, None)
        notify("Normal", "Pulling", f'Pulling image "{wanted.image}"')
        asked = self._clock.monotonic()
        try:
            reference, started = await self._pull_in_turn(wanted, name)
        except RuntimeFault as fault:
            now = self._clock.monotonic()
            notify("Warning", "Failed", f'Failed to pull image "{wanted.image}": {rpc_error(fault)}')
            self._backoff.failed(key, now, now=now)
            reason, message = _explain(wanted.image, fault)
            self._last_failure[key] = f"{reason}: {message}"
            raise ImageFault(reason, message, self._backoff.delay(key)) from fault
        done = self._clock.monotonic()
        size = await self._size(reference)
        self._measures.pull_duration.labels(image_size_bucket(size)).observe(done - started)
        notify(
            "Normal",
            "Pulled",
            f'Successfully pulled image "{wanted.image}" in {go_duration(done - started)} '
            f"({go_duration(done - asked)} including waiting). Image size: {size} bytes.",
        )
        return reference

    async def _pull_in_turn(self, wanted: Wanted, name: str) -> tuple[str, float]:
        """(reference, when the pull itself began)."""
        if self._slots is None:
            return await self._pull_with_credentials(wanted, name), self._clock.monotonic()
        async with self._slots:
            started = self._clock.monotonic()
            return await self._pull_with_credentials(wanted, name), started

    async def _pull_with_credentials(self, wanted: Wanted, name: str) -> str:
        if self._limit is not None and not self._limit.try_take():
            raise RuntimeFault("UNKNOWN", "pull QPS exceeded")
        openers: Sequence[Opener | None] = await wanted.openers() or (None,)
        if self._records is None:
            return (await self._pull_with_one_of(wanted, name, openers))[0]
        self._records.begin(wanted.image)
        try:
            reference, opener = await self._pull_with_one_of(wanted, name, openers)
        except BaseException:
            self._records.failed(wanted.image)
            raise
        self._records.succeeded(wanted.image, reference, opener)
        return reference

    async def _pull_with_one_of(
        self, wanted: Wanted, name: str, openers: Sequence[Opener | None]
    ) -> tuple[str, Opener | None]:
        """(the image's reference, what opened it); the last fault when nothing does."""
        *others, last = openers
        for opener in others:
            try:
                credentials = opener.credentials if opener else None
                return await self._runtime.pull_image(name, credentials, wanted.sandbox), opener
            except RuntimeFault:
                continue
        return await self._runtime.pull_image(name, last.credentials if last else None, wanted.sandbox), last

    async def _size(self, reference: str) -> int:
        try:
            image = await self._runtime.image_status(reference)
        except RuntimeFault:
            return 0
        return image.size if image else 0


def _explain(image: str, fault: RuntimeFault) -> tuple[str, str]:
    """The waiting reason and message of a pull that failed."""
    for reason, why in (
        (_REGISTRY_UNAVAILABLE, "the registry is unavailable"),
        (_SIGNATURE_FAILED, "the signature validation failed"),
    ):
        if fault.message.startswith(reason):
            return reason, f"image pull failed for {image} because {why}{fault.message.removeprefix(reason)}"
    return "ErrImagePull", rpc_error(fault)
