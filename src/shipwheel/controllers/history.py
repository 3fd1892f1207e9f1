"""ControllerRevisions: the pod templates that a StatefulSet or DaemonSet has had, numbered.

A revision's data is a patch that puts the template back, which is what `kubectl rollout undo` applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shipwheel.api.errors import ApiError
from shipwheel.api.hashing import pod_template_hash
from shipwheel.api.meta import Obj, annotations_of, labels_of, name_of, namespace_of, owner_reference, uid_of
from shipwheel.client.client import Client
from shipwheel.client.resources import CONTROLLER_REVISIONS
from shipwheel.controllers.framework import is_already_exists
from shipwheel.controllers.templates import without_empty

HASH_LABEL = "controller.kubernetes.io/hash"
_NAME_MAX = 223


def data_of(owner: Obj) -> Obj:
    """What a revision keeps of its owner, with sorted keys: clients find the current revision by comparing its bytes
    with those that Go would write."""
    return _sorted({"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}})


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def template_of(revision: Obj) -> Obj:
    """The pod template that a revision stands for."""
    template = revision["data"]["spec"]["template"]
    return {key: value for key, value in template.items() if key != "$patch"}


def applied(owner: Obj, revision: Obj) -> Obj:
    """The owner as it would be with a revision's template."""
    return {**owner, "spec": {**owner["spec"], "template": template_of(revision)}}


def in_order(revisions: Iterable[Obj]) -> list[Obj]:
    """The oldest first."""
    return sorted(
        revisions,
        key=lambda each: (each["revision"], each["metadata"].get("creationTimestamp") or "", name_of(each)),
    )


def next_number(revisions: Sequence[Obj]) -> int:
    """One more than the last of revisions in order."""
    return revisions[-1]["revision"] + 1 if revisions else 1


def is_same(one: Obj, other: Obj) -> bool:
    """They stand for the same template."""
    return without_empty(one["data"]) == without_empty(other["data"])


def new_revision(owner: Obj, number: int, collisions: int) -> Obj:
    data = data_of(owner)
    hashed = pod_template_hash(without_empty(data), collisions)
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    metadata: Obj = {
        "name": f"{name_of(owner)[:_NAME_MAX]}-{hashed}",
        "namespace": namespace_of(owner),
        "labels": {**labels, HASH_LABEL: hashed},
        "ownerReferences": [owner_reference(owner)],
    }
    if annotations_of(owner):
        metadata["annotations"] = annotations_of(owner)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": data,
        "revision": number,
    }


def hash_of(revision: Obj) -> str:
    return labels_of(revision).get(HASH_LABEL, "")


async def create(client: Client, owner: Obj, number: int, collisions: int) -> tuple[Obj, int]:
    """Create a revision under a name that is free; (it, the collisions there have been)."""
    while True:
        wanted = new_revision(owner, number, collisions)
        try:
            return await client.create(CONTROLLER_REVISIONS, wanted), collisions
        except ApiError as error:
            if not is_already_exists(error):
                raise
        there = await client.get(CONTROLLER_REVISIONS, name_of(wanted), namespace_of(wanted))
        if is_same(there, wanted):
            return there, collisions
        collisions += 1


async def renumber(client: Client, revision: Obj, number: int) -> Obj:
    """Give a revision that is used again the highest number."""
    if revision["revision"] == number:
        return revision
    return await client.update(CONTROLLER_REVISIONS, {**revision, "revision": number})


async def truncate(client: Client, revisions: Sequence[Obj], live: set[str], limit: int) -> None:
    """Delete the oldest revisions beyond `limit` that nothing uses; `live` are names."""
    unused = [each for each in revisions if name_of(each) not in live]
    for each in unused[: max(len(unused) - limit, 0)]:
        try:
            await client.delete(CONTROLLER_REVISIONS, name_of(each), namespace_of(each), uid=uid_of(each))
        except ApiError as error:
            if error.code != 404:
                raise
