"""How long ago something was, as people read it."""

from __future__ import annotations

from datetime import datetime

from shipwheel.api.clock import parse_time

UNKNOWN = "<unknown>"


def human_duration(seconds: float) -> str:
    """A length of time with two or three significant figures: `12s`, `3m5s`, `2d4h`, `3y12d`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(timestamp: str | None, now: datetime) -> str:
    """How long ago something was, or `<unknown>`."""
    return human_duration((now - parse_time(timestamp)).total_seconds()) if timestamp else UNKNOWN
