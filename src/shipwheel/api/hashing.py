"""Short stable hashes that end up in names and labels, such as `pod-template-hash`.

FNV-1a because upstream uses it, and its safe alphabet, so that names look alike. The values differ from upstream's:
it hashes Go's dump of a structure, which has no meaning outside Go; here the canonical JSON is hashed. Nothing may
depend on the value itself, only on its being the same for the same template in every release.
"""

from __future__ import annotations

from typing import Any

import orjson

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels (no words), and nothing that looks like something else."""


def fnv1a_32(data: bytes) -> int:
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def fnv1a_64(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def safe_encode(text: str) -> str:
    """Each character as one of a safe alphabet (upstream's `rand.SafeEncodeString`)."""
    return "".join(_SAFE[ord(letter) % len(_SAFE)] for letter in text)


def canonical_json(value: Any) -> bytes:
    """The same bytes for equal values, whatever the order of their keys."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def hash_object(value: Any) -> str:
    """A hash of any JSON value, fit for a label or the end of a name: up to 10 characters."""
    return safe_encode(str(fnv1a_32(canonical_json(value))))


def pod_template_hash(template: Any, collision_count: int | None = None) -> str:
    """The hash of a pod template; another `collision_count` gives another one when a name is taken."""
    data = canonical_json(template)
    if collision_count is not None:
        data += collision_count.to_bytes(4, "little") + bytes(4)
    return safe_encode(str(fnv1a_32(data)))
