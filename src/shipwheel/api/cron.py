"""Cron schedules as CronJobs have them: five fields, `@daily` and the like, `@every 90m`, time zones.

The dialect is that of upstream's parser (robfig/cron, standard): names of months and days, ranges, steps, `?` for
`*`; when both day fields are restricted either may match; a time that a change to summer time leaves out does
not come, and one that the change back repeats comes twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_YEARS = 5
"""How far ahead to look for a time that may never come (30 February)."""

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class CronError(ValueError):
    """The schedule cannot be read; the message is upstream's."""


class Schedule(Protocol):
    def next(self, after: datetime) -> datetime | None:
        """The first time after `after`, in UTC; None when there is none in five years."""


def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """Read a schedule, to be understood in `zone` unless it begins with `TZ=` (or `CRON_TZ=`). CronError."""
    if not text:
        raise CronError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        setting, _, text = text.partition(" ")
        zone = _zone_in_schedule(setting.partition("=")[2])
        text = text.strip()
    if text.startswith("@every "):
        return _Every(_duration(text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in _DESCRIPTORS:
            raise CronError(f"unrecognized descriptor: {text}")
        text = _DESCRIPTORS[text]
    fields = text.split()
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    minute, _ = _field(fields[0], 0, 59)
    hour, _ = _field(fields[1], 0, 23)
    day, any_day = _field(fields[2], 1, 31)
    month, _ = _field(fields[3], 1, 12, _MONTHS)
    weekday, any_weekday = _field(fields[4], 0, 6, _DAYS)
    return _Spec(zone, tuple(sorted(minute)), tuple(sorted(hour)), day, month, weekday, any_day or any_weekday)


def load_zone(name: str) -> tzinfo:
    """A time zone of the IANA database, `UTC` or empty for UTC; CronError when there is none of that name."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CronError(f"unknown time zone {name}") from error


def _zone_in_schedule(name: str) -> tzinfo:
    try:
        return load_zone(name)
    except CronError as error:
        raise CronError(f"provided bad location {name}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Every:
    seconds: int

    def next(self, after: datetime) -> datetime | None:
        return (after + timedelta(seconds=self.seconds)).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class _Spec:
    zone: tzinfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both: bool
    """Day of month and day of week must match both, because one of them is any."""

    def next(self, after: datetime) -> datetime | None:
        day = after.astimezone(self.zone).date()
        last = day.year + _YEARS
        while day.year <= last:
            if day.month not in self.months:
                day = date(day.year + (day.month == 12), day.month % 12 + 1, 1)
                continue
            if self._is_day(day):
                found = self._first_on(day, after)
                if found is not None:
                    return found
            day += timedelta(days=1)
        return None

    def _is_day(self, day: date) -> bool:
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_date and by_weekday) if self.both else (by_date or by_weekday)

    def _first_on(self, day: date, after: datetime) -> datetime | None:
        for hour in self.hours:
            if _end_of(day, hour, self.zone) <= after:
                continue
            for fold in (0, 1):
                for minute in self.minutes:
                    moment = _instant(datetime(day.year, day.month, day.day, hour, minute, fold=fold), self.zone)
                    if moment is not None and moment > after:
                        return moment
        return None


def _end_of(day: date, hour: int, zone: tzinfo) -> datetime:
    """The moment of an hour's last minute, after which the wall clock never shows that hour of the day again."""
    local = datetime(day.year, day.month, day.day, hour, 59, tzinfo=zone)
    return max(local.astimezone(UTC), local.replace(fold=1).astimezone(UTC))


def _instant(local: datetime, zone: tzinfo) -> datetime | None:
    """The moment that a wall clock shows this time; None when it never does (for the second time)."""
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    back = moment.astimezone(zone)
    if back.replace(tzinfo=None) != local.replace(fold=0) or back.fold != local.fold:
        return None
    return moment


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> tuple[frozenset[int], bool]:
    """(the values a field allows, whether it was `*`)."""
    values: set[int] = set()
    anything = False
    for part in text.split(","):
        if part:
            some, star = _range(part, low, high, names or {})
            values |= some
            anything = anything or star
    return frozenset(values), anything


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[set[int], bool]:
    span, *steps = text.split("/")
    first, *rest = span.split("-")
    star = first in ("*", "?")
    if star:
        start, end = low, high
    else:
        start = end = _number(first, names)
        if len(rest) > 1:
            raise CronError(f"too many hyphens: {text}")
        if rest:
            end = _number(rest[0], names)
    step = 1
    if len(steps) > 1:
        raise CronError(f"too many slashes: {text}")
    if steps:
        step = _number(steps[0], {})
        if not rest:
            end = high
        star = star and step <= 1
    if start < low:
        raise CronError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise CronError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise CronError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    return set(range(start, end + 1, step)), star


def _number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise CronError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


def _duration(text: str) -> int:
    """Seconds of a Go duration, at least one."""
    rest = text.removeprefix("+")
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise CronError(f'failed to parse duration @every {text}: time: invalid duration "{text}"')
    return max(int(sum(float(number) * _SECONDS[unit] for number, unit in parts)), 1)
