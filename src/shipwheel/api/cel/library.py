"""What Kubernetes adds to CEL: quantities, semantic versions, addresses, URLs, and more for lists and texts.

The runtime knows no types of ours, so a quantity is a map with one key that names what it is, and so are the others.
What cannot be added to it: functions that make optional values (`format`), macros of two variables, and `indexOf` of
lists, which texts have already.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from shipwheel.api.quantity import Quantity, QuantityError, parse
from shipwheel.api.regex import PatternError, compile_pattern

_QUANTITY, _VERSION, _URL = "kubernetes.Quantity", "kubernetes.Semver", "kubernetes.URL"
_IP, _CIDR = "net.IP", "net.CIDR"
_NANO = 10**9
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)

Boxed = Mapping[str, str]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class CelError(ValueError):
    """An expression that cannot be compiled, or has no answer."""


class CostExceeded(CelError):
    """It took too many steps. (The runtime counts those of its loops, ten thousand at most.)"""


# Quantities and versions


def quantity(text: str) -> dict[str, str]:
    try:
        return _of_nanos(parse(text).nanos)
    except QuantityError as error:
        raise CelError(str(error)) from None


def _of_nanos(nanos: int) -> dict[str, str]:
    return {_QUANTITY: str(nanos)}


def version(text: str) -> dict[str, str]:
    if not _SEMVER.fullmatch(text):
        raise CelError(f"parse semantic version: {text!r}")
    return {_VERSION: text.partition("+")[0]}


def _is(read: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            read(text)
        except CelError:
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
        raise CelError("cannot convert value to integer")
    return whole


def _is_integer(value: Mapping[str, str]) -> bool:
    return _is(lambda _: _as_integer(value))("")


# Addresses and URLs


def _address(text: str) -> Boxed:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        why = f'ParseAddr("{text}"): unable to parse IP'
        raise CelError(f'IP Address "{text}" parse error during conversion from string: {why}') from None
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped is not None or found.scope_id):
        what = "zone value" if found.scope_id else "IPv4-mapped IPv6 address"
        raise CelError(f'IP Address "{text}" with {what} is not allowed')
    return {_IP: str(found)}


def _network(text: str) -> Boxed:
    address, slash, length = text.partition("/")
    try:
        if not slash or not length.isdigit():
            raise ValueError(text)
        return {_CIDR: f"{ipaddress.ip_interface(f'{address}/{length}')}"}
    except ValueError:
        raise CelError(f"network address parse error during conversion from string: {text}") from None


def _ip_of(value: Boxed) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(value[_IP])


def _net_of(value: Boxed) -> Network:
    return ipaddress.ip_interface(value[_CIDR]).network


def _family(value: Boxed) -> int:
    return _ip_of(value).version


def _contains_ip(network: Boxed, address: Boxed | str) -> bool:
    return _ip_of(_address(address) if isinstance(address, str) else address) in _net_of(network)


def _contains_network(network: Boxed, other: Boxed | str) -> bool:
    outer, inner = _net_of(network), _net_of(_network(other) if isinstance(other, str) else other)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _ip_of_network(network: Boxed) -> Boxed:
    return {_IP: network[_CIDR].partition("/")[0]}


def _url(text: str) -> Boxed:
    try:
        found = urlsplit(text)
        absolute = bool(found.scheme and (found.netloc or found.path.startswith("/"))) or text.startswith("/")
        if not absolute or found.port == -1:
            raise ValueError(text)
    except ValueError:
        raise CelError(f"URL parse error during conversion from string: {text}") from None
    return {_URL: text}


def _split(value: Boxed) -> SplitResult:
    return urlsplit(value[_URL])


def _host(value: Boxed) -> str:
    return _split(value).netloc.rpartition("@")[2]


def _host_name(value: Boxed) -> str:
    return _split(value).hostname or ""


def _port(value: Boxed) -> str:
    port = _split(value).port
    return "" if port is None else str(port)


def _url_query(value: Boxed) -> dict[str, list[str]]:
    return parse_qs(_split(value).query, keep_blank_values=True)


# Lists and texts


def _is_sorted(items: Sequence[Any]) -> bool:
    return all(one <= other for one, other in pairwise(items))


def _least(items: Sequence[Any]) -> Any:
    if not items:
        raise CelError("min called on empty list")
    return min(items)


def _greatest(items: Sequence[Any]) -> Any:
    if not items:
        raise CelError("max called on empty list")
    return max(items)


def _contains_all(items: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return all(each in items for each in wanted)


def _matches(text: str, pattern: str, limit: int) -> list[str]:
    try:
        found = compile_pattern(pattern).finditer(text)
    except PatternError as error:
        raise CelError(f"Illegal regex: {error}") from None
    every = [each.group() for each in found]
    return every if limit < 0 else every[:limit]


def _find(text: str, pattern: str) -> str:
    return next(iter(_matches(text, pattern, 1)), "")


@cache
def extensions() -> list[Any]:
    """Those of CEL's own that Kubernetes has."""
    from cel_expr_python.ext.ext_bindings import ExtBindings
    from cel_expr_python.ext.ext_optional import ExtOptional
    from cel_expr_python.ext.ext_strings import ExtStrings

    return [ExtBindings(), ExtOptional(), ExtStrings()]


