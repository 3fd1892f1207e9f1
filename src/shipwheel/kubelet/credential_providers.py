"""Credential providers (KEP-2133): programs that know how to log in to a cloud's registry.

They are declared in a CredentialProviderConfig file, asked by an image's name on their standard input, and answer with
credentials and with how long, and for which images, these may be used again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipwheel.api.clock import Clock
from shipwheel.api.meta import Obj
from shipwheel.client.flags import parse_duration
from shipwheel.kubelet.credentials import Entry, matches_repository, normal
from shipwheel.kubelet.images import repository

log = logging.getLogger(__name__)

CONFIG_VERSIONS = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
API_VERSIONS = tuple(f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1alpha1", "v1beta1"))
TIMEOUT_SECONDS = 60.0
_GLOBAL = "<global>"


class ProviderError(Exception):
    """A configuration that cannot be used, or a provider that did not give what was asked of it."""


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

    def knows(self, name: str) -> bool:
        """Whether it is to be asked for a repository."""
        return any(matches_repository(normal(each), name) for each in self.match_images)


def load(config: str, directory: str) -> tuple[Provider, ...]:
    """The providers that a file declares, whose programs are in a directory. ProviderError."""
    import yaml

    if not Path(directory).is_dir():
        raise ProviderError(f"plugin binary directory {directory} did not exist")
    try:
        obj = yaml.safe_load(Path(config).read_text())
    except OSError as error:
        raise ProviderError(f"unable to access path {config!r}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ProviderError(f"error decoding config {config!r}: {error}") from error
    if (
        not isinstance(obj, dict)
        or obj.get("kind") != "CredentialProviderConfig"
        or obj.get("apiVersion") not in CONFIG_VERSIONS
    ):
        raise ProviderError(f"error decoding config {config!r}: it is no CredentialProviderConfig")
    listed = obj.get("providers") or []
    problems = [] if listed else ["providers: Required value: at least 1 item in plugins is required"]
    seen: set[str] = set()
    for each in listed:
        problems += _problems(each, seen)
        seen.add(each.get("name", ""))
    if problems:
        raise ProviderError(f"failed to validate credential provider config: [{', '.join(problems)}]")
    return tuple(_provider(each, directory) for each in listed)


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
        found.append("providers.tokenAttributes: Forbidden: service account tokens for providers are not supported")
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
    )


class CredentialProviders:
    """Asks providers, and remembers what they said for as long as they allow."""

    def __init__(self, providers: Sequence[Provider], clock: Clock) -> None:
        self._providers = providers
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, list[Entry]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def entries(self, image: str) -> list[Entry]:
        """What the providers that know the image give for it; one that fails gives nothing."""
        name = repository(image)
        found: list[Entry] = []
        for provider in self._providers:
            if provider.knows(name):
                try:
                    found += await self._of(provider, image, name)
                except ProviderError as error:
                    log.warning("failed to get credentials for image %s: %s", image, error)
        return found

    async def _of(self, provider: Provider, image: str, name: str) -> list[Entry]:
        # Pods that start together ask together: one question is enough.
        async with self._asking.setdefault(provider.name, asyncio.Lock()):
            registry = name.partition("/")[0]
            now = self._clock.monotonic()
            for scope in (image, registry, _GLOBAL):
                until, entries = self._kept.get((provider.name, scope), (0.0, []))
                if until > now:
                    return entries
            answer = await ask(provider, image)
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
                self._kept[provider.name, scope] = (now + lasts, entries)
            return entries


async def ask(provider: Provider, image: str) -> dict[str, Any]:
    """Run a provider once; its CredentialProviderResponse. ProviderError."""
    request = {"kind": "CredentialProviderRequest", "apiVersion": provider.api_version, "image": image}
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
