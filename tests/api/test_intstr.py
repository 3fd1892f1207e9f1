from __future__ import annotations

import pytest

from shipwheel.api import intstr


@pytest.mark.parametrize(
    ("value", "total", "up", "down"),
    [(3, 10, 3, 3), ("25%", 10, 3, 2), ("0%", 10, 0, 0), ("150%", 3, 5, 4), ("-25%", 10, -2, -3)],
)
def test_a_share_of_the_whole(value: int | str, total: int, up: int, down: int) -> None:
    assert intstr.scaled_value(value, total, round_up=True) == up
    assert intstr.scaled_value(value, total, round_up=False) == down


def test_text_that_is_no_percentage_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid type: string is not a percentage"):
        intstr.scaled_value("5", 10, round_up=True)
    with pytest.raises(ValueError, match=r'invalid value "x%": strconv.Atoi: parsing "x": invalid syntax'):
        intstr.scaled_value("x%", 10, round_up=True)


def test_numbers_in_text() -> None:
    assert intstr.parse("80") == 80
    assert intstr.parse("http") == "http"
    assert intstr.parse(str(2**31)) == str(2**31)
    assert intstr.int_value("80") == 80
    assert intstr.int_value("http") == 0
    assert intstr.is_percent("5%")
    assert not intstr.is_percent(5)
