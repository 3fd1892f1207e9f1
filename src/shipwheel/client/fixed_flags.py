"""What upstream's components can be told and ours cannot: asking for what is so anyway is fine, for anything else is
refused.

So a command line or configuration that was written out in full, as upstream's own tools do, is understood, and nothing
is accepted that would not be done. Where every value is as good as any other, because what it is about is not there,
any is taken, and whoever gives one is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shipwheel.client.flags import Flag, Type, parse_duration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fixed:
    """`file` is its place in a configuration file, `flag` its name on a command line; either may be empty."""

    file: str
    flag: str
    kind: Type
    value: Any
    """Upstream's default, or what is done here instead. Durations are written as in Go."""
    deprecated: str = ""
    also: tuple[Any, ...] = ()
    """Other values that mean the same."""
    moot: str = ""
    """Why any value will do."""

    @property
    def default(self) -> Any:
        """The value as flags have it."""
        if self.kind == "duration":
            return parse_duration(self.value)
        return tuple(self.value) if self.kind in ("stringSlice", "stringArray") else self.value

    def as_flag(self, group: str = "", deprecated: str = "") -> Flag:
        said = f"It has no effect: {self.moot}." if self.moot else "Nothing but the default can be asked for."
        return Flag(self.flag, self.kind, self.default, said, group=group, deprecated=self.deprecated or deprecated)


def refusal(name: str, value: Any, only: Any) -> str:
    """Why a value cannot be had; empty when it can. Nothing given is as good as the zero that means it."""
    if value == only or (is_zero(value) and is_zero(only)):
        return ""
    return f"{name}: Unsupported value: {_shown(value)}: only {_shown(only)} is supported"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(",".join(value) if isinstance(value, tuple) else value)


def is_zero(value: Any) -> bool:
    """What upstream's own tools write for a setting that nobody has made."""
    if isinstance(value, dict):
        return all(is_zero(each) for each in value.values())
    return value in (0, "", "0s", "0", None, [], ())


def check(fixed: Iterable[Fixed], values: Mapping[str, Any]) -> None:
    """ValueError for the first flag that asks for what cannot be had."""
    for each in fixed:
        value = values[each.flag]
        if each.moot and value != each.default:
            log.warning("--%s has no effect: %s", each.flag, each.moot)
        elif not each.moot and value not in each.also and (why := refusal(f"--{each.flag}", value, each.default)):
            raise ValueError(why)
