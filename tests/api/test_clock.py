"""Times as text."""

from __future__ import annotations

import pytest

from shipwheel.api.clock import parse_time, rfc3339, rfc3339_micro


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00.000123Z", "1969-12-31T23:59:59.500000Z", "0001-01-01T00:00:02.000000Z"]
)
def test_texts_come_back(text: str) -> None:
    moment = parse_time(text)
    assert rfc3339_micro(moment) == text
    assert rfc3339(moment) == f"{text[:19]}Z"


def test_other_zones_are_told_in_utc() -> None:
    assert rfc3339(parse_time("2026-01-31T12:00:00+02:00")) == "2026-01-31T10:00:00Z"
