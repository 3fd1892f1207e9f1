"""The JSONPath of printer columns, selectable fields and scale paths: `.spec.replicas`, `.items[0].name`,
`.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels['a.b/c']`, `[*]`.

A path is compiled once; evaluating it gives every value it leads to, none when it leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_TOKEN = re.compile(
    r"""\.\.(?P<deep>[\w-]+)|\.(?P<name>(?:[^.\[\]\\'"]|\\.)+)|\[\*\]|\.\*
    |\[(?P<index>-?\d+)\]|\[(?P<slice>-?\d*:-?\d*(?::-?\d+)?)\]
    |\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]
    |\[\?\(@(?P<left>(?:\.[\w-]+)*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>'[^']*'|"[^"]*"|[^)]+))?\)\]""",
    re.VERBOSE,
)
Step = Callable[[Any], Iterable[Any]]


class JsonPathError(ValueError):
    """The text is no path."""


class JsonPath:
    """A compiled path. `text` may be in braces, as kubectl writes it, and begin with `$`."""

    def __init__(self, text: str) -> None:
        self.text = text
        inner = text.strip()
        if inner.startswith("{") and inner.endswith("}"):
            inner = inner[1:-1].strip()
        self._steps = list(_parse(inner.removeprefix("$"), text))

    def find(self, obj: Any) -> list[Any]:
        """Every value the path leads to."""
        found = [obj]
        for step in self._steps:
            found = [value for each in found for value in step(each)]
        return found

    def first(self, obj: Any) -> Any:
        """The first of them, None when there is none."""
        found = self.find(obj)
        return found[0] if found else None


def _parse(text: str, whole: str) -> Iterator[Step]:
    if text and text[0] not in ".[":
        text = f".{text}"
    position = 0
    while position < len(text):
        if text[position:] == ".":
            return
        match = _TOKEN.match(text, position)
        if match is None:
            raise JsonPathError(f"unrecognized character in path {whole!r} at {text[position:]!r}")
        yield _step(match)
        position = match.end()


def _step(match: re.Match[str]) -> Step:
    if match["index"] is not None:
        index = int(match["index"])
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if match["slice"] is not None:
        cut = slice(*(int(part) if part else None for part in match["slice"].split(":")))
        return lambda value: value[cut] if isinstance(value, list) else []
    if match["left"] is not None:
        return _filter(match["left"], match["op"], match["right"])
    if match["deep"] is not None:
        name = match["deep"]
        return lambda value: list(_deep(value, name))
    for group in ("name", "single", "double"):
        if match[group] is not None:
            key = re.sub(r"\\(.)", r"\1", match[group]) if group == "name" else match[group]
            if key == "*" and group == "name":
                return _children
            return lambda value, key=key: [value[key]] if isinstance(value, dict) and key in value else []  # type: ignore[misc]
    return _children


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _deep(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for each in value.values():
            yield from _deep(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _deep(each, name)


def _filter(left: str, operator: str | None, right: str | None) -> Step:
    path = JsonPath(left) if left else None

    def keep(item: Any) -> bool:
        found = path.first(item) if path is not None else item
        if operator is None:
            return path is None or bool(path.find(item))
        return found is not None and _compare(found, operator, _literal(right or ""))

    return lambda value: [item for item in _children(value) if keep(item)]


def _literal(text: str) -> Any:
    text = text.strip()
    if text[:1] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator == "==":
        return left == right
    if operator == "!=":
        return left != right
    try:
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]
    except TypeError:
        return False
