"""Paths to fields as definitions write them: `.spec.image`, or `.spec.labels['a.b']` where brackets are allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipwheel.api.meta import Obj

_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|[.\[\]]|[^.\[\]]+")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'").fullmatch
_UNKNOWN = "does not refer to a valid field"


class FieldPathError(ValueError):
    """The path leads nowhere; the text says why, in upstream's words."""


def find_schema(schema: Obj, path: str, *, brackets: bool) -> tuple[tuple[str, ...], Obj]:
    """The steps of the path, and the schema of the field at its end. Raises FieldPathError."""
    tokens = iter(_TOKEN.findall(path))
    steps: list[str] = []
    for token in tokens:
        if token == ".":
            step = _next(tokens)
        elif token != "[":
            raise FieldPathError(f"expected [ or . but got: {token}")
        elif not brackets:
            raise FieldPathError("array notation is not allowed")
        else:
            step = _unquoted(_next(tokens))
        schema = _child(schema, step)
        if token == "[" and (end := _next(tokens)) != "]":
            raise FieldPathError(f"expected ] but got {end}")
        steps.append(step)
    return tuple(steps), schema


def _next(tokens: Iterator[str]) -> str:
    token = next(tokens, None)
    if token is None:
        raise FieldPathError("unexpected end of JSON path")
    return token


def _unquoted(token: str) -> str:
    if not _QUOTED(token):
        raise FieldPathError(f"expected single quoted string but got {token}")
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def _child(schema: Obj, step: str) -> Obj:
    named, others = schema.get("properties"), schema.get("additionalProperties")
    child = named.get(step) if named else others
    if not isinstance(child, dict):
        raise FieldPathError(_UNKNOWN)
    return child
