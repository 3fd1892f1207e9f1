"""State that outlives the kubelet: JSON files with a checksum, in upstream's form, so that either kubelet can go on
with what the other left.

Upstream's checksum is the FNV hash of how Go's spew prints the state; `shown` prints values like that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipwheel.api.meta import Obj


class Corrupt(Exception):
    """A file is not what was written."""


class Pointer(str):
    """Text that is printed as what a pointer leads to."""


def shown(value: Any) -> str:
    """A value inside another one, as spew prints it (`%#v`, keys sorted)."""
    if value is None:
        return "<nil>"
    if isinstance(value, Pointer):
        return f"<*>{value}"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{shown(key)}:{shown(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list | tuple | bytes):
        return f"[{' '.join(shown(each) for each in value)}]"
    return str(value)


def checksum(text: str) -> int:
    """FNV-1a, 32 bits."""
    found = 0x811C9DC5
    for byte in text.encode():
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found


def read(path: Path) -> Obj | None:
    """None when there is none; Corrupt when it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Corrupt(str(error)) from error
    if not isinstance(found, dict):
        raise Corrupt("it is no object")
    return found


def verify(found: int, expected: int) -> None:
    if found != expected:
        raise Corrupt("checkpoint is corrupted")


def write(path: Path, content: Obj) -> None:
    """OSError when it cannot be written."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(content, separators=(",", ":")))
    scratch.chmod(0o600)
    scratch.replace(path)
