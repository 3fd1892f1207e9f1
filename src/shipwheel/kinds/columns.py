"""What the columns of many kinds have in common: ages, selectors, containers.

A column's value is a plain function of the object and the time. Texts are those of upstream's printers, down to
`<none>`, `<unset>` and `<unknown>`, since people and scripts read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from shipwheel.api.ages import since
from shipwheel.api.meta import Obj
from shipwheel.api.resource import Column
from shipwheel.api.selectors import SelectorError, from_label_selector

Value = Callable[[Obj, datetime], Any]

NONE = "<none>"
UNSET = "<unset>"


def age_column(name: str, moment: Callable[[Obj], str | None], *, priority: int = 0) -> Column:
    """A column that says how long ago `moment` was."""
    return Column(name, lambda obj, now: since(moment(obj), now), priority=priority, moment=moment)


NAME = Column("Name", lambda obj, now: obj["metadata"].get("name", ""), format="name")
AGE = age_column("Age", lambda obj: obj["metadata"].get("creationTimestamp"))


def text(*path: str, absent: str = "") -> Value:
    """The field at `path`, or `absent` when it is not there or empty."""

    def value(obj: Obj, now: datetime) -> Any:
        found = dig(obj, *path)
        return absent if found in (None, "") else found

    return value


def number(*path: str) -> Value:
    """The number at `path`, or 0."""
    return lambda obj, now: dig(obj, *path) or 0


def dig(obj: Obj, *path: str) -> Any:
    """The value at `path`, or None where the path ends early."""
    found: Any = obj
    for name in path:
        if not found:
            return None
        found = found.get(name)
    return found


def with_more(texts: list[str], limit: int, *, empty: str = UNSET) -> str:
    """The first `limit` texts, and how many more there are."""
    if not texts:
        return empty
    shown = ",".join(texts[:limit])
    return f"{shown} + {len(texts) - limit} more..." if len(texts) > limit else shown


def format_labels(labels: Obj | None) -> str:
    """`a=1,b=2` in order of the keys; `<none>` when there are none."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) if labels else NONE


def format_selector(selector: Obj | None) -> str:
    """A label selector as text, `<none>` when it selects everything or nothing at all."""
    return selector_text(selector) or NONE


def selector_text(selector: Obj | None) -> str:
    """A label selector in the notation of `-l`: `app=web,tier in (a,b),!old`."""
    if not selector:
        return ""
    try:
        return str(from_label_selector(selector))
    except SelectorError:
        return "<error>"


def pod_template_columns(*path: str, selector: Value | None = None, priority: int = 1) -> tuple[Column, ...]:
    """Containers, images and (unless there is none) selector of a workload; `path` leads to the pod template."""
    columns = (
        Column("Containers", lambda obj, now: _joined(_containers(obj, path), "name"), priority=priority),
        Column("Images", lambda obj, now: _joined(_containers(obj, path), "image"), priority=priority),
    )
    return (*columns, Column("Selector", selector, priority=priority)) if selector else columns


def _containers(obj: Obj, path: tuple[str, ...]) -> Iterable[Obj]:
    return dig(obj, *path, "spec", "containers") or ()


def _joined(containers: Iterable[Obj], field: str) -> str:
    return ",".join(each.get(field, "") for each in containers)


def label_selector(*path: str) -> Value:
    """The label selector at `path` as text."""
    return lambda obj, now: format_selector(dig(obj, *path))
