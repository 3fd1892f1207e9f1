"""Image names, pull policies, credentials and waiting after failures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet.backoff import BackOff
from shipwheel.kubelet.credentials import credentials_for, node_entries, secret_entries
from shipwheel.kubelet.images import ImageFault, ImageManager, Wanted, repository, with_default_tag
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.pull_records import Opener
from shipwheel.kubelet.runtime.base import Image, ImageCredentials, RuntimeFault, SandboxConfig
from shipwheel.kubelet.words import go_duration, rpc_error


class Registry:
    """The part of a runtime that has images."""

    def __init__(self, *present: str) -> None:
        self.present = set(present)
        self.remote: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def image_status(self, image: str) -> Image | None:
        return Image(f"sha256:{image}", size=42) if image in self.present or image.startswith("sha256:") else None

    async def pull_image(self, image: str, credentials: ImageCredentials | None, sandbox: SandboxConfig | None) -> str:
        self.asked.append((image, credentials.username if credentials else ""))
        if image not in self.remote:
            raise RuntimeFault("NOT_FOUND", f"no {image}")
        self.present.add(image)
        return f"sha256:{image}"


class Desk:
    def __init__(self, registry: Registry) -> None:
        self.clock = ManualClock()
        self.manager = ImageManager(registry, self.clock, KubeletMetrics(Metrics(process=False)))  # type: ignore[arg-type]
        self.events: list[tuple[str, str]] = []

    async def ensure(self, image: str, policy: str = "IfNotPresent", *credentials: ImageCredentials) -> str:
        async def given() -> Sequence[Opener]:
            return [Opener(each) for each in credentials]

        wanted = Wanted("uid-1", image, policy, given)
        reference, _ = await self.manager.ensure(wanted, lambda kind, reason, text: self.events.append((reason, text)))
        return reference


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("a.example/b@sha256:" + "0" * 64, "a.example/b@sha256:" + "0" * 64),
        ("a_b/c__d/e--f:x", "a_b/c__d/e--f:x"),
    ],
)
def test_names(name: str, whole: str) -> None:
    assert with_default_tag(name) == whole


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("upper/Case", "repository name must be lowercase"),
        ("a:b:c", "invalid reference format"),
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("-a", "invalid reference format"),
    ],
)
def test_wrong_names(name: str, why: str) -> None:
    with pytest.raises(ImageFault) as caught:
        with_default_tag(name)
    assert caught.value.reason == "InvalidImageName"
    assert (
        caught.value.message
        == f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": {why}'
    )


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("a/b:1", "docker.io/a/b"),
        ("r.example/x:1", "r.example/x"),
        ("localhost/x", "localhost/x"),
    ],
)
def test_repositories(name: str, full: str) -> None:
    assert repository(name) == full


async def test_what_is_present_is_not_pulled() -> None:
    desk = Desk(Registry("a:latest"))
    assert await desk.ensure("a") == "sha256:a:latest"
    assert desk.events == [("Pulled", 'Container image "a" already present on machine and can be accessed by the pod')]


async def test_what_must_not_be_pulled_is_not() -> None:
    desk = Desk(Registry())
    with pytest.raises(ImageFault) as caught:
        await desk.ensure("a", "Never")
    assert caught.value.reason == "ErrImageNeverPull"
    assert desk.events == [("ErrImageNeverPull", 'Container image "a" is not present with pull policy of Never')]


async def test_a_pull_tells_how_long_it_took() -> None:
    registry = Registry()
    registry.remote.add("a:latest")
    desk = Desk(registry)
    assert await desk.ensure("a", "Always") == "sha256:a:latest"
    assert desk.events == [
        ("Pulling", 'Pulling image "a"'),
        ("Pulled", 'Successfully pulled image "a" in 0s (0s including waiting). Image size: 42 bytes.'),
    ]


async def test_a_failed_pull_is_repeated_ever_later() -> None:
    registry = Registry()
    desk = Desk(registry)
    waits = []
    for delay in (10, 20, 40, 80, 160, 300, 300):
        with pytest.raises(ImageFault) as caught:
            await desk.ensure("a:1")
        assert caught.value.reason == "ErrImagePull"
        assert caught.value.message == "rpc error: code = NotFound desc = no a:1"
        waits.append(caught.value.retry_after)
        await desk.clock.advance(delay - 1)
        with pytest.raises(ImageFault) as caught:
            await desk.ensure("a:1")
        assert caught.value.reason == "ImagePullBackOff"
        assert caught.value.message == (
            'Back-off pulling image "a:1": ErrImagePull: rpc error: code = NotFound desc = no a:1'
        )
        await desk.clock.advance(1)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert len(registry.asked) == 7


async def test_credentials_are_tried_in_turn() -> None:
    registry = Registry()
    desk = Desk(registry)
    with pytest.raises(ImageFault):
        await desk.ensure("a:1", "Always", ImageCredentials("one"), ImageCredentials("two"))
    assert [user for _, user in registry.asked] == ["one", "two"]


def secret(auths: dict[str, object], key: str = ".dockerconfigjson") -> Obj:
    content = {"auths": auths} if key == ".dockerconfigjson" else auths
    return {"data": {key: base64.b64encode(json.dumps(content).encode()).decode()}}


def from_secrets(image: str, secrets: list[Obj]) -> list[ImageCredentials]:
    return credentials_for(image, [entry for each in secrets for entry in secret_entries(each)])


def test_pull_secrets() -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    secrets: list[Obj] = [
        secret({"https://index.docker.io/v1/": {"auth": auth}, "r.example": {"username": "u", "password": "p"}}),
        secret({"*.cloud.example/team": {"username": "star"}}, ".dockercfg"),
        {"data": {".dockerconfigjson": "!"}},
        {"data": {"other": "x"}},
    ]
    found = from_secrets("busybox", secrets)
    assert [(each.username, each.password) for each in found] == [("me", "pass:word")]
    assert [each.username for each in from_secrets("r.example/x:1", secrets)] == ["u"]
    assert [each.username for each in from_secrets("eu.cloud.example/team/app", secrets)] == ["star"]
    assert from_secrets("eu.cloud.example/other", secrets) == []
    assert from_secrets("a.eu.cloud.example/team", secrets) == []


def test_the_most_specific_credentials_go_first() -> None:
    secrets = [secret({"r.example": {"username": "all"}, "r.example/team": {"username": "team"}})]
    assert [each.username for each in from_secrets("r.example/team/x", secrets)] == ["team", "all"]


def test_credentials_of_the_node(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    for directory in (root, home / ".docker"):
        directory.mkdir(parents=True)
    assert node_entries(root, home) == []
    (home / ".docker/config.json").write_text('{"auths": {"a.example": {"username": "home"}}}')
    (home / ".dockercfg").write_text('{"b.example": {"username": "old"}}')
    assert node_entries(root, home) == [("a.example", {"username": "home"}), ("b.example", {"username": "old"})]
    (root / "config.json").write_text('{"auths": {"a.example": {"username": "root"}}}')
    assert node_entries(root, home)[0] == ("a.example", {"username": "root"})
    (root / "config.json").write_text("garbage")
    assert node_entries(root, home)[0] == ("a.example", {"username": "home"})


def test_back_off_begins_anew_after_a_quiet_time() -> None:
    backoff = BackOff()
    backoff.failed("k", 0, now=0)
    backoff.failed("k", 20, now=20)
    assert backoff.delay("k") == 20
    assert backoff.wait("k", 20, now=25) == 15
    assert backoff.wait("k", 20, now=45) == 0
    assert backoff.wait("k", 621, now=621) == 0
    backoff.failed("k", 621, now=621)
    assert backoff.delay("k") == 10
    assert backoff.wait("other", 0, now=0) == 0
    backoff.forget("k")
    assert backoff.delay("k") == 0


def test_back_off_may_have_a_lower_limit() -> None:
    backoff = BackOff()
    backoff.limit(5)
    for now in (0.0, 5.0, 10.0):
        backoff.failed("k", now, now=now)
    assert backoff.delay("k") == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (10, "10s"),
        (40, "40s"),
        (80, "1m20s"),
        (300, "5m0s"),
        (3661, "1h1m1s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_errors_of_the_runtime() -> None:
    assert rpc_error(RuntimeFault("DEADLINE_EXCEEDED", "late")) == "rpc error: code = DeadlineExceeded desc = late"
