"""Registry credentials: which of those at hand may open an image's repository.

They come from a pod's pull secrets, from files on the node in the form of Docker's, and from credential providers.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.kubelet.images import repository
from shipwheel.kubelet.runtime.base import ImageCredentials

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


Entry = tuple[str, Mapping[str, Any]]
"""(registry or repository pattern, `username`, `password`, `auth`, ...)"""


def credentials_for(image: str, entries: Iterable[Entry]) -> list[ImageCredentials]:
    """What may open the image's repository, the most specific entry first."""
    name = repository(image)
    matches: list[tuple[int, ImageCredentials]] = []
    for registry, entry in entries:
        pattern = normal(registry)
        if matches_repository(pattern, name):
            matches.append((len(pattern), _credentials(entry, registry)))
    matches.sort(key=lambda pair: -pair[0])
    return [credentials for _, credentials in matches]


def secret_entries(secret: Obj) -> list[Entry]:
    """The registries of a pull secret of either type; nothing of one that cannot be read."""
    data = secret.get("data") or {}
    for key, whole in ((".dockerconfigjson", True), (".dockercfg", False)):
        if key in data:
            try:
                return _parse(base64.b64decode(data[key]), whole=whole)
            except (binascii.Error, ValueError):
                return []
    return []


def node_entries(root: Path, home: Path) -> list[Entry]:
    """What the node itself has: the first `config.json` and the first `.dockercfg` of the places upstream knows."""
    found: list[Entry] = []
    docker = [root, Path.cwd(), home / ".docker", Path("/.docker")]
    for paths, whole in (
        ([each / "config.json" for each in docker], True),
        ([each / ".dockercfg" for each in (root, Path.cwd(), home, Path("/"))], False),
    ):
        for path in paths:
            try:
                found += _parse(path.read_bytes(), whole=whole)
                break
            except (OSError, ValueError):
                continue
    return found


def _parse(content: bytes, *, whole: bool) -> list[Entry]:
    """Docker's `config.json` (`whole`) or the older form, which is only its `auths`. ValueError when it is neither."""
    decoded = json.loads(content)
    if whole and isinstance(decoded, dict):
        decoded = decoded.get("auths") or {}
    if not isinstance(decoded, dict):
        raise ValueError("not an object")
    return [(name, entry) for name, entry in decoded.items() if isinstance(entry, dict)]


def normal(registry: str) -> str:
    """`https://index.docker.io/v1/` and its like as the start of repository names."""
    text = registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = text.partition("/")
    if path in ("v1", "v2"):
        path = ""
    if host in _DOCKER_HUB:
        host = "docker.io"
    return f"{host}/{path}" if path else host


def matches_repository(pattern: str, name: str) -> bool:
    """`*` stands for a part of a host name; a path matches by its beginning."""
    host, _, path = pattern.partition("/")
    own_host, _, own_path = name.partition("/")
    parts, own_parts = host.split("."), own_host.split(".")
    if len(parts) != len(own_parts):
        return False
    if not all(fnmatchcase(own, part) for own, part in zip(own_parts, parts, strict=True)):
        return False
    return not path or own_path == path or own_path.startswith(path + "/")


def _credentials(entry: Mapping[str, Any], registry: str) -> ImageCredentials:
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
