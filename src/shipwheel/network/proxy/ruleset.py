"""An nftables table as a value, and the shortest script that turns one such value into another.

nft applies a script as one transaction: packets see the table before it or after it, nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["ip", "ip6"]


@dataclass(frozen=True, slots=True)
class Chain:
    rules: tuple[str, ...] = ()
    hook: str = ""
    """`type nat hook prerouting priority dstnat;` for a base chain."""


@dataclass(frozen=True, slots=True)
class Container:
    """A named set or map, without its elements."""

    kind: Literal["set", "map"]
    specification: str
    """`type ipv4_addr . inet_proto . inet_service : verdict;`"""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The content of one table. Elements are key -> value; the value is empty in a set."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def combine(parts: Iterable[Ruleset]) -> Ruleset:
    """One table of many parts. Where two claim the same element, the first has it."""
    chains: dict[str, Chain] = {}
    containers: dict[str, Container] = {}
    elements: dict[str, dict[str, str]] = {}
    for part in parts:
        chains.update(part.chains)
        containers.update(part.containers)
        for name, content in part.elements.items():
            known = elements.setdefault(name, {})
            for key, value in content.items():
                known.setdefault(key, value)
    return Ruleset(chains, containers, elements)


def create(family: Family, table: str, new: Ruleset) -> str:
    """The script that makes the table anew, whatever was there."""
    script = [f"add table {family} {table}", f"delete table {family} {table}", f"add table {family} {table}"]
    return "\n".join(script + _changes(f"{family} {table}", Ruleset(), new)) + "\n"


def update(family: Family, table: str, old: Ruleset, new: Ruleset) -> str:
    """The script that leads from `old`, which is in the kernel, to `new`; empty when there is no difference.

    Chains that are no longer wanted are emptied but stay: a kernel older than 6.2 still counts them as
    referred to for a moment after the last element that did is gone (see `delete_chains`).
    """
    changes = _changes(f"{family} {table}", old, new)
    return "\n".join(changes) + "\n" if changes else ""


def gone(old: Ruleset, new: Ruleset) -> set[str]:
    """The chains that `update` leaves behind empty."""
    return set(old.chains) - set(new.chains)


def delete_chains(family: Family, table: str, names: Iterable[str]) -> str:
    return "".join(f"delete chain {family} {table} {name}\n" for name in sorted(names))


def delete_table(family: Family, table: str) -> str:
    return f"add table {family} {table}\ndelete table {family} {table}\n"


def _changes(where: str, old: Ruleset, new: Ruleset) -> list[str]:
    script: list[str] = []
    fresh = [name for name in new.chains if name not in old.chains]
    replaced = [name for name, container in old.containers.items() if new.containers.get(name) != container]
    changed = [
        name
        for name, chain in new.chains.items()
        if name in old.chains and (old.chains[name] != chain or _mentions(chain, replaced))
    ]
    removed = [name for name in old.chains if name not in new.chains]
    script += [f"flush chain {where} {name}" for name in (*changed, *removed)]

    for name, content in old.elements.items():
        wanted = new.elements.get(name, {})
        dropped = [key for key, value in content.items() if wanted.get(key) != value]
        if dropped and name in new.containers:
            script.append(f"delete element {where} {name} {{ {', '.join(dropped)} }}")

    script += [f"delete {old.containers[name].kind} {where} {name}" for name in replaced]
    for name, container in new.containers.items():
        if old.containers.get(name) != container:
            script.append(f"add {container.kind} {where} {name} {{ {container.specification} }}")

    for name in fresh:
        hook = new.chains[name].hook
        script.append(f"add chain {where} {name}" + (f" {{ {hook} }}" if hook else ""))
    for name in (*fresh, *changed):
        script += [f"add rule {where} {name} {rule}" for rule in new.chains[name].rules]

    for name, content in new.elements.items():
        known = old.elements.get(name, {}) if old.containers.get(name) == new.containers[name] else {}
        added = [f"{key} : {value}" if value else key for key, value in content.items() if known.get(key) != value]
        if added:
            script.append(f"add element {where} {name} {{ {', '.join(added)} }}")
    return script


def _mentions(chain: Chain, containers: Iterable[str]) -> bool:
    """Whether a chain looks something up in one of these, which then cannot be deleted before the chain is
    emptied."""
    return any(f"@{name} " in f"{rule} " for name in containers for rule in chain.rules)
