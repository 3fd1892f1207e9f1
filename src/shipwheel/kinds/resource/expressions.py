"""Expressions in CEL that select devices (KEP-4381): `device.attributes["gpu.example.com"].model == "a100"`.

They are compiled and evaluated by the runtime of CEL's authors; what is here is what Kubernetes adds to the language
for devices: the variable `device`, quantities and semantic versions. The runtime knows no types of ours, so a quantity
is a map with one key, and so is a version. It is imported when the first expression is read: few clusters have any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from shipwheel.api.meta import Obj
from shipwheel.api.quantity import Quantity, QuantityError, parse

_QUANTITY, _VERSION = "kubernetes.Quantity", "kubernetes.Semver"
_NANO = 10**9
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
_DOMAIN = re.compile(r"""\[\s*(?:"([^"\\]+)"|'([^'\\]+)')\s*\]""")
_NO_KEY = re.compile(r'Key not found in map : "(.*)"')
_KEPT = 512


class ExpressionError(ValueError):
    """An expression that cannot be compiled, or has no answer for a device."""


class Selector:
    """A compiled expression."""

    def __init__(self, expression: str) -> None:
        try:
            self._program = _environment().compile(expression)
        except RuntimeError as error:
            detail = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
            raise ExpressionError(f"compilation failed: {detail}") from None
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
            capacity.setdefault(domain, {})[key] = _quantity(each["value"])
        variable = {
            "driver": driver,
            "allowMultipleAllocations": bool(device.get("allowMultipleAllocations")),
            "attributes": attributes,
            "capacity": capacity,
        }
        result = self._program.eval(data={"device": variable})
        value = result.value()
        if isinstance(value, bool):
            return value
        kind = result.type().name().lower()
        if kind != "error":
            raise ExpressionError(f"CEL result of type {kind} could not be converted to bool")
        missing = _NO_KEY.search(str(value))
        raise ExpressionError(f"no such key: {missing[1]}" if missing else str(value))


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
        return _version(attribute["version"])
    raise ExpressionError(f"attribute {name}: unsupported attribute value")


# Quantities and versions


def _quantity(text: str) -> dict[str, str]:
    try:
        return _of_nanos(parse(text).nanos)
    except QuantityError as error:
        raise ExpressionError(str(error)) from None


def _of_nanos(nanos: int) -> dict[str, str]:
    return {_QUANTITY: str(nanos)}


def _version(text: str) -> dict[str, str]:
    if not _SEMVER.fullmatch(text):
        raise ExpressionError(f"parse semantic version: {text!r}")
    return {_VERSION: text.partition("+")[0]}


def _is(read: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            read(text)
        except ExpressionError:
            return False
        return True

    return test


def _nanos(value: Mapping[str, str] | int) -> int:
    return value * _NANO if isinstance(value, int) else int(value[_QUANTITY])


def _precedence(text: str) -> tuple[Any, ...]:
    """Sorts versions (semver.org, 11): a pre-release comes before its release, numbers before words."""
    core, _, pre = text.partition("-")
    parts = tuple((0, int(each), "") if each.isdigit() else (1, 0, each) for each in pre.split(".")) if pre else ()
    return (*map(int, core.split(".")), not pre, parts)


def _compare(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    if _VERSION in one:
        mine, theirs = _precedence(one[_VERSION]), _precedence(other[_VERSION])
        return (mine > theirs) - (mine < theirs)
    first, second = _nanos(one), _nanos(other)
    return (first > second) - (first < second)


def _as_integer(value: Mapping[str, str]) -> int:
    whole, rest = divmod(_nanos(value), _NANO)
    if rest or not -(2**63) <= whole < 2**63:
        raise ExpressionError("cannot convert value to integer")
    return whole


def _is_integer(value: Mapping[str, str]) -> bool:
    return _is(lambda _: _as_integer(value))("")


@cache
def _environment() -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext.ext_bindings import ExtBindings
    from cel_expr_python.ext.ext_optional import ExtOptional
    from cel_expr_python.ext.ext_strings import ExtStrings

    kind = cel.Type
    boxed = kind.Map(kind.STRING, kind.DYN)

    def overload(name: str, result: Any, implementation: Callable[..., Any], *parameters: Any, member: bool) -> Any:
        ident = "_".join((name, *(each.name() for each in parameters), "member" if member else "global"))
        for strange in "(), ":
            ident = ident.replace(strange, "_")
        return cel.Overload(
            ident, return_type=result, parameters=list(parameters), is_member=member, impl=implementation
        )

    def of_text(name: str, result: Any, implementation: Callable[[str], Any]) -> Any:
        return cel.FunctionDecl(name, [overload(name, result, implementation, kind.STRING, member=False)])

    def member(name: str, result: Any, implementation: Callable[..., Any], *others: tuple[Any, ...]) -> Any:
        overloads = [overload(name, result, implementation, boxed, *each, member=True) for each in others or ((),)]
        return cel.FunctionDecl(name, overloads)

    def part(index: int) -> Callable[[Mapping[str, str]], int]:
        return lambda value: int(value[_VERSION].partition("-")[0].split(".")[index])

    functions = [
        of_text("quantity", boxed, _quantity),
        of_text("isQuantity", kind.BOOL, _is(_quantity)),
        of_text("semver", boxed, _version),
        of_text("isSemver", kind.BOOL, _is(_version)),
        member("compareTo", kind.INT, _compare, (boxed,)),
        member("isGreaterThan", kind.BOOL, lambda one, other: _compare(one, other) > 0, (boxed,)),
        member("isLessThan", kind.BOOL, lambda one, other: _compare(one, other) < 0, (boxed,)),
        member("sign", kind.INT, lambda value: Quantity(_nanos(value)).sign()),
        member("isInteger", kind.BOOL, _is_integer),
        member("asInteger", kind.INT, _as_integer),
        member("asApproximateFloat", kind.DOUBLE, lambda value: _nanos(value) / _NANO),
        member("add", boxed, lambda one, other: _of_nanos(_nanos(one) + _nanos(other)), (boxed,), (kind.INT,)),
        member("sub", boxed, lambda one, other: _of_nanos(_nanos(one) - _nanos(other)), (boxed,), (kind.INT,)),
        *(member(name, kind.INT, part(index)) for index, name in enumerate(("major", "minor", "patch"))),
    ]
    return cel.NewEnv(
        variables={"device": kind.Map(kind.STRING, kind.DYN)},
        extensions=[ExtBindings(), ExtOptional(), ExtStrings()],
        functions=functions,
    )
