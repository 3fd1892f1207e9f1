"""Registry credentials from pull secrets: a pure function of the secrets and the image's name."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.kubelet.images import repository
from shipwheel.kubelet.runtime.base import ImageCredentials

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def credentials_for(image: str, secrets: Iterable[Obj]) -> list[ImageCredentials]:
    """What may open the image's repository, the most specific entry first."""
    name = repository(image)
    matches: list[tuple[int, ImageCredentials]] = []
    for secret in secrets:
        for registry, entry in _entries(secret):
            pattern = _normal(registry)
            if _matches(pattern, name):
                matches.append((len(pattern), _credentials(entry, registry)))
    matches.sort(key=lambda pair: -pair[0])
    return [credentials for _, credentials in matches]


def _entries(secret: Obj) -> list[tuple[str, dict[str, Any]]]:
    """The registries of a secret of either type; nothing of one that cannot be read."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            decoded = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
        elif ".dockercfg" in data:
            decoded = json.loads(base64.b64decode(data[".dockercfg"]))
        else:
            return []
    except (binascii.Error, ValueError, AttributeError):
        return []
    return [(name, entry) for name, entry in decoded.items() if isinstance(entry, dict)]


def _normal(registry: str) -> str:
    """`https://index.docker.io/v1/` and its like as the start of repository names."""
    text = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = text.partition("/")
    if path in ("v1", "v2"):
        path = ""
    if host in _DOCKER_HUB:
        host = "docker.io"
    return f"{host}/{path}" if path else host


def _matches(pattern: str, name: str) -> bool:
    """`*` stands for a part of a host name; a path matches by its beginning."""
    host, _, path = pattern.partition("/")
    own_host, _, own_path = name.partition("/")
    parts, own_parts = host.split("."), own_host.split(".")
    if len(parts) != len(own_parts):
        return False
    if not all(fnmatchcase(own, part) for own, part in zip(own_parts, parts, strict=True)):
        return False
    return not path or own_path == path or own_path.startswith(path + "/")


def _credentials(entry: dict[str, Any], registry: str) -> ImageCredentials:
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    return ImageCredentials(
        username=username,
        password=password,
        server_address=registry,
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
    )
