"""Programs that log in to registries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.kubelet.credential_providers import CredentialProviders, ProviderError, load
from shipwheel.kubelet.credentials import credentials_for

API = "credentialprovider.kubelet.k8s.io/v1"
VALID = {
    "name": "cloud",
    "apiVersion": API,
    "matchImages": ["*.cloud.example", "r.example:5000/team"],
    "defaultCacheDuration": "10m",
    "args": ["login"],
    "env": [{"name": "ACCOUNT", "value": "me"}],
}


class Desk:
    """One provider, a shell script that counts how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.answer(kind="Image")

    def answer(self, *, kind: str, lasts: str | None = None, version: str = API, code: int = 0) -> None:
        response = {
            "kind": "CredentialProviderResponse",
            "apiVersion": version,
            "cacheKeyType": kind,
            "auth": {"*.cloud.example": {"username": "$ACCOUNT-$1", "password": "p"}},
        }
        if lasts is not None:
            response["cacheDuration"] = lasts
        program = self.directory / "cloud"
        text = json.dumps(response).replace('"', '\\"')
        program.write_text(
            f'#!/bin/sh\ncat >> {self.directory}/asked\necho >> {self.directory}/asked\necho "{text}"\nexit {code}\n'
        )
        program.chmod(0o755)

    def asked(self) -> list[str]:
        """The images it was asked for."""
        file = self.directory / "asked"
        return [json.loads(line)["image"] for line in file.read_text().splitlines()] if file.exists() else []

    def providers(self, **changes: object) -> CredentialProviders:
        config = self.directory / "config.yaml"
        obj = {
            "kind": "CredentialProviderConfig",
            "apiVersion": "kubelet.config.k8s.io/v1",
            "providers": [{**VALID, **changes}],
        }
        config.write_text(json.dumps(obj))
        return CredentialProviders(load(str(config), str(self.directory)), self.clock)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_who_knows_an_image_is_asked(desk: Desk) -> None:
    providers = desk.providers()
    image = "eu.cloud.example/app:1"
    (found,) = credentials_for(image, await providers.entries(image))
    assert (found.username, found.password) == ("me-login", "p")
    assert await providers.entries("busybox") == []
    assert await providers.entries("r.example:5000/other") == []
    assert await providers.entries("r.example:5000/team/app") != []
    assert desk.asked() == [image, "r.example:5000/team/app"]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("Image", ["a.cloud.example/x", "a.cloud.example/y", "b.cloud.example/x"]),
        ("Registry", ["a.cloud.example/x", "b.cloud.example/x"]),
        ("Global", ["a.cloud.example/x"]),
    ],
)
async def test_answers_are_kept(desk: Desk, kind: str, asked: list[str]) -> None:
    desk.answer(kind=kind)
    providers = desk.providers()
    for _ in range(2):
        for image in ("a.cloud.example/x", "a.cloud.example/y", "b.cloud.example/x"):
            assert await providers.entries(image)
    assert desk.asked() == asked


@pytest.mark.parametrize(("lasts", "after"), [(None, 600), ("1m0s", 60), ("0s", 0)])
async def test_but_not_for_ever(desk: Desk, lasts: str | None, after: float) -> None:
    desk.answer(kind="Image", lasts=lasts)
    providers = desk.providers()
    await providers.entries("a.cloud.example/x")
    if after:
        await desk.clock.advance(after - 1)
        await providers.entries("a.cloud.example/x")
        assert len(desk.asked()) == 1
        await desk.clock.advance(1)
    await providers.entries("a.cloud.example/x")
    assert len(desk.asked()) == 2


async def test_those_who_come_together_ask_once(desk: Desk) -> None:
    providers = desk.providers()
    await asyncio.gather(*(providers.entries("a.cloud.example/x") for _ in range(5)))
    assert len(desk.asked()) == 1


async def test_a_provider_that_fails_gives_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    providers = desk.providers()
    for case, told in (
        ({"kind": "Image", "code": 3}, "exit status 3"),
        ({"kind": "Nonsense"}, "did not return a valid cacheKeyType: Nonsense"),
        ({"kind": "Image", "version": "v9"}, "actual apiVersion:v9"),
    ):
        desk.answer(**case)  # type: ignore[arg-type]
        assert await providers.entries("a.cloud.example/x") == []
        assert told in caplog.messages[-1]
    (desk.directory / "cloud").write_text("#!/bin/sh\necho garbage\n")
    assert await providers.entries("a.cloud.example/x") == []
    assert "error decoding credential provider plugin response" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "a/b"}, "providers.name: Invalid value"),
        ({"apiVersion": ""}, "providers.apiVersion: Required value"),
        ({"apiVersion": "v1"}, "providers.apiVersion: Unsupported value"),
        ({"matchImages": []}, "providers.matchImages: Required value"),
        ({"defaultCacheDuration": None}, "providers.defaultCacheDuration: Required value"),
        ({"tokenAttributes": {"serviceAccountTokenAudience": "x"}}, "providers.tokenAttributes: Forbidden"),
        ({"name": "other"}, "other did not exist"),
    ],
)
def test_what_cannot_be_used(desk: Desk, changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ProviderError, match=problem):
        desk.providers(**changes)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="plugin binary directory /nowhere did not exist"):
        load("x", "/nowhere")
    with pytest.raises(ProviderError, match="unable to access path"):
        load(str(tmp_path / "x"), str(tmp_path))
    (tmp_path / "x").write_text("kind: Other")
    with pytest.raises(ProviderError, match="it is no CredentialProviderConfig"):
        load(str(tmp_path / "x"), str(tmp_path))
