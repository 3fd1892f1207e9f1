"""Programs that log in to registries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shipwheel.api.clock import ManualClock
from shipwheel.api.meta import Obj
from shipwheel.kubelet.credential_providers import CredentialProviders, ProviderError, load
from shipwheel.kubelet.credentials import Entry, credentials_for
from tests.kubelet.builders import container, pod

API = "credentialprovider.kubelet.k8s.io/v1"
VALID = {
    "name": "cloud",
    "apiVersion": API,
    "matchImages": ["*.cloud.example", "r.example:5000/team"],
    "defaultCacheDuration": "10m",
    "args": ["login"],
    "env": [{"name": "ACCOUNT", "value": "me"}],
}


WISH = {
    "serviceAccountTokenAudience": "registry",
    "cacheType": "ServiceAccount",
    "requireServiceAccount": True,
    "requiredServiceAccountAnnotationKeys": ["role"],
    "optionalServiceAccountAnnotationKeys": ["team"],
}
POD = pod(container(), serviceAccountName="runner")


async def given(providers: CredentialProviders, image: str) -> list[Entry]:
    """What they give the pod."""
    return [entry for answer in await providers.answers(image, POD) for entry in answer.entries]


class Accounts:
    """The service account of the pod."""

    def __init__(self) -> None:
        self.annotations = {"role": "reader", "other": "x"}
        self.serial = 0

    async def service_account(self, namespace: str, name: str) -> Obj:
        meta = {"uid": "u1", "namespace": namespace, "name": name, "annotations": dict(self.annotations)}
        return {"metadata": meta}

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str:
        return f"token-{self.serial}-for-{audience}"


class Desk:
    """One provider, a shell script that counts how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.accounts = Accounts()
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

    def requests(self) -> list[Obj]:
        file = self.directory / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def asked(self) -> list[str]:
        """The images it was asked for."""
        return [each["image"] for each in self.requests()]

    def providers(self, **changes: object) -> CredentialProviders:
        config = self.directory / "config.yaml"
        obj = {
            "kind": "CredentialProviderConfig",
            "apiVersion": "kubelet.config.k8s.io/v1",
            "providers": [{**VALID, **changes}],
        }
        config.write_text(json.dumps(obj))
        return CredentialProviders(load(str(config), str(self.directory)), self.clock, self.accounts)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_who_knows_an_image_is_asked(desk: Desk) -> None:
    providers = desk.providers()
    image = "eu.cloud.example/app:1"
    (found,) = credentials_for(image, await given(providers, image))
    assert (found.username, found.password) == ("me-login", "p")
    assert await given(providers, "busybox") == []
    assert await given(providers, "r.example:5000/other") == []
    assert await given(providers, "r.example:5000/team/app") != []
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
            assert await given(providers, image)
    assert desk.asked() == asked


@pytest.mark.parametrize(("lasts", "after"), [(None, 600), ("1m0s", 60), ("0s", 0)])
async def test_but_not_for_ever(desk: Desk, lasts: str | None, after: float) -> None:
    desk.answer(kind="Image", lasts=lasts)
    providers = desk.providers()
    await given(providers, "a.cloud.example/x")
    if after:
        await desk.clock.advance(after - 1)
        await given(providers, "a.cloud.example/x")
        assert len(desk.asked()) == 1
        await desk.clock.advance(1)
    await given(providers, "a.cloud.example/x")
    assert len(desk.asked()) == 2


async def test_those_who_come_together_ask_once(desk: Desk) -> None:
    providers = desk.providers()
    await asyncio.gather(*(given(providers, "a.cloud.example/x") for _ in range(5)))
    assert len(desk.asked()) == 1


