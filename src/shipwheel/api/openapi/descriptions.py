"""The prose of the API, as `kubectl explain` shows it.

It is not ours and not in this project: the package `lightkube-models` carries it as docstrings of one class a
definition. They are read as text, since importing the classes would cost a second and megabytes.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

_CLASS = re.compile(r'^class (\w+)\(.*?\):\n    r?"""(.*?)"""', re.MULTILINE | re.DOTALL)
_PARAMETER = re.compile(r"^\* \*\*(\S+?)\*\* ``.*?``(?: - |\n|$)", re.MULTILINE)
_HEADING = "**parameters**"

_MODULES = {
    "io.k8s.apimachinery.pkg.api.resource": "resource",
    "io.k8s.apimachinery.pkg.runtime": "runtime",
    "io.k8s.apimachinery.pkg.util.intstr": "util_intstr",
    "io.k8s.apimachinery.pkg.version": "version",
}
_NOTHING: MappingProxyType[str, str] = MappingProxyType({})


def describe(definition: str) -> MappingProxyType[str, str]:
    """The texts of `io.k8s.api.core.v1.Pod`: its own under the empty name, and those of its fields."""
    package, _, name = definition.rpartition(".")
    for module in _modules(package):
        texts = _module(module).get(name)
        if texts is not None:
            return texts
    return _NOTHING


def _modules(package: str) -> list[str]:
    """Where to look: versions of the past are described like what became of them."""
    if package in _MODULES:
        return [_MODULES[package]]
    group, version = package.split(".")[-2:]
    later = ["apps_v1", "networking_v1"] if group == "extensions" else [f"{group}_v1", f"{group}_v2"]
    return [f"{group}_{version}", *later]


@cache
def _folder() -> Path | None:
    spec = find_spec("lightkube.models")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@cache
def _module(name: str) -> dict[str, MappingProxyType[str, str]]:
    folder = _folder()
    path = folder / f"{name}.py" if folder is not None else None
    if path is None or not path.is_file():
        return {}
    return {match[1]: MappingProxyType(_read(match[2])) for match in _CLASS.finditer(path.read_text())}


def _read(docstring: str) -> dict[str, str]:
    text = "\n".join(line.removeprefix("      ") for line in docstring.splitlines())
    own, _, rest = text.partition(_HEADING)
    texts = {"": _unwrap(own)}
    pieces = _PARAMETER.split(rest)
    for field, prose in zip(pieces[1::2], pieces[2::2], strict=True):
        texts[field] = _unwrap("\n".join(line.removeprefix("  ") for line in prose.splitlines()))
    return texts


def _unwrap(text: str) -> str:
    """Paragraphs as one line each; lists and indented blocks keep their lines."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(_paragraph(each) for each in paragraphs).strip()


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    out = [lines[0].strip()]
    for line in lines[1:]:
        stripped = line.strip()
        if stripped.startswith(("- ", "* ")) or line.startswith((" ", "\t")):
            out.append(line.rstrip())
        else:
            out[-1] = f"{out[-1]} {stripped}" if out[-1] else stripped
    return "\n".join(out)