@cache
def functions() -> list[Any]:
    """Kubernetes' functions, as declarations of the runtime."""
    from cel_expr_python import cel

    kind = cel.Type
    boxed, many = kind.Map(kind.STRING, kind.DYN), kind.List(kind.DYN)

    def overload(name: str, result: Any, implementation: Callable[..., Any], *parameters: Any, member: bool) -> Any:
        ident = "_".join((name, *(each.name() for each in parameters), "member" if member else "global"))
        for strange in "(), .<>":
            ident = ident.replace(strange, "_")
        return cel.Overload(
            ident, return_type=result, parameters=list(parameters), is_member=member, impl=implementation
        )

    def of_text(name: str, result: Any, implementation: Callable[[str], Any]) -> Any:
        return cel.FunctionDecl(name, [overload(name, result, implementation, kind.STRING, member=False)])

    def member(name: str, result: Any, implementation: Callable[..., Any], *others: tuple[Any, ...]) -> Any:
        return on(boxed, name, result, implementation, *others)

    def on(target: Any, name: str, result: Any, implementation: Callable[..., Any], *others: tuple[Any, ...]) -> Any:
        overloads = [overload(name, result, implementation, target, *each, member=True) for each in others or ((),)]
        return cel.FunctionDecl(name, overloads)

    def of_lists(name: str, implementation: Callable[..., bool]) -> Any:
        return cel.FunctionDecl(name, [overload(name, kind.BOOL, implementation, many, many, member=False)])

    def part(index: int) -> Callable[[Boxed], int]:
        return lambda value: int(value[_VERSION].partition("-")[0].split(".")[index])

    return [
        of_text("quantity", boxed, quantity),
        of_text("isQuantity", kind.BOOL, _is(quantity)),
        of_text("semver", boxed, version),
        of_text("isSemver", kind.BOOL, _is(version)),
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
        of_text("isIP", kind.BOOL, _is(_address)),
        of_text("ip.isCanonical", kind.BOOL, lambda text: _address(text)[_IP] == text),
        of_text("cidr", boxed, _network),
        of_text("isCIDR", kind.BOOL, _is(_network)),
        cel.FunctionDecl(
            "ip",
            [
                overload("ip", boxed, _address, kind.STRING, member=False),
                overload("ip", boxed, _ip_of_network, boxed, member=True),
            ],
        ),
        member("family", kind.INT, _family),
        member("isUnspecified", kind.BOOL, lambda value: _ip_of(value).is_unspecified),
        member("isLoopback", kind.BOOL, lambda value: _ip_of(value).is_loopback),
        member("isLinkLocalMulticast", kind.BOOL, lambda value: _is_link_local(value, multicast=True)),
        member("isLinkLocalUnicast", kind.BOOL, lambda value: _is_link_local(value, multicast=False)),
        member("isGlobalUnicast", kind.BOOL, _is_global_unicast),
        member("containsIP", kind.BOOL, _contains_ip, (boxed,), (kind.STRING,)),
        member("containsCIDR", kind.BOOL, _contains_network, (boxed,), (kind.STRING,)),
        member("masked", boxed, lambda value: {_CIDR: str(_net_of(value))}),
        member("prefixLength", kind.INT, lambda value: _net_of(value).prefixlen),
        of_text("url", boxed, _url),
        of_text("isURL", kind.BOOL, _is(_url)),
        member("getScheme", kind.STRING, lambda value: _split(value).scheme),
        member("getHost", kind.STRING, _host),
        member("getHostname", kind.STRING, _host_name),
        member("getPort", kind.STRING, _port),
        member("getEscapedPath", kind.STRING, lambda value: _split(value).path),
        member("getQuery", kind.Map(kind.STRING, kind.List(kind.STRING)), _url_query),
        on(many, "isSorted", kind.BOOL, _is_sorted),
        on(many, "sum", kind.DYN, sum),
        on(many, "min", kind.DYN, _least),
        on(many, "max", kind.DYN, _greatest),
        of_lists("sets.contains", _contains_all),
        of_lists("sets.equivalent", lambda one, other: _contains_all(one, other) and _contains_all(other, one)),
        of_lists("sets.intersects", lambda one, other: any(each in one for each in other)),
        on(kind.STRING, "find", kind.STRING, _find, (kind.STRING,)),
        cel.FunctionDecl(
            "findAll",
            [
                overload(
                    "findAll", kind.List(kind.STRING), lambda text, pattern: _matches(text, pattern, -1),
                    kind.STRING, kind.STRING, member=True,
                ),
                overload(
                    "findAll", kind.List(kind.STRING), _matches, kind.STRING, kind.STRING, kind.INT, member=True
                ),
            ],
        ),
    ]  # fmt: skip


