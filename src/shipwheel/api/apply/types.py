"""How values are owned and merged: whole (`Leaf`), by field (`Granular`), by item (`SetList`, `MapList`).

A schema is compiled to a tree of these once; each knows for its kind of value what the walks of server-side apply
do: which fields a configuration mentions, what changed between two objects, what merging and removing leave.

The rules are those of structured-merge-diff v6, including which containers count as owned themselves: one that a
write brought into being is, and so are empty ones, entries of maps and items of lists, but not a list or object
that a configuration only passes through.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from shipwheel.api.apply.fields import (
    MEMBER,
    Fields,
    field_step,
    is_member,
    key_step,
    sort_steps,
    step_text,
    value_step,
)

Change = tuple[Fields | None, Fields | None]
"""(added or modified, removed): nodes, None where there is nothing."""


class MergeError(ValueError):
    """A value is not of its type, or a list's item cannot be told from others."""


class MergeType(Protocol):
    def mentioned(self, value: Any) -> Fields | None:
        """The node of all that a configuration with this value claims; None when it claims nothing."""

    def added(self, value: Any) -> Fields:
        """The node of a value where there was none: it, and all it holds. Also what its removal removes."""

    def compare(self, old: Any, new: Any) -> Change:
        """What differs between two values that are not equal."""

    def merge(self, live: Any, config: Any) -> Any:
        """The live value with the configuration's merged in. Neither is changed; parts of both are used."""

    def remove(self, value: Any, fields: Fields) -> Any:
        """The value without the members of `fields`, which lie below it."""

    def with_named(self, fields: Fields) -> Fields:
        """`fields` with those declared fields made members that only led to others."""

    def reconcile(self, fields: Fields) -> Fields:
        """`fields` that were written under another schema: what is now owned whole is owned whole. The very
        same where nothing changes, which is nearly always."""


class Leaf:
    """Scalars, atomic lists, atomic maps and structs."""

    def mentioned(self, value: Any) -> Fields | None:
        return {}

    def added(self, value: Any) -> Fields:
        return {}

    def compare(self, old: Any, new: Any) -> Change:
        return {}, None

    def merge(self, live: Any, config: Any) -> Any:
        return config

    def remove(self, value: Any, fields: Fields) -> Any:
        return type(value)() if isinstance(value, dict | list) else value

    def with_named(self, fields: Fields) -> Fields:
        return fields

    def reconcile(self, fields: Fields) -> Fields:
        return {}


LEAF: Final = Leaf()
_MANY_SHAPES: Final = 64


class Granular:
    """Structs, and maps whose entries are owned one by one.

    `fields` are declared; `element` is the type of all others, None when there may be none. They are compiled
    when first met, since a schema may contain itself.
    """

    def __init__(
        self,
        fields: dict[str, Callable[[], MergeType]],
        element: Callable[[], MergeType] | None,
    ) -> None:
        self._declared = fields
        self._element = element
        self._known: dict[str, tuple[str, MergeType]] = {}
        self._shapes: dict[tuple[str, ...], Fields] = {}
        """Nodes of values that have only leaves, by the names of these: most objects of a kind have the same."""

    def _child(self, name: str) -> tuple[str, MergeType]:
        """The step to a field, and its type."""
        known = self._known.get(name)
        if known is not None:
            return known
        make = self._declared.get(name)
        if make is None:
            return field_step(name), self._element() if self._element else UNTYPED
        known = self._known[name] = (field_step(name), make())
        return known

    def mentioned(self, value: Any) -> Fields | None:
        result: Fields = {}
        for name in sorted(_object(value)):
            each = value[name]
            step, kind = self._child(name)
            node = kind.mentioned(each)
            if each is None or each == {} or name not in self._declared:
                node = {MEMBER: {}, **node} if node else {}
            if node is not None:
                result[step] = node
        return result or None

    def added(self, value: Any) -> Fields:
        if not _object(value):
            return {}
        shape = tuple(value)
        result = self._shapes.get(shape)
        if result is not None:
            return result
        result = {MEMBER: {}}
        known = self._known
        flat = True
        for name in sorted(value):
            step, kind = known.get(name) or self._child(name)
            result[step] = kind.added(value[name])
            flat = flat and kind is LEAF
        if flat and len(self._shapes) < _MANY_SHAPES:
            self._shapes[shape] = result
        return result

    def compare(self, old: Any, new: Any) -> Change:
        old, new = _object(old), _object(new)
        if not old and not new:
            return {}, None
        names = [name for name, each in new.items() if name not in old or old[name] != each]
        names += [name for name in old if name not in new]
        changed: Fields = {}
        removed: Fields = {}
        for name in sorted(names):
            step, kind = self._child(name)
            if name not in old:
                changed[step] = kind.added(new[name])
            elif name not in new:
                removed[step] = kind.added(old[name])
            else:
                _note(step, kind.compare(old[name], new[name]), changed, removed)
        return changed or None, removed or None

    def merge(self, live: Any, config: Any) -> Any:
        if not live and not config:
            return config
        live, config = live or {}, config or {}
        result = dict(live)
        for name, each in config.items():
            result[name] = self._child(name)[1].merge(live[name], each) if name in live else each
        return result

    def remove(self, value: Any, fields: Fields) -> Any:
        if not isinstance(value, dict) or not value:
            return None
        result = {}
        matched = False
        for name, each in value.items():
            step, kind = self._child(name)
            node = fields.get(step)
            if node is None:
                result[name] = each
            elif not is_member(node):
                matched = True
                result[name] = _kept(each, kind.remove(each, node))
        return result if result or matched else None

    def with_named(self, fields: Fields) -> Fields:
        result: Fields = {}
        for step, node in fields.items():
            if not node or not step.startswith("f:"):
                result[step] = node
                continue
            name = step[2:]
            below = self._child(name)[1].with_named(node)
            named = name in self._declared and not is_member(below)
            result[step] = {MEMBER: {}, **below} if named else below
        return result

    def reconcile(self, fields: Fields) -> Fields:
        result = fields
        for step, node in fields.items():
            if node and step.startswith("f:") and (step[2:] in self._declared or self._element):
                after = self._child(step[2:])[1].reconcile(node)
                if after is not node:
                    result = {**result, step: after}
        return result


