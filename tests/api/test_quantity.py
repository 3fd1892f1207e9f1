"""Quantities: what is read, how it is written again, and the laws of their arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api import quantity
from shipwheel.api.quantity import BINARY_SI, DECIMAL_EXPONENT, DECIMAL_SI, Quantity, QuantityError, parse


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"), ("00", "0"), ("0.0", "0"), ("0Ki", "0"), ("-0", "0"), ("0m", "0"),
        ("1", "1"), ("1000", "1k"), ("1000m", "1"), ("1500m", "1500m"), ("1.5", "1500m"), ("0.5", "500m"),
        (".5", "500m"), ("1.", "1."), ("1.25", "1250m"), ("100000m", "100"), ("1000M", "1G"),
        ("0.001T", "1G"), ("1080000000n", "1080m"), ("12E", "12E"), ("1000E", "1000E"),
        ("1Ki", "1Ki"), ("1024Mi", "1Gi"), ("307200Ki", "300Mi"), ("1025024Mi", "1001Gi"),
        ("1.5Gi", "1536Mi"), ("0.5Mi", "512Ki"), ("0.5Ki", "512"), ("0.1Mi", "104857600m"),
        (".001Ki", "1024m"), (".000000000001Ki", "2n"), ("9Ei", "9223372036854775807"), ("1025", "1025"),
        ("1e3", "1e3"), ("1E3", "1E3"), ("1e4", "10e3"), (".001e12", "1e9"), ("0.001e0", "1e-3"),
        ("1000e-12", "1e-9"), ("5e0", "5e0"), ("0.5e-9", "1e-9"),
        ("3.001n", "4n"), ("0.0000000001", "1n"), ("0.00000012345", "124n"), ("1e-999999999", "1e-9"),
        ("-1.5", "-1500m"), ("-1.5Gi", "-1536Mi"), ("-3.001n", "-4n"), ("-1Ki", "-1Ki"),
        # Kept as written: short enough and not reducible.
        ("1.500", "1.500"), ("10.035M", "10.035M"), ("100.035k", "100.035k"), ("+1", "+1"),
        ("01", "01"), ("1.Ki", "1.Ki"),
        # Odd, but the scanner lets them be zero.
        ("+", "0"), ("m", "0"), (".", "0"),
        (" 1", "1"), ("1 ", "1"), (1, "1"), (1000, "1k"), (0.5, "500m"), (1e22, "10e21"),
    ],
)  # fmt: skip
def test_canonical_form(text: str | int | float, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", quantity.FORMAT_WRONG),
        ("1.1.M", quantity.FORMAT_WRONG),
        ("1+1.0M", quantity.FORMAT_WRONG),
        ("0.1am", quantity.FORMAT_WRONG),
        ("aoeu", quantity.FORMAT_WRONG),
        ("1\n2", quantity.FORMAT_WRONG),
        ("1 Gi", quantity.FORMAT_WRONG),
        ("٣", quantity.FORMAT_WRONG),
        ("0.1mi", quantity.SUFFIX_WRONG),
        ("1i", quantity.SUFFIX_WRONG),
        ("-3.01e-", quantity.SUFFIX_WRONG),
        ("1KI", quantity.FORMAT_WRONG),
        ("1K", quantity.SUFFIX_WRONG),
        ("1GiB", quantity.FORMAT_WRONG),
        ("1e1000000000", quantity.NUMERIC_WRONG),
        ("Ei", quantity.NUMERIC_WRONG),
        ("+e-12", quantity.NUMERIC_WRONG),
        ("9" * 5000, quantity.NUMERIC_WRONG),
    ],
)
def test_wrong_text_is_refused_in_upstreams_words(text: str, message: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [
        ("1", 1, 1000), ("100m", 1, 100), ("0.1m", 1, 1), ("1n", 1, 1), ("1Gi", 2**30, 2**30 * 1000),
        ("1.5Gi", 3 * 2**29, 3 * 2**29 * 1000), ("-9.01", -10, -9010), ("1001m", 2, 1001),
        ("5k", 5000, 5_000_000),
    ],
)  # fmt: skip
def test_values_round_away_from_zero(text: str, value: int, milli: int) -> None:
    assert quantity.value(text) == value
    assert quantity.milli(text) == milli


def test_a_sum_takes_the_notation_of_its_first_term_that_is_not_zero() -> None:
    assert str(parse("1Gi") + parse("1000")) == "1073742824"
    assert str(parse("0") + parse("1Gi")) == "1Gi"
    assert str(parse("1Gi") - parse("1Gi")) == "0"
    assert str(parse("100m") + parse("1")) == "1100m"
    assert str(parse("1500m") * 2) == "3"
    assert str(-parse("1Ki")) == "-1Ki"
    assert str(Quantity.of(8 * 2**30, BINARY_SI)) == "8Gi"
    assert str(Quantity.of_milli(250)) == "250m"


suffixes = st.sampled_from([*quantity._DECIMAL, *quantity._BINARY, "e3", "E-2", "e7", "e-11", "E+4"])
texts = st.builds(
    lambda sign, whole, fraction, suffix: f"{sign}{whole}{fraction}{suffix}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**25),
    st.one_of(st.just(""), st.just("."), st.integers(0, 10**14).map(lambda n: f".{n}")),
    suffixes,
)


@given(texts)
def test_canonical_text_reads_as_the_same_quantity(text: str) -> None:
    once = parse(text)
    again = parse(str(once))
    assert again == once
    assert str(again) == str(once)


@given(texts)
def test_nothing_is_lost_but_what_is_finer_than_nano_or_beyond_the_cap(text: str) -> None:
    scanned = quantity._SCAN.fullmatch(text)
    assert scanned
    _, whole, fraction, suffix = scanned.groups(default="")
    exact = Fraction(f"{whole}.{fraction or 0}")
    if suffix in quantity._BINARY:
        exact *= 2 ** quantity._BINARY[suffix]
    else:
        exponent = quantity._DECIMAL.get(suffix)
        exact *= Fraction(10) ** (int(suffix[1:]) if exponent is None else exponent)
    nanos = abs(parse(text).nanos)
    if nanos == quantity._MAX_BINARY:
        assert exact * 10**9 >= nanos
    else:
        assert 0 <= nanos - exact * 10**9 < 1


formats = st.sampled_from([DECIMAL_SI, BINARY_SI, DECIMAL_EXPONENT])
quantities = st.builds(Quantity, st.integers(-(10**30), 10**30), formats)


@given(quantities, quantities)
def test_arithmetic(a: Quantity, b: Quantity) -> None:
    assert a + b == b + a
    assert (a + b) - b == a
    assert (a < b) == (b > a)
    assert (a <= b) == (not a > b)
    assert (a == b) == (hash(a) == hash(b) and not a < b and not b < a)
    assert a - a == quantity.ZERO
    assert -a == quantity.ZERO - a


@given(quantities)
def test_any_quantity_survives_being_written(each: Quantity) -> None:
    if abs(each.nanos) <= quantity._MAX_BINARY:
        assert parse(str(each)) == each
