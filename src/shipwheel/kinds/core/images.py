"""References to container images, and when to pull them."""

from __future__ import annotations

import re
from functools import lru_cache

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_IPV6 = r"\[[a-fA-F0-9:]+\]"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_reference = re.compile(
    rf"(?P<name>(?:(?:{_HOST}|{_IPV6})(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?"
    rf"(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
).fullmatch


_MAX_NAME = 255


def _full_length(name: str) -> int:
    """Of the name with the registry and the folder that are meant when none is said."""
    first, slash, _ = name.partition("/")
    if slash and (not first.islower() or "." in first or ":" in first or first == "localhost"):
        return len(name)
    return len(f"docker.io/{name}" if slash else f"docker.io/library/{name}")


@lru_cache(maxsize=1024)
def default_pull_policy(image: str) -> str:
    """`Always` for what may change: the tag `latest`, said or meant. `IfNotPresent` for everything else."""
    parts = _reference(image)
    if parts is None or _full_length(parts["name"]) > _MAX_NAME:
        return "IfNotPresent"
    tag = parts["tag"] or ("" if parts["digest"] else "latest")
    return "Always" if tag == "latest" else "IfNotPresent"
