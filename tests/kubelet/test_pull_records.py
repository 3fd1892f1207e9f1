"""Who may use an image that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.client.metrics import Metrics
from shipwheel.kubelet.images import ImageFault, ImageManager, Wanted
from shipwheel.kubelet.measures import KubeletMetrics
from shipwheel.kubelet.pull_records import Opener, PullRecords, bare, must_verify
from shipwheel.kubelet.runtime.base import ImageCredentials
from tests.kubelet.test_images import Registry

IMAGE = "r.example/team/app:1"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a", "a"),
        ("a:1", "a"),
        ("r:5000/a", "r:5000/a"),
        ("r:5000/a:1", "r:5000/a"),
        ("a@sha256:00", "a"),
        ("r:5000/a:1@sha256:00", "r:5000/a"),
    ],
)
def test_names_without_tags(image: str, name: str) -> None:
    assert bare(image) == name


@pytest.mark.parametrize(
    ("policy", "allowed", "preloaded", "pulled"),
    [
        ("NeverVerify", (), False, False),
        ("AlwaysVerify", (), True, True),
        ("NeverVerifyPreloadedImages", (), False, True),
        ("NeverVerifyAllowlistedImages", ("r.example/team/app",), False, False),
        ("NeverVerifyAllowlistedImages", ("r.example/team/*",), False, False),
        ("NeverVerifyAllowlistedImages", ("r.example/tea",), True, True),
    ],
)
def test_policies(policy: str, allowed: tuple[str, ...], preloaded: bool, pulled: bool) -> None:
    assert must_verify(policy, allowed, IMAGE, pulled=False) == preloaded
    assert must_verify(policy, allowed, IMAGE, pulled=True) == pulled


def secret(uid: str, password: str) -> Opener:
    whose = {"uid": uid, "namespace": "ns", "name": f"secret-{uid}"}
    return Opener(ImageCredentials(username="u", password=password, server_address="r.example"), whose)


NODE = Opener(ImageCredentials(username="node"))


class Desk:
    def __init__(self, directory: Path, registry: Registry, policy: str = "NeverVerifyPreloadedImages") -> None:
        self.clock = ManualClock()
        self.registry = registry
        self.records = PullRecords(directory, self.clock, policy=policy)
        self.manager = ImageManager(
            registry,  # type: ignore[arg-type]
            self.clock,
            KubeletMetrics(Metrics(process=False)),
            records=self.records,
        )

    async def pulls(self, *openers: Opener, policy: str = "IfNotPresent") -> bool:
        """Whether a pod that has these pulls the image, rather than using the one that is there."""

        async def given() -> Sequence[Opener]:
            return openers

        before = len(self.registry.asked)
        await self.manager.ensure(Wanted("uid", IMAGE, policy, given), lambda kind, reason, text: None)
        return len(self.registry.asked) > before


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    registry = Registry()
    registry.remote.add(IMAGE)
    return Desk(tmp_path, registry)


async def test_what_was_there_before_is_open_to_all(desk: Desk) -> None:
    desk.registry.present.add(IMAGE)
    assert not await desk.pulls()


async def test_what_needed_nothing_is_open_to_all(desk: Desk) -> None:
    assert await desk.pulls()
    assert not await desk.pulls()
    assert not await desk.pulls(secret("1", "x"))


async def test_the_nodes_own_credentials_are_everybodys(desk: Desk) -> None:
    assert await desk.pulls(NODE)
    assert not await desk.pulls()


async def test_a_secret_opens_an_image_for_those_who_have_it(desk: Desk, tmp_path: Path) -> None:
    assert await desk.pulls(secret("1", "good"))
    assert not await desk.pulls(secret("1", "good"))
    assert not await desk.pulls(secret("2", "good")), "another secret of the same content"
    assert not await desk.pulls(secret("1", "rotated")), "the same secret with another content"
    assert await desk.pulls(secret("3", "else")), "somebody else has to try"
    assert await desk.pulls()
    assert not await desk.pulls(), "who needed nothing opened it to all"
    assert [each.name[:7] for each in (tmp_path / "image_manager" / "pulled").iterdir()] == ["sha256-"]
    assert not list((tmp_path / "image_manager" / "pulling").iterdir())


async def test_a_service_account_opens_an_image_for_its_own_pods(desk: Desk) -> None:
    def account(uid: str) -> Opener:
        return Opener(ImageCredentials(password=uid), account={"uid": uid, "namespace": "ns", "name": "runner"})

    assert await desk.pulls(account("1"))
    assert not await desk.pulls(account("1"))
    assert await desk.pulls(account("2"))
    assert await desk.pulls(secret("1", "good"))
    assert not await desk.pulls(account("1")) and not await desk.pulls(secret("1", "good"))


async def test_without_the_secret_the_image_is_as_good_as_absent(desk: Desk) -> None:
    assert await desk.pulls(secret("1", "good"))
    desk.registry.remote.clear()
    with pytest.raises(ImageFault) as caught:
        await desk.pulls(secret("2", "bad"))
    assert caught.value.reason == "ErrImagePull"
    with pytest.raises(ImageFault) as caught:
        await desk.pulls(policy="Never")
    assert caught.value.reason == "ErrImageNeverPull"
    assert not await desk.pulls(secret("1", "good"), policy="Never")


async def test_records_outlive_the_kubelet(desk: Desk, tmp_path: Path) -> None:
    assert await desk.pulls(secret("1", "good"))
    again = Desk(tmp_path, desk.registry)
    assert not await again.pulls(secret("1", "good"))
    assert await again.pulls(secret("2", "bad"))


async def test_a_pull_whose_end_nobody_saw(desk: Desk, tmp_path: Path) -> None:
    desk.records.begin(IMAGE)
    desk.registry.present.add(IMAGE)
    again = Desk(tmp_path, desk.registry)
    again.records.take_over({IMAGE: f"sha256:{IMAGE}"})
    assert not list((tmp_path / "image_manager" / "pulling").iterdir())
    assert await again.pulls(secret("1", "good")), "nobody knows who opened it"


async def test_records_go_with_their_images(desk: Desk) -> None:
    assert await desk.pulls(secret("1", "good"))
    listed = desk.clock.now()
    desk.records.prune([], listed)
    assert await desk.pulls(secret("2", "x")), "it was pulled since"
    await desk.clock.advance(10)
    desk.records.prune([f"sha256:{IMAGE}"], desk.clock.now())
    assert not await desk.pulls(secret("1", "good"))
    desk.records.prune([], desk.clock.now())
    assert not await desk.pulls(), "now it was there before"


async def test_garbage_in_a_record(desk: Desk, tmp_path: Path) -> None:
    assert await desk.pulls(secret("1", "good"))
    (record,) = (tmp_path / "image_manager" / "pulled").iterdir()
    record.write_text("{")
    assert await desk.pulls(secret("1", "good")), "nobody knows who may use it"
    assert not await desk.pulls(secret("1", "good"))
