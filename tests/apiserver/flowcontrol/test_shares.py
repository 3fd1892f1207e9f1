"""How seats are divided, lent and given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.apiserver.flowcontrol.shares import (
    Allocation,
    Borrower,
    Demand,
    Item,
    Limits,
    adjust,
    divide,
    limits_of,
    widest,
)


@pytest.mark.parametrize(
    ("shares", "lendable", "borrowing", "expected"),
    [
        (30, 33, None, Limits(74, 50, 674)),
        (100, 90, None, Limits(245, 24, 845)),
        (5, 0, 0, Limits(13, 13, 13)),
        (20, 50, 100, Limits(49, 24, 98)),
        (0, 0, None, Limits(0, 0, 600)),
    ],
)
def test_limits(shares: int, lendable: int, borrowing: int | None, expected: Limits) -> None:
    assert limits_of(shares, lendable, borrowing, all_shares=245, seats=600) == expected


@pytest.mark.parametrize(("nominal", "hand", "expected"), [(245, 6, 37), (49, 6, 8), (5, 6, 1), (0, 4, 1), (10, 4, 2)])
def test_the_widest_request(nominal: int, hand: int, expected: int) -> None:
    assert widest(nominal, hand) == expected


@pytest.mark.parametrize(
    ("total", "items", "expected"),
    [
        (10, [Item(1, 0, 10), Item(1, 0, 10)], [5, 5]),
        (10, [Item(3, 0, 10), Item(1, 0, 10)], [7.5, 2.5]),
        (10, [Item(3, 0, 5), Item(1, 0, 10)], [5, 5]),
        (10, [Item(8, 8, 10), Item(2, 1, 10), Item(2, 0, 10)], [8, 1, 1]),
        (10, [Item(5, 5, 10), Item(5, 5, 10)], [5, 5]),
        (10, [Item(1, 0, 4), Item(2, 0, 6)], [4, 6]),
        (10, [Item(0, 0, 100), Item(0, 0, 100)], [5, 5]),
        (0, [Item(0, 0, 3)], [0]),
    ],
)
def test_dividing(total: int, items: list[Item], expected: list[float]) -> None:
    assert divide(total, items)[0] == pytest.approx(expected)


@pytest.mark.parametrize("items", [[Item(9, 9, 9), Item(9, 9, 9)], [Item(1, 1, 2)]])
def test_what_cannot_be_divided(items: list[Item]) -> None:
    with pytest.raises(ValueError):
        divide(10, items)


items = st.builds(
    lambda low, more, target: Item(low + target, low, low + target + more),
    st.integers(0, 20), st.integers(0, 50), st.integers(0, 30),
)  # fmt: skip


@given(st.lists(items, min_size=1, max_size=8), st.floats(0, 1))
def test_everything_is_given_within_bounds_at_one_fraction(parts: list[Item], at: float) -> None:
    low, high = sum(item.low for item in parts), sum(item.high for item in parts)
    total = round(low + at * (high - low))
    given_out, fraction = divide(total, parts)
    assert sum(given_out) == pytest.approx(total, abs=0.01)
    for item, share in zip(parts, given_out, strict=True):
        assert item.low - 1e-6 <= share <= item.high + 1e-6
        if item.low + 1e-6 < share < item.high - 1e-6:
            assert share == pytest.approx(fraction * max(item.target, 0.001), rel=1e-3, abs=1e-3)


def level(nominal: int, lower: int, *, wants: int = 0, exempt: bool = False, upper: int = 1000) -> Borrower:
    return Borrower(exempt, Limits(nominal, lower, upper), Demand(high=wants, smoothed=wants), nominal)


def test_an_idle_level_lends() -> None:
    current = adjust({"busy": level(50, 25, wants=200), "idle": level(50, 25)}).current
    assert current == {"busy": 75, "idle": 25} or current["busy"] > 75
    assert sum(current.values()) == 100
    assert current["idle"] >= 25


def test_borrowed_seats_are_given_back_at_once() -> None:
    before = adjust({"busy": level(50, 10, wants=500), "waking": level(50, 10)}).current
    assert before["waking"] < 15
    after = adjust({"busy": level(50, 10, wants=500), "waking": level(50, 10, wants=50)}).current
    assert after["waking"] >= 50


def test_what_borrowing_is_limited_to() -> None:
    current = adjust({"busy": level(50, 50, wants=200, upper=60), "idle": level(50, 10)}).current
    assert current["busy"] == 60


def test_exempt_levels_take_what_they_need() -> None:
    levels = {"exempt": level(0, 0, wants=70, exempt=True), "a": level(50, 30, wants=50), "b": level(50, 10, wants=50)}
    allocation = adjust(levels)
    assert allocation.current["exempt"] == 70
    assert allocation.current == {"exempt": 70, "a": 30, "b": 10}
    assert allocation.fair_fraction == 0
    squeezed = adjust(levels | {"exempt": level(0, 0, wants=30, exempt=True)}).current
    assert squeezed == {"exempt": 30, "a": 40, "b": 30}


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.builds(
            lambda nominal, lends, wants, average: Borrower(
                False, Limits(nominal, nominal - lends * nominal // 100, nominal + 600),
                Demand(average, 0.0, wants, average), nominal,
            ),
            st.integers(0, 300), st.integers(0, 100), st.integers(0, 1000), st.floats(0, 1000),
        ),
        min_size=1,
        max_size=8,
    )
)  # fmt: skip
def test_nobody_gets_less_than_it_is_sure_of(levels: dict[str, Borrower]) -> None:
    allocation: Allocation = adjust(levels)
    for name, each in levels.items():
        sure = max(each.limits.lower, min(each.limits.nominal, each.demand.high))
        assert sure <= allocation.current[name] <= each.limits.upper
    assert abs(sum(allocation.current.values()) - sum(each.limits.nominal for each in levels.values())) <= len(levels)


def test_demand_is_remembered() -> None:
    peak = Demand().next({10: 10.0}, 10.0, 10)
    assert (peak.average, peak.deviation, peak.high, peak.smoothed) == (10.0, 0.0, 10, 10.0)
    rest = peak.next({}, 10.0, 0)
    assert (rest.average, rest.high) == (0.0, 0)
    assert rest.smoothed == pytest.approx(9.77)
    half = Demand().next({4: 5.0}, 10.0, 4)
    assert (half.average, half.deviation) == (2.0, 2.0)
    assert half.smoothed == pytest.approx(4.0)