async def test_a_provider_that_fails_gives_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    providers = desk.providers()
    for case, told in (
        ({"kind": "Image", "code": 3}, "exit status 3"),
        ({"kind": "Nonsense"}, "did not return a valid cacheKeyType: Nonsense"),
        ({"kind": "Image", "version": "v9"}, "actual apiVersion:v9"),
    ):
        desk.answer(**case)  # type: ignore[arg-type]
        assert await given(providers, "a.cloud.example/x") == []
        assert told in caplog.messages[-1]
    (desk.directory / "cloud").write_text("#!/bin/sh\necho garbage\n")
    assert await given(providers, "a.cloud.example/x") == []
    assert "error decoding credential provider plugin response" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "a/b"}, "providers.name: Invalid value"),
        ({"apiVersion": ""}, "providers.apiVersion: Required value"),
        ({"apiVersion": "v1"}, "providers.apiVersion: Unsupported value"),
        ({"matchImages": []}, "providers.matchImages: Required value"),
        ({"defaultCacheDuration": None}, "providers.defaultCacheDuration: Required value"),
        ({"tokenAttributes": {"serviceAccountTokenAudience": "x"}}, "tokenAttributes.cacheType: Required value"),
        ({"tokenAttributes": {**WISH, "cacheType": "x"}}, "tokenAttributes.cacheType: Unsupported value"),
        ({"tokenAttributes": {**WISH, "requireServiceAccount": None}}, "requireServiceAccount: Required value"),
        (
            {"tokenAttributes": WISH, "apiVersion": "credentialprovider.kubelet.k8s.io/v1beta1"},
            "tokenAttributes is only supported for credentialprovider.kubelet.k8s.io/v1 API version",
        ),
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


# --- Tokens of service accounts


async def test_a_provider_gets_the_accounts_token(desk: Desk) -> None:
    (answer,) = await desk.providers(tokenAttributes=WISH).answers("a.cloud.example/x", POD)
    assert answer.account == {"uid": "u1", "namespace": "ns", "name": "runner"} and answer.entries
    (request,) = desk.requests()
    assert request["serviceAccountToken"] == "token-0-for-registry"
    assert request["serviceAccountAnnotations"] == {"role": "reader"}


@pytest.mark.parametrize(("kept_by", "times"), [("ServiceAccount", 1), ("Token", 2)])
async def test_what_answers_are_kept_by(desk: Desk, kept_by: str, times: int) -> None:
    providers = desk.providers(tokenAttributes={**WISH, "cacheType": kept_by})
    await given(providers, "a.cloud.example/x")
    desk.accounts.serial += 1
    await given(providers, "a.cloud.example/x")
    assert len(desk.requests()) == times
    desk.accounts.annotations["team"] = "blue"
    await given(providers, "a.cloud.example/x")
    assert len(desk.requests()) == times + 1


async def test_an_account_that_lacks_what_is_required(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.accounts.annotations.clear()
    assert await given(desk.providers(tokenAttributes=WISH), "a.cloud.example/x") == []
    assert "required annotation role not found" in caplog.messages[-1]


async def test_pods_without_an_account(desk: Desk) -> None:
    static = pod(container())
    answers = await desk.providers(tokenAttributes=WISH).answers("a.cloud.example/x", static)
    assert [list(each.entries) for each in answers] == [[]]
    wish = {**WISH, "requireServiceAccount": False, "requiredServiceAccountAnnotationKeys": []}
    (answer,) = await desk.providers(tokenAttributes=wish).answers("a.cloud.example/x", static)
    assert answer.account is None and answer.entries
    assert "serviceAccountToken" not in desk.requests()[-1]


async def test_a_directory_of_configurations(desk: Desk) -> None:
    folder = desk.directory / "conf"
    folder.mkdir()
    (desk.directory / "second").symlink_to(desk.directory / "cloud")
    for file, name in (("b.yaml", "second"), ("a.json", "cloud"), ("c.txt", "ignored")):
        obj = {"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1"}
        (folder / file).write_text(json.dumps({**obj, "providers": [{**VALID, "name": name}]}))
    assert [each.name for each in load(str(folder), str(desk.directory))] == ["cloud", "second"]
