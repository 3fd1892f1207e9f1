"""Cron schedules: the dialect of upstream's parser, and what summer time does to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipwheel.api.cron import CronError, load_zone, parse

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0/15 * * * *", "2012-07-09T14:45", "2012-07-09T15:00"),
        ("0/15 * * * *", "2012-07-09T14:59:59", "2012-07-09T15:00"),
        ("20-35/15 * * * *", "2012-07-09T23:46", "2012-07-10T00:20"),
        ("0 0 1 */1 *", "2012-07-09T14:45", "2012-08-01T00:00"),
        ("0 0 29 2 *", "2012-07-09T23:35", "2016-02-29T00:00"),
        ("0 0 * Feb Mon", "2012-07-09T23:35", "2013-02-04T00:00"),
        ("0 0 * Feb Mon/2", "2012-07-09T23:35", "2013-02-01T00:00"),
        ("* * * * *", "2012-07-09T14:45:30", "2012-07-09T14:46"),
        ("* * * * *", "2012-12-31T23:59:45", "2013-01-01T00:00"),
        ("30 4 1,15 * 5", "2026-05-02T00:00", "2026-05-08T04:30"),  # either day field
        ("0 0 13 * ?", "2026-05-01T00:00", "2026-05-13T00:00"),
        ("0 9 * * mon-fri", "2026-05-01T10:00", "2026-05-04T09:00"),
        ("@hourly", "2026-05-01T10:00", "2026-05-01T11:00"),
        ("@daily", "2026-05-01T10:00", "2026-05-02T00:00"),
        ("@midnight", "2026-05-01T10:00", "2026-05-02T00:00"),
        ("@weekly", "2026-05-01T10:00", "2026-05-03T00:00"),
        ("@monthly", "2026-05-01T10:00", "2026-06-01T00:00"),
        ("@yearly", "2026-05-01T10:00", "2027-01-01T00:00"),
        ("@annually", "2026-05-01T10:00", "2027-01-01T00:00"),
        ("@every 90m", "2026-05-01T10:00", "2026-05-01T11:30"),
        ("@every 1h30m10s", "2026-05-01T10:00:00.5", "2026-05-01T11:30:10"),
        ("@every 10ms", "2026-05-01T10:00", "2026-05-01T10:00:01"),
        ("TZ=Asia/Tokyo 0 9 * * *", "2026-05-01T01:00", "2026-05-02T00:00"),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-05-01T01:00", "2026-05-02T00:00"),
    ],
)
def test_the_next_time(schedule, after, expected):
    assert parse(schedule).next(at(after)) == at(expected)


@pytest.mark.parametrize("schedule", ["0 0 30 2 *", "0 0 31 4 *"])
def test_a_time_that_never_comes(schedule):
    assert parse(schedule).next(at("2026-01-01T00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 0 * * *", "end of range (60) above maximum (59): 60"),
        ("0 0 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("@unreasonable", "unrecognized descriptor: @unreasonable"),
        ("TZ=Nowhere/Town 0 0 * * *", "provided bad location Nowhere/Town: unknown time zone Nowhere/Town"),
    ],
)
def test_what_cannot_be_read(schedule, message):
    with pytest.raises(CronError) as caught:
        parse(schedule)
    assert str(caught.value) == message


class TestSummerTime:
    """Berlin: 02:00 to 03:00 does not exist on 2026-03-29, and comes twice on 2026-10-25."""

    def test_what_is_left_out_does_not_come(self):
        schedule = parse("30 2 * * *", BERLIN)
        assert schedule.next(at("2026-03-28T02:00")) == at("2026-03-30T00:30")

    def test_an_hour_that_is_left_out_is_jumped_over_by_those_that_are_not(self):
        schedule = parse("0 * * * *", BERLIN)
        assert schedule.next(at("2026-03-29T00:00")) == at("2026-03-29T01:00")

    def test_what_is_repeated_comes_twice(self):
        schedule = parse("30 2 * * *", BERLIN)
        first = schedule.next(at("2026-10-24T12:00"))
        assert first == at("2026-10-25T00:30")
        assert schedule.next(first) == at("2026-10-25T01:30")

    @pytest.mark.parametrize(
        ("zone", "changes"),
        [
            ("Europe/Berlin", ("2026-03-29T01:00", "2026-10-25T01:00")),
            ("Australia/Lord_Howe", ("2026-04-04T15:00", "2026-10-03T15:30")),  # by half an hour
            ("Africa/Cairo", ("2026-04-23T22:00", "2026-10-29T21:00")),  # at midnight
        ],
    )
    def test_around_a_change_every_match_comes_in_turn(self, zone, changes):
        there = ZoneInfo(zone)
        schedule = parse("*/7 * * * *", there)
        for change in changes:
            minutes = [at(change) + timedelta(minutes=offset) for offset in range(-200, 200)]
            expected = [each for each in minutes if each.astimezone(there).minute % 7 == 0]
            found = [schedule.next(expected[0] - timedelta(seconds=1))]
            while len(found) < len(expected):
                found.append(schedule.next(found[-1]))
            assert found == expected


class AskedZone(tzinfo):
    """UTC, and how often somebody asked."""

    def __init__(self) -> None:
        self.asked = 0

    def utcoffset(self, when):
        self.asked += 1
        return timedelta(0)

    def dst(self, when):
        return timedelta(0)


def test_what_has_passed_of_a_day_is_not_looked_at_minute_by_minute():
    zone = AskedZone()
    assert parse("* * * * *", zone).next(at("2026-05-01T23:00")) == at("2026-05-01T23:01")
    assert zone.asked < 200


def test_zones():
    assert load_zone("") is load_zone("UTC") is UTC
    with pytest.raises(CronError, match=r"^unknown time zone Mars/Base$"):
        load_zone("Mars/Base")


FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "0", "5,10-20/5", "59"]),
    st.sampled_from(["*", "0", "3-5", "23"]),
    st.sampled_from(["*", "1", "29-31", "*/10"]),
    st.sampled_from(["*", "2", "jan-mar"]),
    st.sampled_from(["*", "0", "1-5", "sat"]),
)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(FIELDS, TIMES)
def test_no_time_is_left_out(fields, after):
    """Looked at minute by minute, there is no match between a moment and the next time."""
    schedule = parse(" ".join(fields), BERLIN)
    found = schedule.next(after)
    if found is None:
        return
    assert found > after
    assert found.second == 0
    assert schedule.next(found - timedelta(seconds=1)) == found
    probe = after
    for _ in range(min(int((found - after).total_seconds() // 60), 50)):
        probe += timedelta(minutes=1)
        if probe < found:
            assert schedule.next(probe) == found