class Untyped(Granular):
    """Values of which no type is known: objects are owned by field, all else whole."""

    def mentioned(self, value: Any) -> Fields | None:
        return super().mentioned(value) if isinstance(value, dict) else {}

    def added(self, value: Any) -> Fields:
        return super().added(value) if isinstance(value, dict) else {}

    def compare(self, old: Any, new: Any) -> Change:
        if isinstance(old, dict | None) and isinstance(new, dict | None):
            return super().compare(old, new)
        if isinstance(new, dict):
            return {MEMBER: {}, **super().added(new)} if new else {}, None
        if isinstance(old, dict) and old:
            return {}, {step: node for step, node in super().added(old).items() if step != MEMBER}
        return {}, None

    def merge(self, live: Any, config: Any) -> Any:
        if isinstance(live, dict) and isinstance(config, dict | None):
            return super().merge(live, config)
        return config

    def remove(self, value: Any, fields: Fields) -> Any:
        if isinstance(value, dict):
            return super().remove(value, fields)
        return LEAF.remove(value, fields)

    def reconcile(self, fields: Fields) -> Fields:
        return super().reconcile(fields) if self._declared else fields


class _List(ABC):
    """Lists whose items are owned one by one. Subclasses say how an item is told from others."""

    @abstractmethod
    def element(self, item: Any) -> str:
        """The step to an item; MergeError when it has none."""

    def kind(self) -> MergeType:
        return LEAF

    def _steps(self, items: Any) -> list[str]:
        if not isinstance(items, list | None):
            raise MergeError(f"expected list, got {items!r}")
        steps = []
        for index, item in enumerate(items or ()):
            try:
                steps.append(self.element(item))
            except MergeError as error:
                raise MergeError(f"element {index}: {error}") from None
        return steps

    def _by_step(self, items: Any) -> dict[str, list[Any]]:
        result: dict[str, list[Any]] = {}
        for step, item in zip(self._steps(items), items or (), strict=True):
            result.setdefault(step, []).append(item)
        return result

    def mentioned(self, value: Any) -> Fields | None:
        kind = self.kind()
        result: Fields = {}
        for step, items in self._by_step(value).items():
            below = kind.mentioned(items[0]) if len(items) == 1 else None
            result[step] = {MEMBER: {}, **below} if below else {}
        return sort_steps(result) or None

    def added(self, value: Any) -> Fields:
        kind = self.kind()
        result: Fields = {}
        for step, items in self._by_step(value).items():
            result[step] = kind.added(items[0]) if len(items) == 1 else {}
        return {MEMBER: {}, **sort_steps(result)} if result else {}

    def compare(self, old: Any, new: Any) -> Change:
        """Items that occur twice are owned as one, and change as one."""
        if not old and not new:
            return {}, None
        kind = self.kind()
        olds, news = self._by_step(old), self._by_step(new)
        changed: Fields = {}
        removed: Fields = {}
        for step in olds.keys() | news.keys():
            before, after = olds.get(step, ()), news.get(step, ())
            if before == after:
                continue
            if len(before) == 1 and len(after) == 1:
                _note(step, kind.compare(before[0], after[0]), changed, removed)
            elif len(before) > 1 and len(after) > 1:
                changed[step] = {}
            else:
                if before:
                    removed[step] = kind.added(before[0]) if len(before) == 1 else {}
                if after:
                    changed[step] = kind.added(after[0]) if len(after) == 1 else {}
        return sort_steps(changed) or None, sort_steps(removed) or None

    def merge(self, live: Any, config: Any) -> Any:
        """Items of both, in the configuration's order as far as it says one.

        Items that only the live list has stay where they are among those that both have.
        """
        if not live and not config:
            return config
        if not config:
            return live
        live = live or []
        steps = self._steps(config)
        wanted = dict(zip(steps, config, strict=True))
        if len(wanted) < len(steps):
            twice = next(step for index, step in enumerate(steps) if step in steps[:index])
            raise MergeError(f"duplicate entries for key {step_text(twice)}")
        live_steps = self._steps(live)
        present: dict[str, Any] = {}
        for step, item in zip(live_steps, live, strict=True):
            present[step] = None if step in present else item
        kind = self.kind()

        def merged(step: str) -> Any:
            if step not in present:
                return wanted[step]
            if present[step] is None:
                return kind.merge(None, wanted[step])
            return kind.merge(present[step], wanted[step])

        return list(_interleave(live, live_steps, steps, present, merged))

    def remove(self, value: Any, fields: Fields) -> Any:
        if not isinstance(value, list) or not value:
            return None
        kind = self.kind()
        result = []
        matched = False
        for item in value:
            node = fields.get(self.element(item))
            if node is None:
                result.append(item)
            elif not is_member(node):
                matched = True
                result.append(_kept(item, kind.remove(item, node)))
        return result if result or matched else None

    def with_named(self, fields: Fields) -> Fields:
        kind = self.kind()
        return {step: kind.with_named(node) if node else node for step, node in fields.items()}

    def reconcile(self, fields: Fields) -> Fields:
        kind = self.kind()
        result = fields
        for step, node in fields.items():
            if node and (after := kind.reconcile(node)) is not node:
                result = {**result, step: after}
        return result


