"""The flags of a component, declared as data beside its configuration.

Upstream's commands read their flags with pflag; whoever starts ours with the same command line must get the
same reading and the same complaints. A component's room keeps

    FLAGS: tuple[Flag, ...]
    def from_flags(values: Mapping[str, Any]) -> Config

and `parse` is all there is in between: no flag registers itself, and nothing is read from the environment.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal[
    "string",
    "int",
    "float",
    "bool",
    "duration",
    "ip",
    "cidr",
    "stringSlice",
    "stringArray",
    "mapStringString",
    "mapStringBool",
]


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `name` is without dashes; `default` is a value of the type:

    string, ip, cidr: str ("" when not set); int; float; bool; duration: seconds (float);
    stringSlice (commas separate), stringArray (repeat the flag): tuple of str; mapStringString,
    mapStringBool (`a=b,c=d`): dict.
    """

    name: str
    type: Type
    default: Any
    help: str
    shorthand: str = ""
    group: str = ""
    """The heading it appears under in `--help`: `Secure serving`, `Etcd`, ..."""
    deprecated: str = ""
    """What to say when it is used; empty when it is not deprecated."""


class FlagError(Exception):
    """A command line that cannot be read; the message is pflag's."""


class HelpRequested(Exception):
    """`--help` or `-h` was among the arguments."""


class VersionRequested(Exception):
    """`--version` was among the arguments; the text is what to print."""


@dataclass(frozen=True, slots=True)
class Parsed:
    values: Mapping[str, Any]
    """Every declared flag's value, given or default, by name."""
    given: frozenset[str]
    """The names that were on the command line."""
    arguments: tuple[str, ...]
    """What is not a flag."""
    warnings: tuple[str, ...]
    """One for each deprecated flag that was used."""


# Flags that every upstream component takes for its logs. -v and --vmodule are the ones in daily use.
LOG_FLAGS = (
    Flag("v", "int", 0, "number for the log level verbosity", shorthand="v", group="Logs"),
    Flag("logging-format", "string", "text", 'Permitted formats: "json", "text"', group="Logs"),
    Flag("vmodule", "string", "", "pattern=N,...: the verbosity of source files whose names match", group="Logs"),
)