def _is_link_local(value: Boxed, *, multicast: bool) -> bool:
    address = _ip_of(value)
    if not multicast:
        return address.is_link_local
    scopes = ("224.0.0.0/24", "ff02::/16")
    return any(address in ipaddress.ip_network(each) for each in scopes)


def _is_global_unicast(value: Boxed) -> bool:
    address = _ip_of(value)
    broadcast = str(address) == "255.255.255.255"
    return not (
        address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local or broadcast
    )


def environment(variables: Mapping[str, Any]) -> Any:
    """Where expressions with these variables (and their types in the runtime) are compiled."""
    from cel_expr_python import cel

    return cel.NewEnv(variables=dict(variables), extensions=extensions(), functions=functions())


def compile_in(environment: Any, expression: str) -> Any:
    """The compiled expression. CelError with the compiler's words."""
    try:
        return environment.compile(expression)
    except RuntimeError as error:
        detail = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        raise CelError(f"compilation failed: {detail}") from None


_RUNTIME_ERRORS = (
    (re.compile(r'Key not found in map : "?(.*?)"?$'), r"no such key: \1"),
    (re.compile(r"Index error: index=(-?\d+).*"), r"index out of bounds: \1"),
    (re.compile(r"cannot convert (\w+) to (\w+)"), r"type conversion error from '\1' to '\2'"),
    (re.compile(r"divide by zero"), "division by zero"),
    (re.compile(r"No matching overloads found.*"), "no such overload"),
)
_CODE = re.compile(r"^[A-Z_]+: ")


def evaluate(program: Any, data: Mapping[str, Any]) -> tuple[Any, str]:
    """The value of a compiled expression, and its type. CelError, in the words of upstream's runtime, when it has
    none."""
    try:
        result = program.eval(data=data)
    except RuntimeError as error:
        if "Iteration budget exceeded" in str(error):
            raise CostExceeded("operation cancelled: actual cost limit exceeded") from None
        raise CelError(_CODE.sub("", str(error))) from None
    value, kind = result.value(), result.type().name().lower()
    if kind != "error":
        return value, kind
    text = _CODE.sub("", str(value))
    for pattern, said in _RUNTIME_ERRORS:
        if pattern.search(text):
            raise CelError(pattern.sub(said, text))
    raise CelError(text)