class SetList(_List):
    """A list of scalars, none twice."""

    def element(self, item: Any) -> str:
        match item:
            case dict():
                raise MergeError("associative list without keys has an element that's a map type")
            case list():
                raise MergeError("not supported: associative list with lists as elements")
            case None:
                raise MergeError("associative list without keys has an element that's an explicit null")
        return value_step(item)


class MapList(_List):
    """A list of objects told apart by the values of some fields, which may have defaults."""

    def __init__(self, keys: tuple[str, ...], defaults: dict[str, Any], kind: Callable[[], MergeType]) -> None:
        self._declared_keys = keys
        self._keys = tuple(sorted(keys))
        self._defaults = defaults
        self._make = kind
        self._kind: MergeType | None = None

    def kind(self) -> MergeType:
        if self._kind is None:
            self._kind = self._make()
        return self._kind

    def element(self, item: Any) -> str:
        if not isinstance(item, dict):
            what = "a null element" if item is None else "non-map elements"
            raise MergeError(f"associative list with keys may not have {what}")
        try:
            return key_step(self._keys, *[item[key] for key in self._keys])
        except (KeyError, TypeError):
            return self._incomplete(item)

    def _incomplete(self, item: dict[str, Any]) -> str:
        """A key that is missing has its default's value, or is no part of what tells the item."""
        values = {
            key: item[key] if key in item else self._defaults[key]
            for key in self._keys
            if key in item or key in self._defaults
        }
        if not values:
            shown = " ".join(f'"{key}"' for key in self._declared_keys)
            raise MergeError(
                f"associative list with keys has an element that omits all key fields [{shown}] (and doesn't "
                "have default values for any key fields)"
            )
        try:
            return key_step(tuple(values), *values.values())
        except TypeError:
            raise MergeError("keys must be scalars") from None


def _object(value: Any) -> dict[str, Any]:
    if value.__class__ is dict:
        return value
    if value is None:
        return {}
    raise MergeError(f"expected map, got {value!r}")


def _note(step: str, change: Change, changed: Fields, removed: Fields) -> None:
    if change[0] is not None:
        changed[step] = change[0]
    if change[1] is not None:
        removed[step] = change[1]


def _kept(before: Any, after: Any) -> Any:
    """A container that lost all it held stays, empty."""
    if after is None and isinstance(before, dict | list):
        return type(before)()
    return after


def _interleave(
    live: list[Any],
    live_steps: list[str],
    config_steps: list[str],
    present: dict[str, Any],
    merged: Callable[[str], Any],
) -> Iterator[Any]:
    """Walk both lists at once. Shared items come in the configuration's order; before one is taken, the live
    items before it that are not shared are."""
    config = set(config_steps)
    shared = iter([step for step in config_steps if step in present])
    awaited = next(shared, None)
    done: set[str] = set()
    left = right = 0
    while left < len(live_steps) or right < len(config_steps):
        if left < len(live_steps) and right < len(config_steps):
            step = live_steps[left]
            if step == config_steps[right]:
                done.add(step)
                yield merged(step)
                left += 1
                right += 1
                awaited = next(shared, None)
                continue
            if step in config and awaited is not None and awaited != step:
                left += 1
                continue
        if left < len(live_steps):
            step = live_steps[left]
            if step not in config:
                yield live[left]
                left += 1
                continue
            if step in done:
                left += 1
        if right < len(config_steps):
            step = config_steps[right]
            done.add(step)
            yield merged(step)
            right += 1
            if awaited == step:
                awaited = next(shared, None)


UNTYPED: Final[MergeType] = Untyped({}, lambda: UNTYPED)
