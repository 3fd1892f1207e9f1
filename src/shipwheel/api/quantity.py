"""Resource quantities: `100m`, `1.5Gi`, `12e6`.

A quantity is a whole number of nanos (nothing finer exists: parsing rounds away from zero) and the notation
it was written in, which it keeps when it is written again in canonical form: no fraction, and the largest
suffix that loses nothing. Integers of any size make sums exact, where upstream needs two representations.

One habit of upstream is kept because objects read back show it: text that its parser takes on the quick road
(18 digits or fewer) and that cannot be shortened is kept as it was written, so `1.500` and `+1Ki` stay.
One is not: beyond the largest suffix upstream loses the magnitude (`1000E` becomes `1`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

DECIMAL_SI: Final = "DecimalSI"
BINARY_SI: Final = "BinarySI"
DECIMAL_EXPONENT: Final = "DecimalExponent"

_GRAMMAR = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
FORMAT_WRONG = f"quantities must match the regular expression '{_GRAMMAR}'"
NUMERIC_WRONG = "unable to parse numeric part of quantity"
SUFFIX_WRONG = "unable to parse quantity's suffix"

# What upstream's scanner takes is a little more than its own grammar says: `+`, `m` and `.` are all zero.
_SCAN = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")

_DECIMAL = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = ("", *_BINARY)

_NANO = 10**9
_MAX_BINARY = (2**63 - 1) * _NANO
_MAX_EXPONENT = 1000
"""Upstream computes with exponents up to 2^31, and takes the memory for it. Beyond this one we refuse."""
_QUICK_DIGITS = 18


class QuantityError(ValueError):
    """The text is no quantity; the message is upstream's."""


class Quantity:
    """A fixed-point number. Immutable; compares and hashes by value, whatever the notation."""

    __slots__ = ("_text", "format", "nanos")

    nanos: int
    format: Format

    def __init__(self, nanos: int, format: Format = DECIMAL_SI, *, text: str = "") -> None:
        self.nanos = nanos
        self.format = format
        self._text = text

    @classmethod
    def of(cls, value: int, format: Format = DECIMAL_SI) -> Quantity:
        """A whole number: bytes with BINARY_SI, counts with DECIMAL_SI."""
        return cls(value * _NANO, format)

    @classmethod
    def of_milli(cls, value: int, format: Format = DECIMAL_SI) -> Quantity:
        """So many thousandths: CPU."""
        return cls(value * 10**6, format)

    def value(self) -> int:
        """The whole number, rounded away from zero."""
        return _divide_away(self.nanos, _NANO)

    def milli_value(self) -> int:
        """Thousandths, rounded away from zero."""
        return _divide_away(self.nanos, 10**6)

    def is_zero(self) -> bool:
        return self.nanos == 0

    def sign(self) -> int:
        return (self.nanos > 0) - (self.nanos < 0)

    def __float__(self) -> float:
        return self.nanos / _NANO

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        """The canonical form, which parses to the same value and notation."""
        if not self._text:
            self._text = _canonical(self.nanos, self.format)
        return self._text

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __le__(self, other: Quantity) -> bool:
        return self.nanos <= other.nanos

    def __gt__(self, other: Quantity) -> bool:
        return self.nanos > other.nanos

    def __ge__(self, other: Quantity) -> bool:
        return self.nanos >= other.nanos

    # A sum is written as its left term is, unless that is zero: then as its right term.

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity(self.nanos * factor, self.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)


ZERO = Quantity(0)


@lru_cache(maxsize=4096)
def parse(text: str | int | float) -> Quantity:
    """Read a quantity as JSON holds it: a string, or a number. Spaces around it are ignored.

    Raises QuantityError with upstream's message.
    """
    text = text.strip() if isinstance(text, str) else str(text)
    scanned = _SCAN.fullmatch(text)
    if scanned is None or not text:
        raise QuantityError(FORMAT_WRONG)
    sign, number, fraction, suffix = scanned.groups(default="")
    digits = (number.lstrip("0") or "0") + fraction
    if len(digits) > _MAX_EXPONENT:
        raise QuantityError(NUMERIC_WRONG)
    if suffix in _BINARY:
        quantity, quick = _parse_binary(text, digits, fraction, _BINARY[suffix])
    elif suffix in _DECIMAL:
        quantity, quick = _parse_decimal(text, digits, fraction, _DECIMAL[suffix], DECIMAL_SI)
    elif exponent := _EXPONENT.fullmatch(suffix):
        quantity, quick = _parse_decimal(text, digits, fraction, _to_exponent(exponent[1]), DECIMAL_EXPONENT)
    else:
        raise QuantityError(SUFFIX_WRONG)
    if not (quick or number or fraction):
        raise QuantityError(NUMERIC_WRONG)
    return Quantity(-quantity.nanos, quantity.format, text=quantity._text) if sign == "-" else quantity


def _to_exponent(text: str) -> int:
    if len(text) > 19:
        raise QuantityError(SUFFIX_WRONG)
    exponent = int(text)
    if exponent > _MAX_EXPONENT:
        raise QuantityError(NUMERIC_WRONG)
    return exponent


def _parse_decimal(text: str, digits: str, fraction: str, exponent: int, format: Format) -> tuple[Quantity, bool]:
    """The quantity, and whether upstream's quick road would have been taken."""
    scale = exponent - len(fraction)
    mantissa = int(digits)
    quick = len(digits) <= _QUICK_DIGITS and scale >= -9
    short = scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"
    if scale >= -9:
        nanos = mantissa * 10 ** (scale + 9)
    else:
        nanos = _divide_away(mantissa, 10 ** min(-9 - scale, len(digits)))
    return Quantity(nanos, format, text=text if quick and short else ""), quick


def _parse_binary(text: str, digits: str, fraction: str, power: int) -> tuple[Quantity, bool]:
    mantissa = int(digits)
    if not fraction and 15 - len(digits) - power * 3 // 10 - 1 >= 0:
        return Quantity((mantissa << power) * _NANO, BINARY_SI, text=text if mantissa & 7 else ""), True
    nanos = min(_divide_away((mantissa << power) * _NANO, 10 ** len(fraction)), _MAX_BINARY)
    return Quantity(nanos, DECIMAL_SI if 0 < nanos < _NANO else BINARY_SI), False


def _divide_away(dividend: int, divisor: int) -> int:
    """The quotient, rounded away from zero."""
    return -(-dividend // divisor) if dividend >= 0 else dividend // divisor


def _canonical(nanos: int, format: Format) -> str:
    if nanos == 0:
        return "0"
    whole, rest = divmod(nanos, _NANO)
    if format == BINARY_SI and rest == 0 and abs(whole) >= 1024:
        times = 0
        while whole % 1024 == 0 and times < len(_BINARY_SUFFIX) - 1:
            whole //= 1024
            times += 1
        return f"{whole}{_BINARY_SUFFIX[times]}"
    # A binary quantity that is small or broken is shown as a decimal, so that nothing is lost.
    largest = _MAX_EXPONENT if format == DECIMAL_EXPONENT else 18
    exponent = -9
    while nanos % 1000 == 0 and exponent + 3 <= largest:
        nanos //= 1000
        exponent += 3
    if format == DECIMAL_EXPONENT:
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_SUFFIX[exponent]}"


def canonical(text: str | int | float) -> str:
    """The canonical form of a quantity as JSON holds it."""
    return str(parse(text))


def value(text: str | int | float) -> int:
    """The whole number, rounded away from zero: bytes, counts."""
    return parse(text).value()


def milli(text: str | int | float) -> int:
    """Thousandths, rounded away from zero: CPU."""
    return parse(text).milli_value()
