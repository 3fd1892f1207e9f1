"""The string formats that a custom resource's schema may ask for.

A format that is not here, or is spelled with a type it does not belong to, is ignored. Dashes in a name do not
count: `date-time` is `datetime`. The list is that of upstream's API extensions.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from functools import cache
from urllib.parse import urlsplit

from shipwheel.api.regex import compile_pattern

Format = Callable[[str], bool]

_DECIMALS = re.compile(r"[0-9]{1,3}")


def _matches(pattern: str) -> Format:
    return lambda text: compile_pattern(pattern).search(text) is not None


def _uuid(version: str = "[0-9a-f]", variant: str = "[0-9a-f]") -> Format:
    return _matches(
        rf"(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{version}[0-9a-f]{{3}}-?{variant}[0-9a-f]{{3}}-?[0-9a-f]{{12}}$"
    )


def _uri(text: str) -> bool:
    """What Go's ParseRequestURI takes: an absolute URI or an absolute path."""
    if not text or any(character <= " " or character == "\x7f" for character in text):
        return False
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    if re.search(r"%(?![0-9A-Fa-f]{2})", parts.path):
        return False
    return bool(parts.scheme) or text.startswith("/") or text == "*"


def _email(text: str) -> bool:
    from email.utils import parseaddr

    _, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    return bool(at and local and domain) and not domain.startswith(".") and ".." not in address


def _hostname(text: str) -> bool:
    label = r"[a-zA-Z0-9\p{S}\p{L}]"
    pattern = (
        rf"^({label}((-?{label}{{0,62}})?)"
        rf"|({label}(([a-zA-Z0-9-\p{{S}}\p{{L}}]{{0,61}}{label})?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})$"
    )
    raw = text.encode()
    return (
        compile_pattern(pattern).search(text) is not None
        and len(raw) <= 255
        and all(len(part) <= 63 for part in raw.split(b"."))
    )


def _sloppy(text: str) -> str:
    """An IPv4 address without leading zeros, which Go once took."""
    parts = text.split(".")
    if len(parts) == 4 and all(_DECIMALS.fullmatch(part) for part in parts):
        return ".".join(str(int(part)) for part in parts)
    return text


def _ipv4(text: str) -> bool:
    try:
        ipaddress.ip_address(_sloppy(text))
    except ValueError:
        return False
    return "." in text and "%" not in text


def _ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _cidr(text: str) -> bool:
    address, slash, bits = text.partition("/")
    try:
        ipaddress.ip_interface(f"{_sloppy(address)}/{bits}")
    except ValueError:
        return False
    return bool(slash) and bits.isascii() and bits.isdigit() and "%" not in address


def _mac(text: str) -> bool:
    """EUI-48, EUI-64 or 20 octets of InfiniBand, in any of the three notations."""
    for separator, digits in ((":", 2), ("-", 2), (".", 4)):
        groups = text.split(separator)
        if all(re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", group) for group in groups):
            return len(groups) * digits // 2 in (6, 8, 20)
    return False


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return False
    return sum((i + 1) * (10 if each == "X" else int(each)) for i, each in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(each) * (3 if i % 2 else 1) for i, each in enumerate(digits)) % 10 == 0


_CARD = re.compile(
    r"4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}"
)


def _credit_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD.fullmatch(digits):
        return False
    doubled = (int(each) * (1 + i % 2) for i, each in enumerate(reversed(digits)))
    return sum(each // 10 + each % 10 for each in doubled) % 10 == 0


def _byte(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(text)


def _date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _datetime(text: str) -> bool:
    day, t, clock = text.lower().partition("t")
    match = re.fullmatch(
        r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})", clock.partition("t")[0]
    )
    return bool(t) and _date(day) and match is not None and match[1] <= "23" and max(match[2], match[3]) <= "59"


_GO_DURATION = re.compile(r"[+-]?(?:0|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_UNITS = ("ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "m", "min", "h", "hr", "hour", "d", "day",
          "w", "wk", "week")  # fmt: skip
_UNIT_STEMS = ("nano", "micro", "milli", "sec", "min", "hour", "day", "week")


def _duration(text: str) -> bool:
    """Go's durations, and Scala's: `22 ns`, `3 days`."""
    if _GO_DURATION.fullmatch(text):
        return True
    units = [unit.lower() for unit in re.findall(r"[0-9]+\s*([A-Za-zµ]+)", text)]
    return any(unit in _UNITS or unit.startswith(_UNIT_STEMS) for unit in units)


_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")


def _short_name(text: str) -> bool:
    return len(text) <= 63 and _DNS_LABEL.fullmatch(text) is not None


def _long_name(text: str) -> bool:
    return len(text) <= 253 and all(_DNS_LABEL.fullmatch(part) for part in text.split("."))


_BYTE_COLOR = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*"

_FORMATS: dict[str, Format] = {
    "bsonobjectid": _matches(r"^[0-9a-fA-F]{24}$"),
    "uri": _uri,
    "email": _email,
    "hostname": _hostname,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "cidr": _cidr,
    "mac": _mac,
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _credit_card,
    "ssn": _matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
    "hexcolor": _matches(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    "rgbcolor": _matches(rf"^rgb\({_BYTE_COLOR},{_BYTE_COLOR},{_BYTE_COLOR}\)$"),
    "byte": _byte,
    "password": lambda text: True,
    "date": _date,
    "duration": _duration,
    "datetime": _datetime,
    "k8sshortname": _short_name,
    "k8slongname": _long_name,
}

_NUMERIC = {"integer": ("int32", "int64"), "number": ("float", "double")}


@cache
def effective(type_name: str, format_name: str) -> str:
    """The format as far as it means something for that type; empty when it is to be ignored."""
    if type_name in ("", "string"):
        return format_name if format_name.replace("-", "") in _FORMATS else ""
    return format_name if format_name in _NUMERIC.get(type_name, ()) else ""


def fits(format_name: str, text: str) -> bool:
    """Does `text` have that format? One that is not known fits everything."""
    known = _FORMATS.get(format_name.replace("-", ""))
    return known is None or known(text)
