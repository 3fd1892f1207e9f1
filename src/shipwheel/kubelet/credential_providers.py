"""Credential providers (KEP-2133): programs that know how to log in to a cloud's registry.

They are declared in CredentialProviderConfig files, asked by an image's name on their standard input, and answer with
credentials and with how long, and for which images, these may be used again. One that says so is also given a token of
the pod's service account (KEP-4412), and what it answers is for that account only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from shipwheel.api.clock import Clock
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj
from shipwheel.client.flags import parse_duration
from shipwheel.kubelet.credentials import Entry, matches_repository, normal
from shipwheel.kubelet.images import repository

log = logging.getLogger(__name__)

CONFIG_VERSIONS = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
API_VERSIONS = tuple(f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1alpha1", "v1beta1"))
TIMEOUT_SECONDS = 60.0
TOKEN_SECONDS = 3600
_GLOBAL = "<global>"


class ProviderError(Exception):
    """A configuration that cannot be used, or a provider that did not give what was asked of it."""


@dataclass(frozen=True, slots=True)
class TokenWish:
    audience: str
    kept_by: str
    """Answers are kept by `ServiceAccount`, or by `Token`."""
    required: bool
    """It is not asked for pods without a service account."""
    required_annotations: Sequence[str] = ()
    optional_annotations: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """A pod's service account, as a provider is told of it."""

    uid: str
    namespace: str
    name: str
    annotations: Mapping[str, str]
    token: str

    @property
    def reference(self) -> Obj:
        return {"uid": self.uid, "namespace": self.namespace, "name": self.name}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider gave; `account` is whose it is, None for everybody on the node."""

    entries: Sequence[Entry]
    account: Obj | None = None


class Accounts(Protocol):
    """Service accounts of pods. Methods raise ApiError."""

    async def service_account(self, namespace: str, name: str) -> Obj: ...

    async def token(self, pod: Obj, *, audience: str, expiration_seconds: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    command: str
    api_version: str
    match_images: Sequence[str]
    default_cache: float
    """Seconds that an answer is kept for if it does not say itself."""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    token: TokenWish | None = None
    """What it wants of the pod's service account."""

    def knows(self, name: str) -> bool:
        """Whether it is to be asked for a repository."""
        return any(matches_repository(normal(each), name) for each in self.match_images)


def load(config: str, directory: str) -> tuple[Provider, ...]:
    """The providers that a file, or the files of a directory, declare; their programs are in `directory`.
    ProviderError."""
    if not Path(directory).is_dir():
        raise ProviderError(f"plugin binary directory {directory} did not exist")
    listed = [each for file in _files(Path(config)) for each in _read(file).get("providers") or []]
    problems = [] if listed else ["providers: Required value: at least 1 item in plugins is required"]
    seen: set[str] = set()
    for each in listed:
        problems += _problems(each, seen)
        seen.add(each.get("name", ""))
    if problems:
        raise ProviderError(f"failed to validate credential provider config: [{', '.join(problems)}]")
    return tuple(_provider(each, directory) for each in listed)


def _files(config: Path) -> list[Path]:
    if not config.is_dir():
        return [config]
    return sorted(each for each in config.iterdir() if each.suffix in (".json", ".yaml", ".yml"))


