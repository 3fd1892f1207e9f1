"""What cannot be right about a CEL expression, given the schemas of the objects it speaks of.

The runtime that compiles expressions knows no structures of ours. But CEL takes `object.spec.replicas` for one name if
there is such a variable, so each field that an expression names is declared as a variable of its own, with the type
that the schema gives it. Fields inside lists stay unknown, and so does what Kubernetes' own functions take: of what
depends on them nothing is said. A warning that is missing does no harm, one that is wrong would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shipwheel.api.cel.library import environment
from shipwheel.api.cel.names import escape
from shipwheel.api.meta import Obj

_CHAIN = re.compile(r"(?<![\w.\])])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*(?!\w*\s*\())+")
_PLACE = re.compile(r"(?<![\w.\])])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*(?!\w*\s*\())*(?!\w|\s*\()")
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_HAS = re.compile(r"\bhas\(\s*[A-Za-z_][\w.]*\s*\)")
_TEXT = re.compile(r"""(['"])(?:\\.|(?!\1).)*\1""")
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_MISMATCH = "found no matching overload"
_UNKNOWN = "*error*"
_NUMBERS = re.compile(r".* '_[<>]=?_' applied to '\((?:int|uint|double), (?:int|uint|double)\)'")
"""Numbers of different types are compared all the same; only this compiler's checker thinks otherwise."""

_OF_ADMISSION = ("object", "oldObject", "request", "namespaceObject", "authorizer", "variables")

Resolve = Callable[[str], Obj]
"""The schema that a `$ref` means."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """The roots of an expression with what they are; None: that is not known."""

    roots: Mapping[str, Obj | None]
    resolve: Resolve
    variables: Mapping[str, Any]
    """Types of `variables.NAME`, as the runtime has them."""
    others: tuple[str, ...] = _OF_ADMISSION
    """What else there is, of which nothing is known."""


def complaints(expression: str, schemas: Schemas) -> list[str]:
    """What is wrong, as the compiler of CEL tells it: with the line and an arrow below."""
    return check(expression, schemas)[0]


def type_of(expression: str, schemas: Schemas) -> Any:
    """The type of an expression's value; unknown when it does not compile."""
    return check(expression, schemas)[1]


def check(expression: str, schemas: Schemas) -> tuple[list[str], Any]:
    """Both at once."""
    from cel_expr_python import cel

    bare = _without_texts(expression)
    declared, undefined = _declared(bare, schemas)
    found = [(*_position(expression, offset), f"undefined field '{name}'") for offset, name in undefined]
    kind = cel.Type.DYN
    try:
        kind = _environment(declared, schemas).compile(_without_has(expression, bare)).return_type()
    except RuntimeError as error:
        found += _mismatches(str(error))
    return [_shown(expression, line, column, message) for line, column, message in sorted(found)], kind


def names(expression: str) -> set[str]:
    """What it speaks of: names that no dot stands before."""
    return set(_NAME.findall(_without_texts(expression)))


def _without_texts(expression: str) -> str:
    """The expression with blanks for what is in quotes, everything else in its place."""
    return _TEXT.sub(lambda text: " " * len(text[0]), expression)


def _declared(bare: str, schemas: Schemas) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """(types of all fields that are named, as far as schemas tell; (offset, name) of those that there cannot be)."""
    declared = {f"variables.{name}": kind for name, kind in schemas.variables.items()}
    for root, schema in schemas.roots.items():
        if schema is not None and schema.get("type") not in (None, "object"):
            declared[root] = _cel_type(schema, schemas.resolve)
    undefined: list[tuple[int, str]] = []
    tests = [match.span() for match in _HAS.finditer(bare)]
    for match in _CHAIN.finditer(bare):
        for path, schema in _along(match[0], schemas):
            if schema is None:
                place = match.start() + path.rindex(".")
                test = next((low for low, high in tests if low <= place < high), None)
                undefined.append((place if test is None else test + len("has"), path.rpartition(".")[2]))
            else:
                declared[path] = _cel_type(schema, schemas.resolve)
    return declared, undefined


def _along(chain: str, schemas: Schemas) -> Iterator[tuple[str, Obj | None]]:
    """The fields that `self.spec.replicas` names, with their schemas; None, at the end, for one there cannot be."""
    path, *fields = chain.split(".")
    schema = schemas.roots.get(path)
    for name in fields:
        properties = _properties(schema, schemas.resolve)
        if properties is None:
            return
        path, schema = f"{path}.{name}", properties.get(name)
        yield path, schema
        if schema is None:
            return


def fields_of(expression: str, schemas: Schemas) -> list[tuple[int, int, Obj]]:
    """Where the expression takes the value of a field that the schemas know, or of a root: (start, end, schema)."""
    bare = _without_texts(expression)
    hidden = [match.span() for match in _HAS.finditer(bare)]
    found = []
    for match in _PLACE.finditer(bare):
        start = match.start()
        if match[0].split(".")[0] not in schemas.roots or any(low <= start < high for low, high in hidden):
            continue
        for path, schema in _along(match[0], schemas) if "." in match[0] else [(match[0], schemas.roots[match[0]])]:
            if schema is not None:
                found.append((start, start + len(path), schema))
    return found


def _properties(schema: Obj | None, resolve: Resolve) -> Obj | None:
    """The fields there may be; None: any."""
    schema = _resolved(schema, resolve)
    if schema is None or schema.get("x-kubernetes-preserve-unknown-fields"):
        return None
    properties = schema.get("properties")
    return None if properties is None else {escape(name): each for name, each in properties.items()}


def _resolved(schema: Obj | None, resolve: Resolve) -> Obj | None:
    while schema is not None:
        wrapped: list[Obj] = schema.get("allOf") or []
        reference = schema.get("$ref") or (wrapped[0].get("$ref") if len(wrapped) == 1 else None)
        if not reference:
            return schema
        schema = resolve(reference)
    return None


def _cel_type(schema: Obj, resolve: Resolve) -> Any:
    from cel_expr_python import cel

    kind = cel.Type
    found = _resolved(schema, resolve) or {}
    if found.get("x-kubernetes-int-or-string") or found.get("format") == "int-or-string":
        return kind.DYN
    match found.get("type"):
        case "integer":
            return kind.INT
        case "number":
            return kind.DOUBLE
        case "boolean":
            return kind.BOOL
        case "string":
            formats = {"date-time": "TIMESTAMP", "date": "TIMESTAMP", "duration": "DURATION", "byte": "BYTES"}
            return getattr(kind, formats.get(found.get("format", ""), "STRING"))
        case "array":
            return kind.List(_cel_type(found.get("items") or {}, resolve))
        case "object" if isinstance(found.get("additionalProperties"), dict):
            return kind.Map(kind.STRING, _cel_type(found["additionalProperties"], resolve))
    return kind.DYN


def _without_has(expression: str, bare: str) -> str:
    """The expression with every `has(...)` as what it is, a boolean: the runtime would look at the field's type."""
    for match in _HAS.finditer(bare):
        expression = expression[: match.start()] + "true".ljust(len(match[0])) + expression[match.end() :]
    return expression


def _mismatches(told: str) -> list[tuple[int, int, str]]:
    """Those among the compiler's complaints that are about the types of what is known."""
    found = _ERROR.findall(told.removesuffix(" [INVALID_ARGUMENT]").replace("null_type", "null"))
    return [
        (int(line), int(column), message)
        for line, column, message in found
        if message.startswith(_MISMATCH) and _UNKNOWN not in message and not _NUMBERS.fullmatch(message)
    ]


def _environment(declared: Mapping[str, Any], schemas: Schemas) -> Any:
    from cel_expr_python import cel

    return environment({**dict.fromkeys([*schemas.others, *schemas.roots], cel.Type.DYN), **declared})


def _position(text: str, offset: int) -> tuple[int, int]:
    """(line, column) of an offset, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _shown(expression: str, line: int, column: int, message: str) -> str:
    source = expression.split("\n")[line - 1]
    return f"ERROR: <input>:{line}:{column}: {message}\n | {source}\n | {'.' * (column - 1)}^"
