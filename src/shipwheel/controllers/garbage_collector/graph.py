"""The graph of all objects by ownership, and what a change of it calls for.

Objects are known by uid. An owner that is referred to but was never seen is `virtual`: it may not exist, may be
in another namespace than its dependent, or the watch that will show it is just late, so that it has to be asked
for before anything is concluded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from shipwheel.api.meta import Obj

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
EVERYWHERE = "*"
"""In place of a namespace, where a kind has none."""
_REMEMBERED = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an object is, or is said to be."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        place = f"namespace: {self.namespace}" if self.namespace else "cluster-scoped"
        return f"[{self.api_version}/{self.kind}, {place}, name: {self.name}, uid: {self.uid}]"


@dataclass(frozen=True, slots=True)
class OwnerRef:
    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool
    """`blockOwnerDeletion`."""


@dataclass(eq=False, slots=True)
class Node:
    identity: Identity
    owners: tuple[OwnerRef, ...] = ()
    dependents: set[Node] = field(default_factory=set)
    virtual: bool = False
    being_deleted: bool = False
    deleting_dependents: bool = False
    """It is being deleted in the foreground: it waits for its dependents."""

    def blocking_dependents(self) -> list[Node]:
        return [
            dependent
            for dependent in self.dependents
            if any(owner.uid == self.identity.uid and owner.blocks for owner in dependent.owners)
        ]


@dataclass(slots=True)
class ToDo:
    """What a change calls for: objects to examine, owners whose dependents are to be orphaned, and dependents
    with an owner reference that cannot be right."""

    examine: list[Node] = field(default_factory=list)
    orphan: list[Node] = field(default_factory=list)
    misplaced: list[tuple[Identity, OwnerRef]] = field(default_factory=list)


def owners_of(meta: Obj) -> tuple[OwnerRef, ...]:
    return tuple(
        OwnerRef(
            reference.get("apiVersion", ""),
            reference.get("kind", ""),
            reference.get("name", ""),
            reference["uid"],
            bool(reference.get("blockOwnerDeletion")),
        )
        for reference in meta.get("ownerReferences") or ()
    )


def waits_for_dependents(meta: Obj) -> bool:
    return bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or ())


def wants_orphans(meta: Obj) -> bool:
    return bool(meta.get("deletionTimestamp")) and ORPHAN in (meta.get("finalizers") or ())


class Graph:
    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._gone: dict[str, None] = {}
        self._absent: dict[Identity, None] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> Node | None:
        return self._nodes.get(uid)

    def is_absent(self, place: Identity) -> bool:
        """An owner with this uid is known to be gone (uids are never used twice), or not to be in this place (whose
        namespace is EVERYWHERE for kinds without namespaces)."""
        return place.uid in self._gone or place in self._absent

    def observe(self, identity: Identity, meta: Obj) -> ToDo:
        """An object exists, and this is its metadata now."""
        todo = ToDo()
        node = self._nodes.get(identity.uid)
        owners = owners_of(meta)
        if node is None:
            node = self._nodes[identity.uid] = Node(identity)
            self._gone.pop(identity.uid, None)
            self._absent.pop(identity, None)
            self._link(node, owners, todo)
        elif node.virtual:
            self._materialize(node, identity, todo)
            self._link(node, owners, todo)
        else:
            self._relink(node, owners, todo)
        node.owners = owners
        self._follow_deletion(node, meta, todo)
        return todo

    def remove(self, uid: str) -> ToDo:
        """An object is gone: its dependents may have nobody left, and who waited for it may go on."""
        todo = ToDo()
        node = self._nodes.get(uid)
        if node is None:
            return todo
        del self._nodes[uid]
        for reference in node.owners:
            owner = self._nodes.get(reference.uid)
            if owner is not None:
                owner.dependents.discard(node)
                if owner.deleting_dependents:
                    todo.examine.append(owner)
                if owner.virtual and not owner.dependents:
                    del self._nodes[reference.uid]
        if node.dependents:
            _remember(self._gone, uid)
        todo.examine += node.dependents
        return todo

    def miss(self, place: Identity) -> ToDo:
        """An owner that was only heard of is not where it was looked for.

        Dependents may have described it differently, one of them rightly: so those that meant this place are
        examined, and for the sake of the others it is looked for where they say.
        """
        todo = ToDo()
        node = self._nodes.get(place.uid)
        if node is None or not node.virtual:
            return todo
        _remember(self._absent, place)
        others: list[Identity] = []
        for dependent in node.dependents:
            for reference in dependent.owners:
                if reference.uid == place.uid:
                    meant = place_of(reference, dependent.identity.namespace)
                    if place in (meant, replace(meant, namespace=EVERYWHERE)):
                        todo.examine.append(dependent)
                    elif not self._is_missed(meant):
                        others.append(meant)
        if others:
            node.identity = min(others, key=str)
            todo.examine.append(node)
        else:
            del self._nodes[place.uid]
        return todo

    def _is_missed(self, meant: Identity) -> bool:
        return self.is_absent(meant) or replace(meant, namespace=EVERYWHERE) in self._absent

    def _link(self, node: Node, owners: Iterable[OwnerRef], todo: ToDo) -> None:
        for reference in owners:
            owner = self._nodes.get(reference.uid)
            if owner is None:
                # It may not exist, or not here: examining it will tell.
                place = place_of(reference, node.identity.namespace)
                owner = self._nodes[reference.uid] = Node(place, virtual=True)
                todo.examine.append(owner)
            elif not owner.virtual and not fits(reference, node.identity, owner.identity):
                if owner.identity.namespace not in ("", node.identity.namespace):
                    todo.misplaced.append((node.identity, reference))
                todo.examine.append(node)
            owner.dependents.add(node)

    def _relink(self, node: Node, owners: tuple[OwnerRef, ...], todo: ToDo) -> None:
        if owners == node.owners:
            return
        before = {owner.uid: owner for owner in node.owners}
        after = {owner.uid: owner for owner in owners}
        for uid, reference in before.items():
            owner = self._nodes.get(uid)
            if owner is None:
                continue
            if uid not in after:
                owner.dependents.discard(node)
                if owner.virtual and not owner.dependents:
                    del self._nodes[uid]
            no_longer_blocks = reference.blocks and not (uid in after and after[uid].blocks)
            if owner.deleting_dependents and (uid not in after or no_longer_blocks):
                todo.examine.append(owner)
        self._link(node, [owner for uid, owner in after.items() if uid not in before], todo)
        if any(self._is_missed(place_of(owner, node.identity.namespace)) for owner in owners):
            todo.examine.append(node)

    def _materialize(self, node: Node, identity: Identity, todo: ToDo) -> None:
        """An owner that was only heard of is there. Dependents that describe it wrongly are examined."""
        node.virtual = False
        node.identity = identity
        for dependent in node.dependents:
            for reference in dependent.owners:
                if reference.uid == identity.uid and not fits(reference, dependent.identity, identity):
                    if identity.namespace not in ("", dependent.identity.namespace):
                        todo.misplaced.append((dependent.identity, reference))
                    todo.examine.append(dependent)

    @staticmethod
    def _follow_deletion(node: Node, meta: Obj, todo: ToDo) -> None:
        node.being_deleted = bool(meta.get("deletionTimestamp"))
        if wants_orphans(meta):
            todo.orphan.append(node)
        elif waits_for_dependents(meta):
            if not node.deleting_dependents:
                node.deleting_dependents = True
                todo.examine += node.dependents
            todo.examine.append(node)


def fits(reference: OwnerRef, dependent: Identity, owner: Identity) -> bool:
    """A reference describes the object of its uid: the same kind and name, in a place where the dependent may have an
    owner. The group may differ: some objects are served under two (`apps` and `extensions`)."""
    return (
        reference.kind == owner.kind and reference.name == owner.name and owner.namespace in ("", dependent.namespace)
    )


def place_of(reference: OwnerRef, namespace: str) -> Identity:
    """Where a dependent in a namespace means its owner to be."""
    return Identity(reference.api_version, reference.kind, namespace, reference.name, reference.uid)


def _remember(known: dict[Any, None], entry: Any) -> None:
    """Keep the newest few hundred: who refers to something that is long gone has it asked for again."""
    known[entry] = None
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