def parse(flags: Iterable[Flag], argv: Sequence[str]) -> Parsed:
    """Read a command line as pflag does. Raises `FlagError`, `HelpRequested`, `VersionRequested`."""
    known = {flag.name: flag for flag in flags}
    short = {flag.shorthand: flag for flag in known.values() if flag.shorthand}
    values = {flag.name: flag.default for flag in known.values()}
    given: set[str] = set()
    arguments: list[str] = []
    warnings: list[str] = []
    rest = list(argv)

    def take(flag: Flag, text: str) -> None:
        if flag.deprecated:
            warnings.append(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
        previous = values[flag.name] if flag.name in given else None
        try:
            values[flag.name] = _READ[flag.type](text, previous)
        except ValueError as error:
            shown = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"--{flag.name}"
            raise FlagError(f'invalid argument {json.dumps(text)} for "{shown}" flag: {error}') from error
        given.add(flag.name)

    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments += rest
            break
        if word.startswith("--"):
            _long(word, rest, known, take)
        elif word.startswith("-") and word != "-":
            _shorthands(word, rest, short, take)
        else:
            arguments.append(word)
    return Parsed(values, frozenset(given), tuple(arguments), tuple(warnings))


def usage(command: str, summary: str, flags: Iterable[Flag]) -> str:
    """The text of `--help`."""
    groups: dict[str, list[Flag]] = {}
    for flag in flags:
        groups.setdefault(flag.group or "Misc", []).append(flag)
    lines = [summary, "", "Usage:", f"  {command} [flags]"]
    for group, members in groups.items():
        lines += ["", f"{group} flags:", ""]
        for flag in sorted(members, key=lambda each: each.name):
            names = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"    --{flag.name}"
            kind = "" if flag.type == "bool" else f" {flag.type}"
            default = _show_default(flag)
            lines.append(f"  {names}{kind}")
            lines.append(f"        {flag.help}{f' (default {default})' if default else ''}")
    return "\n".join(lines) + "\n"


def parse_duration(text: str) -> float:
    """A Go duration (`1h2m3.5s`, `100ms`) in seconds. ValueError with Go's message."""
    match = re.fullmatch(r"([+-]?)(.*)", text, re.DOTALL)
    assert match
    sign, body = match.groups()
    if body == "0":
        return 0.0
    if not re.fullmatch(r"((\d+\.?\d*|\.\d+)[a-zµμ]+)+", body):
        if re.fullmatch(r"((\d+\.?\d*|\.\d+)[a-zµμ]+)*(\d+\.?\d*|\.\d+)", body):
            raise ValueError(f"time: missing unit in duration {json.dumps(text)}")
        raise ValueError(f"time: invalid duration {json.dumps(text)}")
    total = 0.0
    for number, unit in re.findall(r"(\d+\.?\d*|\.\d+)([a-zµμ]+)", body):
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {json.dumps(unit)} in duration {json.dumps(text)}")
        total += float(number) * _UNITS[unit]
    return -total if sign == "-" else total


def format_duration(seconds: float) -> str:
    """Seconds as Go writes them: `1h0m0s`, `10s`, `1.5s`, `100ms`."""
    if seconds == 0:
        return "0s"
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    if rest < 1:
        return f"{sign}{rest * 1000:g}ms"
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


def _long(word: str, rest: list[str], known: Mapping[str, Flag], take: Callable[[Flag, str], None]) -> None:
    name, equals, text = word[2:].partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: {word}")
    flag = known.get(name.replace("_", "-"))
    if flag is None:
        if name == "help":
            raise HelpRequested
        if name == "version":
            _version(text)
            return
        raise FlagError(f"unknown flag: --{name}")
    if not equals:
        if flag.type == "bool":
            text = "true"
        elif rest:
            text = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: --{name}")
    take(flag, text)


def _version(text: str) -> None:
    from shipwheel import KUBERNETES_VERSION

    if text in ("", *_TRUE):
        raise VersionRequested(f"Kubernetes {KUBERNETES_VERSION}")
    if text == "raw":
        major, minor, *_ = KUBERNETES_VERSION.lstrip("v").split(".")
        raise VersionRequested(f'version.Info{{Major:"{major}", Minor:"{minor}", GitVersion:"{KUBERNETES_VERSION}"}}')
    if text not in _FALSE:
        raise FlagError(f'invalid argument {json.dumps(text)} for "--version" flag: the version cannot be chosen')


def _shorthands(word: str, rest: list[str], short: Mapping[str, Flag], take: Callable[[Flag, str], None]) -> None:
    letters = word[1:]
    while letters:
        letter, tail = letters[0], letters[1:]
        flag = short.get(letter)
        if flag is None:
            if letter == "h":
                raise HelpRequested
            raise FlagError(f"unknown shorthand flag: '{letter}' in -{letters}")
        if tail.startswith("=") and len(tail) > 1:
            take(flag, tail[1:])
            return
        if flag.type == "bool":
            take(flag, "true")
            letters = tail
            continue
        if not tail and not rest:
            raise FlagError(f"flag needs an argument: '{letter}' in -{letters}")
        take(flag, tail or rest.pop(0))
        return


def _string(text: str, _: Any) -> str:
    return text


def _int(text: str, _: Any) -> int:
    try:
        return int(text, 0) if not re.fullmatch(r"[+-]?0\d+", text) else int(text, 8)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {json.dumps(text)}: invalid syntax") from None


def _float(text: str, _: Any) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {json.dumps(text)}: invalid syntax") from None


def _bool(text: str, _: Any) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {json.dumps(text)}: invalid syntax")


def _duration(text: str, _: Any) -> float:
    return parse_duration(text)


def _ip(text: str, _: Any) -> str:
    try:
        return str(ipaddress.ip_address(text.strip())) if text else ""
    except ValueError:
        raise ValueError(f"failed to parse IP: {json.dumps(text)}") from None


def _cidr(text: str, _: Any) -> str:
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False)) if text else ""
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def _slice(text: str, previous: Any) -> tuple[str, ...]:
    words = tuple(text.split(",")) if text else ()
    return (*(previous or ()), *words)


def _array(text: str, previous: Any) -> tuple[str, ...]:
    return (*(previous or ()), text)


def _pairs(text: str, previous: Any) -> dict[str, str]:
    pairs = dict(previous or {})
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError("malformed pair, expect string=string")
        pairs[key.strip()] = value.strip()
    return pairs


def _switches(text: str, previous: Any) -> dict[str, bool]:
    switches = dict(previous or {})
    for pair in filter(None, text.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ValueError("malformed pair, expect string=bool")
        try:
            switches[key] = _bool(value, None)
        except ValueError as error:
            raise ValueError(f"invalid value of {key}: {value}, err: {error}") from None
    return switches


_READ: dict[Type, Callable[[str, Any], Any]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "duration": _duration,
    "ip": _ip,
    "cidr": _cidr,
    "stringSlice": _slice,
    "stringArray": _array,
    "mapStringString": _pairs,
    "mapStringBool": _switches,
}


def _show_default(flag: Flag) -> str:
    value = flag.default
    if value in ("", (), {}, None, False, 0):
        return ""
    match flag.type:
        case "duration":
            return format_duration(value)
        case "stringSlice" | "stringArray":
            return f"[{','.join(value)}]"
        case "mapStringString" | "mapStringBool":
            return ",".join(f"{key}={_show(each)}" for key, each in sorted(value.items()))
        case "string":
            return json.dumps(value)
        case _:
            return _show(value)


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