def _read(config: Path) -> Obj:
    import yaml

    shown = str(config)
    try:
        obj = yaml.safe_load(config.read_text())
    except OSError as error:
        raise ProviderError(f"unable to access path {shown!r}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ProviderError(f"error decoding config {shown!r}: {error}") from error
    if (
        not isinstance(obj, dict)
        or obj.get("kind") != "CredentialProviderConfig"
        or obj.get("apiVersion") not in CONFIG_VERSIONS
    ):
        raise ProviderError(f"error decoding config {shown!r}: it is no CredentialProviderConfig")
    return obj


def _problems(obj: Obj, seen: set[str]) -> list[str]:
    name = obj.get("name", "")
    found = []
    if "/" in name or " " in name or name in ("", ".", ".."):
        found.append(f"providers.name: Invalid value: {json.dumps(name)}: it is no file's name")
    if name in seen:
        found.append(f"providers.name: Duplicate value: {json.dumps(name)}")
    version = obj.get("apiVersion")
    if not version:
        found.append("providers.apiVersion: Required value")
    elif version not in API_VERSIONS:
        supported = ", ".join(json.dumps(each) for each in API_VERSIONS)
        found.append(f"providers.apiVersion: Unsupported value: {json.dumps(version)}: supported values: {supported}")
    if not obj.get("matchImages"):
        found.append("providers.matchImages: Required value: at least 1 item in matchImages is required")
    if obj.get("defaultCacheDuration") is None:
        found.append("providers.defaultCacheDuration: Required value")
    elif parse_duration(str(obj["defaultCacheDuration"])) < 0:
        found.append("providers.defaultCacheDuration: Invalid value: must be greater than or equal to 0")
    if obj.get("tokenAttributes"):
        found += _token_problems(obj["tokenAttributes"], version)
    return found


def _token_problems(wish: Obj, version: str | None) -> list[str]:
    path, found = "providers.tokenAttributes", []
    if version != API_VERSIONS[0]:
        found.append(f"{path}: Forbidden: tokenAttributes is only supported for {API_VERSIONS[0]} API version")
    if not wish.get("serviceAccountTokenAudience"):
        found.append(f"{path}.serviceAccountTokenAudience: Required value")
    if not wish.get("cacheType"):
        found.append(
            f"{path}.cacheType: Required value: cacheType is required to be set when serviceAccountTokenAudience is "
            "specified"
        )
    elif wish["cacheType"] not in ("ServiceAccount", "Token"):
        shown = json.dumps(wish["cacheType"])
        found.append(f'{path}.cacheType: Unsupported value: {shown}: supported values: "ServiceAccount", "Token"')
    if not isinstance(wish.get("requireServiceAccount"), bool):
        found.append(f"{path}.requireServiceAccount: Required value")
    elif not wish["requireServiceAccount"] and wish.get("requiredServiceAccountAnnotationKeys"):
        found.append(
            f"{path}.requiredServiceAccountAnnotationKeys: Forbidden: requireServiceAccount cannot be false when "
            "requiredServiceAccountAnnotationKeys is set"
        )
    return found


def _provider(obj: Obj, directory: str) -> Provider:
    path = shutil.which(str(Path(directory) / obj["name"]))
    if path is None:
        raise ProviderError(f"plugin binary executable {Path(directory) / obj['name']} did not exist")
    return Provider(
        name=obj["name"],
        command=path,
        api_version=obj["apiVersion"],
        match_images=tuple(obj["matchImages"]),
        default_cache=parse_duration(str(obj["defaultCacheDuration"])),
        args=tuple(obj.get("args") or ()),
        env={each["name"]: each.get("value", "") for each in obj.get("env") or ()},
        token=_wish(obj.get("tokenAttributes")),
    )


def _wish(obj: Obj | None) -> TokenWish | None:
    if not obj:
        return None
    return TokenWish(
        obj["serviceAccountTokenAudience"],
        obj["cacheType"],
        obj["requireServiceAccount"],
        tuple(obj.get("requiredServiceAccountAnnotationKeys") or ()),
        tuple(obj.get("optionalServiceAccountAnnotationKeys") or ()),
    )


class CredentialProviders:
    """Asks providers, and remembers what they said for as long as they allow."""

    def __init__(self, providers: Sequence[Provider], clock: Clock, accounts: Accounts | None = None) -> None:
        self._providers = providers
        self._clock = clock
        self._accounts = accounts
        self._kept: dict[tuple[str, str, str], tuple[float, list[Entry]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def answers(self, image: str, pod: Obj) -> list[Answer]:
        """What the providers that know the image give a pod for it; one that fails gives nothing."""
        name = repository(image)
        found: list[Answer] = []
        for provider in self._providers:
            if provider.knows(name):
                try:
                    found.append(await self._of(provider, image, name, pod))
                except (ProviderError, ApiError) as error:
                    log.warning("failed to get credentials for image %s: %s", image, error)
        return found

    async def _of(self, provider: Provider, image: str, name: str, pod: Obj) -> Answer:
        account = await self._account(provider, pod)
        if account is None and provider.token is not None and provider.token.required:
            return Answer([])
        # Pods that start together ask together: one question is enough.
        async with self._asking.setdefault(provider.name, asyncio.Lock()):
            entries = await self._entries(provider, image, name, account)
        return Answer(entries, account.reference if account is not None else None)

    async def _account(self, provider: Provider, pod: Obj) -> Account | None:
        """The pod's service account, if the provider wants one and there is one. ProviderError, ApiError."""
        wish, name = provider.token, pod["spec"].get("serviceAccountName", "")
        if wish is None or not name or self._accounts is None:
            return None
        found = (await self._accounts.service_account(pod["metadata"]["namespace"], name))["metadata"]
        annotations = found.get("annotations") or {}
        missing = [key for key in wish.required_annotations if key not in annotations]
        if missing:
            raise ProviderError(f"required annotation {missing[0]} not found on service account {name}")
        told = {
            key: annotations[key]
            for key in (*wish.required_annotations, *wish.optional_annotations)
            if key in annotations
        }
        token = await self._accounts.token(pod, audience=wish.audience, expiration_seconds=TOKEN_SECONDS)
        return Account(found["uid"], found["namespace"], name, told, token)

    async def _entries(self, provider: Provider, image: str, name: str, account: Account | None) -> list[Entry]:
        registry = name.partition("/")[0]
        now = self._clock.monotonic()
        whose = _whose(provider, account)
        for scope in (image, registry, _GLOBAL):
            until, entries = self._kept.get((provider.name, scope, whose), (0.0, []))
            if until > now:
                return entries
        answer = await ask(provider, image, account)
        entries = [(pattern, entry) for pattern, entry in (answer.get("auth") or {}).items()]
        scopes = {"Image": image, "Registry": registry, "Global": _GLOBAL}
        scope = scopes.get(answer.get("cacheKeyType", ""), "")
        if not scope:
            raise ProviderError(
                f"credential provider plugin did not return a valid cacheKeyType: {answer.get('cacheKeyType', '')}"
            )
        duration = answer.get("cacheDuration")
        lasts = provider.default_cache if duration is None else parse_duration(str(duration))
        if lasts > 0:
            self._kept[provider.name, scope, whose] = (now + lasts, entries)
        return entries


def _whose(provider: Provider, account: Account | None) -> str:
    """Among whose answers this one is kept; the same for everybody where no account matters."""
    if account is None or provider.token is None:
        return ""
    parts = [account.uid, account.namespace, account.name, sorted(account.annotations.items())]
    if provider.token.kept_by == "Token":
        parts.append(account.token)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def ask(provider: Provider, image: str, account: Account | None = None) -> dict[str, Any]:
    """Run a provider once; its CredentialProviderResponse. ProviderError."""
    request: Obj = {"kind": "CredentialProviderRequest", "apiVersion": provider.api_version, "image": image}
    if account is not None:
        request |= {"serviceAccountToken": account.token, "serviceAccountAnnotations": dict(account.annotations)}
    try:
        process = await asyncio.create_subprocess_exec(
            provider.command,
            *provider.args,
            env={**os.environ, **provider.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ProviderError(f"error execing credential provider plugin {provider.name}: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            output, errors = await process.communicate(json.dumps(request).encode())
    except TimeoutError:
        raise ProviderError(
            f"error execing credential provider plugin {provider.name} for image {image}: context deadline exceeded"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ProviderError(
            f"error execing credential provider plugin {provider.name} for image {image}: "
            f"exit status {process.returncode}: {errors.decode(errors='replace').strip()}"
        )
    try:
        answer = json.loads(output)
        kind, version = answer["kind"], answer["apiVersion"]
    except (ValueError, KeyError, TypeError) as error:
        raise ProviderError(f"error decoding credential provider plugin response from stdout: {error}") from error
    if kind != "CredentialProviderResponse" or version != provider.api_version:
        raise ProviderError(
            f"apiVersion from credential plugin response did not match expected apiVersion:{provider.api_version}, "
            f"actual apiVersion:{version}"
        )
    return dict(answer)
