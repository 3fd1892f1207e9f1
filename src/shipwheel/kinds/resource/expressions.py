"""Expressions in CEL that select devices (KEP-4381): `device.attributes["gpu.example.com"].model == "a100"`.

What is here is what they speak of: the variable `device`.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

from shipwheel.api.cel.library import CelError as ExpressionError
from shipwheel.api.cel.library import compile_in, environment, evaluate, quantity, version
from shipwheel.api.meta import Obj

_DOMAIN = re.compile(r"""\[\s*(?:"([^"\\]+)"|'([^'\\]+)')\s*\]""")
_KEPT = 512


class Selector:
    """A compiled expression."""

    def __init__(self, expression: str) -> None:
        self._program = compile_in(_environment(), expression)
        result = self._program.return_type().name().lower()
        if result not in ("bool", "dyn", "any"):
            raise ExpressionError(f"must evaluate to bool or the unknown type, not {result}")
        # Domains that a device knows nothing of are empty, not an error.
        self._domains = {double or single for double, single in _DOMAIN.findall(expression)}

    def matches(self, driver: str, device: Obj) -> bool:
        """Whether it selects a device (of a ResourceSlice). ExpressionError when it cannot tell."""
        attributes: dict[str, dict[str, Any]] = {domain: {} for domain in self._domains}
        for name, attribute in (device.get("attributes") or {}).items():
            domain, key = _qualified(name, driver)
            attributes.setdefault(domain, {})[key] = _attribute(name, attribute)
        capacity: dict[str, dict[str, Any]] = {domain: {} for domain in self._domains}
        for name, each in (device.get("capacity") or {}).items():
            domain, key = _qualified(name, driver)
            capacity.setdefault(domain, {})[key] = quantity(each["value"])
        variable = {
            "driver": driver,
            "allowMultipleAllocations": bool(device.get("allowMultipleAllocations")),
            "attributes": attributes,
            "capacity": capacity,
        }
        value, kind = evaluate(self._program, {"device": variable})
        if isinstance(value, bool):
            return value
        raise ExpressionError(f"CEL result of type {kind} could not be converted to bool")


@lru_cache(_KEPT)
def _compiled(expression: str) -> Selector | ExpressionError:
    try:
        return Selector(expression)
    except ExpressionError as error:
        return error


def selector(expression: str) -> Selector:
    """The compiled expression; the ones used lately are kept. ExpressionError when it is none."""
    found = _compiled(expression)
    if isinstance(found, ExpressionError):
        raise found
    return found


def _qualified(name: str, driver: str) -> tuple[str, str]:
    """Domain and key of an attribute's or capacity's name; the domain is the driver's where it has none."""
    domain, slash, key = name.partition("/")
    return (domain, key) if slash else (driver, name)


def _attribute(name: str, attribute: Obj) -> Any:
    for kind in ("int", "bool", "string"):
        if attribute.get(kind) is not None:
            return attribute[kind]
    if attribute.get("version") is not None:
        return version(attribute["version"])
    raise ExpressionError(f"attribute {name}: unsupported attribute value")


@cache
def _environment() -> Any:
    from cel_expr_python import cel

    return environment({"device": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
